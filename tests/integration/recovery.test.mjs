// Stock clients that come back: to the same node, to another one, after their node was killed. The handlers count.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { call, connected, metric, occurrence } from '../support/clients.mjs';
import { startCluster } from '../support/cluster.mjs';
import { comer, emit, emitAll, openGate, range } from '../support/comer.mjs';
import { startRedis } from '../support/redis.mjs';
import { afterwards, eventually, startServer } from '../support/servers.mjs';
import { next } from '../support/sio.mjs';
import { openWebSocket, request } from '../support/wire.mjs';

const RECOVERY = { recovery: 120000 };

// What startCluster() and startRedis() want of a context, for a whole file.
const cleanups = [];
const file = { after: (f) => cleanups.unshift(f) };
let cluster;
let redis;
let rooms = 0;
const room = () => `room-${++rooms}`;

before(async () => {
  redis = await startRedis(file);
  cluster = await startCluster(file, 2, { ...RECOVERY, redis: redis.url });
});
after(async () => {
  for (const cleanup of cleanups) await cleanup();
});

// A cluster of a test's own, to be harmed.
async function ownCluster(context, count, options = {}) {
  const store = await startRedis(context);
  return startCluster(context, count, { ...RECOVERY, redis: store.url, ...options });
}

// Sends what is missed while the client is away, and one more when it is back.
async function goAndComeBack(one, { to, from = one.gate.server, name, missed, times }) {
  one.gate.shut = true;
  const gone = occurrence(one.socket, 'disconnect');
  one.gate.moveTo(to);
  await gone;
  await emitAll(from, name, missed);
  one.gate.shut = false;
  return one.back(times);
}

const assertSame = (one) => {
  const sids = new Set(one.connects().map(({ sid }) => sid));
  assert.equal(sids.size, 1, 'the same sid each time');
};

const MODES = { websocket: ['websocket'], polling: ['polling'], upgrade: ['polling', 'websocket'] };

for (const [mode, transports] of Object.entries(MODES)) {
  for (const where of ['the same node', 'another node']) {
    test(`${mode}: back at ${where}, with what was missed, once and in order`, async (t) => {
      const name = room();
      const [a, b] = cluster.nodes;
      const one = await comer(t, a, { transports, rooms: [name] });
      await emitAll(b, name, [1, 2]);
      await one.has(2);
      const recovered = await goAndComeBack(one, { to: where === 'another node' ? b : a, from: b, name, missed: range(3, 7), times: 2 });
      assert.equal(recovered, true);
      await emit(a, { to: name, args: [8] });
      await one.has(8);
      await emit(b, { to: name, args: [9] });
      await one.has(9);
      assert.deepEqual(one.events(), range(1, 9));
      assert.deepEqual(one.log.map((each) => each.connect ?? each.args[0]), [false, 1, 2, true, ...range(3, 9)]);
      assertSame(one);
    });
  }
}

test('the reply to CONNECT is the first frame, then what was missed, then the offset, then live events', async (t) => {
  const name = room();
  const [a, b] = cluster.nodes;
  const first = await openWebSocket(a);
  first.send('40');
  const { sid, pid } = JSON.parse((await next(first)).slice(2));
  const offset = JSON.parse((await next(first)).slice(2));
  assert.equal(offset[0], 'bus:offset');
  first.send(`421${JSON.stringify(['bus:join', name])}`);
  assert.match(await next(first), /^431/);
  first.drop();
  await emitAll(a, name, ['x', 'y']);
  const second = await openWebSocket(b);
  afterwards(t, () => second.drop());
  second.send(`40${JSON.stringify({ pid, offset: offset[1] })}`);
  assert.deepEqual(JSON.parse((await next(second)).slice(2)), { sid, pid });
  for (const value of ['x', 'y']) assert.equal(JSON.parse((await next(second)).slice(2))[1], value);
  assert.equal(JSON.parse((await next(second)).slice(2))[0], 'bus:offset');
  await emit(a, { to: name, args: ['z'] });
  assert.equal(JSON.parse((await next(second)).slice(2))[1], 'z');
});

test('several times in a row, here and there', async (t) => {
  const name = room();
  const one = await comer(t, cluster.nodes[0], { rooms: [name] });
  for (let times = 2; times < 8; times++) {
    const missed = [10 * times, 10 * times + 1];
    const to = cluster.nodes[times % 3 ? times % 2 : 0];
    assert.equal(await goAndComeBack(one, { to, from: cluster.nodes[0], name, missed, times }), true, `connection ${times}`);
    await one.has(2 * (times - 1));
  }
  assert.deepEqual(one.events(), range(2, 7).flatMap((times) => [10 * times, 10 * times + 1]));
  assertSame(one);
});

test('without an event in between, and without any before', async (t) => {
  const name = room();
  const one = await comer(t, cluster.nodes[0], { rooms: [name] });
  for (let times = 2; times < 6; times++) {
    assert.equal(await goAndComeBack(one, { to: cluster.nodes[times % 2], name, missed: [], times }), true);
  }
  await emit(cluster.nodes[0], { to: name, args: [1] });
  await one.has(1);
  assert.equal(await goAndComeBack(one, { to: cluster.nodes[1], name, missed: [2], times: 6 }), true);
  await one.has(2);
  assert.deepEqual(one.events(), [1, 2]);
});

test('its rooms, and its way out of some, are recovered', async (t) => {
  const [a, b] = cluster.nodes;
  const [stay, leave] = [room(), room()];
  const one = await comer(t, a, { rooms: [stay, leave] });
  await call(one.socket, 'bus:leave', leave);
  assert.equal(await goAndComeBack(one, { to: b, name: stay, missed: [1], times: 2 }), true);
  await emit(a, { to: leave, args: ['no'] });
  await emit(a, { to: stay, args: [2] });
  await one.has(2);
  await emit(b, { to: one.socket.id, args: [3] });
  await one.has(3);
  assert.deepEqual(one.events(), [1, 2, 3]);
  const who = await call(one.socket, 'bus:who', stay);
  assert.deepEqual(who.members.map(({ sid }) => sid), [one.socket.id]);
});

test('events to a sid, to everybody and to a room of the excepted', async (t) => {
  const [a, b] = cluster.nodes;
  const [in_, out] = [room(), room()];
  const namespace = `/${room()}`;
  const one = await comer(t, a, { rooms: [in_, out], namespace });
  const { socket, gate } = one;
  const { id: sid } = socket;
  gate.shut = true;
  gate.moveTo(b);
  await occurrence(socket, 'disconnect');
  const say = (value, rest) => emit(b, { ns: namespace, args: [value], ...rest });
  await say('sid', { to: sid });
  await say('all', {});
  await say('excepted by room', { except: [out] });
  await say('excepted by sid', { to: in_, except: [sid] });
  await say('of two rooms', { to: [in_, out] });
  await say('other room', { to: 'elsewhere' });
  await emit(b, { to: in_, args: ['other namespace'] });
  gate.shut = false;
  assert.equal(await one.back(2), true);
  await say('end', { to: in_ });
  await one.has(4);
  assert.deepEqual(one.events(), ['sid', 'all', 'of two rooms', 'end']);
});

test('what a client has said itself comes back only with echo', async (t) => {
  const [a, b] = cluster.nodes;
  const name = room();
  const one = await comer(t, a, { rooms: [name] });
  await call(one.socket, 'bus:emit', { to: name, event: 'news', args: [1], echo: true });
  await one.has(1);
  await call(one.socket, 'bus:emit', { to: name, event: 'news', args: ['own'] });
  assert.equal(await goAndComeBack(one, { to: b, name, missed: [2], times: 2 }), true);
  await one.has(2);
  assert.deepEqual(one.events(), [1, 2]);
});

test('binary events are recovered whole', async (t) => {
  const [a, b] = cluster.nodes;
  const name = room();
  const one = await comer(t, a, { rooms: [name] });
  const other = await connected(t, b, { transports: ['websocket'] });
  one.gate.shut = true;
  one.gate.moveTo(b);
  await occurrence(one.socket, 'disconnect');
  const bytes = Buffer.from([0, 1, 2, 255]);
  await call(other, 'bus:emit', { to: name, event: 'news', args: [{ bytes, more: [Buffer.alloc(0)] }, 'end'] });
  one.gate.shut = false;
  assert.equal(await one.back(2), true);
  await one.has(1);
  const [{ args }] = one.log.filter(({ event }) => event === 'news');
  assert.deepEqual(args, [{ bytes, more: [Buffer.alloc(0)] }, 'end']);
});

test('volatile events and events that ask for an acknowledgement are not repeated', async (t) => {
  const node = await startServer('starling-node', RECOVERY); // alone: acknowledgements are collected
  afterwards(t, () => node.stop());
  const name = room();
  const one = await comer(t, node, { rooms: [name] });
  one.socket.on('ask', (...args) => args.at(-1)('answer'));
  one.gate.shut = true;
  one.gate.cut();
  await occurrence(one.socket, 'disconnect');
  await emit(node, { to: name, args: ['gone'], volatile: true });
  assert.equal((await emit(node, { to: name, event: 'ask', ack: 100 })).missing, 0);
  await emit(node, { to: name, args: [1] });
  one.gate.shut = false;
  assert.equal(await one.back(2), true);
  assert.deepEqual((await emit(node, { to: name, event: 'ask', ack: 10000 })).acks, [['answer']]);
  assert.deepEqual(one.events(), [1]);
  assert.equal(one.events('ask').length, 1);
});

test('an offset that is none, or of nobody, begins anew without an error', async (t) => {
  const [a, b] = cluster.nodes;
  const one = await comer(t, a);
  const good = one.offset();
  const pid = one.socket._pid;
  const bad = {
    'a text': 'hello', 'an empty text': '', 'a number': 7, 'an object': { a: 1 }, 'a spoilt offset': `${good.slice(0, -1)}~`,
    'an offset of nobody': '~1-dRCCgsMAQIDAQ', 'a long one': `~1${'A'.repeat(9000)}`,
  };
  for (const [what, offset] of Object.entries(bad)) {
    const ws = await openWebSocket(b);
    ws.send(`40${JSON.stringify({ pid, offset })}`);
    const { sid } = JSON.parse((await next(ws)).slice(2));
    assert.notEqual(sid, one.socket.id, what);
    ws.drop();
  }
  for (const foreign of ['x', 'A'.repeat(20), pid.slice(0, 19), { pid }, null, `${pid.slice(0, 4)}${'A'.repeat(16)}`]) {
    const ws = await openWebSocket(b);
    ws.send(`40${JSON.stringify({ pid: foreign, offset: good })}`);
    const { sid } = JSON.parse((await next(ws)).slice(2));
    assert.notEqual(sid, one.socket.id, `pid ${JSON.stringify(foreign)}`);
    ws.drop();
  }
  assert.equal(one.connects().length, 1, 'whose session was tried is not disturbed');
  // The stock client takes any text at the end of its last event for an offset.
  one.socket._lastOffset = 'the last argument of somebody';
  one.gate.moveTo(b);
  assert.equal(await one.back(2), false);
});

for (const where of ['the same node', 'another node']) {
  test(`while the old connection still seems alive, back at ${where}: it moves, and the old one ends`, async (t) => {
    const [a, b] = cluster.nodes;
    const name = room();
    const one = await comer(t, a, { rooms: [name] });
    await emit(a, { to: name, args: [1] });
    await one.has(1);
    const to = where === 'another node' ? b : a;
    one.gate.shut = true;
    one.gate.server = to;
    one.gate.lose();
    await occurrence(one.socket, 'disconnect');
    await emitAll(a, name, [2, 3]); // written to the old connection
    one.gate.shut = false;
    assert.equal(await one.back(2), true);
    await emit(b, { to: name, args: [4] });
    await one.has(4);
    assert.deepEqual(one.events(), [1, 2, 3, 4]);
    await eventually(() => one.gate.halves() === 1, 'the old connection to be closed');
    const who = await call(one.socket, 'bus:who', name);
    assert.equal(who.count, 1);
    assertSame(one);
  });
}

test('several namespaces on one connection come back together, each with its own', async (t) => {
  const [a, b] = cluster.nodes;
  const gate = await openGate(t, a);
  const namespaces = ['/', `/${room()}`, `/${room()}`];
  const name = room();
  const { Manager } = await import('socket.io-client');
  const manager = new Manager(`http://127.0.0.1:${gate.port}`, { transports: ['websocket'], reconnectionDelay: 50, reconnectionDelayMax: 200 });
  afterwards(t, () => manager._close());
  const sockets = namespaces.map((namespace) => manager.socket(namespace));
  const log = sockets.map(() => []);
  const connects = sockets.map(() => []);
  sockets.forEach((socket, i) => {
    socket.on('connect', () => connects[i].push(socket.recovered));
    socket.on('news', (value) => log[i].push(value));
  });
  await eventually(() => sockets.every(({ connected: is }) => is), 'all namespaces');
  for (const socket of sockets) await call(socket, 'bus:join', name);
  for (let times = 1; times <= 3; times++) {
    const to = times % 2 ? b : a;
    gate.server = to;
    gate.lose(); // all of them are still open there
    await eventually(() => sockets.every(({ connected: is }) => !is), 'all to be gone');
    for (const [i, ns] of namespaces.entries()) await emit(a, { ns, to: name, args: [10 * times + i] });
    await eventually(() => connects.every(({ length }) => length > times), 'all to be back');
    assert.deepEqual(connects.map((each) => each[times]), [true, true, true]);
  }
  await eventually(() => log.every(({ length }) => length >= 3), 'all events');
  assert.deepEqual(log, [[10, 20, 30], [11, 21, 31], [12, 22, 32]]);
});

test('an event that was under way on the old node is not lost when its client moves', async (t) => {
  const [a, b] = cluster.nodes;
  const name = room();
  const one = await comer(t, a, { rooms: [name] });
  let sent = 0;
  let going = true;
  const sender = (async () => {
    while (going) await emit(sent % 2 ? a : b, { to: name, args: [++sent] });
  })();
  for (let times = 2; times < 12; times++) {
    one.gate.moveTo(times % 2 ? a : b);
    assert.equal(await one.back(times), true, `connection ${times}`);
  }
  going = false;
  await sender;
  await one.has(sent);
  assert.deepEqual([...one.events()].sort((x, y) => x - y), range(1, sent), 'each of them once');
});

test('more than may wait for a client cannot be recovered', async (t) => {
  const nodes = await ownCluster(t, 2, { queueMessages: 100 });
  const [a, b] = nodes.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  assert.equal(await goAndComeBack(one, { to: b, name: 'r', missed: range(1, 90), times: 2 }), true);
  await one.has(90);
  assert.equal(await goAndComeBack(one, { to: a, name: 'r', missed: range(91, 250), times: 3 }), false);
  assert.deepEqual(one.events(), range(1, 90));
  await emit(b, { to: one.socket.id, args: ['live'] });
  await one.has(91);
  assert.ok(await metric(a, 'starling_recoveries_failed_total') >= 1);
});

test('bytes: what just fits is given, what does not begins anew, and no client is caught between', async (t) => {
  const nodes = await ownCluster(t, 2, { queueBytes: 65536 });
  const [a, b] = nodes.nodes;
  const text = 'x'.repeat(200);
  const outcomes = new Set();
  for (const count of [100, 180, 200, 210, 220, 230, 240, 260, 280, 320]) {
    const one = await comer(t, a, { rooms: [`r${count}`] });
    const recovered = await goAndComeBack(one, { to: b, name: `r${count}`, missed: Array.from({ length: count }, () => text), times: 2 });
    outcomes.add(recovered);
    if (recovered) await one.has(count);
    assert.equal(one.connects().length, 2, `${count} events: it stays`);
    one.socket.disconnect();
  }
  assert.deepEqual([...outcomes].sort(), [false, true]);
  for (const node of [a, b]) {
    assert.match((await request(node, { target: '/metrics' })).text, /^starling_sessions_closed_total\{reason="slow client"\} 0$/m);
  }
});

test('the window is over', async (t) => {
  const nodes = await ownCluster(t, 1, { recovery: 1000 });
  const [a] = nodes.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  const sid = one.socket.id;
  one.gate.shut = true;
  one.gate.cut();
  await occurrence(one.socket, 'disconnect');
  await eventually(async () => await metric(a, 'starling_sessions_absent') === 0, 'the node to forget it');
  await emit(a, { to: 'r', args: [1] });
  one.gate.shut = false;
  assert.equal(await one.back(2), false);
  assert.notEqual(one.socket.id, sid);
  assert.deepEqual(one.events(), []);
});

test('who leaves for good is not recovered', async (t) => {
  const [a] = cluster.nodes;
  const one = await comer(t, a);
  const { _pid: pid } = one.socket;
  const offset = one.offset();
  const sid = one.socket.id;
  one.socket.disconnect();
  await eventually(async () => {
    const ws = await openWebSocket(a);
    ws.send(`40${JSON.stringify({ pid, offset })}`);
    const reply = JSON.parse((await next(ws)).slice(2));
    ws.drop();
    return reply.sid !== sid;
  }, 'the session to be over');
});

test('recovery=0: no pid, no offsets', async (t) => {
  const [a] = cluster.nodes;
  const name = room();
  const ws = await openWebSocket(a, { query: { recovery: '0' } });
  afterwards(t, () => ws.drop());
  ws.send('40');
  const reply = JSON.parse((await next(ws)).slice(2));
  assert.deepEqual(Object.keys(reply), ['sid']);
  ws.send(`421${JSON.stringify(['bus:join', name])}`);
  assert.match(await next(ws), /^431/, 'no bus:offset before');
  const beside = await comer(t, a, { rooms: [name] });
  await emit(a, { to: name, args: [1] });
  assert.equal(await next(ws), '42["news",1]');
  await emit(cluster.nodes[1], { to: name, args: [2] });
  assert.equal(await next(ws), '42["news",2]');
  await beside.has(2);
  assert.match(beside.offset(), /^~1/);
});

test('--recovery off: replies and events as Socket.IO gives them', async (t) => {
  const node = await startServer('starling-node', { recovery: 'off' });
  afterwards(t, () => node.stop());
  const ws = await openWebSocket(node);
  afterwards(t, () => ws.drop());
  ws.send(`40${JSON.stringify({ pid: 'A'.repeat(20), offset: '~1-dRCCgsMAQIDAQ' })}`);
  assert.match(await next(ws), /^40\{"sid":"[\w-]{20}"\}$/);
  await emit(node, { args: [1] });
  assert.equal(await next(ws), '42["news",1]');
});

test('the offset comes after CONNECT, and at a ping when the last one is old', async (t) => {
  const nodes = await ownCluster(t, 2, { recovery: 4000, pingInterval: 300 });
  const [a, b] = nodes.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  const first = await eventually(one.offset, 'the first offset');
  await emitAll(b, 'elsewhere', [1, 2, 3]); // it hears nothing of these
  await eventually(() => one.offset() !== first, 'a newer offset');
  assert.deepEqual(one.events(), []);
  assert.equal(await goAndComeBack(one, { to: b, name: 'r', missed: [1], times: 2 }), true);
  await one.has(1);
});

test('pings are rarer than the window: the offset is kept fresh all the same', async (t) => {
  const nodes = await ownCluster(t, 1, { recovery: 2000, pingInterval: 86400000 });
  const [a] = nodes.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  const first = await eventually(one.offset, 'the first offset');
  await emit(a, { to: 'elsewhere' });
  await eventually(() => one.offset() !== first, 'a newer offset');
});

test('who hears only what it has to acknowledge stays recoverable', async (t) => {
  const node = await startServer('starling-node', { recovery: 1000, pingInterval: 200 });
  afterwards(t, () => node.stop());
  const one = await comer(t, node, { rooms: ['r'] });
  one.socket.on('ask', (...args) => args.at(-1)());
  const first = await eventually(one.offset, 'the first offset');
  await eventually(async () => {
    await emit(node, { to: 'r', event: 'ask', ack: 10000 });
    return one.offset() !== first;
  }, 'a newer offset');
});

test('the owner is killed: everything from another node, several times', async (t) => {
  const nodes = await ownCluster(t, 3);
  const one = await comer(t, nodes.nodes[0], { rooms: ['r'] });
  let sent = 0;
  const say = (from) => emit(from, { to: 'r', args: [++sent], confirm: 'mesh' });
  for (let times = 2; times <= 4; times++) {
    const victim = nodes.nodes.indexOf(one.gate.server);
    const others = nodes.nodes.filter((node) => node !== one.gate.server);
    await say(one.gate.server);
    await say(others[0]);
    await one.has(sent);
    one.gate.shut = true;
    await nodes.nodes[victim].kill();
    await eventually(() => !one.socket.connected, 'the client to notice');
    for (const other of others) await say(other);
    one.gate.server = others[times % 2];
    one.gate.shut = false;
    assert.equal(await one.back(times), true, `after the death of node ${victim}`);
    await one.has(sent);
    await nodes.start(victim);
  }
  await say(nodes.nodes[0]);
  await one.has(sent);
  assert.deepEqual(one.events(), range(1, sent));
  assertSame(one);
});

test('killed while it speaks: what its client has is not given again, whoever else has it', async (t) => {
  const nodes = await ownCluster(t, 3);
  for (let round = 0; round < 4; round++) {
    const victim = round % 3;
    const others = nodes.nodes.filter((_, k) => k !== victim);
    const name = `r${round}`;
    const one = await comer(t, nodes.nodes[victim], { rooms: [name] });
    const live = await Promise.all(others.map((node) => comer(t, node, { rooms: [name] })));
    const speaker = await connected(t, nodes.nodes[victim], { transports: ['websocket'], reconnection: false });
    for (let i = 0; i < 2000; i++) speaker.emit('bus:emit', { to: name, event: 'news', args: [i] });
    await one.has(20 + 30 * round);
    one.gate.server = others[round % 2];
    await nodes.nodes[victim].kill();
    assert.equal(await one.back(2), true, `round ${round}`);
    await emit(others[0], { to: name, args: ['end'], confirm: 'mesh' });
    await eventually(() => [one, ...live].every((each) => each.events().includes('end')), 'the end');
    await nodes.start(victim);
    await emit(others[0], { to: name, args: ['last'], confirm: 'mesh' });
    await eventually(() => [one, ...live].every((each) => each.events().includes('last')), 'the last');
    const mine = one.events().filter(Number.isInteger);
    assert.equal(new Set(mine).size, mine.length, 'none twice');
    assert.deepEqual(mine, range(0, mine.length - 1), 'in order, without a hole');
    for (const each of live) {
      const theirs = each.events().filter(Number.isInteger);
      assert.deepEqual(theirs, range(0, theirs.length - 1));
      assert.ok(mine.length >= theirs.length, 'whatever another one has seen');
    }
  }
});

test('a frozen node whose session was claimed lets it go when it thaws', async (t) => {
  const nodes = await ownCluster(t, 2, { peerTimeout: 1000 });
  const [a, b] = nodes.nodes;
  const one = await comer(t, a, { rooms: ['r'] });
  await emit(b, { to: 'r', args: [1], confirm: 'mesh' });
  await one.has(1);
  process.kill(a.pid, 'SIGSTOP');
  try {
    await eventually(async () => await metric(b, 'starling_mesh_peers') === 0, 'it to count as dead');
    one.gate.server = b;
    one.gate.lose();
    assert.equal(await one.back(2), true);
    await emit(b, { to: 'r', args: [2] });
    await one.has(2);
  } finally {
    process.kill(a.pid, 'SIGCONT');
  }
  await eventually(() => one.gate.halves() === 1, 'the old connection to be closed');
  await eventually(async () => await metric(a, 'starling_mesh_peers') === 1 && await metric(b, 'starling_mesh_peers') === 1, 'both to hear each other');
  await emit(a, { to: 'r', args: [3] });
  await one.has(3);
  assert.deepEqual(one.events(), [1, 2, 3]);
  const who = await call(one.socket, 'bus:who', 'r');
  assert.equal(who.count, 1);
  assert.equal(one.connects().length, 2);
});

test('confirm: mirror answers when Redis has the emit', async () => {
  const [a] = cluster.nodes;
  for (let i = 0; i < 5; i++) {
    const { id } = await emit(a, { to: 'nobody', confirm: 'mirror' });
    const seq = Number(id.split(':').at(-1));
    const keys = (await redis.cli('zrange', 'starling:{starling}:origins', 0, -1)).split('\n');
    const last = await Promise.all(keys.map((key) => redis.cli('xrevrange', `starling:{starling}:mirror:${key}`, '+', '-', 'count', 1)));
    assert.ok(last.some((text) => Number(text.split('-')[0]) >= seq), `${id} is in Redis`);
  }
});

test('confirm: mirror without a Redis is refused', async (t) => {
  const node = await startServer('starling-node', RECOVERY);
  afterwards(t, () => node.stop());
  const answer = await request(node, { method: 'POST', target: '/api/v1/emit', body: '{"event":"x","confirm":"mirror"}' });
  assert.equal(answer.status, 400);
});

test('a client that came back takes part as before', async (t) => {
  const [a, b] = cluster.nodes;
  const name = room();
  const one = await comer(t, a);
  await goAndComeBack(one, { to: b, name, missed: [], times: 2 });
  await one.join(name);
  const other = await comer(t, a, { rooms: [name] });
  await call(one.socket, 'bus:emit', { to: name, event: 'news', args: ['from it'] });
  await other.has(1);
  assert.equal(await goAndComeBack(one, { to: a, from: b, name, missed: ['to it'], times: 3 }), true);
  await one.has(1);
  assert.deepEqual(one.events(), ['to it'], 'the room that it joined after it came back is known');
});
