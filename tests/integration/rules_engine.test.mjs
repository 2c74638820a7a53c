// Sections 0 and 1: where the service answers, session ids, Engine.IO packets.
import assert from 'node:assert/strict';
import { rule } from '../support/rule.mjs';
import { useServer } from '../support/servers.mjs';
import {
  SEPARATOR, beginPoll, openPolling, openWebSocket, poll, pollPackets, post, request, target,
} from '../support/wire.mjs';

const server = useServer('engine_echo', { pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 });

async function assertGone(sid) {
  const response = await poll(server, sid);
  assert.equal(response.status, 400);
  assert.equal(response.json.code, 1);
}

rule('0.a a path below the service path handshakes', async () => {
  const response = await request(server, { target: `${server.path}foo?EIO=4&transport=polling` });
  assert.equal(response.status, 200);
  assert.match(response.text, /^0\{/);
});

rule('0.b the service path without its slash is not found', async () => {
  const response = await request(server, { target: target(server).replace('/?', '?') });
  assert.equal(response.status, 404);
});

rule('0.c a session id has twenty url-safe characters and never repeats', async () => {
  const seen = new Set();
  for (let i = 0; i < 50; i++) {
    const { sid } = await openPolling(server);
    assert.match(sid, /^[A-Za-z0-9_-]{20}$/);
    seen.add(sid);
  }
  assert.equal(seen.size, 50);
});

rule('1.a a text message is the digit 4 and its data', async () => {
  const { sid } = await openPolling(server);
  await post(server, sid, '4hello €');
  assert.equal((await poll(server, sid)).text, '4hello €');
  const ws = await openWebSocket(server);
  ws.send('4hello €');
  assert.equal(await ws.receive(), '4hello €');
  ws.drop();
});

rule('1.b a binary message on WebSocket is one binary frame without a type byte', async () => {
  const ws = await openWebSocket(server);
  ws.send(Buffer.from([4, 0, 255]));
  assert.deepEqual(await ws.receive(), Buffer.from([4, 0, 255]));
  ws.drop();
});

rule('1.c a binary message on polling is b and padded standard base64', async () => {
  const { sid } = await openPolling(server);
  await post(server, sid, 'b+/8A');
  assert.equal((await poll(server, sid)).text, 'b+/8A');
  await post(server, sid, `bAQ==${SEPARATOR}bAQI=`);
  const packets = await pollPackets(server, sid, ({ length }) => length >= 2);
  assert.deepEqual(packets, ['bAQ==', 'bAQI=']);
});

rule('1.d base64 text on WebSocket is a binary message', async () => {
  const ws = await openWebSocket(server);
  ws.send('bAQID');
  assert.deepEqual(await ws.receive(), Buffer.from([1, 2, 3]));
  ws.drop();
});

rule('1.e an empty packet or an unknown type closes the session', async () => {
  for (const bad of ['', '7', 'x', ' 4a', '\u00e9']) {
    const ws = await openWebSocket(server);
    ws.send(bad);
    await ws.closing();
    const { sid } = await openPolling(server);
    await post(server, sid, bad).catch(() => {});
    assert.equal((await poll(server, sid)).status, 400, `after ${JSON.stringify(bad)}`);
  }
});

rule('1.f open, upgrade, noop and an unsolicited pong are ignored', async () => {
  const ws = await openWebSocket(server);
  ws.send('0', '0{"sid":"x"}', '5', '6', '3', '3probe', '4still here');
  assert.equal(await ws.receive(), '4still here');
  ws.drop();
  const { sid } = await openPolling(server);
  const body = ['0', '5', '6', '3', '4still here'].join(SEPARATOR);
  assert.equal((await post(server, sid, body)).text, 'ok');
  assert.equal((await poll(server, sid)).text, '4still here');
});

rule('1.g a ping from the client on an open session closes it', async () => {
  for (const ping of ['2', '2probe', '2x']) {
    const ws = await openWebSocket(server);
    ws.send(ping);
    await ws.closing();
    const { sid } = await openPolling(server);
    const pending = await beginPoll(server, sid);
    await post(server, sid, ping).catch(() => {});
    assert.equal((await pending.response).status, 200);
    await assertGone(sid);
  }
});
