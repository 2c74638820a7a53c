// What outlives a supervisor that is killed, the redis-server of a bus alone, and the next supervisor that finds both.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test as plainTest } from 'node:test';
import { alive, begin, leftovers, run, temporary, up } from '../support/up.mjs';
import { connected, occurrence } from '../support/clients.mjs';
import { eventually, freePort } from '../support/servers.mjs';

const test = (name, body) => plainTest(name, { timeout: 120000 }, body);

// One command over a Unix socket, as redis-cli would send it; the first line of the answer.
const redis = (bus, ...words) => new Promise((resolve, reject) => {
  const socket = net.connect(path.join(bus.runDir, 'redis.sock'));
  let answer = '';
  socket.on('error', reject);
  socket.on('data', (data) => {
    answer += data;
    if (!answer.includes('\r\n')) return;
    socket.destroy();
    resolve(answer);
  });
  socket.write(`*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`);
});

const environment = (pid) => fs.readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');

const isReady = (bus, count) => () => {
  const nodes = bus.ps()?.nodes;
  return nodes?.length === count && nodes.every(({ state }) => state === 'ready') && nodes;
};

test('the redis-server of a bus: on a Unix socket alone, with its file, known to the nodes and to ps', async (t) => {
  const bus = await up(t, [], { redis: 'private', nodes: 2 });
  const found = bus.ps();
  const socket = path.join(bus.runDir, 'redis.sock');
  assert.ok(alive(found.redis.pid));
  assert.deepEqual([found.redis.url, found.redis.state, found.redis.restarts], [`unix://${socket}`, 'ready', 0]);
  assert.equal(fs.statSync(socket).mode & 0o777, 0o700);
  assert.equal(await redis(bus, 'PING'), '+PONG\r\n');
  const info = await redis(bus, 'INFO');
  for (const line of ['tcp_port:0', 'aof_enabled:1', 'maxmemory_policy:noeviction']) assert.ok(info.includes(line), line);
  assert.match(await redis(bus, 'DEBUG', 'SLEEP', '0'), /^-ERR DEBUG command not allowed/);
  for (const { pid } of found.nodes) assert.ok(environment(pid).includes(`STARLING_REDIS=unix://${socket}`));
  await redis(bus, 'SET', 'key', 'value');
  assert.equal(bus.run('stop').status, 0);
  assert.equal(await bus.ended, 0);
  assert.ok(!alive(found.redis.pid));
  assert.deepEqual(leftovers(bus).sort(), ['appendonlydir', 'starling.pid']);
  const again = await up(t, [], { redis: 'private', runDir: bus.runDir, port: bus.port });
  assert.match(await redis(again, 'GET', 'key'), /value/);
});

test('a redis-server that dies starts again, and the nodes stay', async (t) => {
  const bus = await up(t, [], { redis: 'private' });
  const before = bus.ps();
  process.kill(before.redis.pid, 'SIGKILL');
  const after = await eventually(() => {
    const found = bus.ps();
    return found.redis.restarts === 1 && found.redis.state === 'ready' && found;
  }, 'the next redis-server');
  assert.equal(after.nodes[0].pid, before.nodes[0].pid);
  assert.equal(await redis(bus, 'PING'), '+PONG\r\n');
  assert.ok(bus.stderr.includes(`redis: pid ${before.redis.pid} ended with signal 9`), bus.stderr);
});

test('a redis-server that is given up is shown so, and restart tries it again', async (t) => {
  const bus = await up(t, [], { redis: 'private' });
  await eventually(() => {
    const { pid, state } = bus.ps().redis;
    if (pid && alive(pid)) process.kill(pid, 'SIGKILL');
    return state === 'errored';
  }, 'the redis-server to be given up');
  assert.equal(bus.ps().redis.pid, null);
  assert.match(bus.run('ps').stdout, /\nredis +- +- +- +errored /);
  assert.equal(bus.ps().nodes[0].restarts, 0);
  assert.deepEqual(bus.run('restart', 'redis'), { status: 0, stdout: '', stderr: '' });
  assert.equal(await redis(bus, 'PING'), '+PONG\r\n');
  assert.match(bus.run('ps').stdout, /\nredis +\d+ +- +- +ready /);
});

test('all that lies in the run directory is its owner\'s alone, whatever the umask', async (t) => {
  const before = process.umask(0);
  const bus = await up(t, ['--agent'], { redis: 'private', nodes: 2 }).finally(() => process.umask(before));
  await eventually(() => bus.ps().agent?.state === 'ready', 'the agent');
  const open = fs.readdirSync(bus.runDir, { recursive: true }).filter((name) => fs.statSync(path.join(bus.runDir, name)).mode & 0o077);
  assert.deepEqual(open, []);
  assert.ok(fs.existsSync(path.join(bus.runDir, 'agents-0')));
});

test('without a redis-server in PATH the bus runs, and says what it cannot do', async (t) => {
  const bus = await up(t, [], { redis: 'private', env: { PATH: temporary(t) } });
  assert.match(bus.stderr, /there is no redis-server in PATH.*\(no recovery across a node's death\)/);
  assert.equal(bus.ps().redis, null);
});

test('a private Redis on each of several hosts comes with a warning', async (t) => {
  const bus = await up(t, ['--peers', '127.0.0.1:9'], { redis: 'private' });
  assert.match(bus.stderr, /recover on the same host only; give all hosts the same --redis URL/);
});

test('a Redis that is given is passed on and shown', async (t) => {
  const url = `redis://user:secret@127.0.0.1:${await freePort()}/2`;
  const bus = await up(t, [], { redis: url });
  const { redis: shown, nodes: [{ pid }] } = bus.ps();
  assert.deepEqual(shown, { pid: null, url });
  assert.ok(environment(pid).includes(`STARLING_REDIS=${url}`));
  // The list of processes is everyone's, and so is no password's place.
  assert.ok(!fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('secret'));
});

test('the next supervisor takes nodes and redis-server over, and clients notice nothing', async (t) => {
  const bus = await up(t, [], { nodes: 3, redis: 'private' });
  const before = bus.ps();
  const sockets = await Promise.all(Array.from({ length: 6 }, () => connected(t, bus)));
  const gone = [];
  for (const socket of sockets) {
    socket.on('disconnect', (reason) => gone.push(reason));
    await socket.emitWithAck('bus:join', 'room');
  }
  await bus.killSupervisor();
  const next = await up(t, [], { nodes: 3, redis: 'private', runDir: bus.runDir, port: bus.port });
  const after = next.ps();
  assert.equal(after.supervisor.pid, next.pid);
  assert.deepEqual(after.nodes.map(({ pid }) => pid), before.nodes.map(({ pid }) => pid));
  assert.deepEqual(after.nodes.map(({ state, restarts }) => [state, restarts]), Array(3).fill(['ready', 0]));
  assert.equal(after.redis.pid, before.redis.pid);
  const heard = sockets.slice(1).map((socket) => occurrence(socket, 'event'));
  await sockets[0].emitWithAck('bus:emit', { to: 'room', event: 'event', args: [1] });
  await Promise.all(heard);
  assert.deepEqual(gone, []);

  // They are looked after as if they were its own.
  process.kill(after.nodes[1].pid, 'SIGKILL');
  const nodes = await eventually(() => isReady(next, 3)() && next.ps().nodes[1].restarts === 1 && next.ps().nodes,
    'the node to start again');
  assert.notEqual(nodes[1].pid, after.nodes[1].pid);
  await eventually(() => next.stderr.includes(`node 1: pid ${after.nodes[1].pid} ended\n`), 'the message');
  process.kill(after.redis.pid, 'SIGKILL');
  await eventually(() => next.ps().redis.restarts === 1 && next.ps().redis.state === 'ready', 'the next redis-server');
  assert.deepEqual(next.run('reload'), { status: 0, stdout: '', stderr: '' });
  assert.deepEqual(next.run('stop'), { status: 0, stdout: '', stderr: '' });
  assert.equal(await next.ended, 0);
  for (const { pid } of [...before.nodes, ...nodes]) assert.ok(!alive(pid));
});

test('a take-over starts what has died meanwhile, and ends what is more than wanted', async (t) => {
  const bus = await up(t, [], { nodes: 3, redis: 'private' });
  const { nodes, redis: server } = bus.ps();
  await bus.killSupervisor();
  for (const pid of [nodes[0].pid, server.pid]) {
    process.kill(pid, 'SIGKILL');
    await eventually(() => !alive(pid), 'its end');
  }
  const next = await up(t, [], { nodes: 2, redis: 'private', runDir: bus.runDir, port: bus.port });
  await eventually(isReady(next, 2), 'two nodes');
  assert.notEqual(next.node(0).pid, nodes[0].pid);
  assert.equal(next.node(1).pid, nodes[1].pid);
  assert.ok(alive(next.ps().redis.pid));
  await eventually(() => !alive(nodes[2].pid), 'the end of the third');
});

test('a take-over without -n leaves as many as there are', async (t) => {
  const bus = await up(t, [], { nodes: 3 });
  const pids = bus.pids();
  await bus.killSupervisor();
  const { status, stdout } = run('up', '--detach', '--redis', 'none', '--port', String(bus.port), '--run-dir', bus.runDir);
  assert.deepEqual([status, stdout.match(/^node \d: ready/gm).length], [0, 3]);
  assert.deepEqual(bus.pids(), pids);
  assert.equal(bus.run('stop').status, 0);
});

test('stop ends the redis-server of a supervisor that is gone as well', async (t) => {
  const bus = await up(t, [], { redis: 'private' });
  const { nodes: [{ pid }], redis: server } = bus.ps();
  await bus.killSupervisor();
  assert.ok(alive(pid) && alive(server.pid));
  assert.equal(bus.run('stop').status, 0);
  assert.ok(!alive(pid) && !alive(server.pid));
});

test('a state of another start of the machine names nobody', async (t) => {
  const bus = await up(t);
  const [pid] = bus.pids();
  await bus.killSupervisor();
  const file = path.join(bus.runDir, 'state.json');
  const state = fs.readFileSync(file, 'utf8');
  fs.writeFileSync(file, state.replace(/"boot":"[^"]+"/, '"boot":"another"'));
  assert.equal(bus.run('stop').status, 1);
  assert.ok(alive(pid));
  fs.writeFileSync(file, state);
  assert.equal(bus.run('stop').status, 0);
});

// The watchdog took a node for hung that became ready while it was looked at: its last sign of life was in the future.
test('nodes that are still starting are taken over, become ready, and are left alone', async (t) => {
  const slow = ['--peers', '127.0.0.1:9']; // nobody answers there, which takes a node 5 s
  const bus = await begin(t, slow, { nodes: 9 });
  const state = path.join(bus.runDir, 'state.json');
  await eventually(() => fs.existsSync(state) && fs.readFileSync(state, 'utf8').match(/"state":"starting"/g)?.length === 9,
    'the nodes to start');
  const pids = bus.pids();
  await bus.killSupervisor();
  const next = await up(t, slow, { nodes: 9, runDir: bus.runDir, port: bus.port });
  assert.deepEqual(next.ps().nodes.map(({ pid, state: is, restarts }) => [pid, is, restarts]), pids.map((pid) => [pid, 'ready', 0]));
  assert.doesNotMatch(next.stderr, /no sign of life/);
});

// The process that a reload was starting was written down nowhere, and went on for ever beside the bus.
test('what a reload was starting when its supervisor was killed is ended', async (t) => {
  const slow = ['--peers', '127.0.0.1:9'];
  const bus = await up(t, slow);
  const [pid] = bus.pids();
  const startNext = async (each) => {
    const reload = each.start('reload');
    const next = await eventually(() => JSON.parse(fs.readFileSync(path.join(bus.runDir, 'state.json'), 'utf8')).next?.pid, 'the next process');
    assert.match(each.run('ps').stdout, new RegExp(`\\n next +${next} +- +- +starting `));
    await each.killSupervisor();
    assert.equal((await reload).code, 1);
    assert.ok(alive(next));
    return next;
  };
  const first = await startNext(bus);
  const again = await up(t, slow, { runDir: bus.runDir, port: bus.port });
  await eventually(() => !alive(first), 'its end');
  assert.deepEqual(again.pids(), [pid]);
  await eventually(() => !('next' in JSON.parse(fs.readFileSync(path.join(bus.runDir, 'state.json'), 'utf8'))), 'it to be forgotten');
  const second = await startNext(again);
  assert.deepEqual(again.run('stop'), { status: 0, stdout: '', stderr: '' });
  assert.ok(!alive(second) && !alive(pid));
});
