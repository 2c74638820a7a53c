// The agents in agent/examples, and the verbs of the command line that are agents, at the nodes of a bus.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { KIND, agentFor } from '../support/agent.mjs';
import { MODES, call, client, connected, occurrence, received } from '../support/clients.mjs';
import { startCluster } from '../support/cluster.mjs';
import { afterwards, eventually, root, support, whileRunning } from '../support/servers.mjs';
import { up } from '../support/up.mjs';

const example = (name) => path.join(root, 'agent/examples', name);
const CHATS = {
  C: [path.join(support, 'chat_example')],
  Python: ['/usr/bin/python3', example('chat.py')],
  JavaScript: [process.execPath, example('chat.mjs')],
};

function run(t, [command, ...args]) {
  const program = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  whileRunning(program);
  afterwards(t, () => program.kill('SIGKILL'));
  program.out = '';
  program.stdout.on('data', (data) => { program.out += data; });
  return program;
}

for (const [language, command] of Object.entries(CHATS)) {
  test(`the chat in ${language} serves clients of all nodes, and goes on when its node is killed`, async (t) => {
    const cluster = await startCluster(t, 2, { recovery: 120000 });
    run(t, [...command, cluster.nodes.map(({ agents }) => `ipc://${agents}`).join(',')]);
    const enter = (node, auth) => client(t, node, { namespace: '/chat', auth, ...MODES.websocket });
    const nameless = await eventually(async () => {
      const socket = enter(cluster.nodes[1], {});
      const [error] = await occurrence(socket, 'connect', 'connect_error');
      socket.disconnect();
      return error?.message; // until the chat is there, everybody is let in
    }, 'the chat to refuse');
    assert.equal(nameless, 'who are you?');
    const ann = await connected(t, cluster.nodes[1], { namespace: '/chat', auth: { name: 'Änn' }, ...MODES.websocket });
    const bob = await connected(t, cluster.nodes[1], { namespace: '/chat', auth: { name: 'Bob' }, ...MODES.websocket });
    await eventually(() => ann.inbox.some(([name, who]) => name === 'joined' && who === 'Bob'), 'Bob');
    assert.deepEqual(await call(bob, 'say', 'hello ☃'), { ok: true });
    assert.deepEqual((await received(ann, 'said')).slice(0, 2), ['Bob', 'hello ☃']);
    assert.equal((await call(bob, 'say', 5)).ok, false);

    await cluster.nodes[0].kill();
    // It may be asked nothing while it is on its way.
    await eventually(async () => (await call(bob, 'say', 'again')).ok === true, 'the chat to be back');
    await eventually(() => ann.inbox.some(([name, , text]) => name === 'said' && text === 'again'), 'what Bob said');
    bob.disconnect();
    await eventually(() => ann.inbox.some(([name, who]) => name === 'left' && who === 'Bob'), 'Bob to be gone');
  });
}

test('workers of the job queue at several nodes share what is asked at any', async (t) => {
  const cluster = await startCluster(t, 2, { recovery: 120000 });
  const jobs = path.join(support, 'jobs_example');
  for (const { agents } of cluster.nodes) run(t, [jobs, 'work', `ipc://${agents}`]);
  const agent = await agentFor(t, cluster.nodes[1]);
  await agent.request(KIND.WATCH, 'jobs');
  await eventually(() => agent.ask('jobs', '100').then(({ body }) => body === '25', () => false), 'a worker');
  const all = await Promise.all(Array.from({ length: 40 }, () => agent.ask('jobs', '1000')));
  assert.deepEqual(new Set(all.map(({ body }) => body)), new Set(['168']));
  const one = run(t, [jobs, 'count', '100', `ipc://${cluster.nodes[0].agents}`]);
  await eventually(() => one.out === '25\n', 'the answer');
});

test('call asks an actor, tail shows what is emitted', async (t) => {
  const bus = await up(t, [], { nodes: 2 });
  const agent = await agentFor(t, { agents: path.join(bus.runDir, 'agents-1') }, { name: 'greeter' });
  agent.handlers[KIND.ASKED] = ([, , , body]) => ({ body: `{"hello":${body}}` });
  await agent.request(KIND.REGISTER, 'greeter');
  assert.deepEqual(await bus.start('call', 'greeter', '"Änn"'), { code: 0, stdout: '{"hello":"Änn"}\n', stderr: '' });
  assert.deepEqual(await bus.start('call', 'greeter'), { code: 0, stdout: '{"hello":null}\n', stderr: '' });
  assert.deepEqual(await bus.start('call', 'nobody'),
    { code: 1, stdout: '', stderr: 'starling call: nobody: nobody handles this (nobody)\n' });
  assert.equal((await bus.start('call', 'greeter', '{')).code, 2);
  assert.equal((await bus.start('call')).code, 2);

  const tail = run(t, [path.join(path.dirname(support), 'bin/starling'), 'tail', '--run-dir', bus.runDir, 'news.*']);
  await eventually(async () => {
    await bus.start('emit', 'readers', 'news.today', '1', '{"a":[]}');
    await bus.start('emit', '', 'other');
    return tail.out.includes('\n');
  }, 'a line');
  const line = JSON.parse(tail.out.split('\n')[0]);
  assert.match(line.id, /:\d+$/);
  delete line.id;
  assert.deepEqual(line, { ns: '/', to: ['readers'], event: 'news.today', args: [1, { a: [] }] });
  assert.ok(!tail.out.includes('other'));
  tail.kill('SIGINT');
  await eventually(() => tail.exitCode === 0, 'tail to end');
});

// rules_socketio.test.mjs, with a node and the conformance agent in the place of the program that it is written for.
test('a node with the conformance agent keeps the rules of Socket.IO', async () => {
  const file = path.join(root, 'tests/integration/rules_socketio.test.mjs');
  const { NODE_TEST_CONTEXT, ...env } = process.env; // else it would report to our own parent
  const child = spawn(process.execPath, ['--test', '--test-reporter=tap', file],
    { env: { ...env, STARLING_ECHO_BY_AGENT: '1' }, stdio: ['ignore', 'pipe', 'inherit'] });
  whileRunning(child);
  let out = '';
  child.stdout.on('data', (data) => { out += data; });
  await new Promise((resolve) => { child.on('exit', resolve); });
  assert.deepEqual(out.match(/^\s*not ok .*/gm) ?? [], []);
  assert.ok(Number(out.match(/^# pass (\d+)/m)[1]) > 20, out);
});
