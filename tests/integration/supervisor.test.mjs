// `starling up` and the verbs that find it: what they print, what they refuse, and what becomes of the processes.
import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test as plainTest } from 'node:test';
import { promisify } from 'node:util';
import { alive, begin, leftovers, listen, portIsFree, root, run, starling, temporary, up } from '../support/up.mjs';
import { eventually, freePort, PATIENCE_MS, sleep } from '../support/servers.mjs';

const test = (name, ...rest) => plainTest(name, { timeout: 120000, ...(rest.length > 1 ? rest[0] : {}) }, rest.at(-1));

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
  assert.deepEqual([found.redis, found.agent], [null, null]);
  assert.equal(found.nodes.length, 1);
  const { pid, uptime_s, cpu_pct, rss_bytes, ...rest } = found.nodes[0];
  assert.deepEqual(rest, {
    index: 0, core: null, port: bus.port + 1, state: 'ready', restarts: 0, sessions: 0, emits_per_s: 0,
  });
  assert.ok(alive(pid) && uptime_s >= 0 && cpu_pct >= 0 && rss_bytes > 1000000);
  assert.match(run('ps', '--run-dir', bus.runDir).stdout, /^ NODE +PID .*\n +0 +\d+ .*ready.*\n$/);
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
  assert.deepEqual(bus.run('stop'), { status: 0, stdout: '', stderr: '' });
  assert.equal(await bus.ended, 0);
  assert.ok(!alive(pid));
  assert.deepEqual(leftovers(bus), ['starling.pid']);
  for (const [verb, ...rest] of [['stop'], ['ps'], ['restart', '0'], ['scale', '2']]) {
    assert.deepEqual(bus.run(verb, ...rest), {
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

const healthy = async (port) => (await fetch(`http://127.0.0.1:${port}/healthz`)).status === 200;

test('nodes go on when their supervisor is killed, and stop ends them', async (t) => {
  const bus = await up(t, [], { nodes: 2 });
  const pids = bus.pids();
  bus.child.kill('SIGKILL');
  await bus.exited;
  for (let i = 0; i < 5; i++) {
    for (const port of [bus.port, bus.port + 1, bus.port + 2]) assert.ok(await healthy(port));
    await sleep(50);
  }
  assert.deepEqual(pids.filter(alive), pids);
  assert.equal(bus.run('ps').status, 1);
  const second = run('up', '-n', '2', '--port', String(bus.port + 10), '--run-dir', bus.runDir);
  assert.deepEqual(second, {
    status: 1,
    stdout: '',
    stderr: `starling up: nodes of a supervisor that is gone still run with the run directory ${bus.runDir} `
      + `on 127.0.0.1 port ${bus.port}; the same --bind and --port take them over, \`starling stop\` ends them\n`,
  });
  assert.deepEqual(pids.filter(alive), pids);
  assert.deepEqual(bus.run('stop'), { status: 0, stdout: '', stderr: '' });
  assert.deepEqual(pids.filter(alive), []);
  assert.deepEqual(leftovers(bus), ['starling.pid']);
  assert.equal(bus.run('stop').status, 1);
  await up(t, [], { runDir: bus.runDir });
});

test('stop also ends a node without a supervisor that does not heed SIGTERM', async (t) => {
  const bus = await up(t);
  const [pid] = bus.pids();
  bus.child.kill('SIGKILL');
  await bus.exited;
  process.kill(pid, 'SIGSTOP');
  assert.equal(bus.run('stop').status, 0);
  assert.ok(!alive(pid));
});

test('a program that got the pid of a lost node is left alone', async (t) => {
  const bus = await up(t);
  const [pid] = bus.pids();
  bus.child.kill('SIGKILL');
  await bus.exited;
  const file = path.join(bus.runDir, 'state.json');
  const state = fs.readFileSync(file, 'utf8');
  const stranger = spawn('sleep', ['1000']);
  t.after(() => stranger.kill());
  fs.writeFileSync(file, state.replace(`"pid":${pid}`, `"pid":${stranger.pid}`));
  assert.equal(bus.run('stop').status, 1);
  assert.ok(alive(stranger.pid) && alive(pid));
  fs.writeFileSync(file, state);
  assert.equal(bus.run('stop').status, 0);
});

test('one run directory has one bus; after a crash without nodes it is free again', async (t) => {
  const bus = await up(t);
  const second = run('up', '--port', String(await freePort()), '--run-dir', bus.runDir);
  assert.equal(second.status, 1);
  assert.match(second.stderr, new RegExp(`a bus runs already with the run directory .* \\(pid ${bus.pid}\\)`));
  const [pid] = bus.pids();
  bus.child.kill('SIGKILL');
  await bus.exited;
  process.kill(pid, 'SIGKILL');
  await eventually(() => !alive(pid), 'the end of the node');
  await up(t, [], { runDir: bus.runDir });
});

test('several nodes: a line each, and one when all are ready', async (t) => {
  const bus = await up(t, [], { nodes: 3 });
  const lines = bus.stdout.trimEnd().split('\n');
  assert.equal(lines.length, 4);
  assert.equal(lines[3], `ready: http://127.0.0.1:${bus.port}`);
  const { nodes } = bus.ps();
  const cores = os.availableParallelism();
  assert.equal(nodes.length, 3);
  nodes.forEach((node, k) => {
    assert.deepEqual([node.index, node.port, node.state, node.restarts], [k, bus.port + 1 + k, 'ready', 0]);
    assert.equal(node.core, nodes[k % cores].core);
    const line = `node ${k}: ready http://127.0.0.1:${node.port} pid ${node.pid} core ${node.core}`;
    assert.ok(lines.slice(0, 3).includes(line), line);
  });
  assert.equal(new Set(nodes.map(({ core }) => core)).size, Math.min(3, cores));
  for (let i = 0; i <= 3; i++) assert.ok(await healthy(bus.port + i));
  assert.match(bus.run('ps').stdout, /^ NODE +PID .*\n( +\d+ +\d+ .*ready.*\n){3}$/);
});

test('without -n there is a node for each core', async (t) => {
  const count = Math.min(os.availableParallelism(), 99);
  const bus = await up(t, [], { nodes: 0 });
  assert.equal(bus.ps().nodes.length, count);
});

test('ps tells the sessions and the emits of each node', async (t) => {
  const bus = await up(t, [], { nodes: 2 });
  await fetch(`http://127.0.0.1:${bus.port + 2}/socket.io/?EIO=4&transport=polling`);
  let emitting = true;
  const emits = (async () => {
    const body = JSON.stringify({ to: ['room'], event: 'event' });
    while (emitting) await fetch(`http://127.0.0.1:${bus.port + 1}/api/v1/emit`, { method: 'POST', body });
  })();
  const { stdout } = await promisify(execFile)(starling, ['ps', '--json', '--run-dir', bus.runDir]);
  emitting = false;
  await emits;
  const { nodes } = JSON.parse(stdout);
  assert.deepEqual(nodes.map(({ sessions }) => sessions), [0, 1]);
  assert.ok(nodes[0].emits_per_s > 0);
});

test('a node that is killed starts again while the others stay', async (t) => {
  const bus = await up(t, [], { nodes: 3 });
  const before = bus.pids();
  process.kill(before[1], 'SIGKILL');
  const nodes = await eventually(() => {
    const now = bus.ps()?.nodes;
    return now[1].state === 'ready' && now[1].pid !== before[1] && now;
  }, 'the next process');
  assert.deepEqual(nodes.map(({ restarts }) => restarts), [0, 1, 0]);
  assert.deepEqual([nodes[0].pid, nodes[2].pid], [before[0], before[2]]);
  assert.ok(await healthy(bus.port + 2));
});

test('restart ends one node and starts it again', async (t) => {
  const bus = await up(t, [], { nodes: 2 });
  const before = bus.pids();
  assert.deepEqual(bus.run('restart', '1'), { status: 0, stdout: '', stderr: '' });
  const { nodes } = bus.ps();
  assert.deepEqual(nodes.map(({ state, restarts }) => [state, restarts]), [['ready', 0], ['ready', 1]]);
  assert.equal(nodes[0].pid, before[0]);
  assert.ok(!alive(before[1]) && nodes[1].pid !== before[1]);
  assert.deepEqual(bus.run('restart', '2'),
    { status: 1, stdout: '', stderr: 'starling restart: there is no node 2: the last one is 1\n' });
});

test('scale starts nodes, or stops the last ones', async (t) => {
  const bus = await up(t, [], { nodes: 3 });
  const before = bus.pids();
  assert.deepEqual(bus.run('scale', '4'), { status: 0, stdout: '', stderr: '' });
  const more = bus.ps().nodes;
  assert.deepEqual(more.map(({ state, restarts }) => [state, restarts]), Array(4).fill(['ready', 0]));
  assert.deepEqual(more.slice(0, 3).map(({ pid }) => pid), before);
  assert.ok(await healthy(bus.port + 4));
  assert.deepEqual(bus.run('scale', '2'), { status: 0, stdout: '', stderr: '' });
  assert.deepEqual(bus.pids(), before.slice(0, 2));
  assert.ok(!alive(before[2]) && !alive(more[3].pid));
  assert.ok(await portIsFree(bus.port + 3));
  const blocker = await listen(bus.port + 3);
  assert.deepEqual(bus.run('scale', '3'), {
    status: 1,
    stdout: '',
    stderr: `starling scale: port ${bus.port + 3} is taken by another program on 127.0.0.1\n`,
  });
  blocker.close();
  assert.deepEqual(bus.pids(), before.slice(0, 2));
  assert.equal(bus.child.kill('SIGTERM'), true);
  assert.equal(await bus.ended, 0);
});

test('a bus of one node grows', async (t) => {
  const bus = await up(t);
  const [first] = bus.pids();
  assert.deepEqual(bus.run('scale', '2'), { status: 0, stdout: '', stderr: '' });
  assert.equal(bus.pids()[0], first);
  assert.deepEqual(bus.ps().nodes.map(({ state }) => state), ['ready', 'ready']);
});

// Kills the node until somebody else has its port.
async function takePort(bus, index) {
  for (;;) {
    const server = await listen(bus.port + 1 + index);
    if (server) return server;
    const { pid } = bus.node(index);
    if (pid) process.kill(pid, 'SIGKILL');
    await eventually(() => !pid || !alive(pid), 'the end of the node');
  }
}

test('a node that is given up leaves the others running, and restart tries it again', async (t) => {
  const bus = await up(t, [], { nodes: 3 });
  const before = bus.pids();
  const blocker = await takePort(bus, 1);
  t.after(() => blocker.close());
  await eventually(() => bus.node(1).state === 'errored', 'the node to be given up');
  await eventually(() => bus.stderr.includes('node 1: died five times in a row within its first second; giving up\n'),
    'the message');
  const { nodes } = bus.ps();
  assert.deepEqual(nodes.map(({ state }) => state), ['ready', 'errored', 'ready']);
  assert.deepEqual([nodes[0].pid, nodes[1].pid, nodes[2].pid], [before[0], null, before[2]]);
  for (const port of [bus.port, bus.port + 1, bus.port + 3]) assert.ok(await healthy(port));
  await new Promise((resolve) => { blocker.close(resolve); });
  assert.deepEqual(bus.run('restart', '1'), { status: 0, stdout: '', stderr: '' });
  assert.equal(bus.node(1).state, 'ready');
  assert.deepEqual(bus.run('stop'), { status: 0, stdout: '', stderr: '' });
  assert.equal(await bus.ended, 0);
});

test('a run directory that others may write to is refused', async (t) => {
  const runDir = temporary(t);
  fs.chmodSync(runDir, 0o777);
  const { status, stderr } = run('up', '--run-dir', runDir);
  assert.deepEqual([status, stderr],
    [1, `starling up: cannot use the run directory ${runDir}: other users may write to it\n`]);
});

test('another user is told that the bus is not theirs', { skip: process.getuid() !== 0 && 'needs root, to be somebody else' }, async (t) => {
  const bus = await up(t);
  const { status, stderr } = spawnSync(starling, ['ps', '--run-dir', bus.runDir], { encoding: 'utf8', uid: 65534, gid: 65534, cwd: '/' });
  const readOnly = fs.mkdtempSync('/tmp/starling-read-only-');
  t.after(() => fs.rmdirSync(readOnly));
  fs.chownSync(readOnly, 65534, 65534);
  fs.chmodSync(readOnly, 0o500);
  const doctor = spawnSync(starling, ['doctor', '-n', '1', '--port', String(await freePort()), '--run-dir', readOnly],
    { encoding: 'utf8', uid: 65534, gid: 65534, cwd: '/' });
  assert.match(doctor.stdout, /^WRONG run directory +\S+ cannot be written to: Permission denied; chmod 700 it/m);
  assert.deepEqual([status, stderr], [1, `starling ps: cannot look for a bus in the run directory ${bus.runDir}: Permission denied\n`]);
});

test('a port that is taken is named at once', async (t) => {
  const bus = await up(t);
  const runDir = path.join(temporary(t), 'run');
  for (const [port, nodes] of [[bus.port, 1], [bus.port - 1, 1], [bus.port - 3, 3]]) {
    const { status, stderr } = run('up', '-n', String(nodes), '--port', String(port), '--run-dir', runDir);
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

test('a bus whose nodes are all given up ends', async (t) => {
  const folder = temporary(t);
  fs.copyFileSync(starling, path.join(folder, 'starling'));
  fs.writeFileSync(path.join(folder, 'starling-node'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  const bus = await begin(t, [], { program: path.join(folder, 'starling'), nodes: 2 });
  assert.equal(await bus.ended, 1);
  assert.equal(bus.stderr.match(/ended with exit code 1/g).length, 10);
  assert.match(bus.stderr, /died five times in a row within its first second; giving up\n$/);
});

test('what is not in this version is refused by its name', () => {
  for (const [parameters, message] of [
    [['up', '-n', '100'], 'starling up: --nodes takes a number from 0 to 99, not "100"\n'],
    [['up', '-n', '3', '--port', '65533'],
      'starling up: --port takes a lower number with 3 nodes, since they need ports up to 65635\n'],
    [['up', '--run-dir', '/tmp/a,b'],
      'starling up: --run-dir takes up to 80 characters without a comma and a percent sign, not "/tmp/a,b"\n'],
    [['up', '--run-dir', '/tmp/100%'], // it would be an escape in the URL of the redis-server
      'starling up: --run-dir takes up to 80 characters without a comma and a percent sign, not "/tmp/100%"\n'],
    [['up', '--detach', '--log-bytes', '0'],
      'starling up: --detach needs files to log to: --log-bytes takes more than 0\n'],
    [['up', '--redis', 'rediss://127.0.0.1'],
      'starling up: --redis takes redis://…, unix://PATH, redis+sentinel://…, private or none, not "rediss://127.0.0.1"\n'],
    [['up', '--watchdog', '10'],
      'starling up: --watchdog takes 0 or a number from 1000 to 86400000, not "10"\n'],
    [['up', '--bind', '0.0.0.0'],
      'starling up: --bind 0.0.0.0 would let everyone who reaches that address do everything: authentication is not '
      + 'configured (it is not in this version); --insecure accepts that\n'],
    [['up', '--port', 'x'], 'starling up: --port takes a number from 1 to 65535, not "x"\n'],
    [['ps', '--port', '1'], 'starling ps: unknown option --port (see starling --help)\n'],
    [['stop', 'now'], 'starling stop: unexpected argument now (see starling --help)\n'],
    [['reload', 'now'], 'starling reload: unexpected argument now (see starling --help)\n'],
    [['logs', 'x'], 'starling logs: takes the index of a node, from 0 to 98, or agent, redis or supervisor\n'],
    [['scale', '0'], 'starling scale: takes the number of nodes, from 1 to 99\n'],
    [['restart'], 'starling restart: takes the index of a node, from 0 to 98, or agent or redis\n'],
    [['ps', '--json=x'], 'starling ps: --json takes no value (see starling --help)\n'],
    [['logs', '--lines'], 'starling logs: --lines takes a number from 0 to 1000000\n'],
    [['config', '--reference', 'x'], 'starling up: unknown option --reference (see --help)\n'],
    [['keygen'], 'starling: unknown command keygen (see starling --help)\n'],
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

test('options stand before or behind the arguments; after -- everything is an argument', async (t) => {
  const bus = await up(t);
  const directory = ['--run-dir', bus.runDir];
  assert.equal(run('emit', 'room', 'event', '1', ...directory).status, 0);
  assert.equal(run('emit', 'room', `--run-dir=${bus.runDir}`, 'event', '--ns=/chat', '-1').status, 0);
  assert.equal(run('emit', ...directory, '--', '--room', '--run-dir').status, 0);
  assert.deepEqual(run('emit', ...directory, '--room', 'event').status, 2);
});

// The pipe that tells of the start became standard error, and the supervisor turned in circles.
test('up runs without standard files, as some starters of services leave it', async (t) => {
  const port = await freePort();
  const runDir = path.join(temporary(t), 'run');
  const { status } = spawnSync('bash', ['-c', 'exec "$@" <&- >&- 2>&-', 'bash', starling, 'up', '--detach', '-n', '1', '--redis', 'none',
    '--port', String(port), '--run-dir', runDir], { timeout: PATIENCE_MS });
  assert.equal(status, 0);
  const { nodes: [{ state }] } = JSON.parse(run('ps', '--json', '--run-dir', runDir).stdout);
  assert.equal(state, 'ready');
  assert.deepEqual(run('stop', '--run-dir', runDir), { status: 0, stdout: '', stderr: '' });
});

// With no node left, all of none were ready.
test('a bus that is stopped while it starts is never called ready', async (t) => {
  const slow = ['--peers', '127.0.0.1:9']; // nobody answers there, which takes a node 5 s
  const bus = await begin(t, slow, { nodes: 2 });
  await eventually(() => bus.ps()?.nodes.filter(({ state }) => state === 'starting').length === 2, 'the nodes to start');
  assert.equal(bus.run('stop').status, 0);
  assert.deepEqual([await bus.ended, bus.stdout], [0, '']);
  const runDir = path.join(temporary(t), 'run');
  const detached = spawn(starling, ['up', '--detach', '-n', '1', '--redis', 'none', ...slow, '--port', String(bus.port), '--run-dir', runDir]);
  let said = '';
  for (const stream of [detached.stdout, detached.stderr]) stream.on('data', (data) => { said += data; });
  const ended = new Promise((resolve) => { detached.on('close', resolve); });
  await eventually(() => run('ps', '--run-dir', runDir).stdout.includes('starting'), 'the node to start');
  assert.equal(run('stop', '--run-dir', runDir).status, 0);
  assert.deepEqual([await ended, said], [1, 'starling up: the bus was stopped before it was ready\n']);
});

test('config prints what a bus would run with, as a file that says the same', (t) => {
  const file = path.join(temporary(t), 'starling.conf');
  fs.writeFileSync(file, 'agent = on\ncors = https://a.example,https://b.example\npeers = 10.0.0.2:7900\n');
  const first = run('config', '--config', file, '-n', '3', '--ping-interval', '1234');
  assert.deepEqual([first.status, first.stderr], [0, '']);
  for (const line of ['agent = yes', 'cors = https://a.example,https://b.example', 'peers = 10.0.0.2:7900', 'nodes = 3',
    'ping-interval = 1234', 'port = 7700', '# cookie =']) assert.ok(first.stdout.split('\n').includes(line), line);
  fs.writeFileSync(file, first.stdout);
  assert.deepEqual(run('config', '--config', file), first);
  assert.deepEqual(run('config', '--port', '0'),
    { status: 2, stdout: '', stderr: 'starling up: --port takes a number from 1 to 65535, not "0"\n' });
});
