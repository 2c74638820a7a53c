// Section 6: closing, from either side, on both transports; WebSocket's own rules (RFC 6455).
import assert from 'node:assert/strict';
import { rule } from '../support/rule.mjs';
import { eventually, serverFor, sleep, useServer } from '../support/servers.mjs';
import {
  OPCODE, SEPARATOR, beginPoll, encodeFrame, openPolling, openWebSocket, poll, pollPackets, post,
} from '../support/wire.mjs';

const MAX_PAYLOAD = 100000;
const LONG = { pingInterval: 50000, pingTimeout: 40000, maxPayload: MAX_PAYLOAD };
const server = useServer('engine_echo', LONG);
const GRACE = 30000;

// Closed by the server while no poll waits, at the start of this file: its grace is over in the last test.
const lingering = {};
const sio = useServer('sio_echo', { ...LONG, connectTimeout: 300 }, async (started) => {
  lingering.sid = (await openPolling(started)).sid;
  lingering.since = Date.now();
});

async function assertGone(service, sid) {
  const response = await poll(service, sid);
  assert.equal(response.status, 400);
  assert.equal(response.json.code, 1);
}

const closePayload = (code) => (code === null ? Buffer.alloc(0) : Buffer.from([code >> 8, code & 255]));

async function assertWebSocketServes() {
  const ws = await openWebSocket(server);
  ws.send('4x');
  assert.equal(await ws.receive(), '4x');
  ws.drop();
}

rule('6.1a a Close frame from the client ends the session', async () => {
  const ws = await openWebSocket(server);
  ws.frame({ opcode: OPCODE.close, payload: closePayload(1000) });
  await ws.closing();
  await ws.connection.end();
  await assertGone(server, ws.sid);
});

rule('6.1b a lost WebSocket connection ends the session', async () => {
  for (const how of ['end', 'destroy', 'resetAndDestroy']) {
    const ws = await openWebSocket(server);
    ws.connection.socket[how]();
    await eventually(async () => (await poll(server, ws.sid)).json.code === 1, `the session to end after ${how}`);
  }
});

rule('6.1c a protocol error is answered with a Close frame without a code', async () => {
  const ws = await openWebSocket(server);
  ws.send('x');
  assert.deepEqual(await ws.closing(), { code: null });
  await assertGone(server, ws.sid);
  ws.frame({ opcode: OPCODE.close });
  await ws.connection.end();
});

rule('6.1d a message over maxPayload is closed with 1009', async () => {
  const one = await openWebSocket(server);
  one.send(`4${'x'.repeat(MAX_PAYLOAD)}`);
  assert.deepEqual(await one.closing(), { code: 1009 });
  const claimed = await openWebSocket(server);
  claimed.frame({ opcode: OPCODE.binary, length: MAX_PAYLOAD + 1, form: 64 });
  assert.deepEqual(await claimed.closing(), { code: 1009 });
  const parts = await openWebSocket(server);
  parts.frame({ opcode: OPCODE.text, fin: false, payload: `4${'x'.repeat(MAX_PAYLOAD - 1)}` });
  parts.frame({ opcode: OPCODE.continuation, payload: 'x' });
  assert.deepEqual(await parts.closing(), { code: 1009 });
});

rule('6.1e a message of exactly maxPayload is allowed', async () => {
  const ws = await openWebSocket(server);
  const message = `4${'x'.repeat(MAX_PAYLOAD - 1)}`;
  ws.send(message);
  assert.equal(await ws.receive(), message);
  const binary = Buffer.alloc(MAX_PAYLOAD, 7);
  ws.send(binary);
  assert.ok(binary.equals(await ws.receive()));
  ws.drop();
});

rule('6.1f invalid UTF-8 in a text message is closed with 1007', async () => {
  const invalid = ['34ff', '34c3', '34c0af', '34eda080', '34f4908080', '34e282'];
  for (const hex of invalid) {
    const ws = await openWebSocket(server);
    ws.frame({ opcode: OPCODE.text, payload: Buffer.from(hex, 'hex') });
    assert.deepEqual(await ws.closing(), { code: 1007 }, hex);
  }
  const split = await openWebSocket(server);
  split.frame({ opcode: OPCODE.text, fin: false, payload: Buffer.from('34e2', 'hex') });
  split.frame({ opcode: OPCODE.continuation, payload: Buffer.from('82ac', 'hex') });
  assert.equal(await split.receive(), '4€');
  split.drop();
});

rule('6.1g the code of a Close frame is echoed', async () => {
  for (const code of [1000, 1001, 1011, 3000, 4999]) {
    const ws = await openWebSocket(server);
    ws.frame({ opcode: OPCODE.close, payload: Buffer.concat([closePayload(code), Buffer.from('why')]) });
    assert.deepEqual(await ws.closing(), { code });
  }
});

rule('6.1h an empty Close frame is answered with an empty one', async () => {
  const ws = await openWebSocket(server);
  ws.frame({ opcode: OPCODE.close });
  const { code } = await ws.closing();
  assert.ok([null, 1005].includes(code), String(code));
});

rule('6.1i WebSocket pings are answered with their payload', async () => {
  const ws = await openWebSocket(server);
  for (const payload of ['', 'hello', 'x'.repeat(125)]) {
    ws.frame({ opcode: OPCODE.ping, payload });
    const frame = await ws.nextFrame();
    assert.deepEqual([frame.opcode, frame.payload.toString()], [OPCODE.pong, payload]);
  }
  ws.frame({ opcode: OPCODE.pong, payload: 'unasked' });
  ws.send('4x');
  assert.equal(await ws.receive(), '4x');
  ws.drop();
});

rule('6.1j fragments are put together, with control frames between them', async () => {
  const ws = await openWebSocket(server);
  ws.frame({ opcode: OPCODE.text, fin: false, payload: '4he' });
  ws.frame({ opcode: OPCODE.ping, payload: 'p' });
  ws.frame({ opcode: OPCODE.continuation, fin: false, payload: '' });
  ws.frame({ opcode: OPCODE.continuation, payload: 'llo' });
  assert.equal((await ws.nextFrame()).opcode, OPCODE.pong);
  assert.equal(await ws.receive(), '4hello');
  ws.frame({ opcode: OPCODE.binary, fin: false, payload: Buffer.from([1]) });
  ws.frame({ opcode: OPCODE.continuation, payload: Buffer.from([2]) });
  assert.deepEqual(await ws.receive(), Buffer.from([1, 2]));
  ws.drop();
});

rule('6.1k frames may arrive byte by byte', async () => {
  const ws = await openWebSocket(server);
  const frame = encodeFrame({ opcode: OPCODE.text, payload: `4${'x'.repeat(200)}` });
  for (const byte of frame) {
    ws.write(Buffer.from([byte]));
    await new Promise(setImmediate);
  }
  assert.equal(await ws.receive(), `4${'x'.repeat(200)}`);
  ws.drop();
});

rule('6.1l frames that break RFC 6455 are closed with 1002', async () => {
  const broken = {
    'unmasked': { opcode: OPCODE.text, payload: '4x', mask: false },
    'reserved bit 1': { opcode: OPCODE.text, payload: '4x', rsv: 4 },
    'reserved bit 3': { opcode: OPCODE.text, payload: '4x', rsv: 1 },
    'reserved data opcode': { opcode: 3, payload: '4x' },
    'reserved control opcode': { opcode: 11 },
    'fragmented ping': { opcode: OPCODE.ping, fin: false },
    'long ping': { opcode: OPCODE.ping, payload: 'x'.repeat(126) },
    'stray continuation': { opcode: OPCODE.continuation, payload: 'x' },
    'close with one byte': { opcode: OPCODE.close, payload: 'x' },
    'close with code 1005': { opcode: OPCODE.close, payload: closePayload(1005) },
    'close with code 999': { opcode: OPCODE.close, payload: closePayload(999) },
  };
  for (const [what, frame] of Object.entries(broken)) {
    const ws = await openWebSocket(server);
    ws.frame(frame);
    assert.deepEqual(await ws.closing(), { code: 1002 }, what);
  }
  const nested = await openWebSocket(server);
  nested.frame({ opcode: OPCODE.text, fin: false, payload: '4x' });
  nested.frame({ opcode: OPCODE.text, payload: '4y' });
  assert.deepEqual(await nested.closing(), { code: 1002 });
  await assertWebSocketServes();
});

rule('6.2a a close packet on WebSocket closes at once', async () => {
  const ws = await openWebSocket(server);
  ws.send('1');
  await ws.closing(5000);
  await assertGone(server, ws.sid);
});

rule('6.3a a close by the server gives the pending poll a close packet', async () => {
  const { sid } = await openPolling(sio);
  const response = await poll(sio, sid);
  assert.deepEqual([response.status, response.text], [200, '1']);
  await assertGone(sio, sid);
});

rule('6.3b a close by the server without a poll waits for the next one', async () => {
  const { sid } = await openPolling(sio);
  await sleep(1500);
  const response = await poll(sio, sid);
  assert.deepEqual([response.status, response.text], [200, `6${SEPARATOR}1`]);
  await assertGone(sio, sid);
});

rule('6.3c data queued before a close is delivered first', async (t) => {
  const calm = await serverFor(t, 'sio_echo', LONG);
  const { sid } = await openPolling(calm);
  await post(calm, sid, '40');
  await pollPackets(calm, sid, (packets) => packets.some((packet) => packet.startsWith('42["auth"')));
  const body = ['42["message",1]', '42["server-disconnect",true]'].join(SEPARATOR);
  assert.equal((await post(calm, sid, body)).text, 'ok');
  const packets = await pollPackets(calm, sid, (all) => all.at(-1) === '1');
  assert.deepEqual(packets.filter((packet) => packet !== '6'), ['42["message-back",1]', '41', '1']);
  await assertGone(calm, sid);
});

rule('6.3d a close by the server with a pending poll delivers and closes', async (t) => {
  const calm = await serverFor(t, 'sio_echo', LONG);
  const { sid } = await openPolling(calm);
  await post(calm, sid, '40');
  await pollPackets(calm, sid, (packets) => packets.some((packet) => packet.startsWith('42["auth"')));
  const pending = await beginPoll(calm, sid);
  await post(calm, sid, '42["server-disconnect",true]');
  const packets = (await pending.response).text.split(SEPARATOR);
  if (packets.at(-1) !== '1') packets.push(...await pollPackets(calm, sid, (all) => all.at(-1) === '1'));
  assert.deepEqual(packets.filter((packet) => packet !== '6'), ['41', '1']);
  await assertGone(calm, sid);
});

rule('6.3e a close by the server on WebSocket is a Close frame', async () => {
  const ws = await openWebSocket(sio);
  assert.deepEqual(await ws.closing(), { code: null });
});

rule('6.3f a session that nobody polls is forgotten after thirty seconds', async () => {
  await sleep(Math.max(0, lingering.since + GRACE + 3000 - Date.now()));
  await assertGone(sio, lingering.sid);
});
