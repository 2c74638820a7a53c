// What the bus knows of machines outlives all of its nodes, in Redis.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCluster } from '../support/cluster.mjs';
import { startAgent } from '../support/dashboard.mjs';
import { commandCalls, startRedis } from '../support/redis.mjs';
import { eventually } from '../support/servers.mjs';

const get = async (node, query = '') => (await fetch(`${node.origin}/api/v1/machines${query}`)).json();

// The known seconds of a machine: time -> busy.
async function seconds(node, id) {
  const { from_ms: from, step_ms: step, cpu_busy: busy } = await get(node, `?history=seconds&id=${id}`);
  return new Map(busy.map((value, i) => [from + i * step, value]).filter(([, value]) => value !== null));
}

test('a dashboard has the history of machines when the whole cluster was started anew', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, { recovery: 120000, redis: redis.url });
  const monitor = startAgent(t, cluster.nodes[0], 'watched');
  let id;
  await eventually(async () => {
    const { machines } = await get(cluster.nodes[1]);
    id = machines[0]?.id;
    return machines[0]?.description && (await seconds(cluster.nodes[1], id)).size >= 5;
  }, 'both nodes to know the machine');
  await eventually(async () => await redis.cli('hlen', `starling:{starling}:machine:${id}`) >= 4, 'Redis to have it');
  const before = await seconds(cluster.nodes[0], id);
  const stored = Number((await redis.cli('hlen', `starling:{starling}:machine:${id}`)));
  // One write each ten seconds, and by one of the nodes only.
  assert.ok(stored <= 10, `${stored} fields`);

  await monitor.stop();
  await Promise.all(cluster.nodes.map((node) => node.kill()));
  const down = Date.now();
  await Promise.all([0, 1].map((k) => cluster.start(k)));
  for (const node of cluster.nodes) {
    await eventually(async () => (await get(node)).machines.length === 1, 'the machine to be known again');
    const [machine] = (await get(node)).machines;
    assert.deepEqual([machine.id, machine.state, machine.tick, machine.description.name], [id, 'lost', null, 'watched']);
    assert.ok(machine.silent_ms >= Date.now() - down && machine.silent_ms < 60000, `${machine.silent_ms} ms`);
    const after = await seconds(node, id);
    assert.ok(after.size >= 1);
    for (const [at, busy] of after) assert.equal(busy, before.get(at) ?? busy);
    assert.ok([...after.keys()].filter((at) => before.has(at)).length >= 1);
  }

  // It is heard again, at the other node: the past stays, also when that node ends as it should.
  const first = await seconds(cluster.nodes[1], id);
  startAgent(t, cluster.nodes[1], 'watched');
  await eventually(async () => (await get(cluster.nodes[0])).machines[0].state === 'live', 'the machine to be live');
  await eventually(async () => (await seconds(cluster.nodes[0], id)).size >= first.size + 3, 'its history to go on');
  const newest = Math.max(...(await seconds(cluster.nodes[1], id)).keys());
  await cluster.nodes[1].stop();
  await cluster.start(1);
  await eventually(async () => (await seconds(cluster.nodes[1], id).catch(() => new Map())).has(newest), 'what was said last');
  const whole = await seconds(cluster.nodes[1], id);
  for (const at of first.keys()) assert.ok(whole.has(at), `${at} is missing`);
  const calls = await commandCalls(redis);
  assert.ok((calls.keys ?? 0) + (calls.scan ?? 0) === 0);
});
