// Agents at the nodes of a bus: what proto/agent.md promises, from every node to every other, with stock clients.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KIND, agentFor, refuse } from '../support/agent.mjs';
import { startCluster } from '../support/cluster.mjs';
import { MODES, call, client, connected, occurrence, received } from '../support/clients.mjs';
import { startRedis } from '../support/redis.mjs';
import { eventually } from '../support/servers.mjs';

const RECOVERY = { recovery: 120000 };
const { WELCOME, EMIT, SUBSCRIBE, HANDLE, REGISTER, WATCH, UNDO, JOIN, LEAVE, DISCONNECT, MEMBERS, SET, TELL, ASK,
  EVENT, CALL, CONNECT, DISCONNECTED, JOINED, LEFT, TOLD, ASKED, GONE, BACK, ANSWER, MEMBER } = KIND;

// One agent at each node.
const agentsOf = (t, cluster) => Promise.all(cluster.nodes.map((node, k) => agentFor(t, node, { name: `agent-${k}` })));

test('an agent is welcome, emits to clients of all nodes, and hears what is emitted', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  const agents = await agentsOf(t, cluster);
  assert.equal(agents[0].welcome[0], WELCOME);
  assert.equal(agents[0].welcome[2], 'node-0');
  const sockets = await Promise.all(cluster.nodes.map((node) => connected(t, node, MODES.websocket)));
  await Promise.all(agents.map((agent) => agent.request(SUBSCRIBE, { events: ['news.*'] })));
  const { emit } = await agents[1].emit('news.today', [1, { a: 'ä' }]);
  assert.match(emit, /^node-1-[0-9a-f]{12}:\d+$/);
  for (const socket of sockets) assert.deepEqual((await received(socket, 'news.today')).slice(0, 2), [1, { a: 'ä' }]);
  for (const agent of agents) {
    const [, reg, nsp, to, event, args, options] = await agent.take(EVENT);
    assert.deepEqual([reg, nsp, to, event, JSON.parse(args)], [1, '/', null, 'news.today', [1, { a: 'ä' }]]);
    assert.equal(options.emit, emit);
    assert.match(options.offset, /^~1/);
  }
  await assert.rejects(agents[0].emit('connect'), { code: 'reserved' });
  await assert.rejects(agents[0].emit('x', [], { nsp: '/admin' }), { code: 'namespace' });
});

test('calls, refusals, asks and tells go from every node to every other', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  const agents = await agentsOf(t, cluster);
  for (const [k, agent] of agents.entries()) {
    agent.handlers[CALL] = ([, , , nsp, sid, event, args, options]) => {
      if (event === `fail.${k}`) refuse('teapot', 'no coffee', { data: '{"pot":1}' });
      return { args: JSON.stringify([k, nsp, sid, event, ...JSON.parse(args), options.ack ?? false]) };
    };
    agent.handlers[CONNECT] = ([, , , , , auth]) => {
      const { name } = JSON.parse(auth);
      if (name === 'nobody') refuse('denied', 'not you', { data: `{"by":${k}}` });
      return { user: JSON.stringify(name), rooms: ['lobby'], data: '{"secret":1}' };
    };
    agent.handlers[ASKED] = ([, , , body, options]) => ({ body: `${k}:${body}:${options.from}` });
    await agent.request(HANDLE, { events: [`call.${k}`, `fail.${k}`], group: `g${k}` });
    await agent.request(HANDLE, { namespaces: [`/n${k}`], life: ['connect'] });
    await agent.request(REGISTER, `actor.${k}`);
  }
  for (const node of cluster.nodes) {
    const socket = await connected(t, node, MODES.websocket);
    for (const k of [0, 1, 2]) {
      const answer = await new Promise((resolve) => { socket.emit(`call.${k}`, 'x', 2, (...args) => resolve(args)); });
      assert.deepEqual(answer, [k, '/', socket.id, `call.${k}`, 'x', 2, true]);
      assert.deepEqual(await call(socket, `fail.${k}`), { ok: false, error: 'no coffee', code: 'teapot', data: { pot: 1 } });
      const refused = client(t, node, { namespace: `/n${k}`, auth: { name: 'nobody' }, ...MODES.websocket });
      const [error] = await occurrence(refused, 'connect_error');
      assert.deepEqual([error.message, error.data], ['not you', { by: k }]);
      refused.disconnect();
      const welcome = await connected(t, node, { namespace: `/n${k}`, auth: { name: 'ann' }, ...MODES.websocket });
      const who = await call(welcome, 'bus:who', 'lobby');
      assert.ok(who.members.some(({ sid, user }) => sid === welcome.id && user === 'ann'), JSON.stringify(who));
    }
    assert.deepEqual(await call(socket, 'unknown'), { ok: false, error: 'nobody handles this event' });
  }
  for (const [from, agent] of agents.entries()) {
    for (const k of [0, 1, 2]) {
      assert.deepEqual(await agent.ask(`actor.${k}`, 'hello'), { body: `${k}:hello:agent-${from}` });
      await agent.request(TELL, `actor.${k}`, Buffer.from([1, 2]));
      const [, , body, options] = await agents[k].take(TOLD);
      assert.deepEqual([[...body], options.from], [[1, 2], `agent-${from}`]);
    }
    await assert.rejects(agent.ask('nowhere', ''), { code: 'nobody' });
  }
});

test('what an agent emits to a client that it has let in reaches it after its CONNECT', async (t) => {
  const cluster = await startCluster(t, 2, RECOVERY);
  const [agent] = await agentsOf(t, cluster);
  agent.handlers[CONNECT] = ([, id, , nsp, sid, auth]) => {
    agent.send([KIND.OK, id, { rooms: ['lobby'] }], [EMIT, 0, nsp, [sid], 'auth', `[${auth}]`],
      [EMIT, 0, nsp, ['lobby'], 'joined', JSON.stringify([sid])]);
    return new Promise(() => {});
  };
  await agent.request(HANDLE, { life: ['connect'] });
  for (const node of [...cluster.nodes, ...cluster.nodes]) {
    const socket = await connected(t, node, { auth: { token: 'x' }, ...MODES.websocket });
    assert.deepEqual((await received(socket, 'auth'))[0], { token: 'x' });
    assert.deepEqual((await received(socket, 'joined'))[0], socket.id);
  }
});

test('agents act on sessions of all nodes', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  const agents = await agentsOf(t, cluster);
  const sockets = await Promise.all(cluster.nodes.map((node) => connected(t, node, MODES.websocket)));
  const ids = sockets.map(({ id }) => id);
  await eventually(async () => (await agents[0].request(MEMBERS, '/', null, { limit: 0 })).count === 3, 'all to be known');
  assert.deepEqual(await agents[0].request(JOIN, '/', ids, ['red', 'blue']), { count: 3 });
  assert.deepEqual(await agents[0].request(LEAVE, '/', [ids[1]], ['red']), { count: 1 });
  // What is emitted after the OK goes to those from after.
  await agents[0].emit('red', [1], { to: ['red'] });
  await agents[0].emit('blue', [1], { to: ['blue'] });
  for (const socket of sockets) await received(socket, 'blue');
  assert.deepEqual(sockets.map((socket) => socket.inbox.some(([name]) => name === 'red')), [true, false, true]);

  assert.deepEqual(await agents[1].request(SET, '/', [ids[2]], { user: '{"name":"zoe"}', data: '[7]' }), { count: 1 });
  await eventually(async () => {
    const { members } = await call(sockets[0], 'bus:who', 'blue');
    return members.some(({ sid, user }) => sid === ids[2] && user?.name === 'zoe');
  }, 'the user to be known');
  assert.deepEqual(await agents[1].request(MEMBERS, '/', ['blue', ids[0]]), { count: 3 });
  const listed = [await agents[1].take(MEMBER), await agents[1].take(MEMBER), await agents[1].take(MEMBER)];
  const zoe = listed.find(([, , sid]) => sid === ids[2]);
  assert.deepEqual([zoe[3], zoe[4].user, zoe[4].data, zoe[4].rooms.sort()], ['node-2', '{"name":"zoe"}', '[7]', ['blue', 'red']]);
  assert.deepEqual(new Set(listed.map(([, , sid]) => sid)), new Set(ids));
  const few = await agents[1].request(MEMBERS, '/', null, { limit: 1 });
  assert.equal(few.count, 3);

  sockets.forEach((socket, k) => k < 2 && socket.on('ask', (n, answer) => answer(n * 10 + k, Buffer.from([k]))));
  const asked = await agents[2].emit('ask', [4], { to: ['blue'], ack_ms: 500 });
  assert.deepEqual([asked.expected, asked.answered, asked.dropped], [3, 2, 0]);
  const answers = [await agents[2].take(ANSWER), await agents[2].take(ANSWER)].sort((x, y) => (x[3] < y[3] ? -1 : 1));
  assert.deepEqual(answers.map(([, , sid, args]) => [sid, JSON.parse(args)[0]]), [[ids[0], 40], [ids[1], 41]]);
  assert.deepEqual([...answers[1][4].attachments[0]], [1]);

  const gone = occurrence(sockets[1], 'disconnect');
  assert.deepEqual(await agents[2].request(DISCONNECT, '/', [ids[1]]), { count: 1 });
  assert.deepEqual((await gone)[0], 'io server disconnect');
  assert.deepEqual(await agents[2].request(JOIN, '/', ['nobody here'], ['x']), { count: 0 });
});

test('user, data and rooms that agents have given a session stay its own at another node', async (t) => {
  const cluster = await startCluster(t, 3, { ...RECOVERY, redis: (await startRedis(t)).url });
  const agent = await agentFor(t, cluster.nodes[2]);
  agent.handlers[CONNECT] = () => ({ user: '{"name":"ann"}', data: '{"cart":[1]}', rooms: ['lobby'] });
  await agent.request(HANDLE, { life: ['connect'] });
  const socket = await connected(t, cluster.nodes[0], { reconnectionDelay: 50, reconnectionDelayMax: 100, ...MODES.websocket });
  const { id } = socket;
  const state = async () => {
    assert.deepEqual(await agent.request(MEMBERS, '/', [id]), { count: 1 });
    const [, , sid, node, { user, data, rooms }] = await agent.take(MEMBER);
    assert.equal(sid, id);
    return { node, user, data, rooms };
  };
  const comesTo = async (k) => {
    socket.io.uri = cluster.nodes[k].origin;
    await occurrence(socket, 'connect');
    assert.deepEqual([socket.recovered, socket.id], [true, id]);
    // A node that has just been killed is asked, too, until the others know.
    const count = async () => (await agent.request(MEMBERS, '/', [id], { limit: 0 }).catch(() => ({}))).count;
    await eventually(async () => (await count()) === 1, 'the session to be known');
  };
  assert.deepEqual(await state(), { node: 'node-0', user: '{"name":"ann"}', data: '{"cart":[1]}', rooms: ['lobby'] });
  // It is killed before anything else is said: what CONNECT brought is in the store already.
  const back = comesTo(1);
  await cluster.nodes[0].kill();
  await back;
  assert.deepEqual(await state(), { node: 'node-1', user: '{"name":"ann"}', data: '{"cart":[1]}', rooms: ['lobby'] });
  assert.deepEqual(await agent.request(SET, '/', [id], { user: '{"name":"zoe"}', data: '{"cart":[1,2]}' }), { count: 1 });
  // The old node lives: it gives the session to the new one itself.
  const moved = comesTo(2);
  socket.io.engine.close();
  await moved;
  assert.deepEqual(await state(), { node: 'node-2', user: '{"name":"zoe"}', data: '{"cart":[1,2]}', rooms: ['lobby'] });
});

test('agents hear of the life of sockets, also of those whose node dies', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  const agent = await agentFor(t, cluster.nodes[0]);
  await agent.request(HANDLE, { life: ['disconnect', 'join', 'leave'] });
  const sockets = await Promise.all(cluster.nodes.map((node) => connected(t, node, { reconnection: false, ...MODES.websocket })));
  const [a, b, c] = sockets;
  await call(b, 'bus:join', 'room');
  assert.deepEqual((await agent.take(JOINED)).slice(1, 5), [1, '/', b.id, ['room']]);
  await call(b, 'bus:leave', 'room');
  assert.deepEqual((await agent.take(LEFT)).slice(1, 5), [1, '/', b.id, ['room']]);
  const [ida, idb, idc] = sockets.map(({ id }) => id);
  a.disconnect();
  assert.deepEqual((await agent.take(DISCONNECTED)).slice(1, 5), [1, '/', ida, 'client namespace disconnect']);
  b.io.engine.close();
  assert.deepEqual((await agent.take(DISCONNECTED)).slice(1, 5), [1, '/', idb, 'transport close']);
  await cluster.nodes[2].kill();
  assert.deepEqual((await agent.take(DISCONNECTED)).slice(1, 5), [1, '/', idc, 'node died']);
  assert.ok(c);
});

test('who watches an actor is told when it ends, dies, or dies with its node', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  const watcher = await agentFor(t, cluster.nodes[0]);
  assert.deepEqual(await watcher.request(WATCH, 'it'), { alive: false });
  const first = await agentFor(t, cluster.nodes[1]);
  await first.request(REGISTER, 'it');
  await watcher.take(BACK);
  await assert.rejects((await agentFor(t, cluster.nodes[2])).request(REGISTER, 'it'), { code: 'taken' });
  await first.request(UNDO, 1);
  assert.deepEqual(await watcher.take(GONE), [GONE, 1, 'ended']);
  await first.request(REGISTER, 'it');
  await watcher.take(BACK);
  first.close();
  let before = Date.now();
  assert.deepEqual(await watcher.take(GONE), [GONE, 1, 'died']);
  assert.ok(Date.now() - before < 1500 + 500, `told after ${Date.now() - before} ms`);
  const second = await agentFor(t, cluster.nodes[2]);
  await second.request(REGISTER, 'it');
  await watcher.take(BACK);
  before = Date.now();
  await cluster.nodes[2].kill();
  assert.deepEqual(await watcher.take(GONE), [GONE, 1, 'node']);
  assert.ok(Date.now() - before < 1500 + 1000, `told after ${Date.now() - before} ms`);
});

test('calls and asks of agents that die fail at once, those without an answer at their deadline', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  const [asker, dying, deaf] = await agentsOf(t, cluster);
  const socket = await connected(t, cluster.nodes[0], MODES.websocket);
  await dying.request(HANDLE, { events: ['die'] });
  await dying.request(REGISTER, 'dying');
  await deaf.request(HANDLE, { events: ['wait'], deadline_ms: 300 });
  await deaf.request(REGISTER, 'deaf');
  assert.deepEqual(await call(socket, 'wait'), { ok: false, error: 'no answer in time', code: 'deadline' });
  const canceled = [await deaf.take(CALL), await deaf.take(KIND.CANCEL)];
  assert.equal(canceled[0][1], canceled[1][1]);
  await assert.rejects(asker.ask('deaf', '', { deadline_ms: 200 }), { code: 'deadline' });
  const answers = [call(socket, 'die'), asker.ask('dying', '').catch(({ code }) => code)];
  await dying.take(CALL);
  await dying.take(ASKED);
  dying.close();
  assert.deepEqual(await answers[0], { ok: false, error: 'the agent that was asked has died', code: 'died' });
  assert.equal(await answers[1], 'died');
  const last = [call(socket, 'wait'), asker.ask('deaf', '').catch(({ code }) => code)];
  await deaf.take(ASKED);
  await cluster.nodes[2].kill();
  assert.ok(['died', 'deadline'].includes((await last[0]).code));
  assert.equal(await last[1], 'died');
});

const eventsOf = (agent) => agent.records.filter(([kind]) => kind === EVENT);

test('a subscription goes on where it was, at another node, or after not reading', async (t) => {
  const cluster = await startCluster(t, 2, RECOVERY);
  const source = await agentFor(t, cluster.nodes[0]);
  const reader = await agentFor(t, cluster.nodes[1], { window: 4096 });
  await reader.request(SUBSCRIBE, { events: ['n'] });
  reader.grants = false;
  const COUNT = 2000;
  for (let i = 0; i < COUNT; i++) source.send([EMIT, 0, '/', null, 'n', `[${i},"${'x'.repeat(100)}"]`]);
  await source.emit('other');
  await eventually(() => reader.received > 4000, 'the window to be full');
  const held = eventsOf(reader).length;
  assert.ok(held < 100, `${held} events came without a grant`);
  reader.grants = true;
  await eventually(() => eventsOf(reader).length === COUNT, 'all events');
  assert.deepEqual(eventsOf(reader).map(([, , , , , args]) => JSON.parse(args)[0]), Array.from({ length: COUNT }, (_, i) => i));
  assert.ok(eventsOf(reader).at(-1)[6].replayed);

  const middle = eventsOf(reader)[999][6].offset;
  const later = await agentFor(t, cluster.nodes[0]);
  const begun = await later.request(SUBSCRIBE, { events: ['n'], from: middle });
  assert.equal(begun.recovered, true);
  await eventually(() => eventsOf(later).length === COUNT - 1000, 'the rest');
  assert.equal(JSON.parse(eventsOf(later)[0][5])[0], 1000);
  await source.emit('n', [COUNT]);
  await eventually(() => eventsOf(later).length === COUNT - 999, 'the next one');
  assert.ok(!eventsOf(later).at(-1)[6].replayed);
  const lost = await later.request(SUBSCRIBE, { from: '~1sPf9AAAA' });
  assert.equal(typeof lost.recovered, 'boolean');
  assert.equal((await later.request(SUBSCRIBE, { from: 'no offset' })).recovered, false);
});

test('a key is emitted once, at whichever node it comes again, also when the first one is killed', async (t) => {
  const cluster = await startCluster(t, 3, RECOVERY);
  const agents = await Promise.all(cluster.nodes.map((node) => agentFor(t, node, { name: 'same' })));
  const other = await agentFor(t, cluster.nodes[0], { name: 'other' });
  const socket = await connected(t, cluster.nodes[1], MODES.websocket);
  const first = await agents[0].emit('once', [1], { key: 'k', confirm: 'mesh' });
  for (const agent of agents) {
    assert.deepEqual(await agent.emit('once', [1], { key: 'k' }), { emit: first.emit, repeated: true });
  }
  assert.notEqual((await other.emit('once', [2], { key: 'k' })).emit, first.emit);
  // The bus's own events may come in between.
  const heard = (event) => socket.inbox.filter(([name]) => name === event).map(([, i]) => i).sort((x, y) => x - y);
  await eventually(() => heard('once').length === 2, 'both');
  // Emits under way while their node is killed, and sent again elsewhere.
  const sent = Array.from({ length: 200 }, (_, i) => agents[0].emit('many', [i], { key: `many-${i}` }).catch(() => {}));
  await Promise.race(sent);
  await cluster.nodes[0].kill();
  const again = await Promise.all(sent.map((_, i) => agents[2].emit('many', [i], { key: `many-${i}`, again: true })));
  assert.ok(again.every(({ emit }) => emit));
  await agents[2].emit('end');
  await received(socket, 'end');
  assert.deepEqual(heard('many'), Array.from({ length: 200 }, (_, i) => i));
  assert.deepEqual(heard('once'), [1, 2]);
});
