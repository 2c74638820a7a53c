// Several nodes behave as one bus: real processes on one host, stock clients.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { startCluster } from '../support/cluster.mjs';
import { MODES, call, client, connected, metric, occurrence, received } from '../support/clients.mjs';
import { afterwards, eventually, freePort, sleep, startServer } from '../support/servers.mjs';

const SETTLED_MS = 300; // presence travels in the background

// Clients round robin over the nodes' own ports; all of them in a room.
async function members(t, cluster, count, room, options = MODES.websocket) {
  const sockets = await Promise.all(Array.from({ length: count }, (_, i) =>
    connected(t, cluster.nodes[i % cluster.nodes.length], options)));
  await Promise.all(sockets.map((socket) => call(socket, 'bus:join', room)));
  return sockets;
}

const who = async (socket, room) => (await call(socket, 'bus:who', room)).count;

// What each socket hears of an event, in order.
function hearing(sockets, event) {
  return sockets.map((socket) => {
    const heard = [];
    socket.on(event, (...args) => heard.push(args));
    return heard;
  });
}

const assertInOrder = (heard, senders, count) => {
  for (const sender of senders) {
    const numbers = heard.filter(([from]) => from === sender).map(([, number]) => number);
    assert.deepEqual(numbers, Array.from({ length: count }, (_, i) => i), `what was heard of ${sender}`);
  }
};

test('an emit reaches the members on all nodes, each once and in each sender\'s order', async (t) => {
  const cluster = await startCluster(t, 3);
  const sockets = await members(t, cluster, 9, 'room');
  const heard = hearing(sockets, 'n');
  const COUNT = 500;
  for (let i = 0; i < COUNT; i++) {
    for (const k of [0, 1, 2]) {
      sockets[k].emit('bus:emit', { to: 'room', event: 'n', args: [k, i], echo: true });
    }
  }
  await eventually(() => heard.every((each) => each.length >= 3 * COUNT), 'all events');
  await sleep(SETTLED_MS);
  for (const each of heard) {
    assert.equal(each.length, 3 * COUNT);
    assertInOrder(each, [0, 1, 2], COUNT);
  }
});

test('targets, exceptions, echo, binary and the API mean the same on every node', async (t) => {
  const cluster = await startCluster(t, 2);
  const [a, b, c, d] = await members(t, cluster, 4, 'all');
  await call(c, 'bus:join', 'quiet');
  await call(a, 'bus:emit', { to: ['all', b.id], except: ['quiet', d.id], event: 'one', args: [1] });
  assert.deepEqual(await received(b, 'one'), [1]);
  await call(b, 'bus:emit', { to: a.id, event: 'direct', args: [{ x: Buffer.from([1, 2, 3]) }] });
  assert.deepEqual([...(await received(a, 'direct'))[0].x], [1, 2, 3]);
  const answer = await fetch(`${cluster.nodes[1].origin}/api/v1/emit`, {
    method: 'POST', body: JSON.stringify({ event: 'api', args: ['x'], to: 'all' }),
  });
  assert.equal((await answer.json()).ok, true);
  for (const socket of [a, b, c, d]) assert.deepEqual(await received(socket, 'api'), ['x']);
  for (const socket of [a, c, d]) assert.ok(!socket.inbox.some(([name]) => name === 'one'));
});

test('bus:who counts the whole cluster, and is right soon after a node was killed', async (t) => {
  const cluster = await startCluster(t, 3);
  const sockets = await members(t, cluster, 9, 'room');
  await eventually(async () => await who(sockets[0], 'room') === 9, 'everybody to be known');
  const { members: listed } = await call(sockets[1], 'bus:who', 'room');
  assert.deepEqual(listed.map(({ sid }) => sid).sort(), sockets.map(({ id }) => id).sort());
  await call(sockets[3], 'bus:leave', 'room');
  await eventually(async () => await who(sockets[2], 'room') === 8, 'the leave to be known');

  sockets.filter((_, i) => i % 3 === 2).forEach((socket) => socket.io.reconnection(false));
  await cluster.nodes[2].kill();
  cluster.nodes.length = 2;
  const killed = Date.now();
  await eventually(async () => await who(sockets[0], 'room') === 5, 'the dead node to be noticed');
  t.diagnostic(`noticed after ${Date.now() - killed} ms`);
});

test('the others go on without a loss while a node is killed, and it comes back', async (t) => {
  const cluster = await startCluster(t, 3);
  const sockets = await members(t, cluster, 6, 'room');
  const staying = [0, 1, 3, 4].map((i) => sockets[i]);
  const heard = hearing(staying, 'n');
  let sent = 0;
  const emitting = setInterval(() => {
    for (const k of [0, 1]) sockets[k].emit('bus:emit', { to: 'room', event: 'n', args: [k, sent], echo: true });
    sent++;
  }, 1);
  await eventually(() => sent > 200, 'some traffic');
  await cluster.nodes[2].kill();
  await eventually(() => sent > 1500, 'more traffic');
  clearInterval(emitting);
  await eventually(() => heard.every((each) => each.length >= 2 * sent), 'all events');
  for (const each of heard) {
    assert.equal(each.length, 2 * sent);
    assertInOrder(each, [0, 1], sent);
  }
  await cluster.start(2);
  const back = await connected(t, cluster.nodes[2], MODES.websocket);
  await call(back, 'bus:join', 'room');
  await call(sockets[0], 'bus:emit', { to: 'room', event: 'again', args: [] });
  await received(back, 'again');
  await eventually(async () => await who(back, 'room') === await who(sockets[0], 'room'), 'the same knowledge');
});

test('a node that was frozen hears what it missed, and is heard again', async (t) => {
  const cluster = await startCluster(t, 3, { peerTimeout: 1000 });
  const sockets = await members(t, cluster, 6, 'room');
  await eventually(async () => await who(sockets[0], 'room') === 6, 'everybody to be known');
  const heard = hearing(sockets, 'n');
  process.kill(cluster.nodes[2].pid, 'SIGSTOP');
  const thaw = () => process.kill(cluster.nodes[2].pid, 'SIGCONT');
  const COUNT = 3000;
  for (let i = 0; i < COUNT; i++) {
    sockets[0].emit('bus:emit', { to: 'room', event: 'n', args: [0, i], echo: true });
    if (i % 50 === 0) await sleep(10);
  }
  try {
    await eventually(async () => await who(sockets[0], 'room') === 4, 'the frozen node to be noticed');
  } finally {
    thaw();
  }
  await eventually(() => heard.every((each) => each.length >= COUNT), 'all events');
  for (const each of heard) {
    assert.equal(each.length, COUNT);
    assertInOrder(each, [0], COUNT);
  }
  for (const k of [0, 1, 2]) {
    await eventually(async () => await who(sockets[k], 'room') === 6, `node ${k} to know everybody again`);
  }
  await call(sockets[2], 'bus:emit', { to: 'room', event: 'back', args: [] });
  for (const k of [0, 1, 3]) await received(sockets[k], 'back');
});

test('polling clients need no stickiness: every request may reach another node', async (t) => {
  const cluster = await startCluster(t, 3);
  const shared = { port: cluster.port };
  const COUNT = 30;
  // A connection for each request, as a load balancer that spreads requests has it.
  const agent = new http.Agent({ keepAlive: false });
  afterwards(t, () => agent.destroy());
  const sockets = Array.from({ length: COUNT }, (_, i) => client(t, shared, {
    ...(i % 2 ? MODES.polling : MODES.upgrade), agent, reconnection: false,
  }));
  const troubles = [];
  for (const socket of sockets) {
    socket.on('disconnect', (reason) => troubles.push(reason));
    socket.on('connect_error', (error) => troubles.push(error.message));
  }
  await Promise.all(sockets.map((socket) => occurrence(socket, 'connect', 'connect_error')));
  await Promise.all(sockets.map((socket) => call(socket, 'bus:join', 'room')));
  await sleep(SETTLED_MS);
  const heard = hearing(sockets, 'n');
  for (let i = 0; i < 100; i++) {
    sockets[i % COUNT].emit('bus:emit', { to: 'room', event: 'n', args: [i], echo: true });
  }
  await eventually(() => troubles.length > 0 || heard.every((each) => each.length >= 100), 'all events');
  assert.deepEqual(troubles, []);
  for (const each of heard) assert.equal(new Set(each.map(([i]) => i)).size, 100);
  for (const each of heard) assert.equal(each.length, 100);
  await eventually(() => sockets.filter((socket) => socket.io.engine.transport.name === 'websocket').length === COUNT / 2,
    'the upgrades');
  let passed = 0;
  for (const node of cluster.nodes) passed += await metric(node, 'starling_connections_passed_total');
  assert.ok(passed > 0, 'connections were handed over');
});

test('a node that starts later is found by all, and knows who is there', async (t) => {
  const cluster = await startCluster(t, 2);
  const sockets = await members(t, cluster, 4, 'room');
  const late = await cluster.start(2, [0, 1]); // the others were never told of it
  const newcomer = await connected(t, late, MODES.websocket);
  assert.equal(await who(newcomer, 'room'), 4);
  await call(newcomer, 'bus:join', 'room');
  await eventually(async () => await who(sockets[0], 'room') === 5, 'the first node to know');
  await call(sockets[0], 'bus:emit', { to: 'room', event: 'hello', args: [] });
  await received(newcomer, 'hello');
});

test('an emit confirmed by the mesh is answered when all nodes have it', async (t) => {
  const cluster = await startCluster(t, 3);
  const emit = (body) => fetch(`${cluster.nodes[0].origin}/api/v1/emit`, { method: 'POST', body: JSON.stringify(body) });
  const confirmed = await emit({ event: 'x', confirm: 'mesh' });
  assert.equal(confirmed.status, 200);
  assert.match((await confirmed.json()).id, /^node-0-[0-9a-f]+:\d+$/);
  process.kill(cluster.nodes[2].pid, 'SIGSTOP');
  try {
    // It waits for the frozen node until that counts as dead.
    const later = await emit({ event: 'x', confirm: 'mesh' });
    assert.equal(later.status, 200);
    assert.equal(await metric(cluster.nodes[0], 'starling_mesh_peers'), 1);
  } finally {
    process.kill(cluster.nodes[2].pid, 'SIGCONT');
  }
});

test('acknowledgements of one emit come from the clients of all nodes', async (t) => {
  const cluster = await startCluster(t, 3);
  const sockets = await Promise.all(cluster.nodes.map((node) => connected(t, node, MODES.websocket)));
  const silent = await connected(t, cluster.nodes[1], MODES.websocket);
  sockets.forEach((socket, k) => socket.on('question', (n, answer) => answer(n + k)));
  const ask = async (ack) => (await fetch(`${cluster.nodes[0].origin}/api/v1/emit`, {
    method: 'POST', body: JSON.stringify({ event: 'question', args: [10], ack }),
  })).json();
  const answer = await ask(1000);
  assert.deepEqual([answer.acks.flat().sort(), answer.missing], [[10, 11, 12], 1]);
  silent.disconnect();
  // Everybody answers, so nobody waits for the whole time.
  await eventually(async () => (await ask(1000)).missing === 0, 'the silent one to be gone');
  const before = Date.now();
  assert.equal((await ask(60000)).acks.length, 3);
  assert.ok(Date.now() - before < 30000);
});

test('nodes that know each other by address are one bus, over TCP', async (t) => {
  const ports = [await freePort(), await freePort()];
  const nodes = await Promise.all([0, 1].map((k) => startServer('starling-node', {
    meshPort: ports[k], peers: `127.0.0.1:${ports[1 - k]}`, name: `host-${k}`,
  })));
  afterwards(t, () => Promise.all(nodes.map((node) => node.stop())));
  const [a, b] = await Promise.all(nodes.map((node) => connected(t, node, MODES.upgrade)));
  await Promise.all([a, b].map((socket) => call(socket, 'bus:join', 'room')));
  await eventually(async () => await who(a, 'room') === 2 && await who(b, 'room') === 2, 'everybody to be known');
  await call(a, 'bus:emit', { to: 'room', event: 'x', args: [1] });
  assert.deepEqual(await received(b, 'x'), [1]);
});

test('nodes of another cluster are not heard', async (t) => {
  const ports = [await freePort(), await freePort()];
  const nodes = await Promise.all([0, 1].map((k) => startServer('starling-node', {
    meshPort: ports[k], peers: `127.0.0.1:${ports[1 - k]}`, cluster: `cluster-${k}`,
  })));
  afterwards(t, () => Promise.all(nodes.map((node) => node.stop())));
  for (const node of nodes) {
    assert.equal(await metric(node, 'starling_mesh_peers'), 0);
    await eventually(async () => await metric(node, 'starling_mesh_rejected_total') > 0, 'the strangers to be refused');
  }
});
