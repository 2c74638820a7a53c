// What happens to the traffic of four nodes of one host while their processes are killed and frozen.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { alive, startBus } from '../support/bus.mjs';
import { metric } from '../support/clients.mjs';
import { eventually } from '../support/servers.mjs';
import { LOAD, assertUndisturbed, assertWhole, startTraffic } from '../support/traffic.mjs';

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
