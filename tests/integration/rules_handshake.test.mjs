// Section 3: the handshake on both transports and what refuses it.
import assert from 'node:assert/strict';
import { rule } from '../support/rule.mjs';
import { useServer } from '../support/servers.mjs';
import {
  Connection, OPCODE, SEPARATOR, WebSocketPeer, encodeFrame, encodeRequest, openPolling, openWebSocket, request, target,
} from '../support/wire.mjs';

const SETTINGS = { pingInterval: 24000, pingTimeout: 19000, maxPayload: 900000 };
const server = useServer('engine_echo', SETTINGS);

const refusal = async (options) => (await WebSocketPeer.open(server, options)).response;

rule('3.a a polling handshake is 200 with the open packet first', async () => {
  const response = await request(server);
  assert.equal(response.status, 200);
  const [open] = response.text.split(SEPARATOR);
  assert.equal(open[0], '0');
  assert.equal(typeof JSON.parse(open.slice(1)).sid, 'string');
});

rule('3.b a WebSocket handshake is 101 with the open packet as first text frame', async () => {
  const ws = await WebSocketPeer.open(server);
  assert.equal(ws.status, 101);
  const frame = await ws.nextFrame();
  assert.deepEqual([frame.opcode, frame.fin, frame.rsv, frame.masked], [OPCODE.text, true, 0, false]);
  assert.equal(frame.payload[0], 0x30);
  assert.deepEqual(JSON.parse(frame.payload.subarray(1)).upgrades, []);
  ws.drop();
});

rule('3.c the open packet has exactly five keys', async () => {
  const keys = ['maxPayload', 'pingInterval', 'pingTimeout', 'sid', 'upgrades'];
  const { response, ...polling } = await openPolling(server);
  const ws = await openWebSocket(server);
  for (const handshake of [polling, ws.handshake]) {
    assert.deepEqual(Object.keys(handshake).sort(), keys);
    const { pingInterval, pingTimeout, maxPayload } = handshake;
    assert.deepEqual({ pingInterval, pingTimeout, maxPayload }, SETTINGS);
  }
  ws.drop();
});

rule('3.d polling offers the upgrade to websocket', async () => {
  assert.deepEqual((await openPolling(server)).upgrades, ['websocket']);
});

rule('3.e the upgrade response proves the key and has the upgrade headers', async () => {
  const ws = await WebSocketPeer.open(server);
  const { headers } = ws.response;
  assert.equal(headers['sec-websocket-accept'], ws.expectedAccept);
  assert.equal(headers.upgrade.toLowerCase(), 'websocket');
  assert.equal(headers.connection.toLowerCase(), 'upgrade');
  ws.drop();
});

rule('3.f an upgrade that fails a check is 400 with the plain message before any 101', async () => {
  const tcp = await refusal({ query: { transport: 'tcp' } });
  assert.deepEqual([tcp.status, tcp.text], [400, 'Transport unknown']);
  assert.match(tcp.headers['content-type'], /^text\/html/);
  const unknown = await refusal({ query: { sid: 'AAAAAAAAAAAAAAAAAAAA' } });
  assert.deepEqual([unknown.status, unknown.text], [400, 'Session ID unknown']);
});

rule('3.g an upgrade with a bad version is 400 before 101', async () => {
  for (const EIO of [undefined, '3', '5']) assert.equal((await refusal({ query: { EIO } })).status, 400);
});

rule('3.h an upgrade with transport=polling is 400 before 101', async () => {
  assert.equal((await refusal({ query: { transport: 'polling' } })).status, 400);
});

rule('3.i an unsupported WebSocket version is 400 and names the supported ones', async () => {
  const { status, headers } = await refusal({ headers: { 'sec-websocket-version': 12 } });
  assert.equal(status, 400);
  assert.match(headers['sec-websocket-version'], /\b13\b/);
});

rule('3.j a missing or malformed WebSocket key is 400', async () => {
  for (const key of [undefined, '', 'short', 'not base64 at all!!!!!==']) {
    assert.equal((await refusal({ headers: { 'sec-websocket-key': key } })).status, 400, String(key));
  }
});

rule('3.k the first offered subprotocol is echoed', async () => {
  const ws = await openWebSocket(server, { headers: { 'sec-websocket-protocol': 'first, second' } });
  assert.equal(ws.response.headers['sec-websocket-protocol'], 'first');
  ws.drop();
  const without = await openWebSocket(server);
  assert.equal(without.response.headers['sec-websocket-protocol'], undefined);
  without.drop();
});

rule('3.l no extension is negotiated', async () => {
  const headers = { 'sec-websocket-extensions': 'permessage-deflate; client_max_window_bits' };
  const ws = await openWebSocket(server, { headers });
  assert.equal(ws.response.headers['sec-websocket-extensions'], undefined);
  ws.send('4x');
  assert.equal(await ws.receive(), '4x');
  ws.drop();
});

rule('3.m an upgrade for a foreign path never becomes a WebSocket', async () => {
  const connection = await Connection.open(server);
  connection.request({
    target: '/elsewhere/?EIO=4&transport=websocket',
    headers: {
      connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': 13,
      'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
    },
  });
  const answered = connection.response().then(({ status }) => status, () => 'closed');
  const outcome = await answered;
  assert.ok(['closed', 400, 404].includes(outcome), String(outcome));
  connection.drop();
});

rule('3.n header names and token values of an upgrade are case-insensitive', async () => {
  const connection = await Connection.open(server);
  connection.write(`GET ${target(server, { transport: 'websocket' })} HTTP/1.1\r\nHOST: x\r\nUPGRADE: WebSocket\r\n`
    + 'CONNECTION: keep-alive, Upgrade\r\nSEC-WEBSOCKET-VERSION: 13\r\n'
    + 'SEC-WEBSOCKET-KEY: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n');
  assert.equal((await connection.response()).status, 101);
  connection.drop();
});

rule('3.o packets sent in one segment with the upgrade request are handled', async () => {
  const connection = await Connection.open(server);
  const key = 'AAAAAAAAAAAAAAAAAAAAAA==';
  connection.write(Buffer.concat([
    encodeRequest({
      target: target(server, { transport: 'websocket' }),
      headers: {
        connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': 13, 'sec-websocket-key': key,
      },
    }),
    encodeFrame({ opcode: OPCODE.text, payload: '4early' }),
  ]));
  const response = await connection.response();
  assert.equal(response.status, 101);
  const ws = new WebSocketPeer(connection, response, key);
  assert.match(await ws.receive(), /^0\{/);
  assert.equal(await ws.receive(), '4early');
  ws.drop();
});
