// Garbage, floods and slow peers at every layer. After each attack, three times over, a witness is still served, the
// sessions are what they were, and the process does not grow.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { after, before, test } from 'node:test';
import { io } from 'socket.io-client';
import { call, connected, metric, occurrence, MODES } from '../support/clients.mjs';
import { PATIENCE_MS, eventually, reference, serverFor, sleep, startServer } from '../support/servers.mjs';
import {
  Connection, OPCODE, SEPARATOR, WebSocketPeer, encodeFrame, encodeRequest, openPolling, openWebSocket, poll, post, probe,
  request, target,
} from '../support/wire.mjs';

const ROUNDS = 3;
const GROWTH = { factor: 1.2, bytes: 16 << 20 }; // what an allocator may keep after the first round
const MAX_PAYLOAD = 1000000;
let node;
let witness;

before(async () => {
  node = await startServer('starling-node', {
    pingInterval: 1000, pingTimeout: 6000, maxPayload: MAX_PAYLOAD, requestTimeout: 2000, pollGrace: 1000,
  });
  witness = io(node.origin, { transports: ['websocket'], reconnection: false });
  await occurrence(witness, 'connect', 'connect_error');
  assert.ok(witness.connected);
});

after(async () => {
  witness?.disconnect();
  await node?.stop();
});

function assertNoGrowth(sizes) {
  const limit = sizes[0] * GROWTH.factor + GROWTH.bytes;
  if (!reference) assert.ok(sizes.at(-1) <= limit, `the process grows: ${sizes}`);
}

const residentBytes = (pid) => 1024 * Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);

async function assertServes() {
  assert.ok(node.alive(), node.output().slice(-3000));
  assert.ok(witness.connected, 'the witness lost its connection');
  const heard = new Promise((resolve) => { witness.once('still', resolve); });
  const answer = await call(witness, 'bus:emit', { to: witness.id, event: 'still', args: ['served'], echo: true });
  assert.equal(answer.ok, true);
  assert.equal(await heard, 'served');
  const { sid } = await openPolling(node);
  assert.equal((await post(node, sid, '1')).text, 'ok');
}

function attack(name, fn) {
  test(name, { timeout: 20 * PATIENCE_MS }, async () => {
    const sessions = await metric(node, 'starling_sessions');
    const sizes = [];
    for (let round = 0; round < ROUNDS; round++) {
      await fn(round);
      await assertServes();
      await eventually(async () => await metric(node, 'starling_sessions') === sessions, 'the sessions to end');
      sizes.push(residentBytes(node.pid));
    }
    assertNoGrowth(sizes);
  });
}

// The same numbers in every run.
function randomBytes(seed, n) {
  let state = seed * 2654435761 + 1;
  const next = () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
    return (state >>> 11) & 255;
  };
  return Buffer.from(Array.from({ length: n }, next));
}

const times = (n, fn) => Promise.all(Array.from({ length: n }, (_, i) => fn(i)));

// The peer answers or ends the connection; ours must, in bounded time.
async function assertBounded(connection, what) {
  const done = connection.until(() => (connection.ended || connection.buffer.length > 0 ? true : undefined), what, 10000);
  await (reference ? Promise.race([done.catch(() => {}), sleep(100)]) : done);
  connection.drop();
}

async function throwAt(bytes, what) {
  const connection = await Connection.open(node);
  connection.write(bytes);
  await assertBounded(connection, what);
}

// ---- HTTP

attack('garbage instead of HTTP', async (round) => {
  const texts = ['\0'.repeat(1000), '\r\n'.repeat(1000), 'GET\r\n\r\n', 'GET /\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n',
    'GET  /  HTTP/1.1\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'get / http/1.1\r\n\r\n', ' GET / HTTP/1.1\r\n\r\n',
    'GET /socket.io/\0 HTTP/1.1\r\n\r\n', 'GET http://x/socket.io/ HTTP/1.1\r\n\r\n', 'BREW / HTTP/1.1\r\n\r\n', 'x'.repeat(100000),
    'GET / HTTP/1.1\n\nGET / HTTP/1.1\n\n', `${'A'.repeat(300)} / HTTP/1.1\r\n\r\n`, 'GET /%zz%00%ff?%=%&&&=== HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n', 'GET //// HTTP/1.1\r\nHost: x\r\n\r\n'];
  await Promise.all(texts.map((text) => throwAt(text, JSON.stringify(text.slice(0, 40)))));
  await throwAt(Buffer.from('16030100a5010000a10303', 'hex'), 'a TLS hello');
  await times(50, (i) => throwAt(Buffer.concat([randomBytes(round * 50 + i, 600), Buffer.from('\r\n\r\n')]), `random ${i}`));
});

attack('malformed headers and bodies', async () => {
  const { sid } = await openPolling(node);
  const line = `POST ${target(node, { sid })} HTTP/1.1\r\nHost: x\r\n`;
  const heads = ['Content-Length: -1\r\n\r\n', 'Content-Length: 5x\r\n\r\n4abcd', 'Content-Length: 99999999999999999999\r\n\r\n4',
    'Content-Length: 3\r\nContent-Length: 4\r\n\r\n4ab', 'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4ab',
    'Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n4', 'Transfer-Encoding: chunked\r\n\r\n-1\r\n', 'Transfer-Encoding: chunked\r\n\r\nzz\r\n',
    `Transfer-Encoding: chunked\r\n\r\n1;${'x'.repeat(100000)}\r\n4\r\n0\r\n\r\n`, 'Transfer-Encoding: gzip\r\n\r\n', 'no colon here\r\n\r\n',
    ': empty\r\n\r\n', 'A\0B: x\r\n\r\n', ' Folded: x\r\n\r\n', 'Expect: 100-continue\r\nContent-Length: 2\r\n\r\n',
    `Transfer-Encoding: chunked\r\n\r\n0\r\n${'Trailer: x\r\n'.repeat(10000)}\r\n`];
  for (const head of heads) await throwAt(line + head, JSON.stringify(head.slice(0, 60)));
  await post(node, sid, '1').catch(() => {});
});

attack('floods of headers and endless lines', async () => {
  const line = `GET ${target(node, { transport: 'none' })} HTTP/1.1\r\nHost: x\r\n`;
  await throwAt(`${line}${'X-Flood: x\r\n'.repeat(20000)}\r\n`, 'many headers');
  await throwAt(`${line}X-Long: ${'x'.repeat(1 << 20)}\r\n\r\n`, 'a long header');
  await throwAt(`${line}${'n'.repeat(1 << 20)}: x\r\n\r\n`, 'a long name');
  await throwAt(`GET /socket.io/?${'a=b&'.repeat(1 << 18)} HTTP/1.1\r\n\r\n`, 'a long URL');
  await throwAt(`${line}Cookie: ${'a=b; '.repeat(3000)}\r\n\r\n`, 'a long cookie');
  await times(20, () => throwAt(`${line}${'X: y\r\n'.repeat(5000)}`, 'headers without an end'));
});

attack('requests cut off anywhere', async () => {
  const { sid } = await openPolling(node);
  const whole = encodeRequest({ method: 'POST', target: target(node, { sid }), body: '4hello', headers: { 'content-type': 'text/plain' } });
  const chunked = encodeRequest({ method: 'POST', target: target(node), body: 'hello', chunked: 2 });
  const cuts = [whole, chunked].flatMap((bytes) => Array.from({ length: bytes.length - 1 }, (_, i) => bytes.subarray(0, i + 1)));
  for (let at = 0; at < cuts.length; at += 50) {
    await Promise.all(cuts.slice(at, at + 50).map(async (part) => {
      const connection = await Connection.open(node);
      connection.write(part);
      connection.socket[part.length % 2 ? 'end' : 'resetAndDestroy']();
    }));
  }
  await post(node, sid, '1').catch(() => {});
});

attack('bodies that are much too large', async () => {
  const { sid } = await openPolling(node);
  const huge = Buffer.alloc(10 << 20, 0x34);
  for (const chunked of [undefined, 65536]) {
    const { status } = await post(node, sid, huge, { chunked }).catch(() => ({ status: 'reset' }));
    assert.ok([413, 400, 'reset'].includes(status), String(status));
  }
  if (!reference) {
    for (const chunked of [undefined, 65536]) {
      const { status } = await request(node, { method: 'POST', target: '/api/v1/emit', body: huge, chunked })
        .catch(() => ({ status: 'reset' }));
      assert.ok([413, 400, 'reset'].includes(status), String(status));
    }
  }
  await post(node, sid, '1').catch(() => {});
});

attack('a thousand requests in one segment', async () => {
  const connection = await Connection.open(node);
  const one = encodeRequest({ target: target(node, { transport: 'none' }) });
  connection.write(Buffer.concat(Array(1000).fill(one)));
  for (let i = 0; i < 1000; i++) assert.equal((await connection.response()).status, 400);
  connection.drop();
});

// ---- WebSocket

attack('random frames', async (round) => {
  await times(60, async (i) => {
    const ws = await openWebSocket(node);
    ws.write(randomBytes(1000 + round * 60 + i, 3000));
    await assertBounded(ws.connection, `frames ${i}`).finally(() => ws.drop());
  });
});

attack('frames cut off anywhere', async () => {
  const frame = Buffer.concat([
    encodeFrame({ opcode: OPCODE.text, payload: '40' }), encodeFrame({ opcode: OPCODE.binary, payload: Buffer.alloc(200), form: 16 }),
    encodeFrame({ opcode: OPCODE.text, fin: false, payload: '42["e"', form: 64 })]);
  await times(60, async (i) => {
    const ws = await openWebSocket(node);
    ws.write(frame.subarray(0, 1 + Math.floor((i * frame.length) / 60)));
    ws.connection.socket[i % 2 ? 'end' : 'resetAndDestroy']();
  });
});

attack('frames that claim too much', async () => {
  for (const length of [MAX_PAYLOAD + 1, 2 ** 31, 2 ** 40, 2 ** 53, '0x7fffffffffffffff', '0xffffffffffffffff']) {
    for (const opcode of [OPCODE.text, OPCODE.binary]) {
      const ws = await openWebSocket(node);
      ws.frame({ opcode, length: BigInt(length), form: 64 });
      await ws.closing();
      ws.drop();
    }
  }
});

attack('fragments without an end', async () => {
  const large = await openWebSocket(node);
  large.frame({ opcode: OPCODE.text, fin: false, payload: '4' });
  const part = encodeFrame({ opcode: OPCODE.continuation, fin: false, payload: 'x'.repeat(50000) });
  for (let i = 0; i < 25; i++) large.write(part);
  assert.deepEqual(await large.closing(), { code: 1009 });
  large.drop();
  const empty = await openWebSocket(node);
  empty.frame({ opcode: OPCODE.text, fin: false });
  const nothing = encodeFrame({ opcode: OPCODE.continuation, fin: false });
  empty.write(Buffer.concat(Array(100000).fill(nothing)));
  empty.frame({ opcode: OPCODE.continuation, payload: '40' });
  await eventually(() => empty.connection.ended || /40\{"sid"/.test(empty.connection.buffer.toString('latin1')), 'an answer');
  empty.drop();
});

attack('a flood of pings', async () => {
  const ws = await openWebSocket(node);
  const ping = encodeFrame({ opcode: OPCODE.ping, payload: 'x'.repeat(125) });
  for (let i = 0; i < 20; i++) ws.write(Buffer.concat(Array(1000).fill(ping)));
  let pongs = 0;
  while (pongs < 1000) if ((await ws.nextFrame()).opcode === OPCODE.pong) pongs++;
  ws.drop();
  // And from a peer that does not read its pongs.
  const deaf = await openWebSocket(node);
  deaf.connection.socket.pause();
  for (let i = 0; i < 100; i++) deaf.write(Buffer.concat(Array(1000).fill(ping)));
  await assertServes();
  deaf.drop();
});

// ---- Engine.IO

attack('random Engine.IO packets', async (round) => {
  const alphabet = `0123456789b{}[]",-/${SEPARATOR}`;
  const text = (seed) => Array.from(randomBytes(seed, 40), (byte) => alphabet[byte % alphabet.length]).join('');
  await times(60, async (i) => {
    const ws = await openWebSocket(node);
    ws.send('40', ...Array.from({ length: 10 }, (_, k) => text(round * 10000 + i * 10 + k)));
    const { sid } = await openPolling(node);
    await post(node, sid, `40${SEPARATOR}${text(round * 10000 + i)}`).catch(() => {});
    await post(node, sid, '1').catch(() => {});
    ws.drop();
  });
});

attack('a payload of very many packets', async () => {
  for (const packet of ['6', '3', '42', 'b', '4']) {
    const { sid } = await openPolling(node);
    await post(node, sid, Array(490000).fill(packet).join(SEPARATOR)).catch(() => {});
    await post(node, sid, '1').catch(() => {});
  }
});

attack('sessions opened and left', async () => {
  for (let batch = 0; batch < 10; batch++) {
    const opened = await times(50, () => openPolling(node));
    await Promise.all(opened.map(({ sid }) => post(node, sid, '1')));
    const sockets = await times(50, () => openWebSocket(node));
    sockets.forEach((ws, i) => ws.connection.socket[i % 2 ? 'end' : 'resetAndDestroy']());
  }
});

attack('sessions that never poll again', async () => {
  await times(200, () => openPolling(node));
});

attack('upgrades in the wrong order and in crowds', async () => {
  const { sid } = await openPolling(node);
  const crowd = await times(30, () => WebSocketPeer.open(node, { query: { sid } }));
  crowd.forEach((ws, i) => ws.status === 101 && ws.send(...(i % 2 ? ['5', '2probe', '5'] : ['2probe', '2probe', '5', '5', '40'])));
  await assertServes();
  crowd.forEach((ws) => ws.drop());
  for (let i = 0; i < 30; i++) {
    const session = await openPolling(node);
    const ws = await probe(node, session.sid);
    const [late] = await Promise.allSettled([poll(node, session.sid, { patience: 3000 }), ws.send('5'), post(node, session.sid, '40')]);
    assert.ok(['fulfilled', 'rejected'].includes(late.status));
    ws.drop();
  }
});

// ---- Socket.IO

// A WebSocket that has joined the main namespace.
async function joined() {
  const ws = await openWebSocket(node);
  ws.send('40');
  let reply;
  do reply = await ws.receive(); while (!reply.startsWith('40'));
  return ws;
}

// The connection must end (true), or stay and serve (false).
async function sendAll(...messages) {
  const ws = await joined();
  ws.send(...messages, '4299["bus:who","x"]');
  const closed = await (async () => {
    for (;;) {
      const frame = await ws.nextFrame().catch((error) => {
        if (ws.connection.ended) return { opcode: OPCODE.close };
        throw error;
      });
      if (frame.opcode === OPCODE.close) return true;
      if (frame.payload.toString().startsWith('4399')) return false;
    }
  })();
  ws.drop();
  return closed;
}

const nested = (depth, open = '[', close = ']') => open.repeat(depth) + close.repeat(depth);

attack('JSON ten thousand levels deep', async () => {
  for (const [open, close] of [['[', ']'], ['{"a":', '}']]) {
    const deep = open === '[' ? nested(10000) : `${open.repeat(10000)}1${close.repeat(10000)}`;
    const closed = [
      await sendAll(`42["e",${deep}]`), await sendAll(`430[${deep}]`), await sendAll(`40/deep,{"auth":${deep}}`),
      await sendAll(`451-["e",${deep}]`, Buffer.from([1])),
    ];
    if (!reference) assert.deepEqual(closed, [true, true, true, true]);
    const { status } = await request(node, { method: 'POST', target: '/api/v1/emit', body: `{"event":"e","args":[${deep}]}` });
    if (!reference) assert.equal(status, 400);
  }
  await sendAll('42' + '['.repeat(500000));
});

attack('attachments that are lied about', async () => {
  for (const count of ['0', '11', '-1', '1.5', '1e1', '4294967296', '18446744073709551617', '9'.repeat(100000)]) {
    assert.ok(await sendAll(`45${count}-["e",{"_placeholder":true,"num":0}]`), count.slice(0, 30));
  }
  // Announced and never sent; sent as large as allowed, but one short.
  await times(20, async () => {
    const ws = await joined();
    ws.send('4510-["e",{"_placeholder":true,"num":9}]', ...Array(9).fill(Buffer.alloc(100000)));
    ws.send('3');
    await ws.receive();
    ws.drop();
  });
  const { sid } = await openPolling(node);
  await post(node, sid, `40${SEPARATOR}452-["e",{"_placeholder":true,"num":1}]${SEPARATOR}b!!!!${SEPARATOR}b====`).catch(() => {});
  await post(node, sid, '1').catch(() => {});
});

attack('names of rooms, namespaces and events that are much too long', async () => {
  const long = 'x'.repeat(900000);
  const tenMegabytes = 'x'.repeat(10 << 20);
  const ws = await joined();
  let id = 0;
  for (const event of [['bus:join', long], ['bus:leave', long], ['bus:emit', { to: long, event: 'e' }], ['bus:emit', { event: long }],
    ['bus:emit', { event: 'e', except: Array(50000).fill('r') }]]) {
    ws.send(`42${id}${JSON.stringify(event)}`);
    let answer;
    do answer = await ws.receive(); while (!answer.startsWith(`43${id}`));
    if (!reference) assert.match(answer, /"ok":false/);
    id++;
  }
  ws.drop();
  const before = await metric(node, 'starling_namespaces');
  for (const message of [`40/${long}`, `42["${long}"]`, `42${'9'.repeat(900000)}["e"]`]) await sendAll(message);
  for (const message of [`42["bus:join","${tenMegabytes}"]`, `40/${tenMegabytes}`]) {
    const large = await joined();
    large.send(message);
    assert.deepEqual(await large.closing(), { code: 1009 });
    large.drop();
  }
  await eventually(async () => await metric(node, 'starling_namespaces') === before, 'the namespaces to go');
});

attack('a million rooms asked for by one client', async () => {
  const before = await metric(node, 'starling_rooms');
  const ws = await joined();
  let answers = 0;
  let accepted = 0;
  const calls = 3907;
  const reading = (async () => {
    while (answers < calls) {
      const message = await ws.receive();
      if (message === '2') ws.send('3');
      if (!message.startsWith('43')) continue;
      answers++;
      if (message.includes('"ok":true')) accepted++;
    }
  })();
  for (let n = 0; n < calls; n++) {
    const names = Array.from({ length: 256 }, (_, i) => `room ${n} ${i}`);
    ws.send(`42${n}${JSON.stringify(['bus:join', names])}`);
    while (n - answers > 50) await sleep(1);
  }
  await reading;
  assert.ok(accepted <= 4, `${accepted} calls accepted`);
  ws.drop();
  await eventually(async () => await metric(node, 'starling_rooms') === before, 'the rooms to go');
});

attack('very many namespaces on one connection', async () => {
  const ws = await openWebSocket(node);
  for (let n = 0; n < 2000; n++) ws.send(`40/space-${n},{}`);
  const last = eventually(() => ws.connection.ended || ws.connection.buffer.includes('/space-1999,'), 'the last answer');
  await last;
  ws.drop();
  if (!reference) await eventually(async () => await metric(node, 'starling_namespaces') <= 1, 'the namespaces to go');
});

attack('a flood of events that nobody handles', async () => {
  const ws = await joined();
  const event = encodeFrame({ opcode: OPCODE.text, payload: '42["nobody","handles",{"this":[1,2,3]}]' });
  for (let i = 0; i < 50; i++) ws.write(Buffer.concat(Array(1000).fill(event)));
  ws.send('427["bus:who","x"]');
  let message;
  do {
    message = await ws.receive();
    if (message === '2') ws.send('3');
  } while (!message.startsWith('437'));
  ws.drop();
});

// ---- Slow peers

attack('a member that does not read', async () => {
  const deaf = await joined();
  deaf.send('421["bus:join","loud"]');
  await eventually(async () => (await call(witness, 'bus:who', 'loud')).count === 1, 'the member to join');
  deaf.connection.socket.pause();
  const idle = await openPolling(node);
  await post(node, idle.sid, '40');
  await poll(node, idle.sid);
  await post(node, idle.sid, '421["bus:join","loud"]');
  await eventually(async () => (await call(witness, 'bus:who', 'loud')).count === 2, 'the second member to join');
  const text = 'x'.repeat(100000);
  let slowest = 0;
  for (let i = 0; i < 300; i++) {
    const start = performance.now();
    assert.equal((await call(witness, 'bus:emit', { to: 'loud', event: 'noise', args: [text] })).ok, true);
    slowest = Math.max(slowest, performance.now() - start);
  }
  assert.ok(slowest < PATIENCE_MS / 2, `an emit took ${slowest} ms`);
  if (!reference) await eventually(async () => (await call(witness, 'bus:who', 'loud')).count === 0, 'the members to be closed');
  deaf.drop();
});

// The kernel has taken all that it will take for those who do not read.
async function settled(server) {
  let before;
  await eventually(async () => {
    const sent = await metric(server, 'starling_sent_bytes_total');
    const quiet = before !== undefined && sent - before < 65536;
    before = sent;
    await sleep(200);
    return quiet;
  }, 'the slow connections to be served');
}

async function timeToConnect(server, options) {
  const start = performance.now();
  const socket = io(server.origin, { ...options, forceNew: true });
  const [error] = await occurrence(socket, 'connect', 'connect_error');
  socket.disconnect();
  assert.equal(error, undefined);
  return performance.now() - start;
}

// Opens connections that send half a request, and connections that ask for much and read nothing.
async function slowCrowd(server, addressOf) {
  const crowd = [];
  const half = `GET ${target(server)} HTTP/1.1\r\nHost: x\r\nX-Slow: `;
  const files = Buffer.concat(Array(20).fill(encodeRequest({ target: '/socket.io/socket.io.js' })));
  for (let at = 0; at < 1000; at += 100) {
    crowd.push(...await times(100, async (i) => (await Connection.open(server, { localAddress: addressOf(at + i) })).write(half)));
    crowd.push(...await times(100, async (i) => {
      const connection = await Connection.open(server, { localAddress: addressOf(at + i) });
      connection.socket.pause();
      return connection.write(files);
    }));
  }
  return crowd;
}

for (const [where, addressOf] of Object.entries({
  'the same address': () => '127.0.0.1',
  'many addresses': (i) => `127.0.1.${1 + (i % 200)}`,
})) {
  test(`with 2,000 slow connections from ${where} a new client connects within a second`, {
    timeout: 20 * PATIENCE_MS, skip: reference && 'the stock server does not bear it',
  }, async (t) => {
    const server = await serverFor(t, 'starling-node', { pingInterval: 25000, pingTimeout: 20000 });
    const steady = await connected(t, server, MODES.websocket);
    const sizes = [];
    for (let round = 0; round < ROUNDS; round++) {
      const crowd = await slowCrowd(server, addressOf);
      await timeToConnect(server, MODES.polling); // while gigabytes go into the kernel's buffers
      await settled(server);
      for (const options of Object.values(MODES)) {
        const took = await timeToConnect(server, options);
        assert.ok(took < PATIENCE_MS / 20, `${took} ms over ${options.transports}`);
      }
      assert.equal((await call(steady, 'bus:who', 'x')).ok, true);
      crowd.forEach((connection) => connection.drop());
      await eventually(async () => await metric(server, 'starling_sessions') === 1, 'the sessions to end');
      await eventually(async () => await metric(server, 'starling_connections') <= 5, 'the connections to end');
      sizes.push(residentBytes(server.pid));
    }
    assertNoGrowth(sizes);
  });
}
