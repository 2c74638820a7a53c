// starling-agent, the machine monitor, against this machine and against what stands for nodes.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, freePort } from '../support/servers.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const agent = path.join(path.resolve(root, process.env.STARLING_BIN ?? 'build/release/bin'), 'starling-agent');
const sinkProgram = path.join(
  path.resolve(root, process.env.STARLING_SUPPORT ?? 'build/release/support'), 'machine_sink');

const children = new Set();
after(() => { for (const child of children) child.kill('SIGKILL'); });

function start(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  child.ended = new Promise((resolve) => {
    child.on('close', (code, signal) => { children.delete(child); resolve(code ?? signal); });
  });
  child.errors = '';
  child.stderr.on('data', (data) => { child.errors += data; });
  return child;
}

// What a monitor says to it is in `said`, in order.
async function startSink(port, ...more) {
  const sink = start(sinkProgram, [`tcp://127.0.0.1:${port}`, ...more]);
  sink.said = [];
  createInterface({ input: sink.stdout }).on('line', (line) => { sink.said.push(JSON.parse(line)); });
  sink.count = (key) => sink.said.filter((record) => key in record).length;
  await eventually(() => sink.said.length > 0, 'the sink to be ready');
  sink.said.shift();
  return sink;
}

async function end(child, signal = 'SIGKILL') {
  child.kill(signal);
  return child.ended;
}

const run = (...args) => spawnSync(agent, args, { encoding: 'utf8', timeout: 60000 });

test('help, version and what it does not understand', () => {
  const help = run('--help');
  assert.equal(help.status, 0);
  for (const option of ['--nodes', '--interval', '--name', '--print']) assert.match(help.stdout, new RegExp(option));
  assert.match(run('--version').stdout, /^starling-agent \d+\.\d+\.\d+\n$/);
  for (const [args, message] of [
    [['--interval', '99'], /--interval takes .*99/],
    [['--interval'], /--interval takes a value/],
    [['--nodes', '127.0.0.1:7800'], /--nodes takes endpoints/],
    [['--nodes='], /--nodes takes endpoints/],
    [['--name='], /--name takes/],
    [['--colour'], /--colour/],
    [['now'], /now/],
  ]) {
    const { status, stderr } = run(...args);
    assert.equal(status, 2, args.join(' '));
    assert.match(stderr, message);
  }
  const missing = run('--root', '/no/such/place', '--print');
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /\/no\/such\/place/);
});

test('--print shows this machine', () => {
  const { status, stdout } = run('--print', '--interval', '200', '--name', 'mine');
  assert.equal(status, 0);
  const { description, tick } = JSON.parse(stdout);
  assert.equal(description.name, 'mine');
  assert.equal(description.hostname, os.hostname());
  assert.equal(description.kernel, os.release());
  assert.equal(description.cores, os.cpus().length);
  assert.ok(Math.abs(description.host_memory_bytes - os.totalmem()) < 4096);
  assert.equal(tick.id, description.id);
  assert.equal(tick.revision, description.revision);
  assert.ok(tick.elapsed_ms >= 200);
  assert.ok(Math.abs(tick.uptime_s - os.uptime()) < 60);
  assert.ok(tick.cpu.busy_pct >= 0 && tick.cpu.busy_pct <= 100);
  assert.equal(tick.cores.filter(Boolean).length, os.cpus().length);
  assert.ok(tick.memory.available_bytes > 0 && tick.memory.available_bytes <= tick.memory.total_bytes);
  assert.ok(tick.filesystems.some(({ path: at, total_bytes: total }) => at === '/' && total > 0));
  const own = tick.processes.find(({ name }) => name === 'starling-agent');
  assert.ok(own.rss_bytes > 0 && own.threads >= 1);
});

test('a node gets the description once, then ticks, and a farewell', async () => {
  const port = await freePort();
  const monitor = start(agent, ['--nodes', `tcp://127.0.0.1:${port}`, '--interval', '100', '--name', 'm']);
  const sink = await startSink(port); // later than the monitor, which waits for it
  await eventually(() => sink.count('tick') >= 5, 'five ticks');
  assert.deepEqual(sink.said.slice(0, 3).map((record) => Object.keys(record)[0]), ['hello', 'description', 'tick']);
  const { description } = sink.said[1];
  assert.equal(description.name, 'm');
  assert.equal(description.interval_ms, 100);
  const ticks = sink.said.filter(({ tick }) => tick).map(({ tick }) => tick);
  for (const tick of ticks) assert.equal(tick.id, description.id);
  assert.ok(ticks.at(-1).elapsed_ms > 0 && ticks.at(-1).time_ms > ticks[0].time_ms);
  assert.equal(sink.count('description'), new Set(
    sink.said.filter(({ description: d }) => d).map(({ description: d }) => d.revision)).size);
  assert.equal(await end(monitor, 'SIGTERM'), 0);
  await eventually(() => sink.count('bye') === 1, 'the farewell');
  assert.equal(sink.count('refused'), 0);
  await end(sink);
});

test('it goes to another node when one is killed or frozen, and back after a restart', async () => {
  const ports = [await freePort(), await freePort()];
  const nodes = ports.map((port) => `tcp://127.0.0.1:${port}`).join();
  let first = await startSink(ports[0]);
  const second = await startSink(ports[1]);
  const monitor = start(agent, ['--nodes', nodes, '--interval', '100']);
  await eventually(() => first.count('tick') >= 2, 'ticks at the first node');
  await end(first);
  await eventually(() => second.count('tick') >= 2, 'ticks at the second node');
  assert.deepEqual(second.said.slice(0, 2).map((record) => Object.keys(record)[0]), ['hello', 'description']);
  first = await startSink(ports[0]);
  second.kill('SIGSTOP');
  await eventually(() => first.count('tick') >= 2, 'ticks at the node that was started again');
  assert.equal(first.count('description'), 1);
  second.kill('SIGCONT');
  assert.match(monitor.errors, /event=silent/);
  assert.equal(await end(monitor, 'SIGINT'), 0);
  await end(first);
  await end(second);
});

test('it sends no more than was granted', async () => {
  const port = await freePort();
  const sink = await startSink(port, '1');
  const monitor = start(agent, ['--nodes', `tcp://127.0.0.1:${port}`, '--interval', '100']);
  await eventually(() => sink.count('description') === 1, 'the description, which may end above the grant');
  await eventually(() => sink.count('heartbeat') >= 2, 'heartbeats, between which several ticks were due');
  assert.equal(await end(monitor, 'SIGTERM'), 0);
  await eventually(() => sink.count('bye') === 1, 'the farewell');
  assert.equal(sink.count('tick'), 0);
  await end(sink);
});
