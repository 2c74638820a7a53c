// Section 5: the heartbeat. Lower bounds are strict, a millisecond of rounding aside; upper bounds are those of patience.
import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { rule } from '../support/rule.mjs';
import { sleep, useServer } from '../support/servers.mjs';
import {
  WebSocketPeer, beginPoll, openPolling, openWebSocket, poll, post, probe,
} from '../support/wire.mjs';

const INTERVAL = 300;
const TIMEOUT = 200;
const EARLY = 5; // timers and clocks of two processes round differently
const server = useServer('engine_echo', { pingInterval: INTERVAL, pingTimeout: TIMEOUT, maxPayload: 1000000 });
const patient = useServer('engine_echo', { pingInterval: INTERVAL, pingTimeout: 1000, maxPayload: 1000000 });
const generous = useServer('engine_echo', { pingInterval: INTERVAL, pingTimeout: 15000, maxPayload: 1000000 });

function assertSince(start, ms) {
  const passed = performance.now() - start;
  assert.ok(passed >= ms - EARLY, `after ${passed} ms, not ${ms}`);
}

async function assertGone(service, sid) {
  const response = await poll(service, sid);
  assert.equal(response.status, 400);
  assert.equal(response.json.code, 1);
}

// The next message that is not a ping; answers pings.
async function receiveBesidesPings(ws) {
  for (;;) {
    const message = await ws.receive();
    if (message !== '2') return message;
    ws.send('3');
  }
}

rule('5.1a a ping comes one interval after the open', async () => {
  let start = performance.now();
  const ws = await openWebSocket(generous);
  assert.equal(await ws.receive(), '2');
  assertSince(start, INTERVAL);
  ws.drop();
  start = performance.now();
  const { sid } = await openPolling(generous);
  assert.equal((await poll(generous, sid)).text, '2');
  assertSince(start, INTERVAL);
});

rule('5.1b the next ping comes one interval after the pong', async () => {
  const ws = await openWebSocket(generous);
  for (let i = 0; i < 3; i++) {
    assert.equal(await ws.receive(), '2');
    await sleep(150);
    const start = performance.now();
    ws.send('3');
    await generousNothing(ws, INTERVAL - 50);
    assert.equal(await ws.receive(), '2');
    assertSince(start, INTERVAL);
    ws.send('3');
    assert.equal(await ws.receive(), '2');
    ws.send('3');
  }
  ws.drop();
});

async function generousNothing(ws, ms) {
  await assert.rejects(ws.receive(ms), /gave up/);
}

rule('5.1c a session that answers its pings lives', async () => {
  const ws = await openWebSocket(server);
  const { sid } = await openPolling(server);
  const polls = (async () => {
    for (let i = 0; i < 5; i++) {
      assert.equal((await poll(server, sid)).text, '2');
      assert.equal((await post(server, sid, '3')).text, 'ok');
    }
  })();
  for (let i = 0; i < 5; i++) {
    assert.equal(await ws.receive(), '2');
    ws.send('3');
  }
  ws.send('4alive');
  assert.equal(await ws.receive(), '4alive');
  await polls;
  ws.drop();
});

rule('5.1d an unsolicited pong restarts the interval', async () => {
  const ws = await openWebSocket(generous);
  await sleep(200);
  const start = performance.now();
  ws.send('3');
  assert.equal(await ws.receive(), '2');
  assertSince(start, INTERVAL);
  ws.drop();
});

rule('5.2a a ping without a poll is queued and delivered by the next poll', async () => {
  const { sid } = await openPolling(generous);
  await sleep(INTERVAL + 200);
  const start = performance.now();
  assert.equal((await poll(generous, sid)).text, '2');
  assert.ok(performance.now() - start < 10000);
});

rule('5.2b the deadline runs although the ping could not be delivered', async () => {
  const { sid } = await openPolling(server);
  await sleep(INTERVAL + TIMEOUT + 20);
  await assertGone(server, sid);
});

rule('5.3a a missed deadline gives the pending poll a close packet', async () => {
  const { sid } = await openPolling(server);
  assert.equal((await poll(server, sid)).text, '2');
  const pending = await beginPoll(server, sid);
  const response = await pending.response;
  assert.deepEqual([response.status, response.text], [200, '1']);
});

rule('5.3b a missed deadline closes a WebSocket with a Close frame', async () => {
  const start = performance.now();
  const ws = await openWebSocket(server);
  assert.equal(await ws.receive(), '2');
  assert.deepEqual(await ws.closing(), { code: null });
  assertSince(start, INTERVAL + TIMEOUT);
});

rule('5.3c after a missed deadline the session id is unknown', async () => {
  const ws = await openWebSocket(server);
  await ws.closing();
  await assertGone(server, ws.sid);
});

rule('5.4a other traffic is no pong', async () => {
  const ws = await openWebSocket(server);
  const chatter = setInterval(() => ws.send('4chatter'), 40);
  try {
    assert.deepEqual(await ws.closing(), { code: null });
  } finally {
    clearInterval(chatter);
  }
});

// A session with a ping that was never answered, upgraded to WebSocket.
async function upgradedWithLostPong() {
  const { sid } = await openPolling(patient);
  assert.equal((await poll(patient, sid)).text, '2');
  const ws = await probe(patient, sid);
  ws.send('5');
  return ws;
}

rule('5.4b an upgrade clears a running deadline', async () => {
  const ws = await upgradedWithLostPong();
  const end = performance.now() + 1500;
  while (performance.now() < end) {
    ws.send('4alive');
    assert.equal(await receiveBesidesPings(ws), '4alive');
    await sleep(50);
  }
  ws.drop();
});

rule('5.4c after an upgrade with a lost pong pings go on', async () => {
  const ws = await upgradedWithLostPong();
  assert.equal(await ws.receive(5000), '2');
  assert.deepEqual(await ws.closing(), { code: null });
});

rule('5.5a a poll after interval and timeout is refused to the millisecond', async () => {
  for (let i = 0; i < 5; i++) {
    const { sid } = await openPolling(server);
    const due = performance.now() + INTERVAL + TIMEOUT + 1; // both clocks count whole milliseconds
    while (performance.now() < due) await sleep(due - performance.now());
    await assertGone(server, sid);
  }
});

rule('5.5b an upgrade request after interval and timeout is refused', async () => {
  const { sid } = await openPolling(server);
  await sleep(INTERVAL + TIMEOUT + 5);
  assert.equal((await WebSocketPeer.open(server, { query: { sid } })).status, 400);
});
