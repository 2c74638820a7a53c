// Sections 8.1 to 8.3: Socket.IO packets as text, what the decoder refuses, attachments.
import assert from 'node:assert/strict';
import { rule } from '../support/rule.mjs';
import { useServer } from '../support/servers.mjs';
import { next, nextBinary, sioPolling, sioWebSocket } from '../support/sio.mjs';
import { SEPARATOR, openWebSocket, poll, pollPackets, post } from '../support/wire.mjs';

const server = useServer('sio_echo', {
  pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000, namespaces: '/,/custom',
});

async function assertEchoes(ws) {
  ws.send('42["message","alive"]');
  assert.equal(await next(ws), '42["message-back","alive"]');
}

// Each list of messages must end the whole connection, on WebSocket and on polling.
async function assertFatal(...violations) {
  for (const violation of violations) {
    const messages = [violation].flat();
    const what = messages.map((message) => (Buffer.isBuffer(message) ? '<binary>' : message)).join(' ');
    const ws = await sioWebSocket(server);
    ws.send(...messages);
    await ws.closing().catch((error) => assert.fail(`${what}: ${error.message}`));
    const sid = await sioPolling(server);
    const packets = messages.map((message) => (Buffer.isBuffer(message) ? `b${message.toString('base64')}` : message));
    await post(server, sid, packets.join(SEPARATOR)).catch(() => {});
    assert.equal((await lastPoll(sid)).status, 400, what);
  }
}

// Polls until the session is refused; a session that was closed may still deliver its last packets.
async function lastPoll(sid) {
  for (let i = 0; i < 3; i++) {
    const response = await poll(server, sid, { patience: 5000 });
    if (response.status !== 200) return response;
  }
  return { status: 'still alive' };
}

// Messages that must leave the connection as it is and get no answer.
async function assertHarmless(...messages) {
  const ws = await sioWebSocket(server);
  for (const message of messages) {
    ws.send(...[message].flat());
    await assertEchoes(ws);
  }
  ws.drop();
}

rule('8.1a a namespace ends at a comma or at the end of the packet', async () => {
  for (const connect of ['40/custom', '40/custom,', '40/custom,{}']) {
    const ws = await openWebSocket(server);
    ws.send(connect);
    assert.match(await next(ws), /^40\/custom,\{"sid":"[\w-]{20}"\}$/);
    assert.equal(await next(ws), '42/custom,["auth",{}]');
    ws.drop();
  }
});

rule('8.1b an absent or bare slash namespace is the main one', async () => {
  for (const connect of ['40', '40/', '40/,', '40/,{}', '40{}']) {
    const ws = await openWebSocket(server);
    ws.send(connect);
    assert.match(await next(ws), /^40\{"sid":"[\w-]{20}"\}$/);
    assert.equal(await next(ws), '42["auth",{}]');
    ws.send('42/,["message",1]');
    assert.equal(await next(ws), '42["message-back",1]');
    ws.drop();
  }
});

rule('8.1c nothing is stripped from a namespace', async () => {
  const ws = await sioWebSocket(server);
  for (const name of ['/custom?a=b', '/custom/', '/Custom']) {
    ws.send(`40${name},`);
    assert.equal(await next(ws), `44${name},{"message":"Invalid namespace"}`);
  }
  ws.drop();
});

rule('8.1d ack ids are decimal, leading zeros dropped, up to 2^53', async () => {
  const ws = await sioWebSocket(server);
  for (const [sent, answered] of [['0', '0'], ['7', '7'], ['007', '7'], ['9007199254740991', '9007199254740991']]) {
    ws.send(`42${sent}["message-with-ack",1]`);
    assert.equal(await next(ws), `43${answered}[1]`);
  }
  ws.drop();
});

rule('8.1e anything after the JSON is an error', async () => {
  await assertFatal('42["message"]x', '42["message"][]', '42["message"],', '431[]x', '40{}x');
});

rule('8.1f arguments pass with their order, text and nesting as sent', async () => {
  const ws = await sioWebSocket(server);
  const bodies = [
    '1,"2",{"3":[true]}', '{"b":1,"a":{"z":null,"y":[]}}', '"€ \ud83d\ude00 \\" \\\\ /"', '-1.5,0.25,1000000', '[[[[]]]]', '""',
    'null,false',
  ];
  for (const body of bodies) {
    ws.send(`42["message",${body}]`);
    assert.equal(await next(ws), `42["message-back",${body}]`);
  }
  ws.drop();
});

rule('8.1g messages work the same over polling', async () => {
  const sid = await sioPolling(server);
  await post(server, sid, ['42["message",1,"2",{"3":[true]}]', '425["message-with-ack","€"]'].join(SEPARATOR));
  const packets = await pollPackets(server, sid, ({ length }) => length >= 2);
  assert.deepEqual(packets, ['42["message-back",1,"2",{"3":[true]}]', '435["€"]']);
});

rule('8.2a an unknown packet type closes the connection', () => assertFatal('47', '48["message"]', '49', '4', '4x', '4['));

rule('8.2b a CONNECT payload must be an object', () =>
  assertFatal('40/custom,[]', '40/custom,null', '40/custom,"x"', '40/custom,{bad', '40/custom,{}{}'));

rule('8.2c a DISCONNECT has no payload', () => assertFatal('41{}', '41[]', '41"x"'));

rule('8.2d an EVENT is a non-empty array that starts with a name', () =>
  assertFatal('42{}', '42[]', '42"x"', '42null', '42[null]', '42[true]', '42[{}]', '42[["x"]]', '42["x"', '42{bad'));

rule('8.2e reserved event names are refused', () =>
  assertFatal(...['connect', 'connect_error', 'disconnect', 'disconnecting', 'newListener', 'removeListener']
    .map((name) => `42["${name}"]`), '42["\\u0063onnect"]'));

rule('8.2f other special names pass', () =>
  assertHarmless('42["connection"]', '42["error"]', '42[1]', '42[1.5,"x"]', '42[""]', '42["connect "]'));

rule('8.2g an ACK is an array', () => assertFatal('430{}', '430null', '430"x"', '430[bad'));

rule('8.2h a CONNECT_ERROR from a client closes the connection', () =>
  assertFatal('44', '44{}', '44"x"', '44[]', '44/custom,{"message":"x"}'));

rule('8.2i an EVENT or ACK without a payload is accepted and does nothing', () =>
  assertHarmless('42', '43', '4312', '42/,'));

rule('8.2j the attachment count is an integer from 1 to 10 before a dash', () => {
  const placeholder = '["message",{"_placeholder":true,"num":0}]';
  return assertFatal(`450-${placeholder}`, `4511-${placeholder}`, `45-1-${placeholder}`, `451.5-${placeholder}`,
    `451${placeholder}`, `45-${placeholder}`, `45${placeholder}`, `45x-${placeholder}`, '451', `4599999999999999999999-${placeholder}`);
});

rule('8.2k ten attachments are accepted', async () => {
  const ws = await sioWebSocket(server);
  const placeholders = Array.from({ length: 10 }, (_, num) => ({ _placeholder: true, num }));
  ws.send(`4510-${JSON.stringify(['message', ...placeholders])}`);
  for (let i = 0; i < 10; i++) ws.send(Buffer.from(`part ${i}`));
  const { args } = await nextBinary(ws);
  assert.deepEqual(args, ['message-back', ...placeholders.map((_, i) => `part ${i}`)]);
  ws.drop();
});

rule('8.2l text between attachments and binary without a header are errors', () =>
  assertFatal(
    ['451-["message",{"_placeholder":true,"num":0}]', '42["message"]'],
    ['452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', Buffer.from([1]), '41'],
    [Buffer.from([1])],
    ['451-["message",{"_placeholder":true,"num":0}]', Buffer.from([1]), Buffer.from([2])],
  ));

rule('8.2m Engine.IO packets may come between attachments', async () => {
  const ws = await sioWebSocket(server);
  ws.send('452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', '3', Buffer.from('a'), '6', '3',
    Buffer.from('b'));
  assert.deepEqual((await nextBinary(ws)).args, ['message-back', 'a', 'b']);
  ws.drop();
});

rule('8.2n a placeholder must name an attachment', () =>
  assertFatal(...['-1', '1', '"0"', '1.5', 'null', '{}'].map((num) =>
    [`451-["message",{"_placeholder":true,"num":${num}}]`, Buffer.from([1])]), [
    '451-["message",{"_placeholder":true}]', Buffer.from([1])]));

rule('8.2o an attachment may be unused or used twice', async () => {
  const ws = await sioWebSocket(server);
  ws.send('452-["message",{"_placeholder":true,"num":1},{"_placeholder":true,"num":1}]', Buffer.from('a'), Buffer.from('b'));
  assert.deepEqual((await nextBinary(ws)).args, ['message-back', 'b', 'b']);
  ws.send('451-["message","none"]', Buffer.from('a'));
  assert.match(await next(ws), /^4(2|51-)\["message-back","none"\]$/);
  ws.drop();
});

rule('8.3a binary values become numbered placeholders, then the attachments in order', async () => {
  const ws = await sioWebSocket(server);
  ws.send('452-["message",{"a":{"_placeholder":true,"num":0},"b":[{"_placeholder":true,"num":1}]}]', Buffer.from('one'),
    Buffer.from('two'));
  assert.equal(await next(ws),
    '452-["message-back",{"a":{"_placeholder":true,"num":0},"b":[{"_placeholder":true,"num":1}]}]');
  assert.deepEqual([await next(ws), await next(ws)], [Buffer.from('one'), Buffer.from('two')]);
  ws.drop();
});

rule('8.3b placeholders are resolved by number, in any order', async () => {
  const ws = await sioWebSocket(server);
  ws.send('452-["message",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]', Buffer.from('a'), Buffer.from('b'));
  assert.deepEqual((await nextBinary(ws)).args, ['message-back', 'b', 'a']);
  ws.drop();
});

rule('8.3c an object is a placeholder only when _placeholder is true', async () => {
  const ws = await sioWebSocket(server);
  ws.send('451-["message",{"num":0,"extra":1,"_placeholder":true},{"_placeholder":"true","num":5},{"_placeholder":1}]',
    Buffer.from('a'));
  const { args } = await nextBinary(ws);
  assert.deepEqual(args, ['message-back', 'a', { _placeholder: 'true', num: 5 }, { _placeholder: 1 }]);
  ws.drop();
});

rule('8.3d placeholders in a plain packet are ordinary objects', async () => {
  const ws = await sioWebSocket(server);
  ws.send('42["message",{"_placeholder":true,"num":7}]');
  assert.equal(await next(ws), '42["message-back",{"_placeholder":true,"num":7}]');
  ws.drop();
});

rule('8.3e the event name may not be binary', () =>
  assertFatal(['451-[{"_placeholder":true,"num":0}]', Buffer.from('message')]));

rule('8.3f an empty attachment is legal', async () => {
  const ws = await sioWebSocket(server);
  ws.send('451-["message",{"_placeholder":true,"num":0}]', Buffer.alloc(0));
  assert.deepEqual((await nextBinary(ws)).args, ['message-back', '']);
  ws.drop();
});

rule('8.3g on polling the parts may be in one payload or in several', async () => {
  const sid = await sioPolling(server);
  const head = '452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]';
  const answer = ['452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', 'bAQ==', 'bAgM='];
  await post(server, sid, [head, 'bAQ==', 'bAgM='].join(SEPARATOR));
  assert.deepEqual(await pollPackets(server, sid, ({ length }) => length >= 3), answer);
  for (const part of [head, 'bAQ==', 'bAgM=']) assert.equal((await post(server, sid, part)).text, 'ok');
  assert.deepEqual(await pollPackets(server, sid, ({ length }) => length >= 3), answer);
});

rule('8.3h binary acks carry attachments both ways', async () => {
  const ws = await sioWebSocket(server);
  ws.send('451-9["message-with-ack",{"_placeholder":true,"num":0}]', Buffer.from('a'));
  const answer = await nextBinary(ws);
  assert.deepEqual([answer.head, answer.args], ['461-9', ['a']]);
  ws.send('451-["emit-with-ack",{"_placeholder":true,"num":0}]', Buffer.from('b'));
  const asked = await nextBinary(ws);
  assert.deepEqual(asked.args, ['please-ack', 'b']);
  const [, id] = /^451-(\d+)$/.exec(asked.head);
  ws.send(`461-${id}[{"_placeholder":true,"num":0}]`, Buffer.from('c'));
  assert.deepEqual((await nextBinary(ws)).args, ['ack-result', 'c']);
  ws.drop();
});
