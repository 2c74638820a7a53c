// Sections 8.4 and 8.5: the life of namespaces, events, acknowledgements, rooms.
import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { rule } from '../support/rule.mjs';
import { serverFor, useServer } from '../support/servers.mjs';
import { join, next, sioPolling, sioWebSocket } from '../support/sio.mjs';
import { SEPARATOR, openPolling, openWebSocket, poll, pollPackets, post } from '../support/wire.mjs';

const LONG = { pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 };
const server = useServer('sio_echo', { ...LONG, namespaces: '/,/custom' });

async function assertEchoes(ws) {
  ws.send('42["message","alive"]');
  assert.equal(await next(ws), '42["message-back","alive"]');
}

async function assertFatal(...violations) {
  for (const violation of violations) {
    const ws = await sioWebSocket(server);
    ws.send(...[violation].flat());
    await ws.closing().catch((error) => assert.fail(`${violation}: ${error.message}`));
  }
}

rule('8.4a a connection that joins nothing in time is closed', async (t) => {
  const hasty = await serverFor(t, 'sio_echo', { ...LONG, connectTimeout: 400 });
  const start = performance.now();
  const ws = await openWebSocket(hasty);
  await ws.closing();
  assert.ok(performance.now() - start >= 395);
  const { sid } = await openPolling(hasty);
  assert.equal((await poll(hasty, sid)).text, '1');
});

rule('8.4b a rejected namespace does not stop the connect timeout', async (t) => {
  const hasty = await serverFor(t, 'sio_echo', { ...LONG, connectTimeout: 400 });
  const ws = await openWebSocket(hasty);
  ws.send('40/nowhere,');
  assert.match(await next(ws), /^44\/nowhere,/);
  await ws.closing();
});

rule('8.4c a joined namespace stops the connect timeout', async (t) => {
  const hasty = await serverFor(t, 'sio_echo', { ...LONG, connectTimeout: 300 });
  const ws = await sioWebSocket(hasty, '/custom');
  await assert.rejects(ws.receive(900), /gave up/);
  ws.drop();
});

rule('8.4d the first packet of a namespace must be CONNECT', async () => {
  await assertFatal('42/custom,["message"]', '43/custom,1[]', '41/custom,', '41/nowhere,',
    ['451-/custom,["message",{"_placeholder":true,"num":0}]', Buffer.from([1])]);
  for (const packet of ['42["message"]', '41', '430[]']) {
    const ws = await openWebSocket(server);
    ws.send(packet);
    await ws.closing();
  }
});

rule('8.4e a CONNECT for a joined namespace closes the connection', async () => {
  await assertFatal('40', '40{}', '40/');
  const ws = await sioWebSocket(server, '/', '/custom');
  ws.send('40/custom,');
  await ws.closing();
});

rule('8.4f the reply has a public sid of its own as its only key', async () => {
  const ws = await openWebSocket(server);
  const main = await join(ws);
  const custom = await join(ws, '/custom');
  for (const reply of [main, custom]) {
    assert.deepEqual(Object.keys(reply), ['sid']);
    assert.match(reply.sid, /^[\w-]{20}$/);
  }
  assert.equal(new Set([ws.sid, main.sid, custom.sid]).size, 3);
  ws.drop();
});

rule('8.4g the reply precedes events of connection handlers', async () => {
  const { sid } = await openPolling(server);
  await post(server, sid, '40{"token":"x"}');
  const packets = await pollPackets(server, sid, ({ length }) => length >= 2);
  assert.match(packets[0], /^40\{"sid":/);
  assert.equal(packets[1], '42["auth",{"token":"x"}]');
});

rule('8.4h the payload of CONNECT is the auth object, absent means empty', async () => {
  const ws = await openWebSocket(server);
  ws.send('40{"token":"123","nested":{"a":[1,null]}}');
  await next(ws);
  assert.equal(await next(ws), '42["auth",{"token":"123","nested":{"a":[1,null]}}]');
  ws.send('40/custom,');
  await next(ws);
  assert.equal(await next(ws), '42/custom,["auth",{}]');
  ws.drop();
});

rule('8.4i id digits on CONNECT are ignored', async () => {
  const ws = await openWebSocket(server);
  ws.send('405{"a":1}');
  assert.match(await next(ws), /^40\{"sid":/);
  assert.equal(await next(ws), '42["auth",{"a":1}]');
  ws.drop();
});

rule('8.4j an unknown namespace is answered by CONNECT_ERROR and harms nothing', async () => {
  const ws = await sioWebSocket(server);
  ws.send('40/nowhere,{"a":1}');
  assert.equal(await next(ws), '44/nowhere,{"message":"Invalid namespace"}');
  await assertEchoes(ws);
  ws.drop();
});

rule('8.4k a rejection carries message and data', async () => {
  const ws = await sioWebSocket(server);
  ws.send('40/custom,{"refuse":true}');
  assert.equal(await next(ws), '44/custom,{"message":"refused","data":{"why":"asked"}}');
  await assertEchoes(ws);
  await join(ws, '/custom');
  ws.drop();
});

rule('8.4l several CONNECTs may come in one payload', async () => {
  const { sid } = await openPolling(server);
  await post(server, sid, ['40', '40/nowhere,', '40/custom,'].join(SEPARATOR));
  const packets = await pollPackets(server, sid, ({ length }) => length >= 5);
  assert.equal(packets.filter((packet) => packet.startsWith('40{')).length, 1);
  assert.equal(packets.filter((packet) => packet.startsWith('40/custom,{')).length, 1);
  assert.ok(packets.includes('44/nowhere,{"message":"Invalid namespace"}'));
  assert.ok(packets.includes('42["auth",{}]') && packets.includes('42/custom,["auth",{}]'));
});

rule('8.4m a client leaves a namespace without a reply and keeps the connection', async () => {
  const ws = await sioWebSocket(server, '/', '/custom');
  ws.send('41/custom,');
  await assertEchoes(ws);
  ws.send('41');
  await assert.rejects(ws.receive(300), /gave up/);
  await join(ws, '/custom');
  ws.drop();
});

rule('8.4n after leaving, the next frame is the ping', async (t) => {
  const beating = await serverFor(t, 'sio_echo', { ...LONG, pingInterval: 300, pingTimeout: 15000 });
  const ws = await sioWebSocket(beating);
  ws.send('41');
  assert.equal(await ws.receive(), '2');
  ws.drop();
});

// A round trip that touches no joined namespace.
async function settleSocket(ws) {
  ws.send('40/nowhere,');
  assert.match(await next(ws), /^44\/nowhere,/);
}

rule('8.4o messages for a namespace that was left close the connection', async () => {
  for (const [leave, late] of [['41', '42["message"]'], ['41/custom,', '42/custom,["message"]'], ['41', '41']]) {
    const ws = await sioWebSocket(server, '/', '/custom');
    ws.send(leave);
    await settleSocket(ws);
    ws.send(late);
    await ws.closing();
  }
});

rule('8.4p a disconnect by the server is sent for the namespace only', async () => {
  const ws = await sioWebSocket(server, '/', '/custom');
  ws.send('42["server-disconnect"]');
  assert.equal(await next(ws), '41');
  await assert.rejects(ws.receive(300), /gave up/);
  await join(ws);
  await assertEchoes(ws);
  ws.drop();
});

rule('8.4q a full disconnect tells every namespace, then closes', async () => {
  const ws = await sioWebSocket(server, '/', '/custom');
  ws.send('42["server-disconnect",true]');
  assert.deepEqual(new Set([await next(ws), await next(ws)]), new Set(['41', '41/custom,']));
  await ws.closing();
});

rule('8.4r a namespace with any name can be joined on a node without a list', async (t) => {
  const node = await serverFor(t, 'starling-node', LONG);
  const ws = await openWebSocket(node);
  ws.send('40/made-up-now,');
  assert.match(await next(ws), /^40\/made-up-now,\{"sid":"[\w-]{20}"/);
  ws.drop();
});

rule('8.4s namespaces of one connection are separate', async () => {
  const ws = await sioWebSocket(server, '/', '/custom');
  ws.send('42/custom,["message","not answered there"]', '42["message","main"]');
  assert.equal(await next(ws), '42["message-back","main"]');
  ws.send('41');
  await settleSocket(ws);
  ws.send('42/custom,["message"]');
  await join(ws);
  await assertEchoes(ws);
  ws.drop();
});

rule('8.5a an ack is sent once, and without arguments it is an empty array', async () => {
  const ws = await sioWebSocket(server);
  ws.send('421["message-with-ack"]', '42["message","after"]');
  assert.equal(await next(ws), '431[]');
  assert.equal(await next(ws), '42["message-back","after"]');
  ws.drop();
});

rule('8.5b acks with unknown ids are ignored', async () => {
  const ws = await sioWebSocket(server);
  ws.send('4399[]', '430["x"]', '43[]', '461-5[{"_placeholder":true,"num":0}]', Buffer.from([1]));
  await assertEchoes(ws);
  ws.drop();
});

rule('8.5c the server asks for acks with ids that count up and takes each answer once', async (t) => {
  const fresh = await serverFor(t, 'sio_echo', LONG);
  const ws = await sioWebSocket(fresh);
  for (let id = 0; id < 3; id++) {
    ws.send(`42["emit-with-ack","ask",${id}]`);
    assert.equal(await next(ws), `42${id}["please-ack","ask",${id}]`);
  }
  for (const id of [2, 0, 1]) {
    ws.send(`43${id}["answer",${id}]`, `43${id}["again"]`);
    assert.equal(await next(ws), `42["ack-result","answer",${id}]`);
  }
  await assertEchoes(ws);
  ws.drop();
});

rule('8.5d volatile events are dropped while no poll waits', async () => {
  const sid = await sioPolling(server);
  await post(server, sid, '42["volatile-burst",5]');
  await post(server, sid, '42["message","after"]');
  const packets = await pollPackets(server, sid, (all) => all.includes('42["message-back","after"]'));
  assert.deepEqual(packets, ['42["message-back","after"]']);
});

rule('8.5e volatile events are delivered in order when the transport can write', async () => {
  const ws = await sioWebSocket(server);
  ws.send('42["volatile-burst",3]', '42["message","after"]');
  const seen = [];
  while (seen.at(-1) !== '42["message-back","after"]') seen.push(await next(ws));
  seen.pop();
  assert.equal(seen[0], '42["v",0]');
  assert.deepEqual(seen, [0, 1, 2].map((i) => `42["v",${i}]`).filter((packet) => seen.includes(packet)));
  ws.drop();
});

rule('8.5f the order of delivery is the order of emits, across namespaces', async () => {
  const ws = await sioWebSocket(server);
  const expected = [];
  const sent = [];
  for (let i = 0; i < 200; i++) {
    sent.push(`42["message",${i}]`, `42${i}["message-with-ack",${i}]`);
    expected.push(`42["message-back",${i}]`, `43${i}[${i}]`);
    if (i === 100) sent.push('40/custom,');
  }
  ws.send(...sent);
  const received = [];
  while (received.length < expected.length + 2) received.push(await next(ws));
  assert.deepEqual(received.filter((packet) => !packet.includes('/custom')), expected);
  const [reply, auth] = received.filter((packet) => packet.includes('/custom'));
  assert.ok(reply.startsWith('40/custom,{') && auth === '42/custom,["auth",{}]');
  ws.drop();
});

// ---- Rooms, over the events that the bus answers itself

const node = useServer('starling-node', LONG);

async function busClient(namespace = '/') {
  const ws = await openWebSocket(node, { query: { recovery: '0' } });
  const prefix = namespace === '/' ? '' : `${namespace},`;
  let acks = 0;
  ws.send(`40${prefix}`);
  const { sid } = JSON.parse((await next(ws)).slice(2 + prefix.length));
  const call = async (...event) => {
    const id = ++acks;
    ws.send(`42${prefix}${id}${JSON.stringify(event)}`);
    const answer = await next(ws);
    assert.ok(answer.startsWith(`43${prefix}${id}[`), answer);
    const [result] = JSON.parse(answer.slice(answer.indexOf('[')));
    assert.equal(result.ok, true, answer);
    return result;
  };
  const event = async () => JSON.parse((await next(ws)).slice(2 + prefix.length));
  return { ws, sid, call, event };
}

// No event has arrived: what comes next is the answer to a question asked now.
const assertNothing = (client) => client.call('bus:who', 'nobody');

rule('8.5g every socket is in a room named by its own sid', async () => {
  const [a, b, c] = [await busClient(), await busClient(), await busClient()];
  await a.call('bus:emit', { to: b.sid, event: 'direct', args: [1] });
  assert.deepEqual(await b.event(), ['direct', 1]);
  await assertNothing(c);
  for (const { ws } of [a, b, c]) ws.drop();
});

rule('8.5h a broadcast reaches the union of rooms once, minus the excepted', async () => {
  const clients = [];
  for (let i = 0; i < 5; i++) clients.push(await busClient());
  const [sender, inX, inBoth, inY, outside] = clients;
  await inX.call('bus:join', 'x');
  await inBoth.call('bus:join', ['x', 'y']);
  await inY.call('bus:join', 'y');
  await sender.call('bus:emit', { to: ['x', 'y'], event: 'union', args: ['a'] });
  for (const client of [inX, inBoth, inY]) {
    assert.deepEqual(await client.event(), ['union', 'a']);
    await assertNothing(client);
  }
  await assertNothing(outside);
  await sender.call('bus:emit', { to: ['x', 'y'], except: 'x', event: 'minus' });
  assert.deepEqual(await inY.event(), ['minus']);
  await sender.call('bus:emit', { except: ['x', 'y'], event: 'rest' });
  assert.deepEqual(await outside.event(), ['rest']);
  for (const client of [inX, inBoth, inY]) await assertNothing(client);
  for (const { ws } of clients) ws.drop();
});

rule('8.5i a broadcast leaves its sender out unless asked', async () => {
  const [a, b] = [await busClient(), await busClient()];
  await a.call('bus:join', 'z');
  await b.call('bus:join', 'z');
  await a.call('bus:emit', { to: 'z', event: 'others' });
  assert.deepEqual(await b.event(), ['others']);
  await assertNothing(a);
  for (const { ws } of [a, b]) ws.drop();
});

rule('8.5j rooms are per namespace', async () => {
  const [main, other] = [await busClient('/'), await busClient('/other')];
  await main.call('bus:join', 'shared');
  await other.call('bus:join', 'shared');
  const third = await busClient('/other');
  await third.call('bus:emit', { to: 'shared', event: 'there' });
  assert.deepEqual(await other.event(), ['there']);
  await assertNothing(main);
  for (const { ws } of [main, other, third]) ws.drop();
});

rule('8.5k a socket that has left a room gets nothing from it', async () => {
  const [a, b] = [await busClient(), await busClient()];
  await b.call('bus:join', ['p', 'q']);
  await b.call('bus:leave', 'p');
  await a.call('bus:emit', { to: 'p', event: 'gone' });
  await a.call('bus:emit', { to: 'q', event: 'there' });
  assert.deepEqual(await b.event(), ['there']);
  for (const { ws } of [a, b]) ws.drop();
});
