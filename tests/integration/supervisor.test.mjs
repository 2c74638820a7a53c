// `starling up` and the verbs that find it: what they print, what they refuse, and what becomes of the processes.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test as plainTest } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, freePort, PATIENCE_MS } from '../support/servers.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const bin = path.resolve(root, process.env.STARLING_BIN ?? 'build/release/bin');
const starling = path.join(bin, 'starling');

const test = (name, body) => plainTest(name, { timeout: 120000 }, body);

const alive = (pid) => {
  try {
    return fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1][0] !== 'Z';
  } catch {
    return false;
  }
};

const temporary = (context) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'starling-test-'));
  context.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
};

function run(...parameters) {
  const { status, stdout, stderr } = spawnSync(starling, parameters, { encoding: 'utf8', timeout: PATIENCE_MS });
  return { status, stdout, stderr };
}

// Two free ports in a row: the public one and the node's own.
async function freePair() {
  for (;;) {
    const port = await freePort();
    const check = spawnSync(process.execPath, ['-e',
      `require('net').createServer().on('error', () => process.exit(1)).listen(${port + 1}, '127.0.0.1', () => process.exit(0))`]);
    if (check.status === 0) return port;
  }
}

// Starts `starling up` without waiting for anything.
async function begin(context, parameters = [], { program = starling, runDir } = {}) {
  const port = await freePair();
  runDir ??= path.join(temporary(context), 'run');
  const child = spawn(program, ['up', '--port', String(port), '--run-dir', runDir, ...parameters]);
  const bus = { port, runDir, pid: child.pid, stdout: '', stderr: '', child };
  child.stdout.on('data', (data) => { bus.stdout += data; });
  child.stderr.on('data', (data) => { bus.stderr += data; });
  bus.ended = new Promise((resolve) => {
    child.on('close', (code, signal) => resolve(signal ?? code));
    child.on('error', (error) => {
      bus.stderr += error;
      resolve(String(error));
    });
  });
  bus.ps = () => {
    const { status, stdout } = run('ps', '--json', '--run-dir', runDir);
    return status === 0 ? JSON.parse(stdout) : undefined;
  };
  bus.node = () => bus.ps()?.nodes[0];
  context.after(async () => {
    child.kill('SIGTERM');
    await bus.ended;
  });
  return bus;
}

async function up(context, parameters, options) {
  const bus = await begin(context, parameters, options);
  let end;
  bus.ended.then((how) => { end = how; });
  await eventually(() => {
    if (end !== undefined) throw new Error(`the bus ended at its start (${end}): ${bus.stderr}`);
    return bus.stdout.includes('\nready: ');
  }, 'the bus to be ready');
  return bus;
}

test('up says on standard output when the node and the bus are ready, and nothing else', async (t) => {
  const bus = await up(t);
  const [first, second, ...rest] = bus.stdout.split('\n');
  const found = first.match(/^node 0: ready http:\/\/127\.0\.0\.1:(\d+) pid (\d+) core (\d+)$/);
  assert.ok(found, first);
  assert.equal(Number(found[1]), bus.port + 1);
  assert.ok(alive(Number(found[2])));
  const allowed = fs.readFileSync(`/proc/${found[2]}/status`, 'utf8').match(/Cpus_allowed_list:\t(.*)/)[1];
  assert.equal(allowed, found[3]);
  assert.equal(second, `ready: http://127.0.0.1:${bus.port}`);
  assert.deepEqual(rest, ['']);
  for (const port of [bus.port, bus.port + 1]) {
    assert.equal((await fetch(`http://127.0.0.1:${port}/readyz`)).status, 200);
  }
});

test('ps --json has the fields that scripts rely on', async (t) => {
  const bus = await up(t, ['--no-pin']);
  const found = bus.ps();
  assert.deepEqual(found.supervisor, { pid: bus.pid });
  assert.equal(found.redis, null);
  assert.equal(found.nodes.length, 1);
  const { pid, uptime_s, cpu_pct, rss_bytes, ...rest } = found.nodes[0];
  assert.deepEqual(rest, {
    index: 0, core: null, port: bus.port + 1, state: 'ready', restarts: 0, sessions: 0, emits_per_s: 0,
  });
  assert.ok(alive(pid) && uptime_s >= 0 && cpu_pct >= 0 && rss_bytes > 1000000);
  assert.match(run('ps', '--run-dir', bus.runDir).stdout, /^NODE +PID .*\n +0 +\d+ .*ready.*\n$/);
});

test('emit reaches the HTTP API of the bus that the run directory names', async (t) => {
  const bus = await up(t);
  const sent = run('emit', '--run-dir', bus.runDir, 'room', 'event', '1e999', '{"a":["é"]}');
  assert.equal(sent.status, 0, sent.stderr);
  assert.equal(JSON.parse(sent.stdout).ok, true);
  assert.equal(run('emit', '--port', String(bus.port), '', 'event').status, 0);
  const refused = run('emit', '--port', String(bus.port), '--ns', 'x', 'room', 'event');
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /answered 400: ns/);
  const bad = run('emit', '--port', String(bus.port), 'room', 'event', 'text');
  assert.deepEqual([bad.status, bad.stderr],
    [2, 'starling emit: arguments are JSON (a text is \'"text"\'), not text\n']);
  const nobody = run('emit', '--port', String(await freePort()), 'room', 'event');
  assert.deepEqual([nobody.status, /Connection refused/.test(nobody.stderr)], [1, true]);
});

test('stop ends the bus with exit code 0 and leaves no process and no state', async (t) => {
  const bus = await up(t);
  const { pid } = bus.node();
  assert.deepEqual(run('stop', '--run-dir', bus.runDir), { status: 0, stdout: '', stderr: '' });
  assert.equal(await bus.ended, 0);
  assert.ok(!alive(pid));
  assert.deepEqual(fs.readdirSync(bus.runDir), ['starling.pid']);
  for (const verb of ['stop', 'ps']) {
    assert.deepEqual(run(verb, '--run-dir', bus.runDir), {
      status: 1, stdout: '', stderr: `starling ${verb}: no bus runs with the run directory ${bus.runDir}\n`,
    });
  }
});

test('a node that is killed starts again', async (t) => {
  const bus = await up(t);
  const { pid } = bus.node();
  process.kill(pid, 'SIGKILL');
  const next = await eventually(() => {
    const node = bus.node();
    return node?.state === 'ready' && node.pid !== pid && node;
  }, 'the next process');
  assert.equal(next.restarts, 1);
  await eventually(() => bus.stderr.includes(`node 0: pid ${pid} ended with signal 9`), 'the message');
  await eventually(() => bus.stdout.match(/^node 0: ready/gm).length === 2, 'the second line of the node');
  assert.equal(bus.stdout.match(/^ready: /gm).length, 1);
});

test('a node that does not heed SIGTERM is killed', async (t) => {
  const bus = await up(t);
  const { pid } = bus.node();
  process.kill(pid, 'SIGSTOP');
  bus.child.kill('SIGINT');
  assert.equal(await bus.ended, 0);
  assert.ok(!alive(pid));
});

test('a supervisor that is killed takes its node along', async (t) => {
  const bus = await up(t);
  const { pid } = bus.node();
  bus.child.kill('SIGKILL');
  assert.equal(await bus.ended, 'SIGKILL');
  await eventually(() => !alive(pid), 'the end of the node');
  assert.equal(bus.ps(), undefined);
});

test('one run directory has one bus; after a crash it is free again', async (t) => {
  const bus = await up(t);
  const second = run('up', '--port', String(await freePair()), '--run-dir', bus.runDir);
  assert.equal(second.status, 1);
  assert.match(second.stderr, new RegExp(`a bus runs already with the run directory .* \\(pid ${bus.pid}\\)`));
  bus.child.kill('SIGKILL');
  await bus.ended;
  await up(t, [], { runDir: bus.runDir });
});

test('a run directory that others may write to is refused', async (t) => {
  const runDir = temporary(t);
  fs.chmodSync(runDir, 0o777);
  const { status, stderr } = run('up', '--run-dir', runDir);
  assert.deepEqual([status, stderr],
    [1, `starling up: cannot use the run directory ${runDir}: other users may write to it\n`]);
});

test('a port that is taken is named at once', async (t) => {
  const bus = await up(t);
  const runDir = path.join(temporary(t), 'run');
  for (const port of [bus.port, bus.port - 1]) {
    const { status, stderr } = run('up', '--port', String(port), '--run-dir', runDir);
    assert.deepEqual([status, stderr], [1,
      `starling up: port ${bus.port} is taken by another program on 127.0.0.1; --port takes another one\n`]);
  }
});

test('options come from a file as well, and reach the node', async (t) => {
  const file = path.join(temporary(t), 'starling.conf');
  fs.writeFileSync(file, '# test\nping-interval = 1234\npath = /bus/\n');
  const bus = await up(t, ['--config', file, '--max-payload', '4321']);
  const text = await (await fetch(`http://127.0.0.1:${bus.port}/bus/?EIO=4&transport=polling`)).text();
  const { pingInterval, maxPayload } = JSON.parse(text.slice(1));
  assert.deepEqual([pingInterval, maxPayload], [1234, 4321]);
});

test('a node that never comes up is given up after five deaths', async (t) => {
  const folder = temporary(t);
  fs.copyFileSync(starling, path.join(folder, 'starling'));
  fs.writeFileSync(path.join(folder, 'starling-node'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  const bus = await begin(t, [], { program: path.join(folder, 'starling') });
  assert.equal(await bus.ended, 1);
  assert.equal(bus.stderr.match(/ended with exit code 1/g).length, 5);
  assert.match(bus.stderr, /died five times in a row within its first second; giving up\n$/);
});

test('what is not in this version is refused by its name', () => {
  for (const [parameters, message] of [
    [['up', '-n', '2'], 'starling up: --nodes takes 1 (several nodes are not in this version), not "2"\n'],
    [['up', '--detach'],
      'starling up: --detach takes only "no" (it is not in this version: use a service manager), not "yes"\n'],
    [['up', '--bind', '0.0.0.0'],
      'starling up: --bind 0.0.0.0 would let everyone who reaches that address do everything: authentication is not '
      + 'configured (it is not in this version); --insecure accepts that\n'],
    [['up', '--port', 'x'], 'starling up: --port takes a number from 1 to 65535, not "x"\n'],
    [['ps', '--port', '1'], 'starling ps: unknown option --port (see starling --help)\n'],
    [['stop', 'now'], 'starling stop: unexpected argument now (see starling --help)\n'],
    [['scale', '2'], 'starling: unknown command scale (see starling --help)\n'],
    [['emit', 'room'], 'starling emit: takes a room, an event and its arguments\n'],
  ]) {
    assert.deepEqual(run(...parameters), { status: 2, stdout: '', stderr: message });
  }
});

test('help, version and the page of options', () => {
  const version = fs.readFileSync(path.join(root, 'CMakeLists.txt'), 'utf8').match(/VERSION (\d+\.\d+\.\d+)/)[1];
  assert.deepEqual(run('--version'), { status: 0, stdout: `starling ${version}\n`, stderr: '' });
  for (const parameters of [['--help'], ['up', '--help'], ['ps', '--help']]) {
    const { status, stdout, stderr } = run(...parameters);
    assert.deepEqual([status, stderr, stdout.startsWith('usage: starling ')], [0, '', true]);
  }
  const page = run('config', '--reference').stdout;
  const keys = [...fs.readFileSync(path.join(root, 'nodes/config.def'), 'utf8').matchAll(/^X\(\w+, \w+, "([\w-]+)"/gm)];
  assert.ok(keys.length > 25);
  for (const [, key] of keys) assert.ok(page.includes(`| \`${key}\` |`), key);
});
