// Three hosts, two nodes on each, one bus: found by each other in any order, cut off and healed under traffic.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { startBus, temporary } from '../support/bus.mjs';
import { metricOf } from '../support/clients.mjs';
import { startHosts, whyNoHosts } from '../support/hosts.mjs';
import { afterwards, eventually, root, sanitized, sleep, whileRunning } from '../support/servers.mjs';
import { LOAD, assertDeclared, assertUndisturbed, assertWhole, startTraffic, summary } from '../support/traffic.mjs';

const PORT = 7700; // on every host: its network is its own
const NODES = 2;
const MESH_PORT = PORT + 200; // of node 0
const SECOND = LOAD.rate; // events

const skip = await whyNoHosts();
const skipLater = skip || (sanitized && 'what is still to do need not fail twice');
const meshPorts = (host) => Array.from({ length: NODES }, (_, k) => `${host.address}:${MESH_PORT + k}`);
const targetsOf = (host) => Array.from({ length: NODES }, (_, k) =>
  ({ name: `${host.name}-${k}`, port: PORT + 1 + k, netns: host.netns, host }));
const namesOf = (...hosts) => hosts.flatMap(targetsOf).map(({ name }) => name);

const metric = async ({ host, port }, name) =>
  metricOf(await host.run('curl', '--fail', '--silent', '--show-error', `http://127.0.0.1:${port}/metrics`), name);

const startHost = (t, host, peers) => startBus(t, NODES, {
  prefix: host.prefix, port: PORT, bind: '0.0.0.0', insecure: true, advertise: host.address, peers: peers.join(','),
});

async function allHearEachOther(hosts) {
  for (const target of hosts.flatMap(targetsOf)) {
    await eventually(async () => await metric(target, 'starling_mesh_peers') === hosts.length * NODES - 1,
      `${target.name} to hear all others`);
  }
}

function shuffled(list) {
  const order = [...list];
  for (let i = order.length - 1; i > 0; i--) {
    const k = Math.floor(Math.random() * (i + 1));
    [order[i], order[k]] = [order[k], order[i]];
  }
  return order;
}

// Each host is told of all the others, or of one.
async function startAll(t, hosts, peersOf) {
  const order = shuffled(hosts);
  t.diagnostic(`started in the order ${order.map(({ name }) => name)}`);
  const starts = new Map();
  for (const host of order) {
    starts.set(host, startHost(t, host, peersOf(host)));
    await sleep(Math.random() * 300); // any two may find each other halfway
  }
  await Promise.all(starts.values());
  await allHearEachOther(hosts);
  return Promise.all(hosts.map((host) => starts.get(host)));
}

const everyOther = (hosts) => (host) => hosts.filter((other) => other !== host).flatMap(meshPorts);

// Connections that lie between two hosts are not noticed to be broken yet, and not made anew.

test('a host that is cut off for 4 seconds disturbs nobody else, and gets what it missed', { skip }, async (t) => {
  const hosts = await startHosts(t, ['a', 'b', 'c']);
  const [a, b, c] = hosts;
  await startAll(t, hosts, everyOther(hosts));
  const traffic = await startTraffic(t, hosts.flatMap(targetsOf));
  await traffic.more(SECOND / 2);
  await c.cut();
  await traffic.more(4 * SECOND);
  assert.equal(await metric(targetsOf(a)[0], 'starling_mesh_peers'), 2 * NODES - 1, 'the others have noticed it');
  assert.equal(await metric(targetsOf(c)[0], 'starling_mesh_peers'), NODES - 1, 'it has noticed it');
  await c.heal();
  await traffic.more(SECOND);
  const report = await traffic.finish();
  t.diagnostic(summary(report));
  assertUndisturbed(t, report, namesOf(a, b));
  assertUndisturbed(t, report, namesOf(c)); // among themselves
  assertDeclared(report);
  await allHearEachOther(hosts);
  await t.test('the rings hold more than 4 seconds, so all of it is repaired', () => assertWhole(t, report));
});

// No packet tells the others: their connections to it look whole until they are used.
test('a host that loses its power is heard again when it is back', { skip: skipLater }, async (t) => {
  const hosts = await startHosts(t, ['a', 'b', 'c']);
  const [a, b, c] = hosts;
  const [, , lost] = await startAll(t, hosts, everyOther(hosts));
  const traffic = await startTraffic(t, [a, b].flatMap(targetsOf));
  await traffic.more(SECOND / 2);
  await c.cut();
  await lost.kill();
  await traffic.more(2 * SECOND);
  for (const target of [a, b].flatMap(targetsOf)) {
    assert.equal(await metric(target, 'starling_mesh_peers'), 2 * NODES - 1, 'it counts as dead');
  }
  await c.replace();
  await startHost(t, c, everyOther(hosts)(c));
  await traffic.more(SECOND);
  const report = await traffic.finish();
  assertWhole(t, report);
  assertUndisturbed(t, report, namesOf(a, b));
  await allHearEachOther(hosts);
  const again = await startTraffic(t, hosts.flatMap(targetsOf));
  await again.more(SECOND);
  assertWhole(t, await again.finish());
});

test('hosts that are told of one other find all', { skip }, async (t) => {
  const hosts = await startHosts(t, ['a', 'b', 'c']);
  const [a, b, c] = hosts;
  const next = new Map([[a, b], [b, c], [c, a]]);
  await startAll(t, hosts, (host) => meshPorts(next.get(host)).slice(0, 1));
  const traffic = await startTraffic(t, hosts.flatMap(targetsOf), { clients: 120 });
  await traffic.more(SECOND);
  assertWhole(t, await traffic.finish());
});

test('the two hosts of deploy/two-hosts are one bus, with the Redis of deploy/redis.conf', { skip }, async (t) => {
  const hosts = await startHosts(t, ['a', 'b']);
  const sample = (name) => path.join(root, 'deploy', name);
  const redis = spawn('ip', [...hosts[0].prefix.slice(1), 'redis-server', sample('redis.conf'), '--dir', temporary(t)]);
  whileRunning(redis);
  afterwards(t, () => redis.kill('SIGKILL'));
  const ask = (...question) => hosts[0].run('redis-cli', '-h', hosts[0].address, '-a', 'change-me', '--no-auth-warning', ...question);
  await eventually(() => ask('ping').then((answer) => answer === 'PONG\n', () => false), 'Redis to answer');
  assert.equal(await ask('config', 'get', 'maxmemory-policy'), 'maxmemory-policy\nnoeviction\n');
  await Promise.all(hosts.map((host) => startBus(t, NODES, {
    prefix: host.prefix, port: PORT, config: sample(`two-hosts/host-${host.name}.conf`),
  })));
  await allHearEachOther(hosts);
  const traffic = await startTraffic(t, hosts.flatMap(targetsOf), { clients: 120 });
  await traffic.more(SECOND);
  assertWhole(t, await traffic.finish());
});
