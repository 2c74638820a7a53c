// `starling up --agent`: the monitor of the machine beside the nodes, from its start to its end.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test as plainTest } from 'node:test';
import { alive, begin, bin, leftovers, temporary, up } from '../support/up.mjs';
import { eventually } from '../support/servers.mjs';

const test = (name, body) => plainTest(name, { timeout: 120000 }, body);

const log = (bus) => fs.readFileSync(path.join(bus.runDir, 'agent.log'), 'utf8');
const ready = (bus, fits = () => true) => eventually(() => {
  const { agent } = bus.ps();
  return agent?.state === 'ready' && fits(agent) && agent;
}, 'the agent');

// The one machine, as this node has it.
const machine = async (bus, index) => {
  const answer = await fetch(`http://127.0.0.1:${bus.port + 1 + index}/api/v1/machines`, { headers: { connection: 'close' } });
  return (await answer.json()).machines[0];
};
const isLive = (bus, index) => eventually(async () => (await machine(bus, index))?.state === 'live', `the machine on node ${index}`);

test('the agent watches the machine, starts again when it dies, and ends with the bus', async (t) => {
  const bus = await up(t, ['--agent'], { nodes: 2 });
  const { pid, uptime_s, cpu_pct, rss_bytes, ...rest } = await ready(bus);
  assert.deepEqual(rest, { state: 'ready', restarts: 0 });
  assert.ok(alive(pid) && uptime_s >= 0 && cpu_pct >= 0 && rss_bytes > 100000);
  assert.match(bus.run('ps').stdout, new RegExp(`\\nagent +${pid} +- +- +ready `));
  for (const index of [0, 1]) await isLive(bus, index);

  process.kill(pid, 'SIGKILL');
  const next = await ready(bus, (agent) => agent.pid !== pid);
  assert.equal(next.restarts, 1);
  await eventually(() => bus.stderr.includes(`agent: pid ${pid} ended with signal 9`), 'the message');
  assert.deepEqual(bus.run('restart', 'agent'), { status: 0, stdout: '', stderr: '' });
  const last = await ready(bus);
  assert.equal(last.restarts, 2);
  assert.ok(!alive(next.pid));
  await eventually(() => log(bus).match(/event=connected/g)?.length === 3, 'three connections');
  assert.equal(bus.run('logs', 'agent').stdout, log(bus));
  assert.match(bus.run('logs').stdout, /^agent\| starling-agent: event=connected/m);
  assert.deepEqual(bus.run('stop'), { status: 0, stdout: '', stderr: '' });
  assert.equal(await bus.ended, 0);
  assert.ok(!alive(last.pid));
  assert.deepEqual(leftovers(bus), ['starling.pid']);
});

test('it stays through scale and reload, and finds nodes that it was not started with', async (t) => {
  const bus = await up(t, ['--agent']);
  const { pid } = await ready(bus);
  await isLive(bus, 0);
  assert.deepEqual(bus.run('scale', '2'), { status: 0, stdout: '', stderr: '' });
  await isLive(bus, 1);
  assert.deepEqual(bus.run('reload'), { status: 0, stdout: '', stderr: '' });
  assert.match(log(bus), /event=connected .*text="[^"]*-1"/);
  for (const index of [0, 1]) await isLive(bus, index);
  assert.deepEqual(bus.run('scale', '1'), { status: 0, stdout: '', stderr: '' });
  await isLive(bus, 0);
  const { agent } = bus.ps();
  assert.deepEqual([agent.pid, agent.restarts], [pid, 0]);
});

test('the next supervisor takes it over, and one without --agent ends it', async (t) => {
  const bus = await up(t, ['--agent']);
  const { pid } = await ready(bus);
  await bus.killSupervisor();
  assert.ok(alive(pid));
  const next = await up(t, ['--agent'], { runDir: bus.runDir, port: bus.port });
  assert.deepEqual([next.ps().agent.pid, next.ps().agent.restarts], [pid, 0]);
  assert.match(next.stderr, new RegExp(`^agent: pid ${pid} is taken over$`, 'm'));
  process.kill(pid, 'SIGKILL');
  const again = await ready(next, (agent) => agent.pid !== pid);
  await next.killSupervisor();
  const last = await up(t, [], { runDir: bus.runDir, port: bus.port });
  await eventually(() => last.ps().agent === null, 'no agent');
  assert.ok(!alive(again.pid));
});

test('stop ends the agent of a supervisor that is gone', async (t) => {
  const bus = await up(t, ['--agent']);
  const { pid } = await ready(bus);
  const [node] = bus.pids();
  await bus.killSupervisor();
  process.kill(node, 'SIGKILL');
  await eventually(() => !alive(node), 'the end of the node');
  assert.deepEqual(bus.run('stop'), { status: 0, stdout: '', stderr: '' });
  assert.ok(!alive(pid));
});

test('one that never comes up is given up while the nodes go on, and restart tries it again', async (t) => {
  const bus = await up(t, ['--agent'], { copy: true });
  const { pid } = await ready(bus);
  bus.replaceProgram('starling-agent', '#!/bin/sh\nexit 1\n');
  process.kill(pid, 'SIGKILL');
  await eventually(() => bus.ps().agent.state === 'errored', 'the agent to be given up');
  assert.match(bus.stderr, /^agent: died five times in a row within its first second; giving up$/m);
  assert.deepEqual(bus.ps().nodes.map(({ state }) => state), ['ready']);
  bus.replaceProgram('starling-agent');
  assert.deepEqual(bus.run('restart', 'agent'), { status: 0, stdout: '', stderr: '' });
  await isLive(bus, 0);
});

test('a reload starts or ends it as the configuration says', async (t) => {
  const file = path.join(temporary(t), 'starling.conf');
  fs.writeFileSync(file, '');
  const bus = await up(t, ['--config', file]);
  assert.equal(bus.ps().agent, null);
  assert.deepEqual(bus.run('restart', 'agent'),
    { status: 1, stdout: '', stderr: 'starling restart: this bus runs without --agent\n' });
  fs.writeFileSync(file, 'agent = yes\n');
  assert.equal(bus.run('reload').status, 0);
  const { pid } = await ready(bus);
  fs.writeFileSync(file, 'agent = no\n');
  assert.equal(bus.run('reload').status, 0);
  await eventually(() => bus.ps().agent === null, 'no agent');
  assert.ok(!alive(pid));
});

test('its log and that of the redis-server are turned over', async (t) => {
  const bus = await up(t, ['--agent', '--log-bytes', '150', '--log-files', '1'], { redis: 'private' });
  await ready(bus);
  await eventually(() => {
    bus.run('restart', 'agent');
    return ['agent', 'redis'].every((name) => fs.existsSync(path.join(bus.runDir, `${name}.log.1`)));
  }, 'the older files');
  assert.ok(!fs.existsSync(path.join(bus.runDir, 'agent.log.2')));
});

test('without a starling-agent beside it, --agent says so', async (t) => {
  const folder = temporary(t);
  for (const name of ['starling', 'starling-node']) fs.copyFileSync(path.join(bin, name), path.join(folder, name));
  const bus = await begin(t, ['--agent'], { program: path.join(folder, 'starling') });
  assert.equal(await bus.ended, 1);
  const { status, stdout } = spawnSync(path.join(folder, 'starling'), ['doctor', '--agent', '--port', String(bus.port)], { encoding: 'utf8' });
  assert.equal(status, 1);
  assert.match(stdout, /^WRONG program +cannot run .*starling-agent: No such file or directory; install it there, or leave --agent out$/m);
  assert.equal(bus.stderr, `starling up: cannot run ${path.join(folder, 'starling-agent')}: No such file or directory\n`);
});
