// Nodes that hang, are late or do not end; what they log; and who wants to know how they are: systemd, top, doctor.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { test as plainTest } from 'node:test';
import { eventually, freePort, sleep } from '../support/servers.mjs';
import { alive, begin, bin, root, run, starling, temporary, up } from '../support/up.mjs';

const test = (name, body) => plainTest(name, { timeout: 120000 }, body);

test('a node that hangs is killed and started again', async (t) => {
  const bus = await up(t, ['--watchdog', '2000'], { nodes: 2 });
  const before = bus.pids();
  process.kill(before[1], 'SIGSTOP');
  const nodes = await eventually(() => {
    const found = bus.ps().nodes;
    return found[1].restarts === 1 && found[1].state === 'ready' && found;
  }, 'the next process');
  assert.deepEqual([nodes[0].pid, nodes[0].restarts], [before[0], 0]);
  assert.ok(!alive(before[1]));
  await eventually(() => bus.stderr.includes(`node 1: pid ${before[1]} shows no sign of life and is killed`), 'the message');
  // It was no accident of the clock: the others, and the new one, are left alone.
  await eventually(() => bus.ps().nodes.every(({ uptime_s }) => uptime_s > 3), 'them to be older than the watchdog');
  assert.deepEqual(bus.pids(), nodes.map(({ pid }) => pid));
});

test('a supervisor that was frozen itself kills nobody', async (t) => {
  const bus = await up(t, ['--watchdog', '1000'], { nodes: 2 });
  const pids = bus.pids();
  process.kill(bus.pid, 'SIGSTOP');
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  await sleep(2500);
  // Thawed together, as after the sleep of a machine.
  process.kill(bus.pid, 'SIGCONT');
  for (const pid of pids) process.kill(pid, 'SIGCONT');
  await sleep(1500);
  assert.deepEqual(bus.pids(), pids);
});

test('a node that is not ready in time is killed, and given up after five times', async (t) => {
  const bus = await begin(t, ['--listen-timeout', '200'], { copy: true, node: '#!/bin/sh\nexec sleep 1000\n' });
  assert.equal(await bus.ended, 1);
  assert.equal(bus.stderr.match(/was not ready after 200 ms and is killed/g).length, 5);
  assert.match(bus.stderr, /node 0: failed to start five times in a row, .*; giving up\n$/);
});

test('a node that does not end is killed after --kill-timeout, not before', async (t) => {
  const bus = await up(t, ['--kill-timeout', '700']);
  const [pid] = bus.pids();
  process.kill(pid, 'SIGSTOP');
  const started = Date.now();
  const stopping = bus.start('stop');
  await sleep(300);
  assert.ok(alive(pid));
  assert.equal((await stopping).code, 0);
  assert.ok(!alive(pid) && Date.now() - started >= 700);
});

test('logs shows what the nodes wrote, follows it, and what is too much is turned over', async (t) => {
  const bus = await up(t, ['--log-bytes', '20000', '--log-files', '2', '--log-level', 'debug'], { nodes: 2 });
  assert.match(bus.run('logs').stdout, /^0\| .*event=ready[^]*^1\| .*event=ready/m);
  assert.match(bus.run('logs', '1').stdout, /^ts=.* event=ready/m);
  assert.equal(bus.run('logs', '--lines', '1', '0').stdout.trimEnd().split('\n').length, 1);
  assert.deepEqual([bus.run('logs', '7').status, bus.run('logs', '7').stderr],
    [1, `starling logs: there are no logs in ${bus.runDir}\n`]);
  const follower = spawn(starling, ['logs', '-f', '--lines', '0', '--run-dir', bus.runDir, '1']);
  t.after(() => follower.kill());
  let text = '';
  follower.stdout.on('data', (data) => { text += data; });
  const files = () => fs.readdirSync(bus.runDir).filter((name) => /^node-1\.log/.test(name)).sort();
  // A session that begins and ends is a line or two at this level.
  let visits = 0;
  const visit = async () => {
    const agent = new http.Agent();
    const origin = `http://127.0.0.1:${bus.port + 2}/socket.io/?EIO=4&transport=polling`;
    const opened = await (await fetch(origin)).text();
    const { sid } = JSON.parse(opened.slice(1));
    await fetch(`${origin}&sid=${sid}`, { method: 'POST', body: '1' });
    agent.destroy();
    visits++;
  };
  await eventually(async () => {
    for (let i = 0; i < 50; i++) await visit();
    return files().includes('node-1.log.2');
  }, 'the second old file');
  await eventually(async () => {
    await visit();
    return (text.match(/event=session_closed/g) ?? []).length >= visits - 50;
  }, 'the follower to see all of it');
  assert.deepEqual(files(), ['node-1.log', 'node-1.log.1', 'node-1.log.2']);
  for (const name of files()) assert.ok(fs.statSync(path.join(bus.runDir, name)).size < 60000, name);
  // The supervisor is not in the way of any of this.
  await bus.killSupervisor();
  const seen = text.length;
  await visit();
  await eventually(() => text.length > seen, 'a line after the end of the supervisor');
  assert.equal(bus.run('logs', '--lines', '1', '1').stdout.trimEnd().split('\n').length, 1);
});

test('--log-bytes 0 sends everything to standard error', async (t) => {
  const bus = await up(t, ['--log-bytes', '0']);
  await eventually(() => /event=ready/.test(bus.stderr), 'the line of the node');
  assert.deepEqual(fs.readdirSync(bus.runDir).filter((name) => name.startsWith('node')), []);
});

test('--detach returns when all nodes are ready, or when they do not come up', async (t) => {
  const runDir = path.join(temporary(t), 'run');
  t.after(() => run('stop', '--run-dir', runDir));
  const port = await freePort();
  const up2 = run('up', '--detach', '-n', '2', '--redis', 'none', '--port', String(port), '--run-dir', runDir);
  assert.deepEqual([up2.status, up2.stderr], [0, '']);
  assert.match(up2.stdout, new RegExp(`^(node [01]: ready .*\n){2}ready: http://127.0.0.1:${port}\n$`));
  const { supervisor, nodes } = JSON.parse(run('ps', '--json', '--run-dir', runDir).stdout);
  assert.equal(nodes.length, 2);
  // It holds on to nothing of its caller.
  for (const fd of [0, 1, 2]) {
    const target = fs.readlinkSync(`/proc/${supervisor.pid}/fd/${fd}`);
    assert.equal(target, fd === 0 ? '/dev/null' : path.join(runDir, 'supervisor.log'));
  }
  const second = run('up', '--detach', '--redis', 'none', '--port', String(port), '--run-dir', runDir);
  assert.equal(second.status, 1);
  assert.match(second.stderr, /a bus runs already with the run directory/);
  assert.equal(run('stop', '--run-dir', runDir).status, 0);
  await eventually(() => !alive(supervisor.pid), 'the end of the supervisor');
  const programs = temporary(t);
  fs.copyFileSync(starling, path.join(programs, 'starling'));
  fs.writeFileSync(path.join(programs, 'starling-node'), '#!/bin/sh\nexit 2\n', { mode: 0o755 });
  const failed = spawnSync(path.join(programs, 'starling'),
    ['up', '--detach', '-n', '1', '--redis', 'none', '--port', String(port), '--run-dir', runDir], { encoding: 'utf8' });
  assert.equal(failed.status, 1);
  assert.match(failed.stderr, /node 0: does not take its options; giving up\n/);
});

// A terminal for one command, which a signal ends; what it showed.
async function inTerminal(context, command, done) {
  const child = spawn('script', ['-qfec', command, '/dev/null'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stdout.on('data', (data) => { text += data; });
  context.after(() => child.kill('SIGKILL'));
  await eventually(() => done(text), `${command} to show it`);
  child.kill('SIGTERM');
  return text;
}

test('top shows the nodes and their sums again and again, the cluster and its machines, on a terminal only', async (t) => {
  const bus = await up(t, ['--agent'], { nodes: 2 });
  const text = await inTerminal(t, `'${starling}' top --run-dir '${bus.runDir}'`,
    (shown) => shown.split('MACHINE').length > 2 && shown.includes('2 of 2 nodes live, 0 sessions'));
  assert.match(text, new RegExp(`http://127.0.0.1:${bus.port}, supervisor ${bus.pid}, redis none`));
  assert.match(text, /^ +0 +\d+ .* ready .*\r\n +1 +\d+ .* ready .*\r\n *agent +\d+ .*\r\n +ALL +0 +\d+\.\d +\d+ +0 +\d+\.\d\r$/m);
  // The same figures as on the dashboard.
  const ask = async (what) => (await fetch(`http://127.0.0.1:${bus.port}/api/v1/${what}`, { headers: { connection: 'close' } })).json();
  const [machine] = (await ask('machines')).machines;
  const total = `${Math.round(machine.tick.memory.total_bytes / 2 ** 30)} GiB`;
  const name = machine.description.name.replace(/[^\w-]/g, '.');
  assert.match(text, new RegExp(`^${name} +live +\\d+\\.\\d .* ${total} +\\d+\\.\\d\\d `, 'm'));
  for (const node of (await ask('nodes')).nodes) assert.match(text, new RegExp(`^${node.name} +${node.host} +ready +\\d+\\.\\d +\\d+(?:\\.\\d)? MiB +0 +\\d+\\.\\d +\\d+\\.\\d +\\S+ [um]s +1 of 1 +0 +`, 'm'));
  assert.deepEqual(bus.run('top'), {
    status: 1, stdout: '', stderr: 'starling top: standard output is no terminal; starling ps prints once\n',
  });
});

test('doctor finds nothing wrong where the bus runs, and says how to mend what is', async (t) => {
  const runDir = path.join(temporary(t), 'run');
  const port = String(await freePort());
  const doctor = (...parameters) => run('doctor', '-n', '1', '--max-connections', '1000', '--port', port, '--run-dir', runDir,
    ...parameters);
  const healthy = doctor();
  assert.equal(healthy.status, 0, healthy.stdout);
  for (const about of ['program', 'libraries', 'descriptors', 'run directory', 'ports', 'redis']) {
    assert.match(healthy.stdout, new RegExp(`^ok +${about} `, 'm'));
  }
  assert.match(healthy.stdout, /^(ok|note) +kernel +net\.core\.somaxconn is \d+/m);
  const wrong = (parameters, line, options = {}) => {
    const { status, stdout } = options.command
      ? spawnSync('bash', ['-c', options.command, 'bash', starling, port, runDir], { encoding: 'utf8', env: { ...process.env, ...options.env } })
      : doctor(...parameters);
    assert.equal(status, 1, stdout);
    assert.match(stdout, line);
    assert.equal(stdout.match(/^WRONG/gm).length, 1, stdout);
  };
  const server = net.createServer().listen(Number(port), '127.0.0.1');
  t.after(() => server.close());
  await new Promise((resolve) => { server.on('listening', resolve); });
  wrong([], /^WRONG +ports +port \d+ is taken by another program on 127\.0\.0\.1; free it, or give another --port or --bind$/m);
  await new Promise((resolve) => { server.close(resolve); });
  wrong(['--redis', `redis://127.0.0.1:${port}`], /^WRONG +redis +redis:.* cannot be reached: Connection refused; start it/m);
  wrong(['--redis', 'unix:///nowhere/redis.sock'], /^WRONG +redis +unix:.*No such file or directory/m);
  wrong(['--run-dir', `/${'long/'.repeat(30)}`], /^WRONG +run directory/m);
  wrong(['--run-dir', '/nowhere/run'], /^WRONG +run directory +\/nowhere\/run cannot be made/m);
  wrong([], /^WRONG +descriptors +a node may open 500 and wants 1128 .* raise the hard limit/m,
    { command: 'ulimit -n 500; exec "$1" doctor -n 1 --max-connections 1000 --port "$2" --run-dir "$3"' });
  wrong([], /^WRONG +redis +there is no redis-server in PATH.*install it/m,
    { command: 'PATH=/nowhere; exec "$1" doctor -n 1 --max-connections 1000 --port "$2" --run-dir "$3"' });
  const programs = temporary(t);
  fs.copyFileSync(starling, path.join(programs, 'starling'));
  fs.writeFileSync(path.join(programs, 'starling-node'), '#!/bin/sh\necho starling-node 0.0.1\n', { mode: 0o755 });
  const old = spawnSync(path.join(programs, 'starling'), ['doctor', '-n', '1', '--max-connections', '1000', '--port', port, '--run-dir', runDir],
    { encoding: 'utf8' });
  assert.equal(old.status, 1);
  assert.match(old.stdout, /^WRONG +program .*starling-node 0\.0\.1.*install both from one build$/m);
});

test('doctor sees a Redis that answers, and a bus that runs', async (t) => {
  const bus = await up(t, [], { redis: 'private' });
  const { status, stdout } = bus.run('doctor', '--max-connections', '1000', '--redis', `unix://${bus.runDir}/redis.sock`);
  assert.equal(status, 0, stdout);
  assert.match(stdout, /^ok +redis .* answers$/m);
  assert.match(stdout, new RegExp(`^ok +ports +a bus runs with this run directory \\(pid ${bus.pid}\\)$`, 'm'));
});

// A socket as systemd's: {path, lines()}. Node has no datagram sockets of this kind, Python has.
async function notifySocket(context) {
  const file = path.join(temporary(context), 'notify');
  const script = [
    'import socket, sys',
    's = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)',
    's.bind(sys.argv[1])',
    'print("bound", flush=True)',
    'while True: print(s.recv(4096).decode(), flush=True)',
  ].join('\n');
  const child = spawn('python3', ['-c', script, file]);
  let text = '';
  child.stdout.on('data', (data) => { text += data; });
  context.after(() => child.kill());
  await eventually(() => text.includes('bound'), 'the socket');
  return { path: file, lines: () => text.split('\n') };
}

test('systemd is told of readiness and life, by the supervisor alone', async (t) => {
  const notify = await notifySocket(t);
  const bus = await up(t, [], { nodes: 2, env: { NOTIFY_SOCKET: notify.path, WATCHDOG_USEC: '1500000' } });
  await eventually(() => notify.lines().filter((line) => line === 'WATCHDOG=1').length > 3, 'the watchdog to be fed');
  assert.equal(notify.lines().filter((line) => line === 'READY=1').length, 1);
  for (const pid of bus.pids()) {
    assert.ok(!fs.readFileSync(`/proc/${pid}/environ`, 'utf8').includes('NOTIFY_SOCKET'));
  }
  assert.equal(bus.run('stop').status, 0);
  await eventually(() => notify.lines().includes('STOPPING=1'), 'the end to be told');
});

test('a node without a supervisor tells systemd itself, and a hanging one feeds no watchdog', async (t) => {
  const notify = await notifySocket(t);
  const port = await freePort();
  const child = spawn(path.join(bin, 'starling-node'), ['--port', String(port), '--no-pin', '--drain-rate', '1000'],
    { env: { ...process.env, NOTIFY_SOCKET: notify.path, WATCHDOG_USEC: '900000' }, stdio: 'ignore' });
  t.after(() => child.kill('SIGKILL'));
  const fed = () => notify.lines().filter((line) => line === 'WATCHDOG=1').length;
  await eventually(() => notify.lines().includes('READY=1') && fed() > 2, 'the node to be ready and fed');
  child.kill('SIGSTOP');
  await eventually(() => fs.readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1][0] === 'T', 'it to hang');
  await sleep(200);
  const before = fed();
  await sleep(1000);
  assert.equal(fed(), before);
  child.kill('SIGCONT');
  await eventually(() => fed() > before, 'it to be fed again');
  child.kill('SIGUSR1');
  const ended = new Promise((resolve) => { child.on('exit', resolve); });
  await eventually(() => notify.lines().includes('STATUS=draining'), 'the drain');
  assert.equal(await ended, 0);
  assert.ok(notify.lines().includes('STOPPING=1'));
});

test('the units name programs and options that exist', () => {
  const folder = path.join(root, 'deploy/systemd');
  for (const unit of ['starling-node@.service', 'starling.service']) {
    const text = fs.readFileSync(path.join(folder, unit), 'utf8').replaceAll('\\\n', ' ');
    for (const key of ['Type=notify', 'WatchdogSec=', 'KillMode=', 'LimitNOFILE=']) assert.ok(text.includes(key), `${unit}: ${key}`);
    for (const [, program, rest] of text.matchAll(/^Exec\w+=(\/usr\/local\/bin\/starling(?:-node)?) (.*)$/gm)) {
      const verb = program.endsWith('node') ? [] : [rest.split(' ')[0]];
      const help = spawnSync(path.join(bin, path.basename(program)), [...verb, '--help'], { encoding: 'utf8' });
      assert.equal(help.status, 0, `${unit}: ${program} ${verb}`);
      for (const [option] of rest.matchAll(/--[a-z-]+/g)) assert.ok(help.stdout.includes(option), `${unit}: ${option}`);
    }
  }
});
