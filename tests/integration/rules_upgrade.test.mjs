// Section 7: the upgrade from polling to WebSocket.
import assert from 'node:assert/strict';
import { rule } from '../support/rule.mjs';
import { eventually, serverFor, useServer } from '../support/servers.mjs';
import {
  Connection, SEPARATOR, WebSocketPeer, beginPoll, openPolling, openWebSocket, poll, pollPackets, post, probe,
  target,
} from '../support/wire.mjs';

const LONG = { pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 };
const server = useServer('engine_echo', LONG);

const candidate = (sid) => WebSocketPeer.open(server, { query: { sid } });

async function upgrade(sid) {
  const ws = await probe(server, sid);
  return ws.send('5');
}

async function assertPollingAlive(sid) {
  assert.equal((await post(server, sid, '4alive')).text, 'ok');
  await pollPackets(server, sid, (packets) => packets.includes('4alive'));
}

async function assertWebSocketAlive(ws) {
  ws.send('4alive');
  assert.equal(await ws.receive(), '4alive');
}

// A WebSocket that the server does not want: refused, or closed right after 101.
async function assertUnwanted(ws) {
  if (ws.status === 101) await ws.closing();
  else assert.equal(ws.status, 400);
}

rule('7.1a the WebSocket of an upgrade starts without an open packet', async () => {
  const { sid } = await openPolling(server);
  const ws = await candidate(sid);
  assert.equal(ws.status, 101);
  ws.send('2probe');
  assert.equal(await ws.receive(), '3probe');
  ws.drop();
});

rule('7.2a a pending poll is released with a noop after the probe', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  const ws = await probe(server, sid);
  assert.equal((await pending.response).text, '6');
  ws.drop();
});

rule('7.2b polls that come after the probe are released too', async () => {
  const { sid } = await openPolling(server);
  const ws = await probe(server, sid);
  for (let i = 0; i < 3; i++) assert.equal((await poll(server, sid, { patience: 5000 })).text, '6');
  ws.drop();
});

rule('7.4a queued packets are flushed on the WebSocket in order', async () => {
  const { sid } = await openPolling(server);
  const ws = await probe(server, sid);
  for (let i = 0; i < 20; i++) await post(server, sid, `4${i}`);
  ws.send('5');
  for (let i = 0; i < 20; i++) assert.equal(await ws.receive(), `4${i}`);
  await assertWebSocketAlive(ws);
  ws.drop();
});

rule('7.4b an upgrade packet without a probe upgrades', async () => {
  const { sid } = await openPolling(server);
  const ws = await candidate(sid);
  ws.send('5');
  await assertWebSocketAlive(ws);
  ws.drop();
});

rule('7.4c a poll still pending gets a close packet and the session lives', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  const ws = await candidate(sid);
  ws.send('5');
  const response = await pending.response;
  assert.deepEqual([response.status, response.text], [200, '1']);
  await assertWebSocketAlive(ws);
  ws.drop();
});

rule('7.4d polling requests after the upgrade are code 3', async () => {
  const { sid } = await openPolling(server);
  const ws = await upgrade(sid);
  await assertWebSocketAlive(ws);
  for (const response of [await poll(server, sid), await post(server, sid, '4x')]) {
    assert.equal(response.status, 400);
    assert.equal(response.json.code, 3);
  }
  await assertWebSocketAlive(ws);
  ws.drop();
});

rule('7.4e messages in one segment with the upgrade packet are handled', async () => {
  const { sid } = await openPolling(server);
  const ws = await probe(server, sid);
  ws.send('5', '4a', Buffer.from([1]), '4b');
  assert.deepEqual([await ws.receive(), await ws.receive(), await ws.receive()], ['4a', Buffer.from([1]), '4b']);
  ws.drop();
});

rule('7.5a until the upgrade packet data flows to polls', async () => {
  const { sid } = await openPolling(server);
  const ws = await probe(server, sid);
  for (let i = 0; i < 5; i++) {
    await post(server, sid, `4${i}`);
    await pollPackets(server, sid, (packets) => packets.includes(`4${i}`));
  }
  ws.send('5', '4last');
  assert.equal(await ws.receive(), '4last');
  ws.drop();
});

rule('7.5b each packet goes to exactly one transport, in order', async () => {
  const { sid } = await openPolling(server);
  const received = [];
  const control = { paused: false };
  const poller = (async () => {
    while (!control.paused) received.push(...(await poll(server, sid)).text.split(SEPARATOR));
  })();
  let next = 0;
  const postSome = async (n) => {
    for (let i = 0; i < n; i++) assert.equal((await post(server, sid, `4${next++}`)).text, 'ok');
  };
  await postSome(30);
  const [ws] = await Promise.all([probe(server, sid), postSome(40)]);
  control.paused = true;
  await poller;
  await postSome(30);
  ws.send('5');
  for (let i = 0; i < 100; i++) ws.send(`4${next++}`);
  while (received.at(-1) !== `4${next - 1}`) received.push(await ws.receive());
  const expected = Array.from({ length: next }, (_, i) => `4${i}`);
  assert.deepEqual(received.filter((packet) => packet !== '6'), expected);
  ws.drop();
});

rule('7.6a any other packet on the new WebSocket closes only that', async () => {
  for (const packet of ['4x', Buffer.from([1]), '2', '2prob', 'garbage', '', '3', '6', '1']) {
    const { sid } = await openPolling(server);
    const ws = await candidate(sid);
    ws.send(packet);
    await ws.closing();
    await assertPollingAlive(sid);
  }
});

rule('7.6b another packet after the probe closes only the WebSocket', async () => {
  const { sid } = await openPolling(server);
  const ws = await probe(server, sid);
  ws.send('4x');
  await ws.closing();
  await assertPollingAlive(sid);
});

rule('7.6c when the WebSocket is lost polling goes on and may upgrade again', async () => {
  for (const how of ['end', 'destroy', 'resetAndDestroy']) {
    const { sid } = await openPolling(server);
    const ws = await probe(server, sid);
    ws.connection.socket[how]();
    await assertPollingAlive(sid);
    const second = await eventually(() => probe(server, sid).catch(() => undefined), 'a second upgrade');
    second.send('5');
    await assertWebSocketAlive(second);
    second.drop();
  }
});

rule('7.6d without an upgrade packet in time the WebSocket is closed', async (t) => {
  const hasty = await serverFor(t, 'engine_echo', { ...LONG, upgradeTimeout: 300 });
  for (const open of [probe, (service, sid) => WebSocketPeer.open(service, { query: { sid } })]) {
    const { sid } = await openPolling(hasty);
    const ws = await open(hasty, sid);
    await ws.closing();
    assert.equal((await post(hasty, sid, '4alive')).text, 'ok');
    await pollPackets(hasty, sid, (packets) => packets.includes('4alive'));
  }
});

rule('7.6e a session that closes takes the new WebSocket with it', async () => {
  const { sid } = await openPolling(server);
  const ws = await probe(server, sid);
  assert.equal((await post(server, sid, '1')).text, 'ok');
  await ws.closing();
});

rule('7.7a a WebSocket for a session that is upgrading is not wanted', async () => {
  const { sid } = await openPolling(server);
  const ws = await probe(server, sid);
  await assertUnwanted(await candidate(sid));
  ws.send('5');
  await assertWebSocketAlive(ws);
  ws.drop();
});

rule('7.7b a WebSocket for a session that has upgraded is not wanted', async () => {
  const { sid } = await openPolling(server);
  const ws = await upgrade(sid);
  await assertWebSocketAlive(ws);
  await assertUnwanted(await candidate(sid));
  await assertWebSocketAlive(ws);
  ws.drop();
});

rule('7.7c a WebSocket with an unknown sid is 400', async () => {
  assert.equal((await candidate('AAAAAAAAAAAAAAAAAAAA')).status, 400);
});

rule('7.7d a WebSocket for a session born on WebSocket is not wanted', async () => {
  const ws = await openWebSocket(server);
  const second = await candidate(ws.sid);
  if (second.status === 101) await second.closing(5000);
  await assertWebSocketAlive(ws);
  ws.drop();
});

// A connection that has already carried a request, or a new one.
async function connectionFor(kind) {
  const connection = await Connection.open(server);
  if (kind === 'used') await connection.request({ target: target(server, { transport: 'none' }) }).response();
  return connection;
}

// The kernel may report two used connections in either order, so there either outcome is right.
async function pollRightAfterUpgrade(kind) {
  for (let i = 0; i < 50; i++) {
    const { sid } = await openPolling(server);
    const ws = await probe(server, sid);
    const used = kind === 'used' && await connectionFor(kind);
    ws.send('5');
    const connection = used || await connectionFor(kind);
    const response = await connection.request({ target: target(server, { sid }) }).response();
    const early = kind === 'used' && response.text === '1';
    if (!early) assert.equal(response.status, 400, `round ${i}: ${response.text}`);
    await assertWebSocketAlive(ws);
    ws.drop();
    connection.drop();
  }
}

async function closeRightAfterPoll(kind) {
  for (let i = 0; i < 50; i++) {
    const { sid } = await openPolling(server);
    const [polling, posting] = [await connectionFor(kind), await connectionFor(kind)];
    polling.request({ target: target(server, { sid }) });
    posting.request({
      method: 'POST', target: target(server, { sid }), body: '1', headers: { 'content-type': 'text/plain' },
    });
    assert.equal((await posting.response()).text, 'ok', `round ${i}`);
    const { status, text } = await polling.response();
    const late = kind === 'used' && status === 400;
    if (!late) assert.equal(text, '6', `round ${i}`);
    polling.drop();
    posting.drop();
  }
}

rule('7.8a a poll right after the upgrade packet is refused', () => pollRightAfterUpgrade('new'));

rule('7.8b a poll on a used connection right after the upgrade packet does no harm', () => pollRightAfterUpgrade('used'));

rule('7.8c a poll and a closing post right after it are handled in order', () => closeRightAfterPoll('new'));

rule('7.8d a poll and a closing post on used connections end the session', () => closeRightAfterPoll('used'));
