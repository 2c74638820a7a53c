// What happens to the traffic of four nodes of one host while their processes are killed and frozen.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { test } from 'node:test';
import { alive, startBus, temporary } from '../support/bus.mjs';
import { metric } from '../support/clients.mjs';
import { afterwards, eventually, freePort, long, sanitized, whileRunning } from '../support/servers.mjs';
import { LOAD, assertUndisturbed, assertWhole, startTraffic, worstMs } from '../support/traffic.mjs';

const NODES = 4;
const SECOND = LOAD.rate; // events

const targetsOf = (bus) => Array.from({ length: NODES }, (_, k) => ({ name: `node-${k}`, port: bus.port + 1 + k }));

test('kill -9 of a node: the others lose nothing, and it comes back', async (t) => {
  const bus = await startBus(t, NODES);
  const targets = targetsOf(bus);
  const [, , victim] = await bus.nodes();
  const traffic = await startTraffic(t, targets, { reconnect: 50 });
  await traffic.more(SECOND);
  process.kill(victim.pid, 'SIGKILL');
  await traffic.until(() => traffic.up < LOAD.clients, 'its clients to lose their connections');
  await traffic.until(() => traffic.up === LOAD.clients, 'all clients to be back');
  await traffic.more(2 * SECOND);
  const report = await traffic.finish();
  assertWhole(t, report);
  assertUndisturbed(t, report, ['node-0', 'node-1', 'node-3']);
  assert.equal(report.targets[2].ended, LOAD.clients / NODES);
  const nodes = await bus.nodes();
  assert.deepEqual(nodes.map(({ restarts }) => restarts), [0, 0, 1, 0]);
});

test('SIGSTOP of a node for 3 seconds: nobody loses anything, its own clients get it later', async (t) => {
  const bus = await startBus(t, NODES);
  const targets = targetsOf(bus);
  const [, frozen] = await bus.nodes();
  const traffic = await startTraffic(t, targets);
  await traffic.more(SECOND / 2);
  process.kill(frozen.pid, 'SIGSTOP');
  try {
    await traffic.more(3 * SECOND);
    assert.equal(await metric(targets[0], 'starling_mesh_peers'), NODES - 2, 'it counts as dead');
  } finally {
    process.kill(frozen.pid, 'SIGCONT');
  }
  await traffic.more(SECOND);
  const report = await traffic.finish();
  assertWhole(t, report);
  assertUndisturbed(t, report, targets.map(({ name }) => name).filter((name) => name !== 'node-1'));
  assertUndisturbed(t, report, targets.map(({ name }) => name));
  for (const target of targets) {
    await eventually(async () => await metric(target, 'starling_mesh_peers') === NODES - 1, `${target.name} to hear all others`);
  }
});

test('kill -9 of the supervisor: no event is late', async (t) => {
  const bus = await startBus(t, NODES);
  const targets = targetsOf(bus);
  const nodes = await bus.nodes();
  const traffic = await startTraffic(t, targets);
  await traffic.more(SECOND / 2);
  process.kill(bus.pid, 'SIGKILL');
  await eventually(() => bus.ended() === 'SIGKILL', 'the supervisor to end');
  await traffic.more(2 * SECOND);
  const report = await traffic.finish();
  assertWhole(t, report);
  assertUndisturbed(t, report, targets.map(({ name }) => name));
  assert.ok(nodes.every(({ pid }) => alive(pid)));
});

// A Redis that all nodes are told of; start() and kill() as often as wanted.
async function startRedis(t) {
  const port = await freePort();
  const folder = temporary(t);
  const redis = { url: `redis://127.0.0.1:${port}` };
  redis.start = async () => {
    const child = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--dir', folder, '--save', ''].map(String));
    whileRunning(child);
    const ended = new Promise((resolve) => { child.on('exit', resolve); });
    redis.kill = () => {
      child.kill('SIGKILL');
      return ended;
    };
    let output = '';
    child.stdout.on('data', (data) => { output += data; });
    await eventually(() => /Ready to accept connections/i.test(output), 'Redis to be ready');
  };
  afterwards(t, () => redis.kill());
  await redis.start();
  return redis;
}

const DOWN_S = long ? 30 : 8;

test(`Redis is gone for ${DOWN_S} seconds: nobody notices`, async (t) => {
  const redis = await startRedis(t);
  const bus = await startBus(t, NODES, { redis: redis.url });
  const targets = targetsOf(bus);
  assert.equal((await bus.ps()).redis.url, redis.url);
  const traffic = await startTraffic(t, targets);
  await traffic.more(SECOND);
  await redis.kill();
  await traffic.more(DOWN_S * SECOND);
  for (const { port } of targets) assert.equal((await fetch(`http://127.0.0.1:${port}/readyz`)).status, 200);
  await redis.start();
  await traffic.more(SECOND);
  const report = await traffic.finish();
  assertWhole(t, report);
  assertUndisturbed(t, report, targets.map(({ name }) => name));
  assert.deepEqual((await bus.nodes()).map(({ restarts }) => restarts), [0, 0, 0, 0]);
});

test('kill -9 of the private Redis: nobody notices, and it is started again', async (t) => {
  const bus = await startBus(t, NODES, { redis: 'private' });
  const targets = targetsOf(bus);
  const { redis: { pid } } = await bus.ps();
  assert.ok(alive(pid));
  const traffic = await startTraffic(t, targets);
  await traffic.more(SECOND / 2);
  process.kill(pid, 'SIGKILL');
  await eventually(async () => ![pid, null, undefined].includes((await bus.ps()).redis?.pid), 'Redis to be started again');
  await traffic.more(SECOND);
  const report = await traffic.finish();
  assertWhole(t, report);
  assertUndisturbed(t, report, targets.map(({ name }) => name));
  assert.deepEqual((await bus.nodes()).map(({ restarts }) => restarts), [0, 0, 0, 0]);
});

// A PUB socket drops what does not fit its queue, which is as long as the ring is large and counts messages: 4,097 here.
// A turn of the publisher's loop makes one, so a peer that stands still for many more turns misses some for certain.
test('SIGSTOP of a node for 5 seconds under 20,000 emits a second: more than a queue holds, and nothing is lost', {
  skip: sanitized && 'AddressSanitizer keeps freed memory, so the size of the process says nothing',
}, async (t) => {
  const RATE = 20000;
  const RING_BYTES = 268435456;
  const QUEUE = RING_BYTES / 65536 + 1;
  const EVENT_BYTES = 256; // in the ring, with what is around it
  const bus = await startBus(t, 3, { ringBytes: RING_BYTES });
  const targets = targetsOf(bus).slice(0, 3);
  const [publisher, , stopped] = await bus.nodes();
  const counters = async () => Object.fromEntries(await Promise.all(['holes', 'repairs_asked', 'lost', 'duplicates']
    .map(async (name) => [name, await metric(targets[2], `starling_mesh_${name}_total`)])));
  const statusOf = (key) => Number(fs.readFileSync(`/proc/${publisher.pid}/status`, 'utf8').match(`${key}:\\s+(\\d+)`)[1]);
  const residentBytes = () => statusOf('VmRSS') * 1024;
  const turns = () => statusOf('voluntary_ctxt_switches'); // at least: a wait for input that had to wait

  const traffic = await startTraffic(t, targets, { clients: 60, roomSize: 3, rate: RATE, mute: ['node-1', 'node-2'] });
  await traffic.more(RATE / 2);
  assert.equal((await counters()).holes, 0);
  const before = { bytes: residentBytes(), turns: turns(), sent: traffic.sent };
  let most = 0;
  process.kill(stopped.pid, 'SIGSTOP');
  try {
    await traffic.until(() => {
      most = Math.max(most, residentBytes());
      return traffic.sent >= before.sent + 5 * RATE && turns() >= before.turns + 2 * QUEUE;
    }, 'the queue to overflow');
    t.diagnostic(`at least ${turns() - before.turns} messages for a queue of ${QUEUE}`);
  } finally {
    process.kill(stopped.pid, 'SIGCONT');
  }
  await traffic.more(RATE);
  const report = await traffic.finish();
  most = Math.max(most, residentBytes());
  const after = await counters();
  t.diagnostic(`${JSON.stringify(after)}; between the others at most ${worstMs(report, ['node-0', 'node-1'])} ms`);
  t.diagnostic(`the publisher grew by ${Math.round((most - before.bytes) / 1048576)} MiB`);
  assertWhole(t, report);
  assert.ok(after.holes > 0);
  assert.ok(after.repairs_asked > 0);
  assert.equal(after.lost, 0);
  assert.ok(most < before.bytes + 2 * EVENT_BYTES * report.sent, 'the ring has all of it, the queue no more');
});
