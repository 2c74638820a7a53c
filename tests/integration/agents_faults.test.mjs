// Agents that die, that do not read, that say what they should not, and groups under load while members are killed.
import assert from 'node:assert/strict';
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Agent, KIND, agentFor } from '../support/agent.mjs';
import { startCluster } from '../support/cluster.mjs';
import { MODES, call, connected, metric, occurrence, received } from '../support/clients.mjs';
import { startRedis } from '../support/redis.mjs';
import { PATIENCE_MS, afterwards, eventually, whileRunning } from '../support/servers.mjs';

const { encode } = createRequire(new URL('../../agent/examples/', import.meta.url))('@msgpack/msgpack');
const { EMIT, SUBSCRIBE, HANDLE, REGISTER, CALL, BYE, ERROR } = KIND;
const RECOVERY = { recovery: 120000 };

const DEADLINE_MS = 3000;

// An agent in a process of its own, that can be killed: it answers `work` with its name.
const PROGRAM = `
  import { Agent, KIND } from ${JSON.stringify(new URL('../support/agent.mjs', import.meta.url).href)};
  const [endpoint, name] = process.argv.slice(1);
  const agent = await new Agent(endpoint, { name: 'workers' }).open();
  agent.handlers[KIND.CALL] = () => new Promise((resolve) => setTimeout(resolve, 5, { args: JSON.stringify([name]) }));
  await agent.request(KIND.HANDLE, { events: ['work'], deadline_ms: ${DEADLINE_MS} });
  console.log('ready');
  process.stdin.on('end', () => process.exit()).resume();
`;

async function worker(t, node, name) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', PROGRAM, `ipc://${node.agents}`, name],
    { stdio: ['pipe', 'pipe', 'inherit'] });
  whileRunning(child);
  afterwards(t, () => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return child;
}

const callers = (t, cluster) => Promise.all([0, 1, 2, 0, 1, 2].map((k) => connected(t, cluster.nodes[k], { reconnection: false, ...MODES.websocket })));

test('a group shares its work evenly', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  // All in this process: one that gets less of the processor than another would rightly get fewer calls.
  const agents = await Promise.all(cluster.nodes.map((node) => agentFor(t, node, { name: 'workers' })));
  for (const [k, agent] of agents.entries()) {
    agent.handlers[CALL] = () => new Promise((resolve) => { setTimeout(resolve, 5, { args: `[${k}]` }); });
    await agent.request(HANDLE, { events: ['work'] });
  }
  const sockets = await callers(t, cluster);
  const EACH = 1000, counts = [0, 0, 0];
  await Promise.all(sockets.map(async (socket) => {
    for (let i = 0; i < EACH; i += 10) {
      for (const k of await Promise.all(Array.from({ length: 10 }, () => call(socket, 'work')))) counts[k]++;
    }
  }));
  const mean = sockets.length * EACH / 3;
  for (const count of counts) assert.ok(Math.abs(count - mean) <= mean / 10, JSON.stringify(counts));
});

test('no call is left alone when members of a group and nodes are killed', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  const workers = await Promise.all(cluster.nodes.map((node, k) => worker(t, node, `w${k}`)));
  const sockets = await callers(t, cluster);
  // Every call is answered: by a worker, or with an error that says why.
  const codes = {};
  let stopped = false, calls = 0, longest = 0;
  const load = sockets.filter((_, i) => i % 3 !== 2).map(async (socket) => {
    while (!stopped) {
      const before = performance.now();
      const answer = await socket.timeout(PATIENCE_MS).emitWithAck('work');
      longest = Math.max(longest, performance.now() - before);
      const what = typeof answer === 'string' ? 'answered' : answer.code ?? answer.error;
      codes[what] = (codes[what] ?? 0) + 1;
      calls++;
    }
  });
  await eventually(() => calls > 200, 'the load to begin');
  workers[0].kill('SIGKILL');
  await eventually(() => calls > 600, 'calls to go on');
  await cluster.nodes[2].kill();
  const before = calls;
  await eventually(() => calls > before + 400, 'calls to go on without the node');
  stopped = true;
  await Promise.all(load);
  assert.ok(codes.answered > 400, JSON.stringify(codes));
  assert.deepEqual(Object.keys(codes).filter((code) => !['answered', 'died'].includes(code)), [], JSON.stringify(codes));
  // Only what was under way.
  assert.ok((codes.died ?? 0) < 50, JSON.stringify(codes));
  assert.ok(longest < DEADLINE_MS + (process.env.STARLING_SANITIZED ? 10000 : 2000), `the longest took ${longest} ms`);
});

test('confirmed emits are delivered once, while their agent and the nodes that it is at are killed', async (t) => {
  const cluster = await startCluster(t, 3, { ...RECOVERY, redis: (await startRedis(t)).url });
  const sockets = await Promise.all(cluster.nodes.map((node) => connected(t, node, { reconnectionDelay: 50, reconnectionDelayMax: 200, ...MODES.websocket })));
  const heard = sockets.map(() => new Map());
  sockets.forEach((socket, k) => socket.on('many', (i) => heard[k].set(i, (heard[k].get(i) ?? 0) + 1)));
  const options = { name: 'source', instance: 'the one' };
  const open = new Map(), confirmed = new Map();
  let agent = await agentFor(t, cluster.nodes[0], options), next = 0, running = true;

  const say = (i, again) => {
    open.set(i, agent);
    const confirm = i % 3 === 2 ? 'mirror' : 'mesh';
    // What a node that was killed had not written to Redis cannot be confirmed there any more; it is emitted all the same.
    const unless = (error) => {
      if (confirm === 'mirror' && again && error.code === 'unconfirmed') return error.options;
      throw error;
    };
    return agent.emit('many', [i], { key: `k${i}`, confirm, ...(again && { again }) }).catch(unless).then(({ emit }) => {
      assert.ok(!confirmed.has(i));
      confirmed.set(i, emit);
      open.delete(i);
    });
  };
  const load = (async () => {
    while (running) {
      await Promise.all(Array.from({ length: 5 }, () => say(next++).catch(({ code }) => assert.equal(code, undefined))));
    }
  })();
  load.catch(() => {});
  const reach = (count) => eventually(() => confirmed.size >= count, `${count} to be confirmed`);
  // The same instance at another node: it says again what it has no answer to, first.
  const goTo = async (k) => {
    running = false;
    agent = await agentFor(t, cluster.nodes[k], options);
    await Promise.all([...open.keys()].map((i) => say(i, true)));
  };
  await reach(300);
  running = false;
  const burst = Array.from({ length: 50 }, () => say(next++).catch(() => {}));
  await Promise.race(burst);
  sockets[0].io.uri = cluster.nodes[1].origin;
  await cluster.nodes[0].kill();
  await goTo(1);
  assert.equal(open.size, 0);
  assert.equal(confirmed.size, next);

  // Its program dies, and begins anew as somebody else with the same name and the same keys.
  const last = Array.from({ length: 50 }, () => say(next++).catch(() => {}));
  await Promise.race(last);
  agent.close();
  options.instance = 'the next';
  await goTo(2);
  assert.equal(confirmed.size, next);
  await agent.emit('end');
  await Promise.all(sockets.map((socket) => received(socket, 'end')));
  // What a killed node had given to a client of its own and to nobody else is lost, and that client knows it.
  const told = heard.filter((_, k) => k > 0 || sockets[0].recovered);
  for (const counts of told) {
    assert.equal(counts.size, next);
    assert.deepEqual([...counts].filter(([, times]) => times !== 1), []);
  }
});

test('what an agent says wrong costs an answer, and nobody else anything', async (t) => {
  const cluster = await startCluster(t, 1, RECOVERY);
  const [node] = cluster.nodes;
  const good = await agentFor(t, node);
  const bad = await agentFor(t, node);
  const wrong = async (bytes, code) => {
    bad.sendBytes(bytes);
    const [, id, got] = await bad.take(ERROR);
    assert.equal(got, code);
    return id;
  };
  assert.equal(await wrong(Buffer.from('c1', 'hex'), 'malformed'), 0);
  assert.equal(await wrong(Buffer.from('9210', 'hex'), 'malformed'), 0);
  assert.equal(await wrong(Buffer.from('91dfffffffff', 'hex'), 'malformed'), 0);
  assert.equal(await wrong([Buffer.alloc(0), encode([EMIT, 5, '/', null, 'e', '[]'])], 'malformed'), 0); // two frames
  assert.equal(await wrong(encode([99, 7]), 'unknown_kind'), 7);
  assert.equal(await wrong(encode([66, 7, 1, '/', 's', 'e', '[]']), 'unknown_kind'), 7);
  assert.equal(await wrong(encode([EMIT, 5, '/', null, 'e']), 'argument'), 5);
  assert.equal(await wrong(encode([EMIT, 5, '/', 'text', 'e', '[]']), 'argument'), 5);
  assert.equal(await wrong(encode([EMIT, 5, '/', null, 'e'.repeat(257), '[]']), 'limit'), 5);
  assert.equal(await wrong(encode([EMIT, 5, '/', null, 'e', '[1,]']), 'json'), 5);
  assert.equal(await wrong(encode([EMIT, 5, '/', null, 'bus:x', '[]']), 'reserved'), 5);
  assert.equal(await wrong(encode([SUBSCRIBE, 0]), 'id'), 0);
  assert.equal(await wrong(encode([KIND.UNDO, 8, 77]), 'not_found'), 8);
  assert.equal(await wrong(encode([KIND.HELLO, 1, 'n', 'i', 5]), 'hello'), 0);
  bad.send([KIND.OK, 12345], [KIND.OK, 0, { args: '[1,]' }]);
  bad.send([REGISTER, 30, 'same'], [REGISTER, 30, 'other']);
  assert.equal((await bad.take(ERROR)).at(2), 'json');
  assert.equal((await bad.take((record) => record[0] === ERROR && record[2] === 'id', 'id'))[1], 30);
  assert.match((await bad.emit('fine')).emit, /:\d+$/);

  // Who has not said HELLO is told so; a hundred messages that nobody can read are enough.
  const stranger = new Agent(`ipc://${node.agents}`);
  afterwards(t, () => stranger.close());
  const opening = stranger.open();
  await opening;
  for (let i = 0; i < 120; i++) stranger.sendBytes(Buffer.from('c1', 'hex'));
  assert.equal((await stranger.take(BYE))[1], 'malformed');
  stranger.send([EMIT, 3, '/', null, 'e', '[]']);
  assert.equal((await stranger.take((record) => record[0] === ERROR && record[2] === 'hello', 'hello'))[1], 0);
  assert.match((await good.emit('fine')).emit, /:\d+$/);
});

test('the same instance on another connection, at any node, ends the older one', async (t) => {
  const cluster = await startCluster(t, 2, RECOVERY);
  const first = await agentFor(t, cluster.nodes[0], { instance: 'one' });
  const second = await agentFor(t, cluster.nodes[0], { instance: 'one' });
  assert.equal((await first.take(BYE))[1], 'replaced');
  const third = await agentFor(t, cluster.nodes[1], { instance: 'one' });
  assert.equal((await second.take(BYE))[1], 'replaced');
  const fourth = await agentFor(t, cluster.nodes[0], { instance: 'one' });
  assert.equal((await third.take(BYE))[1], 'replaced');
  assert.match((await fourth.emit('x')).emit, /^node-0/);
});

test('an agent that sends more than it was granted is told, and ended when it goes on', async (t) => {
  const cluster = await startCluster(t, 1, RECOVERY);
  const agent = await agentFor(t, cluster.nodes[0]);
  await agent.request(HANDLE, { events: ['never'] });
  // Unanswered asks hold the window: nobody takes them from this agent, which answers nothing.
  await agent.request(REGISTER, 'self');
  const body = 'x'.repeat(60000);
  for (let i = 0; i < 60; i++) agent.send([KIND.ASK, 1000 + i, 'self', body, { deadline_ms: 20000 }]);
  const [, , code] = await agent.take(ERROR);
  assert.equal(code, 'credit');
  assert.equal((await agent.take(BYE))[1], 'credit');
});

test('agents that stop reading are bounded, and cost others nothing', async (t) => {
  const COUNT = process.env.STARLING_SANITIZED ? 100 : 1000;
  const cluster = await startCluster(t, 2, RECOVERY);
  const crowd = fork(fileURLToPath(new URL('../support/deaf.mjs', import.meta.url)), [`ipc://${cluster.nodes[0].agents}`, COUNT],
    { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  whileRunning(crowd);
  afterwards(t, () => crowd.kill('SIGKILL'));
  const said = {};
  crowd.on('message', (message) => Object.assign(said, message));
  const saysTo = (what) => eventually(() => {
    assert.equal(crowd.exitCode, null, 'the deaf agents are gone');
    return said[what];
  }, `${what} of the deaf agents`);
  assert.equal(await saysTo('ready'), COUNT);
  const rss = async () => (await metric(cluster.nodes[0], 'process_resident_memory_bytes')) / 2 ** 20;
  const source = await agentFor(t, cluster.nodes[1]);
  const socket = await connected(t, cluster.nodes[0], MODES.websocket);
  const size = 1000, emits = 1500;
  for (let i = 0; i < emits; i++) source.send([EMIT, 0, '/', ['nobody'], 'flood', `["${'x'.repeat(size)}"]`]);
  await source.emit('end');
  await received(socket, 'end');
  const after = await rss();
  // Each may have its 64 KiB; all that was emitted would be 1.5 MB for each.
  if (!process.env.STARLING_SANITIZED) assert.ok(after < 100 + COUNT * 0.25, `${after} MiB`);
  assert.ok(['deadline', 'busy'].includes((await call(socket, 'deaf')).code));
  const good = await agentFor(t, cluster.nodes[0]);
  good.handlers[CALL] = () => ({ args: '["fine"]' });
  await good.request(HANDLE, { events: ['deaf'], group: 'good' });
  assert.equal(await call(socket, 'deaf'), 'fine');
  // One that reads again gets it all.
  crowd.send({ read: emits });
  assert.equal(await saysTo('read'), emits);
});
