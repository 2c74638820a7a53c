// Recovery while harm comes to Redis, and with nothing but Redis left.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { startBus, temporary } from '../support/bus.mjs';
import { call, metric, occurrence } from '../support/clients.mjs';
import { startCluster } from '../support/cluster.mjs';
import { comer, emit, emitAll, range } from '../support/comer.mjs';
import { offsetOf } from '../support/flocks.mjs';
import { commandCalls, startRedis, startSentinels } from '../support/redis.mjs';
import { eventually, freePort } from '../support/servers.mjs';
import { request } from '../support/wire.mjs';

const withRedis = (redis, options) => ({ recovery: 120000, redis: redis.url, ...options });
const storeIsUp = (node) => eventually(async () => await metric(node, 'starling_store_up') === 1, 'the store to be up');
const storeIsDown = (node) => eventually(async () => await metric(node, 'starling_store_up') === 0, 'the store to be down');
const mirrored = (node) => eventually(async () => await metric(node, 'starling_mirror_behind') === 0, 'the mirror to have all');

// Kills the node of one, lets others say the missed events, and brings it back at another node.
async function killUnder(one, cluster, { to, room, missed }) {
  const times = one.connects().length + 1;
  one.gate.shut = true;
  await one.gate.server.kill();
  await eventually(() => !one.socket.connected, 'the client to notice');
  await emitAll(to, room, missed);
  one.gate.server = to;
  one.gate.shut = false;
  return one.back(times);
}

// All nodes end, as they do when they are told to, or at once; then as many new ones start.
for (const how of ['stop', 'kill']) {
  test(`all nodes are gone at once (${how}), and new ones recover everybody from Redis alone`, async (t) => {
    const redis = await startRedis(t);
    const cluster = await startCluster(t, 3, withRedis(redis));
    const all = [];
    for (let i = 0; i < 9; i++) all.push(await comer(t, cluster.nodes[i % 3], { rooms: ['r', `own-${i}`] }));
    await emitAll(cluster.nodes[0], 'r', [1, 2]);
    for (const one of all) await one.has(2);
    for (const one of all) one.gate.shut = true;
    all[0].gate.cut(); // away before the end: it misses these
    await eventually(() => !all[0].socket.connected, 'it to be gone');
    await emit(cluster.nodes[1], { to: 'r', args: [3], confirm: 'mirror' });
    await emit(cluster.nodes[2], { to: ['own-0', 'own-1'], args: ['own'], confirm: 'mirror' });
    for (const one of all.slice(1)) await one.has(3);
    await all[1].has(4);
    await Promise.all(cluster.nodes.map((node) => node[how]()));
    await eventually(() => all.every(({ socket }) => !socket.connected), 'all to be gone');
    for (let k = 0; k < 3; k++) cluster.nodes[k] = undefined;
    cluster.nodes.length = 0;
    await Promise.all([0, 1, 2].map((k) => cluster.start(k)));
    for (const [i, one] of all.entries()) {
      one.gate.server = cluster.nodes[(i + 1) % 3];
      one.gate.shut = false;
    }
    for (const [i, one] of all.entries()) assert.equal(await one.back(2), true, `client ${i}`);
    await emit(cluster.nodes[0], { to: 'r', args: [4] });
    for (const [i, one] of all.entries()) {
      await one.has(i < 2 ? 5 : 4);
      assert.deepEqual(one.events().filter(Number.isInteger), [1, 2, 3, 4], `client ${i}`);
      assert.equal(one.events().filter((each) => each === 'own').length, i < 2 ? 1 : 0);
    }
  });
}

// With its private Redis, which has handed to the kernel what it has answered.
for (const how of ['stopped', 'killed']) {
  test(`a whole bus is ${how} and started again: its own Redis knows`, async (t) => {
    const first = await startBus(t, 2, { recovery: 120000 });
    const one = await comer(t, { port: first.port + 1 }, { rooms: ['r'] });
    await emit({ port: first.port + 2 }, { to: 'r', args: [1], confirm: 'mirror' });
    await one.has(1);
    one.gate.shut = true;
    one.gate.cut();
    await emit({ port: first.port + 2 }, { to: 'r', args: [2], confirm: 'mirror' });
    if (how === 'stopped') {
      process.kill(first.pid, 'SIGTERM');
      await eventually(() => first.ended() !== undefined, 'the bus to end');
    } else {
      await first.kill();
    }
    const second = await startBus(t, 2, { runDir: first.runDir, port: first.port, recovery: 120000 });
    await emit({ port: second.port + 1 }, { to: 'r', args: [3] });
    one.gate.server = { port: second.port };
    one.gate.shut = false;
    assert.equal(await one.back(2), true);
    await one.has(3);
    assert.deepEqual(one.events(), [1, 2, 3]);
  });
}

test('Redis is started again, with nothing in it: everybody is written there anew', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, withRedis(redis));
  const [a, b] = cluster.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  await redis.kill();
  await storeIsDown(a);
  await emitAll(a, 'r', [1, 2]);
  await redis.start();
  await storeIsUp(a);
  await storeIsUp(b);
  await mirrored(a);
  const key = `starling:{starling}:sessions:`;
  await eventually(async () => {
    const tags = (await redis.cli('zrange', 'starling:{starling}:origins', 0, -1)).split('\n').filter(Boolean);
    const counts = await Promise.all(tags.map((tag) => redis.cli('hlen', key + tag.split('-')[0])));
    return counts.some((count) => Number(count) === 1);
  }, 'the session to be written');
  await one.has(2);
  assert.equal(await killUnder(one, cluster, { to: b, room: 'r', missed: [3] }), true);
  await one.has(3);
  assert.deepEqual(one.events(), [1, 2, 3]);
});

test('Redis is away while clients connect, join and come back: nobody waits, and later all is well', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, withRedis(redis));
  const [a, b] = cluster.nodes;
  await redis.kill();
  await storeIsDown(a);
  await storeIsDown(b);
  const began = Date.now();
  const one = await comer(t, a, { rooms: ['r'] });
  const took = Date.now() - began;
  t.diagnostic(`connect and join without Redis took ${took} ms`);
  // The owner lives: it is asked by the mesh.
  one.gate.shut = true;
  one.gate.moveTo(b);
  await occurrence(one.socket, 'disconnect');
  await emitAll(a, 'r', [1, 2]);
  one.gate.shut = false;
  assert.equal(await one.back(2), true);
  await one.join('s');
  await redis.start();
  await storeIsUp(a);
  await storeIsUp(b);
  await one.join('t');
  await eventually(async () => (await commandCalls(redis)).eval > 0, 'Redis to be asked');
  assert.equal(await killUnder(one, cluster, { to: a, room: 's', missed: [3] }), true);
  await one.has(3);
  await emit(a, { to: 't', args: [4] });
  await one.has(4);
  assert.deepEqual(one.events(), [1, 2, 3, 4]);
});

test('SCRIPT FLUSH, and a Redis that is frozen for a moment: nothing is lost', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 3, withRedis(redis));
  const [a, b, c] = cluster.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  await redis.cli('script', 'flush');
  await one.join('s');
  await redis.cli('script', 'flush');
  assert.equal(await killUnder(one, cluster, { to: b, room: 's', missed: [1] }), true);
  await one.has(1);
  process.kill(redis.pid, 'SIGSTOP');
  try {
    await emitAll(c, 'r', [2, 3]);
    await one.has(3);
  } finally {
    process.kill(redis.pid, 'SIGCONT');
  }
  await one.join('u');
  assert.equal(await killUnder(one, cluster, { to: c, room: 'u', missed: [4] }), true);
  await one.has(4);
  assert.deepEqual(one.events(), [1, 2, 3, 4]);
});

test('Redis is away when the owner dies: a new session, and no error', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, withRedis(redis));
  const [, b] = cluster.nodes;
  const one = await comer(t, cluster.nodes[0], { rooms: ['r'] });
  await redis.kill();
  await storeIsDown(b);
  assert.equal(await killUnder(one, cluster, { to: b, room: 'r', missed: [1] }), false);
  assert.deepEqual(one.events(), []);
  await one.join('r');
  await emit(b, { to: 'r', args: [2] });
  await one.has(1);
});

test('a fail-over by Sentinel is followed, and sessions are recovered after it', async (t) => {
  const sentinels = await startSentinels(t);
  const cluster = await startCluster(t, 3, { recovery: 120000, redis: sentinels.url });
  const [a, b, c] = cluster.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  await emit(a, { to: 'r', args: [1], confirm: 'mirror' });
  await one.has(1);
  await sentinels.master.kill();
  await sentinels.failedOver();
  for (const node of cluster.nodes) await storeIsUp(node);
  await one.join('s');
  await emit(b, { to: 'r', args: [2], confirm: 'mirror' });
  await one.has(2);
  assert.equal(await killUnder(one, cluster, { to: c, room: 's', missed: [3] }), true);
  await one.has(3);
  assert.deepEqual(one.events(), [1, 2, 3]);
});

test('a node that starts reads the past, and gives it to who comes back there', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, withRedis(redis));
  const one = await comer(t, cluster.nodes[0], { rooms: ['r'] });
  one.gate.shut = true;
  one.gate.cut();
  await eventually(() => !one.socket.connected, 'it to be gone');
  await emitAll(cluster.nodes[0], 'r', range(1, 20));
  await emitAll(cluster.nodes[1], 'r', range(21, 40));
  for (const node of cluster.nodes) await mirrored(node);
  await Promise.all(cluster.nodes.map((node) => node.kill()));
  cluster.nodes.length = 0;
  const fresh = await cluster.start(0, [0]);
  one.gate.server = fresh;
  one.gate.shut = false;
  assert.equal(await one.back(2), true);
  await one.has(40);
  assert.deepEqual([...one.events()].sort((x, y) => x - y), range(1, 40));
});

test('rolling reload: everybody comes back to a new node, with all rooms, and misses nothing', async (t) => {
  const redis = await startRedis(t);
  const bus = await startBus(t, 2, { redis: redis.url, recovery: 120000 });
  const clients = [];
  for (let i = 0; i < 12; i++) clients.push(await comer(t, { port: bus.port }, { rooms: ['r', `own-${i}`] }));
  const before = (await bus.nodes()).map(({ pid }) => pid);
  let sent = 0;
  let going = true;
  const sender = (async () => {
    while (going) {
      await emit({ port: bus.port }, { to: 'r', args: [++sent] }).catch(() => { /* of a node that went */ });
    }
  })();
  const { execFile } = await import('node:child_process');
  const { promisify } = await import('node:util');
  const { starling } = await import('../support/up.mjs');
  await promisify(execFile)(starling, ['reload', '--run-dir', bus.runDir]);
  going = false;
  await sender;
  const after = (await bus.nodes()).map(({ pid }) => pid);
  assert.ok(after.every((pid) => !before.includes(pid)));
  await emit({ port: bus.port }, { to: 'r', args: ['end'], confirm: 'mesh' });
  for (const one of clients) await eventually(() => one.events().includes('end'), 'the end');
  const reference = clients[0].events();
  for (const [i, one] of clients.entries()) {
    const got = one.events();
    assert.equal(new Set(got).size, got.length, `client ${i}: none twice`);
    assert.deepEqual(new Set(got), new Set(reference), `client ${i}`);
    assert.ok(one.connects().slice(1).every(({ connect }) => connect === true), `client ${i} is recovered each time`);
    assert.ok(one.connects().length > 1);
    const { ok } = await call(one.socket, 'bus:emit', { to: `own-${i}`, event: 'own', args: [i], echo: true });
    assert.ok(ok);
    await one.has(1, 'own');
  }
});

// Each is named in the log and seen from outside, nobody waits, and when it is over all is as it was.
test('Redis is full, has no disk, too few replicas, foreign keys, or may not be written: named, and over when it is over', async (t) => {
  const data = temporary(t);
  const redis = await startRedis(t, { persistent: true, options: ['--dir', data, '--appendonly', 'no'] });
  const cluster = await startCluster(t, 2, withRedis(redis));
  const [a, b] = cluster.nodes;
  const readyz = async (node) => (await fetch(`${node.origin}/readyz`)).json();
  const settings = (...words) => redis.cli('config', 'set', ...words);
  const { tag } = await offsetOf(t, a.port);
  const key = `starling:{starling}:sessions:${tag.toString(16).padStart(6, '0')}`;
  const troubles = [
    ['OOM', () => settings('maxmemory', 1), () => settings('maxmemory', 0)],
    ['MISCONF', async () => {
      fs.rmSync(data, { recursive: true });
      await settings('save', '1 1');
      await redis.cli('bgsave').catch(() => {});
      await eventually(async () => /rdb_last_bgsave_status:err/.test(await redis.cli('info', 'persistence')), 'a failed save');
    }, () => settings('save', '')],
    ['NOREPLICAS', () => settings('min-replicas-to-write', 1), () => settings('min-replicas-to-write', 0)],
    ['WRONGTYPE', () => redis.cli('set', key, 'x'), () => redis.cli('del', key)],
  ];
  const clients = [];
  for (const [kind, begin, end] of troubles) {
    await eventually(async () => (await readyz(a)).degraded === undefined, 'all to be well');
    await begin();
    const began = Date.now();
    const one = await comer(t, a, { rooms: [`room-${kind}`] });
    t.diagnostic(`${kind}: connect and join took ${Date.now() - began} ms`);
    await eventually(async () => (await readyz(a)).degraded === 'the store refuses', `${kind} to be seen`);
    assert.equal(await metric(a, 'starling_store_refuses'), 1);
    assert.ok((await request(a, { target: '/metrics' })).text.match(new RegExp(`starling_store_errors_total\\{kind="${kind}"\\} [1-9]`)), kind);
    await eventually(() => new RegExp(`store_refuses.*${kind}`).test(a.output()), `${kind} in the log`);
    await emit(b, { to: `room-${kind}`, args: [kind] });
    await one.has(1);
    await end();
    clients.push(one);
  }
  await eventually(async () => (await readyz(a)).degraded === undefined, 'all to be well');
  assert.equal(await metric(a, 'starling_store_refuses'), 0);
  assert.equal(await metric(a, 'starling_store_up'), 1);
  await eventually(async () => Number(await redis.cli('hlen', key)) >= troubles.length, 'the sessions to be written');
  await mirrored(a);
  // Read-only: it has become somebody's replica, and is looked for elsewhere.
  await redis.cli('replicaof', '127.0.0.1', 1);
  await eventually(async () => (await readyz(a)).degraded === 'no store', 'the replica to be seen');
  await redis.cli('replicaof', 'no', 'one');
  await storeIsUp(a);
  await storeIsUp(b);
  await mirrored(a);
  for (const [i, one] of clients.entries()) {
    one.gate.shut = true;
    one.gate.server = b;
    assert.equal(one.events()[0], troubles[i][0]);
  }
  await a.kill();
  await eventually(() => clients.every(({ socket }) => !socket.connected), 'all to be gone');
  for (const [kind] of troubles) await emit(b, { to: `room-${kind}`, args: ['missed'] });
  for (const one of clients) one.gate.shut = false;
  for (const [i, one] of clients.entries()) {
    assert.equal(await one.back(2), true, troubles[i][0]);
    await one.has(2);
    assert.deepEqual(one.events(), [troubles[i][0], 'missed']);
  }
});

test('two clusters in one Redis do not meet', async (t) => {
  const redis = await startRedis(t, { port: await freePort() });
  const first = await startCluster(t, 1, withRedis(redis, { cluster: 'one' }));
  const second = await startCluster(t, 1, withRedis(redis, { cluster: 'two' }));
  const one = await comer(t, first.nodes[0], { rooms: ['r'] });
  one.gate.moveTo(second.nodes[0]);
  assert.equal(await one.back(2), false);
});

test('at most one question to Redis for each client that comes back', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, withRedis(redis));
  const [, b] = cluster.nodes;
  const clients = await Promise.all(Array.from({ length: 30 }, () => comer(t, cluster.nodes[0], { rooms: ['r'] })));
  for (const one of clients) one.gate.shut = true;
  await cluster.nodes[0].kill();
  await eventually(() => clients.every(({ socket }) => !socket.connected), 'all to be gone');
  await redis.cli('config', 'resetstat');
  const began = Date.now();
  for (const one of clients) {
    one.gate.server = b;
    one.gate.shut = false;
  }
  for (const one of clients) assert.equal(await one.back(2), true);
  const seconds = (Date.now() - began) / 1000;
  const { eval: questions = 0 } = await commandCalls(redis);
  // Beside them the node renews its lease once a second.
  assert.ok(questions <= clients.length + seconds + 2, `${questions} questions in ${seconds} s`);
});

// The ring holds a second or so of what is said. 40 clients are away for longer, and come back at once.
test('what the ring does not hold any more comes from Redis: all of it, in order, once', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, withRedis(redis, { ringBytes: 65536 }));
  const [a, b] = cluster.nodes;
  const clients = await Promise.all(range(0, 39).map((i) => comer(t, a, { rooms: [`r${i % 4}`, `own-${i}`] })));
  await emit(a, { to: ['r0', 'r1', 'r2', 'r3'], args: [0] });
  for (const one of clients) await one.has(1);
  for (const one of clients) {
    one.gate.shut = true;
    one.gate.cut();
  }
  await eventually(() => clients.every(({ socket }) => !socket.connected), 'all to be gone');
  const padding = 'x'.repeat(200);
  const sayAll = async (node, from, to) => {
    for (let n = from; n <= to; n++) await emit(node, { to: `r${n % 4}`, args: [n, padding] });
  };
  await Promise.all([sayAll(a, 1, 400), sayAll(b, 401, 800)]);
  await emit(b, { to: 'own-7', args: ['own'], confirm: 'mirror' });
  assert.ok(await metric(b, 'starling_ring_bytes') <= 65536);
  await redis.cli('config', 'resetstat');
  // And it goes on while they come.
  const saying = sayAll(a, 801, 1000);
  for (const one of clients) {
    one.gate.server = b;
    one.gate.shut = false;
  }
  for (const [i, one] of clients.entries()) assert.equal(await one.back(2), true, `client ${i}`);
  await saying;
  await emit(a, { args: ['end'], confirm: 'mesh' });
  for (const [i, one] of clients.entries()) {
    await eventually(() => one.events().at(-1) === 'end', `the end at client ${i}`);
    const numbers = one.events().filter(Number.isInteger);
    const of = (from, to) => range(from, to).filter((n) => n % 4 === i % 4);
    assert.deepEqual(numbers.filter((n) => n <= 400 || n > 800), [0, ...of(1, 400), ...of(801, 1000)], `client ${i}`);
    assert.deepEqual(numbers.filter((n) => n > 400 && n <= 800), of(401, 800), `client ${i}`);
    assert.equal(one.events().filter((each) => each === 'own').length, Number(i === 7));
  }
  const { xrange } = await commandCalls(redis);
  t.diagnostic(`${xrange} questions for ${clients.length} clients, ${await metric(b, 'starling_recovery_read_bytes_total')} bytes read`);
  assert.equal(await metric(b, 'starling_recoveries_read_total'), clients.length);
  assert.equal(await metric(b, 'starling_recovery_held_bytes'), 0);
});

test('what neither the ring nor Redis has: a new session, and no error', async (t) => {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, withRedis(redis, { ringBytes: 65536 }));
  const [a, b] = cluster.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  one.gate.shut = true;
  one.gate.cut();
  await eventually(() => !one.socket.connected, 'it to be gone');
  await emitAll(a, 'r', range(1, 400).map((n) => `${n} ${'x'.repeat(300)}`));
  await mirrored(a);
  const mirrors = (await redis.cli('keys', '*mirror*')).split('\n'); // Redis has lost the oldest, by whatever hand
  for (const key of mirrors) await redis.cli('xtrim', key, 'maxlen', 1);
  one.gate.server = b;
  one.gate.shut = false;
  assert.equal(await one.back(2), false);
  assert.deepEqual(one.events(), []);
  assert.equal(await metric(b, 'starling_recovery_reads_failed_total'), 1);
  await one.join('r');
  await emit(b, { to: 'r', args: ['on'] });
  await one.has(1);
});
