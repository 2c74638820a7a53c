// The agents in agent/examples, and the conformance agent, against a node that the test plays: what is proved here is
// that three languages' programs keep to proto/agent.md, also when their node goes.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { once } from 'node:events';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { eventually } from '../support/servers.mjs';
import { Gateway, kind } from '../support/agent_gateway.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const support = process.env.STARLING_SUPPORT ?? join(root, 'build/release/support');
const chats = {
  C: [join(support, 'chat_example')],
  Python: ['/usr/bin/python3', join(root, 'agent/examples/chat.py')],
  JavaScript: [process.execPath, join(root, 'agent/examples/chat.mjs')],
};

let folder, gateways = [], programs = [], count = 0;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'agents-'));
});

after(() => rm(folder, { recursive: true }));

afterEach(async () => {
  for (const program of programs.splice(0)) {
    program.kill('SIGKILL');
    if (program.exitCode === null && program.signalCode === null) await once(program, 'exit');
  }
  for (const gateway of gateways.splice(0)) gateway.close();
});

const endpoint = () => `ipc://${folder}/${count++}`;

async function gateway(at = endpoint(), peers = []) {
  const it = new Gateway(at, peers);
  await it.open();
  gateways.push(it);
  return it;
}

function run([command, ...args]) {
  const program = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  program.stdout.setEncoding('utf8');
  program.out = '';
  program.stdout.on('data', (text) => (program.out += text));
  programs.push(program);
  return program;
}

const registered = async (it) => {
  const { agent, record } = await it.take(kind.HANDLE);
  await it.send(agent, kind.OK, record[1]);
  return { agent, reg: record[1], options: record[2] };
};

const emitted = async (it) => (await it.take(kind.EMIT)).record.slice(2, 6);

describe('the chat', () => {
  for (const [language, command] of Object.entries(chats)) {
    test(`in ${language} lets clients in by name and passes on what they say`, async () => {
      const it = await gateway();
      run([...command, it.endpoint]);
      const { agent, reg, options } = await registered(it);
      assert.deepEqual(options, { namespaces: ['/chat'], events: ['say'], life: ['connect', 'disconnect'] });

      it.send(agent, kind.CONNECT, 10, reg, '/chat', 's1', '{}');
      assert.deepEqual((await it.take(kind.ERROR)).record.slice(0, 4), [6, 10, 'nameless', 'who are you?']);

      it.send(agent, kind.CONNECT, 11, reg, '/chat', 's2', '{"name":"Änn"}', { remote: '::1', deadline_ms: 1000 });
      const { user, rooms } = (await it.take(kind.OK)).record[2];
      assert.deepEqual([JSON.parse(user), rooms], ['Änn', ['lobby']]);
      const [nsp, to, event, args] = await emitted(it);
      assert.deepEqual([nsp, to, event, JSON.parse(args)], ['/chat', ['lobby'], 'joined', ['Änn']]);

      it.send(agent, kind.CALL, 12, reg, '/chat', 's2', 'say', '["hello \\u2603"]', { user: '"Änn"', ack: true });
      const said = (await emitted(it))[3];
      assert.deepEqual(JSON.parse(said), ['Änn', 'hello ☃']);
      const answer = (await it.take(kind.OK)).record;
      assert.deepEqual([answer[1], JSON.parse(answer[2].args)], [12, [{ ok: true }]]);

      it.send(agent, kind.CALL, 13, reg, '/chat', 's2', 'say', '[5]', { user: '"Änn"' });
      assert.deepEqual((await it.take(kind.ERROR)).record.slice(0, 3), [6, 13, 'say']);

      it.send(agent, kind.DISCONNECTED, reg, '/chat', 's2', 'transport close', { user: '"Änn"' });
      assert.deepEqual(JSON.parse((await emitted(it))[3]), ['Änn']);
    });

    test(`in ${language} goes on at another node`, async () => {
      const second = endpoint();
      const first = await gateway(undefined, [['other', `ipc://${folder}/nowhere`, second]]);
      run([...command, first.endpoint]);
      const { agent } = await registered(first);
      first.close();
      gateways = [];
      const it = await gateway(second);
      const hello = await it.take(kind.HELLO);
      assert.equal(hello.record[3], agent.instance);
      const { reg } = await registered(it);
      it.send(hello.agent, kind.CALL, 5, reg, '/chat', 's', 'say', '["again"]', { user: '"Bob"', ack: true });
      assert.deepEqual(JSON.parse((await emitted(it))[3]), ['Bob', 'again']);
    });
  }
});

test('the agent that proto/agent.md shows works', async () => {
  const page = await readFile(join(root, 'proto/agent.md'), 'utf8');
  const it = await gateway();
  const shown = page.match(/```python\n([^]*?)```/)[1].replace('tcp://127.0.0.1:7800', it.endpoint);
  const program = run(['/usr/bin/python3', '-u', '-c', shown]);
  const { agent, reg, options } = await registered(it);
  assert.deepEqual(options, { events: ['message-with-ack'] });
  it.send(agent, kind.CALL, 3, reg, '/', 's', 'message-with-ack', '[1,"2"]', { ack: true });
  assert.deepEqual((await it.take(kind.OK)).record, [7, 3, { args: '[1,"2"]' }]);
  await eventually(() => program.out === 'message-with-ack 1 2\n', 'what it prints');
});

describe('the job queue', () => {
  test('counts for agents that ask, several at a time', async () => {
    const it = await gateway();
    run([join(support, 'jobs_example'), 'work', it.endpoint]);
    const { agent, record } = await it.take(kind.REGISTER);
    assert.deepEqual(record.slice(2), ['jobs', { shared: true }]);
    await it.send(agent, kind.OK, record[1]);
    for (const [id, body] of [[1, '2000000'], [2, '10'], [3, 'x']]) it.send(agent, kind.ASKED, id, record[1], body);
    assert.deepEqual((await it.take(kind.ERROR)).record.slice(0, 3), [6, 3, 'job']);
    const answers = [(await it.take(kind.OK)).record, (await it.take(kind.OK)).record];
    assert.deepEqual(answers.sort((x, y) => x[1] - y[1]), [[7, 1, { body: '148933' }], [7, 2, { body: '4' }]]);
  });

  test('asks for one count', async () => {
    const it = await gateway();
    const program = run([join(support, 'jobs_example'), 'count', '100', it.endpoint]);
    const { agent, record } = await it.take(kind.ASK);
    assert.deepEqual(record.slice(2), ['jobs', '100', { deadline_ms: 30000 }]);
    it.send(agent, kind.OK, record[1], { body: '25' });
    assert.deepEqual(await once(program, 'exit'), [0, null]);
    assert.equal(program.out, '25\n');
  });
});

describe('the library', () => {
  const build = join(support, '..');
  const shell = promisify(execFile);
  for (const [form, flags] of [['shared', '--cflags --libs'], ['static', '--cflags --libs --static']]) {
    test(`is found by pkg-config and linked as the ${form} one`, async () => {
      const prefix = join(folder, form);
      await shell('cmake', ['--install', build, '--prefix', prefix]);
      const { stdout } = await shell('find', [prefix, '-name', 'starling.pc']);
      const lib = join(dirname(stdout.trim()), '..');
      if (form === 'static') await shell('sh', ['-c', 'rm "$1"/libstarling.so*', 'sh', lib]);
      const env = { ...process.env, PKG_CONFIG_PATH: join(lib, 'pkgconfig'), LD_LIBRARY_PATH: lib };
      const program = join(prefix, 'jobs');
      const source = join(root, 'agent/examples/jobs.c');
      const sanitize = build.includes('asan') ? '-fsanitize=address,undefined' : '';
      const command = `cc ${sanitize} "${source}" $(pkg-config ${flags} starling) -pthread -o "${program}"`;
      await shell('sh', ['-c', command], { env });
      await assert.rejects(shell(program, [], { env }), { code: 2, stderr: /^usage: jobs work/ });
    });
  }
});

describe('the conformance agent', () => {
  test('emits auth, sends messages back, acknowledges', async () => {
    const it = await gateway();
    const program = run([join(support, 'conformance_agent'), it.endpoint]);
    const connects = await registered(it);
    const calls = await registered(it);
    assert.deepEqual(connects.options, { namespaces: ['/', '/custom'], life: ['connect'] });
    assert.deepEqual(calls.options, { events: ['message', 'message-with-ack'] });
    const agent = connects.agent;

    it.send(agent, kind.CONNECT, 1, connects.reg, '/custom', 's', '{"token":"123"}');
    assert.deepEqual((await it.take(kind.OK)).record, [7, 1]);
    assert.deepEqual(await emitted(it), ['/custom', ['s'], 'auth', '[{"token":"123"}]']);

    const args = '[1,"2",{"3":[true]},{"_placeholder":true,"num":0}]';
    const options = { attachments: [Buffer.from([1, 2, 3])] };
    it.send(agent, kind.CALL, 2, calls.reg, '/', 's', 'message', args, options);
    const { record } = await it.take(kind.EMIT);
    assert.deepEqual(record.slice(2, 6), ['/', ['s'], 'message-back', args]);
    assert.deepEqual([...record[6].attachments[0]], [1, 2, 3]);
    assert.deepEqual((await it.take(kind.OK)).record, [7, 2, { args: '[]' }]);

    it.send(agent, kind.CALL, 3, calls.reg, '/', 's', 'message-with-ack', '[1,"2"]', { ack: true });
    assert.deepEqual((await it.take(kind.OK)).record, [7, 3, { args: '[1,"2"]' }]);
    program.kill('SIGTERM');
    assert.deepEqual(await once(program, 'exit'), [0, null]);
    assert.equal(program.out, 'ready\n');
  });
});
