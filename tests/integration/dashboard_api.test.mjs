// What stands behind the dashboard: its files, its namespace, and the API of sessions, rooms and events.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test as plainTest } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { io } from 'socket.io-client';
import { KIND } from '../support/agent.mjs';
import { startCluster } from '../support/cluster.mjs';
import { connectClients, openCallee } from '../support/dashboard.mjs';
import { metricOf } from '../support/clients.mjs';
import { afterwards, eventually, PATIENCE_MS, serverFor } from '../support/servers.mjs';

const test = (name, body) => plainTest(name, { timeout: 120000 }, body);

// fetch() would unpack what it gets.
const request = (url, { method = 'GET', headers = {} } = {}) => new Promise((resolve, reject) => {
  http.request(url, { method, headers }, (response) => {
    const parts = [];
    response.on('data', (part) => parts.push(part));
    response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }));
  }).on('error', reject).end();
});

const json = async (url) => {
  const response = await fetch(url);
  return { status: response.status, ...(await response.json()) };
};

function openAdmin(context, origin, auth) {
  const socket = io(`${origin}/admin`, { forceNew: true, transports: ['websocket'], reconnection: false, auth });
  afterwards(context, () => socket.close());
  return new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(socket));
    socket.once('connect_error', reject);
  });
}

test('the page comes compressed, is asked for once, and may run nothing that is not a file of the node', async (t) => {
  const node = await serverFor(t, 'starling-node');
  const plain = await request(`${node.origin}/`);
  assert.equal(plain.status, 200);
  assert.equal(plain.headers['content-type'], 'text/html; charset=utf-8');
  assert.match(plain.headers['content-security-policy'], /default-src 'none'; script-src 'self'; style-src 'self'/);
  assert.doesNotMatch(plain.headers['content-security-policy'], /unsafe/);
  assert.equal(plain.headers['x-content-type-options'], 'nosniff');
  assert.doesNotMatch(plain.body.toString(), /<script>|style=|onclick/);
  const packed = await request(`${node.origin}/`, { headers: { 'accept-encoding': 'gzip' } });
  assert.equal(packed.headers['content-encoding'], 'gzip');
  assert.deepEqual(gunzipSync(packed.body), plain.body);
  const again = await request(`${node.origin}/`, { headers: { 'if-none-match': plain.headers.etag } });
  assert.deepEqual([again.status, again.body.length], [304, 0]);
  for (const [file, type] of [['app.js', 'application/javascript'], ['style.css', 'text/css'], ['views/overview.js', 'application/javascript'], ['vendor/socket.io.js', 'application/javascript'], ['logo.svg', 'image/svg+xml']]) {
    const { status, headers } = await request(`${node.origin}/${file}`);
    assert.deepEqual([status, headers['content-type']], [200, `${type}; charset=utf-8`], file);
  }
  assert.equal((await request(`${node.origin}/nothing.js`)).status, 404);
  assert.equal((await request(`${node.origin}/..%2fbundle.c`)).status, 404);
  assert.equal((await request(`${node.origin}/`, { method: 'POST' })).status, 405);
});

test('--base-path moves the page and the API', async (t) => {
  const node = await serverFor(t, 'starling-node', { basePath: '/bus/', path: '/bus/socket.io/' });
  assert.equal((await request(`${node.origin}/bus/`)).status, 200);
  const { status, headers } = await request(`${node.origin}/bus`);
  assert.deepEqual([status, headers.location], [308, '/bus/']);
  assert.equal((await json(`${node.origin}/bus/api/v1/nodes`)).nodes.length, 1);
  const { key, path, base_path: base } = await json(`${node.origin}/bus/api/v1/key`);
  assert.deepEqual([path, base], ['/bus/socket.io/', '/bus/']);
  const socket = io(`${node.origin}/admin`, { path, transports: ['websocket'], forceNew: true, auth: { key } });
  afterwards(t, () => socket.close());
  const told = await new Promise((resolve) => { socket.once('nodes', resolve); });
  assert.equal(told.nodes[0].here, true);
});

test('the namespace of the dashboard takes the key of any node, and nothing else', async (t) => {
  const cluster = await startCluster(t, 2, { recovery: 120000 });
  const keys = await Promise.all(cluster.nodes.map(async ({ origin }) => (await json(`${origin}/api/v1/key`)).key));
  assert.notEqual(keys[0], keys[1]);
  const { origin } = cluster.nodes[0];
  for (const auth of [undefined, {}, { key: '' }, { key: 'x'.repeat(20) }, { key: 1 }, { key: [keys[0]] }]) {
    await assert.rejects(openAdmin(t, origin, auth), /the key is missing or wrong/);
  }
  await openAdmin(t, origin, { key: keys[0] });
  const socket = await openAdmin(t, origin, { key: keys[1] });
  const names = await new Promise((resolve) => {
    socket.on('nodes', ({ nodes }) => { if (nodes.length === 2) resolve(nodes.map(({ name }) => name)); });
  });
  assert.deepEqual(names.sort(), ['node-0', 'node-1']);
  // Nobody else speaks there.
  const answer = await (await fetch(`${origin}/api/v1/emit`, { method: 'POST', body: '{"ns":"/admin","event":"nodes","args":[]}' })).json();
  assert.equal(answer.ok, false);
  assert.equal((await socket.timeout(PATIENCE_MS).emitWithAck('bus:who', 'x')).ok, false);
});

test('sessions are found on all nodes, a page after the other', async (t) => {
  const cluster = await startCluster(t, 3, { recovery: 120000 });
  const clients = await connectClients(t, cluster.nodes, 30);
  const { origin } = cluster.nodes[1];
  const ids = clients.map(({ id }) => id).sort();
  let found = [];
  let after = '';
  do {
    const page = await json(`${origin}/api/v1/sessions?limit=7&after=${after}`);
    assert.deepEqual([page.total, page.unanswered], [30, 0]);
    assert.ok(page.rows.length <= 7);
    found = [...found, ...page.rows];
    after = page.next;
  } while (after);
  assert.deepEqual(found.map(({ sid }) => sid), ids);
  for (const row of found) {
    const i = clients.findIndex(({ id }) => id === row.sid);
    assert.deepEqual([row.node, row.ns, row.address, row.transport, row.rooms], [`node-${i % 3}`, '/', '127.0.0.1', i % 5 ? 'websocket' : 'polling', ['everybody', `room-${i % 4}`]]);
  }
  const count = async (query) => (await json(`${origin}/api/v1/sessions?${query}`)).total;
  assert.equal(await count('q=room-3'), clients.filter((_, i) => i % 4 === 3).length);
  assert.equal(await count('q=node-2'), 10);
  assert.equal(await count('room=room-1&ns=/'), clients.filter((_, i) => i % 4 === 1).length);
  assert.equal(await count('q=127.0.0.1'), 30);
  assert.equal(await count('ns=/other'), 0);
  assert.equal(await count(`sid=${ids[4]}`), 1);
  assert.equal(await count('q=%00%22%5C'), 0);
  assert.equal((await json(`${origin}/api/v1/sessions?limit=x`)).status, 400);
  assert.equal((await json(`${origin}/api/v1/sessions?q=${'x'.repeat(300)}`)).status, 400);
  assert.equal((await json(`${origin}/api/v1/sessions?q=%ff`)).status, 400);
});

test('rooms of the whole cluster are known to every node', async (t) => {
  const cluster = await startCluster(t, 3, { recovery: 120000 });
  const clients = await connectClients(t, cluster.nodes, 12);
  await clients[0].timeout(PATIENCE_MS).emitWithAck('bus:join', 'only "here"');
  for (const { origin } of cluster.nodes) {
    const told = await eventually(async () => {
      const { rooms, total } = await json(`${origin}/api/v1/rooms`);
      return total === 6 && rooms;
    }, 'all rooms');
    assert.deepEqual([told[0].name, told[0].members], ['everybody', 12]);
    assert.deepEqual(told.slice(1).map(({ members }) => members), [3, 3, 3, 3, 1]);
    assert.equal(told[5].name, 'only "here"');
    const first = await json(`${origin}/api/v1/rooms?limit=4`);
    const second = await json(`${origin}/api/v1/rooms?limit=4&after=${first.next}`);
    assert.deepEqual([...first.rooms, ...second.rooms].map(({ name }) => name).sort(), told.map(({ name }) => name).sort());
    assert.equal(second.next, null);
    assert.equal((await json(`${origin}/api/v1/rooms?q=room-`)).total, 4);
  }
  clients[0].emit('bus:emit', { to: 'room-2', event: 'x' });
  await eventually(async () => (await json(`${cluster.nodes[2].origin}/api/v1/rooms?sort=traffic`)).rooms[0]?.name === 'room-2', 'the room with the traffic');
  // Said at each of the nodes, to members at one of them.
  for (const client of clients.slice(0, 3)) await client.timeout(PATIENCE_MS).emitWithAck('bus:emit', { to: 'only "here"', event: 'x' });
  for (const { origin } of cluster.nodes) {
    const most = () => json(`${origin}/api/v1/rooms?sort=traffic`);
    await eventually(async () => (await most()).rooms[0]?.emits === 3, 'the traffic of a room');
    assert.deepEqual((await most()).rooms.map(({ name, members, emits }) => [name, members, emits]), [['only "here"', 1, 3], ['room-2', 3, 1]]);
  }
});

test('an action reaches the session on whichever node it is', async (t) => {
  const cluster = await startCluster(t, 2, { recovery: 120000 });
  const clients = await connectClients(t, cluster.nodes, 4);
  const { key } = await json(`${cluster.nodes[0].origin}/api/v1/key`);
  const admin = await openAdmin(t, cluster.nodes[0].origin, { key });
  const ask = (question) => admin.timeout(PATIENCE_MS).emitWithAck('ask', question);
  for (const client of clients.slice(0, 2)) {
    assert.equal((await ask({ do: 'join', sid: client.id, ns: '/', room: 'r' })).ok, true);
    const heard = new Promise((resolve) => { client.once('x', resolve); });
    await fetch(`${cluster.nodes[1].origin}/api/v1/emit`, { method: 'POST', body: '{"to":"r","event":"x","args":[7]}' });
    assert.equal(await heard, 7);
    assert.equal((await ask({ do: 'leave', sid: client.id, ns: '/', room: 'r' })).ok, true);
    const gone = new Promise((resolve) => { client.once('disconnect', resolve); });
    assert.equal((await ask({ do: 'disconnect', sid: client.id, ns: '/' })).ok, true);
    assert.equal(await gone, 'io server disconnect');
    assert.equal((await ask({ do: 'disconnect', sid: client.id, ns: '/' })).ok, false);
  }
  for (const nonsense of [undefined, null, 7, [], 'x']) assert.equal((await ask(nonsense)).ok, false);
  assert.equal((await ask({ do: 'nothing' })).ok, false);
  // A page that ends itself hurts nobody.
  const self = new Promise((resolve) => { admin.once('disconnect', resolve); });
  admin.emit('ask', { do: 'disconnect', sid: admin.id, ns: '/admin' });
  assert.equal(await self, 'io server disconnect');
  await eventually(async () => (await json(`${cluster.nodes[0].origin}/api/v1/nodes`)).nodes.length === 2, 'both nodes');
});

test('ends are told with their reasons, and events as they pass', async (t) => {
  const cluster = await startCluster(t, 2, { recovery: 120000 });
  const clients = await connectClients(t, cluster.nodes, 4);
  const { origin } = cluster.nodes[0];
  clients[1].io.engine.close();
  const { rows } = await eventually(async () => {
    const told = await json(`${origin}/api/v1/ends`);
    return told.total === 1 && told;
  }, 'the end');
  assert.deepEqual([rows[0].reason, rows[0].node, rows[0].address], ['transport close', 'node-1', '127.0.0.1']);
  const watched = json(`${origin}/api/v1/events?limit=2&wait_ms=9000&event=x&ns=/`);
  const timer = setInterval(() => {
    clients[0].emit('bus:emit', { to: ['a', 'b'], event: 'xyz', args: ['"é"'] });
    clients[2].emit('bus:emit', { event: 'y' });
  }, 50);
  afterwards(t, () => clearInterval(timer));
  const { events } = await watched;
  assert.ok(events.length >= 2);
  for (const event of events) {
    assert.deepEqual([event.ns, event.event, event.to, event.args, event.volatile], ['/', 'xyz', ['a', 'b'], '"\\"é\\""', false]);
    assert.match(event.id, /:\d+$/);
  }
  const none = await json(`${origin}/api/v1/events?wait_ms=50&room=nobody`);
  assert.deepEqual([none.events, none.skipped], [[], 0]);
  assert.equal((await json(`${origin}/api/v1/events?wait_ms=99999`)).status, 400);
});

test('agents of all nodes are listed by any of them, found, and paged, and their figures are those of /metrics', async (t) => {
  const cluster = await startCluster(t, 2, { recovery: 120000 });
  const agents = [];
  for (const [i, group] of ['jobs', 'jobs', 'audit'].entries()) agents.push(await openCallee(t, cluster.nodes[Math.min(i, 1)], `worker-${i}`, group));
  await agents[2].request(KIND.REGISTER, 'ledger', {});
  await agents[2].request(KIND.SUBSCRIBE, { events: ['orders.>'], rooms: ['everybody'] });
  const [client] = await connectClients(t, cluster.nodes, 1);
  for (let i = 0; i < 40; i++) await client.timeout(PATIENCE_MS).emitWithAck('job', i);
  await client.timeout(PATIENCE_MS).emitWithAck('late');
  const [one, other] = cluster.nodes.map(({ origin }) => (path) => json(`${origin}/api/v1/agents${path}`));
  const { rows } = await eventually(async () => {
    const told = await one('');
    return told.total === 3 && told.rows.reduce((sum, row) => sum + row.timed_out_total, 0) === 2 && told;
  }, 'both groups to have missed the deadline');
  assert.deepEqual(rows.map(({ name, node, groups, addresses, handlers, actors, subscriptions, watches }) => ({ name, node, groups, addresses, handlers, actors, subscriptions, watches })), [
    { name: 'worker-0', node: 'node-0', groups: ['jobs'], addresses: [], handlers: 1, actors: 0, subscriptions: 0, watches: 0 },
    { name: 'worker-1', node: 'node-1', groups: ['jobs'], addresses: [], handlers: 1, actors: 0, subscriptions: 0, watches: 0 },
    { name: 'worker-2', node: 'node-1', groups: ['audit'], addresses: ['ledger'], handlers: 1, actors: 1, subscriptions: 1, watches: 0 },
  ]);
  assert.deepEqual((await other('')).rows.map(({ instance }) => instance), rows.map(({ instance }) => instance));
  assert.equal(rows[0].calls_total + rows[1].calls_total, 41);
  assert.deepEqual([rows[2].calls_total, rows[2].answered_total, rows[2].failed_total, rows[2].timed_out_total], [41, 40, 8, 1]);
  for (const row of rows) {
    if (row.answered_total) assert.ok(row.p50_us >= 4500 && row.p50_us <= row.p99_us, `${row.p50_us} ${row.p99_us}`);
    else assert.deepEqual([row.p50_us, row.p99_us], [null, null]);
    assert.ok(row.credit_bytes > 0 && row.unanswered === 0 && row.waiting === 0);
  }
  for (const { origin } of cluster.nodes) {
    const metrics = await (await fetch(`${origin}/metrics`)).text();
    const here = (await one('')).rows.filter(({ node }) => node === `node-${cluster.nodes.findIndex((n) => n.origin === origin)}`);
    const sum = (key) => here.reduce((total, row) => total + row[key], 0);
    assert.equal(metricOf(metrics, 'starling_agents'), here.length);
    assert.equal(metricOf(metrics, 'starling_agent_call_seconds_count'), sum('answered_total'));
    assert.equal(metricOf(metrics, 'starling_agent_timeouts_total'), sum('timed_out_total'));
  }
  const names = async (path) => (await other(path)).rows.map(({ name }) => name);
  assert.deepEqual(await names('?q=orders.'), ['worker-2']);
  assert.deepEqual(await names('?q=node-1'), ['worker-1', 'worker-2']);
  assert.deepEqual(await names('?group=jobs'), ['worker-0', 'worker-1']);
  assert.deepEqual(await names('?group=job'), []);
  const first = await other('?limit=2');
  assert.deepEqual([first.rows.length, first.total], [2, 3]);
  const second = await one(`?limit=2&after=${encodeURIComponent(first.next)}`);
  assert.deepEqual([second.rows.map(({ name }) => name), second.next], [['worker-2'], null]);
  const { registrations } = (await other(`?instance=${rows[2].instance}`)).rows[0];
  assert.deepEqual(registrations, [
    { kind: 'handle', name: 'audit', namespaces: ['/'], events: ['job', 'late'], rooms: [], life: [], limit: 7, unanswered: 0 },
    { kind: 'register', name: 'ledger', namespaces: [], events: [], rooms: [], life: [], limit: 0, unanswered: 0 },
    { kind: 'subscribe', name: '', namespaces: [], events: ['orders.>'], rooms: ['everybody'], life: [], limit: 0, unanswered: 0 },
  ]);
  const busy = setInterval(() => client.emit('job', 0), 20);
  afterwards(t, () => clearInterval(busy));
  await eventually(async () => {
    const told = await other('?sort=calls');
    return told.rows[0].name === 'worker-2' && told.rows[0].calls_per_s > 10;
  }, 'the busiest agent to be the first');
  agents[1].close();
  await eventually(async () => (await one('')).total === 2, 'an agent that has gone to be listed no more');
});

test('machines: none yet, and no history of one that is not there', async (t) => {
  const node = await serverFor(t, 'starling-node');
  assert.deepEqual((await json(`${node.origin}/api/v1/machines`)).machines, []);
  assert.equal((await json(`${node.origin}/api/v1/machines?history=tens&id=0123456789abcdef`)).status, 404);
  assert.equal((await json(`${node.origin}/api/v1/machines?history=years&id=0123456789abcdef`)).status, 400);
  assert.equal((await json(`${node.origin}/api/v1/machines?history=tens&id=x`)).status, 400);
});
