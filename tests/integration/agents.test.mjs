// Agents at the nodes of a bus: what proto/agent.md promises, from every node to every other, with stock clients.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KIND, agentFor, refuse } from '../support/agent.mjs';
import { startCluster } from '../support/cluster.mjs';
import { MODES, call, client, connected, occurrence, received } from '../support/clients.mjs';
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
