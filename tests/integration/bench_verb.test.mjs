// `starling bench`, against buses that serve it, refuse it, and die.
import assert from 'node:assert/strict';
import { test as plainTest } from 'node:test';
import { run, up } from '../support/up.mjs';
import { eventually, freePort } from '../support/servers.mjs';

const test = (name, body) => plainTest(name, { timeout: 120000 }, body);

const metric = async (port, name) => {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${name}(?:{.*})? (\\d+)`, 'gm'))].reduce((sum, [, value]) => sum + Number(value), 0);
};
const MEASURES = ['round_trip', 'fan_out', 'emits'];

test('it measures a bus of two nodes, and loses nothing', async (t) => {
  const bus = await up(t, [], { nodes: 2 });
  const { status, stdout, stderr } = bus.run('bench', '--json', '--clients', '10', '--seconds', '1');
  assert.deepEqual([status, stderr], [0, '']);
  const report = JSON.parse(stdout);
  assert.deepEqual([report.url, report.clients, report.payload_bytes, report.seconds], [`http://127.0.0.1:${bus.port}`, 10, 128, 1]);
  for (const name of MEASURES) {
    const { emits_per_s: emits, deliveries_per_s: deliveries, p50_us: p50, p99_us: p99, lost } = report[name];
    assert.ok(emits > 0 && deliveries > 0 && p50 > 0 && p50 <= p99 && p99 < 60e6, `${name}: ${stdout}`);
    assert.equal(lost, 0, name);
  }
  assert.ok(report.fan_out.deliveries_per_s > 5 * report.fan_out.emits_per_s, stdout);
  assert.ok(report.load_pct > 0);
  // What it says it sent has passed the nodes.
  const passed = await metric(bus.port + 1, 'starling_emits_total') + await metric(bus.port + 2, 'starling_emits_total');
  assert.ok(passed >= MEASURES.reduce((sum, name) => sum + report[name].emits_per_s, 0), `${passed}: ${stdout}`);
  await eventually(async () => await metric(bus.port + 1, 'starling_sessions') + await metric(bus.port + 2, 'starling_sessions') === 0,
    'the clients to be gone');
});

test('a table for people, a rate that is kept, a payload that is large, another namespace', async (t) => {
  const bus = await up(t);
  const { status, stdout } = bus.run('bench', '--clients=3', '--seconds', '1', '--rate', '50', '--ns', '/chat');
  assert.equal(status, 0, stdout);
  assert.match(stdout, /\n +EMITS\/S +DELIVERIES\/S +P50_US +P99_US +LOST\nround trip( +\d+){5}\nfan-out( +\d+){5}\nemits( +\d+){5}\n\nThe clients took \d+ % of a core.*\n$/);
  const rates = ['fan-out', 'emits'].map((name) => stdout.match(new RegExp(`\n${name} +(\\d+)`))[1]);
  for (const rate of rates) assert.ok(rate > 0 && rate < 75, stdout); // what a pause of the machine has held up is made up for
  const large = bus.run('bench', '--clients', '3', '--seconds', '1', '--payload', '400000', '--json');
  assert.equal(large.status, 0, large.stderr);
  for (const name of MEASURES) assert.equal(JSON.parse(large.stdout)[name].lost, 0);
});

test('what it refuses, and what refuses it', async (t) => {
  const bus = await up(t, ['--namespaces', '/']);
  const nobody = await freePort();
  for (const [parameters, code, message] of [
    [['--bind', '10.0.0.1'], 2, 'starling bench: --remote allows to load a bus that is not at a loopback address, like 10.0.0.1 (see starling --help)\n'],
    [['--bind', 'host'], 2, 'starling bench: --bind takes an IPv4 address, not host (see starling --help)\n'],
    [['--clients', '1'], 2, 'starling bench: --clients takes a number from 2 to 20000\n'],
    [['now'], 2, 'starling bench: unexpected argument now (see starling --help)\n'],
    [['--json=yes'], 2, 'starling bench: --json takes no value (see starling --help)\n'],
    [['--port', nobody], 1, `starling bench: http://127.0.0.1:${nobody}: client 0: Connection refused\n`],
    [['--port', bus.port, '--path', '/x/'], 1,
      `starling bench: http://127.0.0.1:${bus.port}: client 0: the WebSocket was refused: HTTP/1.1 404 Not Found\n`],
    [['--port', bus.port, '--ns', '/x'], 1,
      `starling bench: http://127.0.0.1:${bus.port}: client 0: the namespace was refused: 44/x,{"message":"Invalid namespace"}\n`],
  ]) {
    const { status, stdout, stderr } = run('bench', ...parameters.map(String));
    // They connect at the same time: any of them may be the first that hears no.
    assert.deepEqual([status, stdout, stderr.replace(/client \d+:/, 'client 0:')], [code, '', message]);
  }
});

test('it says so when the bus goes away', async (t) => {
  const bus = await up(t);
  const running = bus.start('bench', '--clients', '4', '--seconds', '600');
  await eventually(async () => await metric(bus.port + 1, 'starling_emits_total') > 0, 'the load');
  process.kill(bus.node().pid, 'SIGKILL');
  const { code, stdout, stderr } = await running;
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(stderr, /client \d: the bus has closed the connection/);
});
