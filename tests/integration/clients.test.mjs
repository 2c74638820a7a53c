// The stock JavaScript client against sio_echo (protocol) and starling-node (the bus and its HTTP API).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  MODES, call, client, connected, metric, occurrence, proxy, received, transportOf, upgraded,
} from '../support/clients.mjs';
import { afterwards, eventually, freePort, reference, serverFor, sleep, startServer, useServer } from '../support/servers.mjs';
import { request } from '../support/wire.mjs';

const LONG = { pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 };
const echo = useServer('sio_echo', { ...LONG, namespaces: '/,/custom' });
const node = useServer('starling-node', LONG);

for (const [mode, options] of Object.entries(MODES)) {
  test(`${mode}: text and structures come back`, async (t) => {
    const socket = await connected(t, echo, options);
    const args = ['€', 1, -0.5, true, null, { a: [1, { b: '\u{1f600}' }], c: {} }, []];
    socket.emit('message', ...args);
    assert.deepEqual(await received(socket, 'message-back'), args);
    socket.emit('message');
    assert.deepEqual(await received(socket, 'message-back'), []);
  });

  test(`${mode}: binary comes back`, async (t) => {
    const socket = await connected(t, echo, options);
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    socket.emit('message', bytes, { deep: [bytes, 'text', Buffer.alloc(0)] }, 'end');
    const [first, { deep }, end] = await received(socket, 'message-back');
    assert.ok(bytes.equals(first) && bytes.equals(deep[0]));
    assert.deepEqual([deep[1], deep[2].length, end], ['text', 0, 'end']);
  });

  test(`${mode}: large messages come back`, async (t) => {
    const socket = await connected(t, echo, options);
    const [text, bytes] = ['x'.repeat(900000), Buffer.alloc(700000, 5)];
    socket.emit('message', text);
    assert.equal((await received(socket, 'message-back'))[0], text);
    socket.emit('message', bytes);
    assert.ok(bytes.equals((await received(socket, 'message-back'))[0]));
  });

  test(`${mode}: acknowledgements go both ways`, async (t) => {
    const socket = await connected(t, echo, options);
    assert.deepEqual(await call(socket, 'message-with-ack', { a: 1 }), { a: 1 });
    assert.ok(Buffer.from('bin').equals(await call(socket, 'message-with-ack', Buffer.from('bin'))));
    socket.on('please-ack', (...args) => args.pop()('got', ...args));
    socket.emit('emit-with-ack', 1, 'two');
    assert.deepEqual(await received(socket, 'ack-result'), ['got', 1, 'two']);
    socket.emit('emit-with-ack', Buffer.from([1, 2]));
    const [, bytes] = await received(socket, 'ack-result');
    assert.ok(Buffer.from([1, 2]).equals(bytes));
  });

  test(`${mode}: many acknowledgements at a time find their callers`, async (t) => {
    const socket = await connected(t, echo, options);
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => call(socket, 'message-with-ack', i)));
    assert.deepEqual(answers, Array.from({ length: 300 }, (_, i) => i));
  });

  test(`${mode}: namespaces share a connection and have their own auth and sid`, async (t) => {
    const main = await connected(t, echo, { ...options, auth: { who: 'main' } });
    const custom = main.io.socket('/custom', { auth: { who: 'custom' } });
    custom.inbox = [];
    custom.onAny((name, ...args) => custom.inbox.push([name, ...args]));
    assert.deepEqual(await received(custom, 'auth'), [{ who: 'custom' }]);
    assert.deepEqual(await received(main, 'auth'), [{ who: 'main' }]);
    assert.notEqual(custom.id, main.id);
    custom.disconnect();
    main.emit('message', 'still here');
    assert.deepEqual(await received(main, 'message-back'), ['still here']);
  });

  test(`${mode}: a refused namespace is a connect_error with its data`, async (t) => {
    const refused = client(t, echo, { ...options, namespace: '/custom', auth: { refuse: true } });
    const [error] = await occurrence(refused, 'connect_error');
    assert.equal(error.message, 'refused');
    assert.deepEqual(error.data, { why: 'asked' });
    const unknown = client(t, echo, { ...options, namespace: '/nowhere' });
    assert.equal((await occurrence(unknown, 'connect_error'))[0].message, 'Invalid namespace');
  });

  test(`${mode}: a disconnect by the server is told as such`, async (t) => {
    for (const close of [undefined, true]) {
      const socket = await connected(t, echo, options);
      const disconnected = occurrence(socket, 'disconnect');
      socket.emit('server-disconnect', close);
      assert.equal((await disconnected)[0], 'io server disconnect');
      socket.connect();
      await occurrence(socket, 'connect');
      assert.deepEqual(await call(socket, 'message-with-ack', 1), 1);
    }
  });

  test(`${mode}: a disconnect by the client ends its session`, async (t) => {
    const before = await metric(node, 'starling_sessions');
    const socket = await connected(t, node, options);
    await eventually(async () => await metric(node, 'starling_sessions') === before + 1, 'the session to be counted');
    const disconnected = occurrence(socket, 'disconnect');
    socket.disconnect();
    assert.equal((await disconnected)[0], 'io client disconnect');
    await eventually(async () => await metric(node, 'starling_sessions') === before, 'the session to end');
  });

  test(`${mode}: heartbeats keep an idle client connected`, async (t) => {
    const beating = await serverFor(t, 'sio_echo', { pingInterval: 300, pingTimeout: 2000 });
    const socket = await connected(t, beating, { ...options, reconnection: false });
    let pings = 0;
    socket.io.on('ping', () => pings++);
    await eventually(() => pings >= 6, 'six pings');
    assert.ok(socket.connected);
  });

  test(`${mode}: a client reconnects when its connection is cut`, async (t) => {
    const front = await proxy(t, echo);
    const socket = await connected(t, front, options);
    for (let round = 0; round < 3; round++) {
      const [before, disconnected] = [socket.id, occurrence(socket, 'disconnect')];
      const cutting = setInterval(front.cut, 20); // between two polls there is nothing to cut
      const [reason] = await disconnected.finally(() => clearInterval(cutting));
      assert.match(reason, /^transport (close|error)$/);
      await occurrence(socket, 'connect');
      assert.notEqual(socket.id, before);
      assert.equal(await call(socket, 'message-with-ack', round), round);
    }
  });

  test(`${mode}: a client reconnects when the server was killed and started again`, async (t) => {
    const port = await freePort();
    const first = await startServer('sio_echo', { ...LONG, port });
    afterwards(t, () => first.stop());
    const socket = await connected(t, first, options);
    const disconnected = occurrence(socket, 'disconnect');
    await first.kill();
    await disconnected;
    const buffered = call(socket, 'message-with-ack', 'sent while away');
    const reconnected = occurrence(socket, 'connect');
    await serverFor(t, 'sio_echo', { ...LONG, port });
    await reconnected;
    assert.equal(await buffered, 'sent while away');
  });

  test(`${mode}: a client reconnects when the server was stopped and started again`, async (t) => {
    const port = await freePort();
    const first = await startServer('sio_echo', { ...LONG, port });
    afterwards(t, () => first.stop());
    const socket = await connected(t, first, options);
    const disconnected = occurrence(socket, 'disconnect');
    await first.stop();
    assert.match((await disconnected)[0], /^transport (close|error)$/);
    const reconnected = occurrence(socket, 'connect');
    await serverFor(t, 'sio_echo', { ...LONG, port });
    await reconnected;
    assert.equal(await call(socket, 'message-with-ack', 1), 1);
  });

  test(`${mode}: a message over maxPayload costs the connection, not the server`, async (t) => {
    const small = await serverFor(t, 'sio_echo', { ...LONG, maxPayload: 10000 });
    const socket = await connected(t, small, options);
    const disconnected = occurrence(socket, 'disconnect');
    socket.emit('message', 'x'.repeat(20000));
    assert.match((await disconnected)[0], /^transport (close|error)$/);
    await occurrence(socket, 'connect');
    assert.equal(await call(socket, 'message-with-ack', 1), 1);
  });

  test(`${mode}: volatile events arrive on an idle connection and never twice`, async (t) => {
    const socket = await connected(t, echo, options);
    socket.emit('volatile-burst', 20);
    assert.equal(await call(socket, 'message-with-ack', 'after'), 'after');
    const numbers = socket.inbox.filter(([name]) => name === 'v').map(([, n]) => n);
    assert.deepEqual(numbers, [...new Set(numbers)].sort((a, b) => a - b));
    if (mode !== 'polling') assert.ok(numbers.length >= 1);
  });
}

// ---- Upgrades under load

async function floodWhileUpgrading(t, server, total) {
  const socket = client(t, server, MODES.upgrade);
  await occurrence(socket, 'connect');
  for (let i = 0; i < total; i++) {
    socket.emit('message', i, i % 100 === 0 ? Buffer.from([i / 100]) : undefined);
    if (i % 50 === 49) await sleep(1);
  }
  await eventually(() => socket.inbox.length > total, 'all messages');
  await upgraded(socket);
  const numbers = socket.inbox.filter(([name]) => name === 'message-back').map(([, n]) => n);
  assert.deepEqual(numbers, Array.from({ length: total }, (_, i) => i));
}

test('messages of a client that is upgrading arrive once and in order', async (t) => {
  const slow = await proxy(t, echo, { delayMs: 8 });
  await Promise.all([echo, echo, slow, slow, slow].map((server) => floodWhileUpgrading(t, server, 1000)));
});

test('messages for clients that are upgrading arrive once and in order', async (t) => {
  const publisher = await connected(t, node, MODES.websocket);
  const slow = await proxy(t, node, { delayMs: 10 });
  const receivers = [];
  let stop = false;
  const arrivals = (async () => {
    while (!stop) {
      const socket = client(t, slow, MODES.upgrade);
      await occurrence(socket, 'connect');
      socket.emit('bus:join', 'flood');
      receivers.push(socket);
    }
  })();
  for (let i = 0; i < 1000; i++) {
    publisher.emit('bus:emit', { to: 'flood', event: 'n', args: [i] });
    if (i % 5 === 4) await sleep(2);
  }
  stop = true;
  await arrivals;
  await eventually(async () => (await call(publisher, 'bus:who', 'flood')).count === receivers.length, 'all joined');
  await call(publisher, 'bus:emit', { to: 'flood', event: 'n', args: ['end'] });
  for (const socket of receivers) {
    await eventually(() => socket.inbox.at(-1)?.[1] === 'end', 'the end');
    const numbers = socket.inbox.map(([, n]) => n).slice(0, -1);
    const from = numbers[0] ?? 1000;
    assert.deepEqual(numbers, Array.from({ length: 1000 - from }, (_, i) => from + i));
  }
  assert.ok(receivers.length >= 2 && receivers[0].inbox.length > 100);
});

// ---- The bus

test('bus:join and bus:leave answer with the rooms of the call', async (t) => {
  const socket = await connected(t, node, MODES.websocket);
  const rooms = async (...event) => {
    const answer = await call(socket, ...event);
    assert.equal(answer.ok, true, JSON.stringify(answer));
    return answer.rooms.sort();
  };
  assert.deepEqual(await rooms('bus:join', 'a'), ['a']);
  assert.deepEqual(await rooms('bus:join', ['b', 'c', 'a']), ['a', 'b', 'c']);
  assert.deepEqual(await rooms('bus:leave', ['a', 'never joined']), ['a', 'never joined']);
  assert.deepEqual(await rooms('bus:leave', 'c'), ['c']);
});

test('requests to the bus that make no sense are answered with an error', async (t) => {
  const socket = await connected(t, node, MODES.websocket);
  const long = 'x'.repeat(257);
  const wrong = [
    ['bus:join', ''], ['bus:join', [long]], ['bus:join', Array(257).fill('r')], ['bus:emit', { args: [] }],
    ['bus:emit', { event: 1 }], ['bus:emit', { event: 'e', args: 'no array' }], ['bus:emit', { event: 'e', to: [long] }],
  ];
  if (!reference) {
    wrong.push(['bus:join'], ['bus:join', 5], ['bus:join', { a: 1 }], ['bus:leave', null], ['bus:emit'], ['bus:emit', 'x'],
      ['bus:emit', { event: 'disconnect' }], ['bus:who'], ['bus:who', ['a', 'b']], ['bus:unknown', 1]);
  }
  for (const event of wrong) {
    const answer = await call(socket, ...event);
    assert.equal(answer.ok, false, JSON.stringify(event).slice(0, 80));
    assert.equal(typeof answer.error, 'string');
  }
  assert.deepEqual((await call(socket, 'bus:who', 'r')).count, 0);
});

test('bus:emit reaches a room, leaves the sender out unless echo, spares the excepted', async (t) => {
  const [a, b, c] = [await connected(t, node), await connected(t, node, MODES.polling), await connected(t, node, MODES.websocket)];
  for (const socket of [a, b, c]) await call(socket, 'bus:join', 'room');
  await call(c, 'bus:join', 'quiet');
  const answer = await call(a, 'bus:emit', { to: 'room', event: 'one', args: [1, { two: [3] }] });
  assert.equal(answer.ok, true);
  assert.match(answer.id, /^.+:\d+$/);
  for (const socket of [b, c]) assert.deepEqual(await received(socket, 'one'), [1, { two: [3] }]);
  await call(a, 'bus:emit', { to: 'room', event: 'two', except: ['quiet'], echo: true });
  await call(a, 'bus:emit', { to: 'room', event: 'last', echo: true });
  for (const socket of [a, b, c]) await received(socket, 'last');
  const names = (socket) => socket.inbox.map(([name]) => name);
  assert.deepEqual([names(a), names(b), names(c)], [['two'], ['two'], []]);
});

test('bus:emit without a room reaches the namespace and no other', async (t) => {
  const sockets = [];
  for (const namespace of ['/', '/chat', '/chat']) sockets.push(await connected(t, node, { namespace }));
  const [main, sender, other] = sockets;
  await call(sender, 'bus:emit', { event: 'all', args: ['x'] });
  assert.deepEqual(await received(other, 'all'), ['x']);
  await call(main, 'bus:emit', { event: 'end', echo: true });
  await received(main, 'end');
  assert.deepEqual([main.inbox, sender.inbox, other.inbox], [[], [], []]);
});

test('bus:emit carries binary', async (t) => {
  for (const options of Object.values(MODES)) {
    const socket = await connected(t, node, options);
    await call(socket, 'bus:emit', { to: socket.id, event: 'bin', args: [Buffer.from([1, 2]), 'x', Buffer.from([3])], echo: true });
    const [first, text, second] = await received(socket, 'bin');
    assert.ok(Buffer.from([1, 2]).equals(first) && Buffer.from([3]).equals(second) && text === 'x');
  }
});

test('volatile emits reach clients that can take them', async (t) => {
  const [a, b] = [await connected(t, node, MODES.websocket), await connected(t, node, MODES.websocket)];
  await call(a, 'bus:emit', { to: b.id, event: 'v', args: [1], volatile: true });
  assert.deepEqual(await received(b, 'v'), [1]);
});

test('bus:who counts and lists the members of a room', async (t) => {
  const sockets = [];
  for (const options of Object.values(MODES)) sockets.push(await connected(t, node, options));
  for (const socket of sockets) await call(socket, 'bus:join', 'who');
  const { ok, count, members } = await call(sockets[0], 'bus:who', 'who');
  assert.deepEqual([ok, count], [true, 3]);
  assert.deepEqual(members.map(({ sid }) => sid).sort(), sockets.map(({ id }) => id).sort());
  assert.ok(members.every((member) => 'user' in member));
  sockets[2].disconnect();
  await eventually(async () => (await call(sockets[0], 'bus:who', 'who')).count === 2, 'the member to go');
  assert.equal((await call(sockets[0], 'bus:who', 'never used')).count, 0);
});

test('fifty clients in overlapping rooms get each emit exactly once', async (t) => {
  const modes = Object.values(MODES);
  const sockets = await Promise.all(Array.from({ length: 50 }, (_, i) => connected(t, node, modes[i % 3])));
  // Client i is in the rooms of its divisors among 2, 3 and 5, and in "all".
  const roomsOf = (i) => ['all', ...[2, 3, 5].filter((d) => i % d === 0).map((d) => `by${d}`)];
  await Promise.all(sockets.map((socket, i) => call(socket, 'bus:join', roomsOf(i))));
  const emits = [];
  for (const to of [['by2'], ['by2', 'by3'], ['by2', 'by3', 'by5', 'all'], ['all', 'all'], ['by5', 'by5']]) {
    for (const except of [[], ['by3']]) emits.push({ to, except });
  }
  await Promise.all(emits.map((emit, n) =>
    call(sockets[n], 'bus:emit', { ...emit, event: 'n', args: [n], echo: true })));
  await call(sockets[0], 'bus:emit', { to: 'all', event: 'end', echo: true });
  for (const [i, socket] of sockets.entries()) {
    await received(socket, 'end');
    const got = socket.inbox.map(([, n]) => n).sort((a, b) => a - b);
    const due = emits.map((_, n) => n).filter((n) =>
      emits[n].to.some((room) => roomsOf(i).includes(room)) && !emits[n].except.some((room) => roomsOf(i).includes(room)));
    assert.deepEqual(got, due, `client ${i}`);
  }
});

test('a sender keeps its order towards every receiver', async (t) => {
  const sender = await connected(t, node, MODES.websocket);
  const receivers = [];
  for (const options of Object.values(MODES)) receivers.push(await connected(t, node, options));
  await Promise.all(receivers.map((socket) => call(socket, 'bus:join', 'order')));
  for (let i = 0; i < 1000; i++) sender.emit('bus:emit', { to: 'order', event: 'n', args: [i] });
  for (const socket of receivers) {
    await eventually(() => socket.inbox.length >= 1000, 'all messages');
    assert.deepEqual(socket.inbox.map(([, n]) => n), Array.from({ length: 1000 }, (_, i) => i));
  }
});

// ---- HTTP

const api = (body, headers = {}) => request(node, {
  method: 'POST', target: '/api/v1/emit', body: typeof body === 'string' ? body : JSON.stringify(body),
  headers: { 'content-type': 'application/json', ...headers },
});

test('POST /api/v1/emit reaches clients as bus:emit does', async (t) => {
  const [a, b, c] = [await connected(t, node), await connected(t, node), await connected(t, node, { namespace: '/api' })];
  await call(a, 'bus:join', ['api', 'api2']);
  await call(b, 'bus:join', 'api');
  const response = await api({ ns: '/', to: ['api'], except: ['api2'], event: 'from-api', args: [1, { a: '€' }], volatile: false });
  assert.equal(response.status, 200);
  assert.match(response.headers['content-type'], /^application\/json/);
  assert.equal(response.json.ok, true);
  assert.match(response.json.id, /^.+:\d+$/);
  assert.deepEqual(await received(b, 'from-api'), [1, { a: '€' }]);
  await api({ ns: '/api', event: 'there' });
  assert.deepEqual(await received(c, 'there'), []);
  await api({ to: ['api'], event: 'end' });
  await received(a, 'end');
  assert.deepEqual(a.inbox, []);
});

test('POST /api/v1/emit refuses what it cannot understand', async () => {
  for (const body of ['', 'no json', '[]', '{}', '{"event":1}', '{"event":"e","args":1}', '{"event":"e","to":[5]}', '{"event":"e"']) {
    const response = await api(body);
    assert.equal(response.status, 400, body);
    assert.equal(response.json.ok, false);
    assert.equal(typeof response.json.error, 'string');
  }
  const wrongMethod = await request(node, { target: '/api/v1/emit' });
  assert.ok([404, 405].includes(wrongMethod.status));
  assert.equal((await request(node, { target: '/api/v1/nothing-of-the-kind' })).status, 404);
});

test('many emits over HTTP keep the order of their connection', async (t) => {
  const socket = await connected(t, node, MODES.websocket);
  for (let i = 0; i < 100; i++) assert.equal((await api({ to: [socket.id], event: 'n', args: [i] })).status, 200);
  await eventually(() => socket.inbox.length >= 100, 'all emits');
  assert.deepEqual(socket.inbox.map(([, n]) => n), Array.from({ length: 100 }, (_, i) => i));
});

test('/healthz, /readyz and /metrics answer', async (t) => {
  for (const target of ['/healthz', '/readyz']) assert.equal((await request(node, { target })).status, 200, target);
  const response = await request(node, { target: '/metrics' });
  assert.equal(response.status, 200);
  assert.match(response.headers['content-type'], /^text\/plain/);
  assert.match(response.text, /^# TYPE starling_sessions gauge$/m);
  const before = await metric(node, 'starling_sessions');
  const socket = await connected(t, node, MODES.websocket);
  assert.equal(transportOf(socket), 'websocket');
  assert.equal(await metric(node, 'starling_sessions'), before + 1);
});
