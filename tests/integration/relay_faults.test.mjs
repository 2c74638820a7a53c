// Relayed sessions among hostile and slow clients, and hosts that are frozen, killed or drained.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  arrived, enter, get, metric, nothingLeft, open, post, relays, startApart, upgrade, url,
} from '../support/apart.mjs';
import { afterwards, eventually, sleep } from '../support/servers.mjs';
import { startRedis } from '../support/redis.mjs';
import { Connection, OPCODE, WebSocketPeer, encodeFrame, encodeRequest, target } from '../support/wire.mjs';

const WEBSOCKETS = 'starling_sessions{transport="websocket"}';

const emit = async (node, body) => {
  const answer = await fetch(`${node.origin}/api/v1/emit`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
};

// A poll that waits, through a node.
function pending(node, sid) {
  const poll = { ended: false };
  poll.done = fetch(url(node, sid)).then(async (answer) => ({ status: answer.status, text: await answer.text() }))
    .catch((error) => ({ error })).finally(() => { poll.ended = true; });
  return poll;
}

const numbers = (got, event = 'n') =>
  got.filter((text) => String(text).startsWith(`42["${event}"`)).map((text) => JSON.parse(text.slice(2))[1]);

test('a connection carries requests of sessions of several hosts, one after the other and without waiting', async (t) => {
  const nodes = await startApart(t, { count: 3 });
  const sids = await Promise.all(nodes.map((node) => enter(node)));
  for (const node of nodes) {
    let connection = await Connection.open(node);
    for (let i = 0; i < 12; i++) {
      const owner = i % nodes.length;
      const body = `42${i}["bus:who","nobody"]`;
      connection.request({ method: 'POST', target: target(node, { sid: sids[owner] }), body });
      const posted = await connection.response({ method: 'POST' });
      assert.equal(posted.status, 200);
      assert.equal(posted.headers.connection === 'close', nodes[owner] !== node, 'what is relayed ends with its answer');
      if (posted.headers.connection === 'close') {
        await connection.end();
        connection = await Connection.open(node);
      }
      assert.match(await get(nodes[(i + 1) % nodes.length], sids[owner]), new RegExp(`43${i}\\[`));
    }
    connection.drop();
  }
  // Two requests at once: the first is answered, and the connection ends before the second, which may be sent again.
  const connection = await Connection.open(nodes[1]);
  const one = encodeRequest({ method: 'POST', target: target(nodes[1], { sid: sids[0] }), body: '421["bus:who","nobody"]' });
  const two = encodeRequest({ method: 'POST', target: target(nodes[1], { sid: sids[1] }), body: '422["bus:who","nobody"]' });
  connection.write(Buffer.concat([one, two]));
  assert.equal((await connection.response({ method: 'POST' })).status, 200);
  await connection.end();
  assert.match(await get(nodes[2], sids[0]), /431\[/);
  await nothingLeft(...nodes);
});

test('a client that goes at any step leaves nothing, and costs only its own session', async (t) => {
  const [own, other] = await startApart(t, { pingInterval: 1000, pingTimeout: 1000 });
  const mate = await enter(own);
  const steps = {
    'with a poll pending': async (sid) => {
      const connection = await Connection.open(other);
      connection.request({ target: target(other, { sid }) });
      await eventually(async () => await relays(own) === 1, 'the poll to arrive');
      return connection;
    },
    'within the body of a request': async (sid) => {
      const connection = await Connection.open(other);
      connection.request({
        method: 'POST', target: target(other, { sid }), headers: { 'content-length': 100000 }, body: '4'.repeat(1000),
      });
      await eventually(async () => await relays(own) === 1, 'the request to arrive');
      return connection;
    },
    'before the probe': async (sid) => (await WebSocketPeer.open(other, { query: { sid } })).connection,
    'after the probe': async (sid) => (await WebSocketPeer.open(other, { query: { sid } })).send('2probe').connection,
    'at once after the upgrade': async (sid) =>
      (await WebSocketPeer.open(other, { query: { sid } })).send('2probe', '5').connection,
    'within a frame': async (sid) => {
      const peer = (await WebSocketPeer.open(other, { query: { sid } })).send('2probe', '5');
      peer.write(encodeFrame({ opcode: OPCODE.text, payload: '42["x"]', length: 1000 }).subarray(0, 12));
      return peer.connection;
    },
    'when its session has moved': async (sid) => {
      const before = await arrived(other);
      const peer = (await WebSocketPeer.open(other, { query: { sid } })).send('2probe', '5');
      await eventually(async () => await arrived(other) > before, 'the session to move');
      return peer.connection;
    },
  };
  for (const [step, run] of Object.entries(steps)) {
    const sid = await enter(own);
    const connection = await run(sid);
    connection.drop();
    await nothingLeft(own, other);
    await post(other, mate, '421["bus:who","nobody"]');
    let text = '';
    await eventually(async () => {
      text += await get(other, mate);
      if (/(^|\x1e)2($|\x1e)/.test(text)) {
        text = text.replace(/(^|\x1e)2($|\x1e)/, '$1$2');
        await post(other, mate, '3');
      }
      return text.includes('431[');
    }, `an answer after a client went ${step}`);
  }
  await eventually(async () => await metric(own, WEBSOCKETS) === 0 && await metric(other, WEBSOCKETS) === 0,
    'the sessions to end');
});

test('the owner is killed: a pending poll and a WebSocket end', async (t) => {
  const [own, other] = await startApart(t, { dies: true, recovery: 'off' });
  afterwards(t, () => other.stop());
  const poll = pending(other, await enter(own));
  const { socket, closed } = await upgrade(other, await enter(own));
  socket.send('5');
  await eventually(async () => await relays(own) === 2, 'both to be relayed');
  await own.kill();
  await closed;
  assert.ok((await poll.done).error);
  await nothingLeft(other);
});

test('the node that relays is killed: its clients are gone at the owner', async (t) => {
  const [own, other] = await startApart(t, { dies: true, recovery: 'off' });
  afterwards(t, () => own.stop());
  const sid = await enter(own);
  const poll = pending(other, sid);
  const { socket } = await upgrade(other, await enter(own));
  socket.send('5');
  await eventually(async () => await relays(own) === 2, 'both to be relayed');
  await other.kill();
  await nothingLeft(own);
  await poll.done;
  await eventually(async () => await metric(own, WEBSOCKETS) === 0, 'the session of the WebSocket to end');
  assert.equal((await fetch(url(own, sid))).status, 400, 'a poll that breaks off ends its session');
});

test('a frozen owner: what is relayed to it ends in time, and it lets go of all when it thaws', async (t) => {
  const [own, other] = await startApart(t, { pingInterval: 1000, pingTimeout: 1000 });
  const poll = pending(other, await enter(own));
  const probing = await upgrade(other, await enter(own));
  const moving = await upgrade(other, await enter(own));
  await eventually(async () => await relays(own) === 3, 'all to be relayed');
  moving.socket.send('5');
  process.kill(own.pid, 'SIGSTOP');
  try {
    await poll.done;
    await probing.closed;
    await moving.closed; // also when it had just moved: its claims are not answered
    await nothingLeft(other);
  } finally {
    process.kill(own.pid, 'SIGCONT');
  }
  await nothingLeft(own, other);
  await eventually(async () => await metric(own, WEBSOCKETS) === 0 && await metric(other, WEBSOCKETS) === 0,
    'the sessions to end');
  const sid = await enter(own);
  await eventually(async () => (await fetch(url(other, sid), { method: 'POST', body: '421["bus:who","x"]' })).status === 200,
    'the nodes to hear each other again');
});

test('a frozen node between client and owner: the owner ends what it relays', async (t) => {
  const [own, other] = await startApart(t, { pingInterval: 1000, pingTimeout: 1000, recovery: 'off' });
  const poll = pending(other, await enter(own));
  const { socket, closed } = await upgrade(other, await enter(own));
  socket.send('5');
  await eventually(async () => await relays(own) === 2, 'both to be relayed');
  process.kill(other.pid, 'SIGSTOP');
  try {
    await nothingLeft(own);
    await eventually(async () => await metric(own, WEBSOCKETS) === 0, 'the sessions to end');
  } finally {
    process.kill(other.pid, 'SIGCONT');
  }
  await closed;
  await poll.done;
  await nothingLeft(own, other);
});

test('a slow client holds up nobody else, and ends as it would at its own node', async (t) => {
  const [own, other] = await startApart(t, { recovery: 'off', pingInterval: 60000, pingTimeout: 60000 });
  const slow = await WebSocketPeer.open(other, { query: { sid: await enter(own, 'slow') } });
  slow.send('2probe', '5');
  await eventually(async () => await metric(own, WEBSOCKETS) === 1, 'the upgrade');
  slow.connection.socket.pause();
  const quick = await upgrade(other, await enter(own, 'quick'));
  quick.socket.send('5');
  const large = 'x'.repeat(100000);
  let n = 0;
  await eventually(async () => {
    for (let i = 0; i < 20; i++) await emit(own, { to: 'slow', event: 'large', args: [large] });
    await emit(own, { to: 'quick', event: 'n', args: [n++] });
    return await metric(own, WEBSOCKETS) === 1;
  }, 'the slow client to be given up');
  await eventually(() => quick.got.filter((text) => text.startsWith('42["n"')).length === n, 'all of the quick one');
  assert.deepEqual(numbers(quick.got), Array.from({ length: n }, (_, i) => i));
  assert.equal(quick.socket.readyState, quick.socket.OPEN);
  slow.connection.drop();
  quick.socket.close();
  await nothingLeft(own, other);
});

test('a slow session does not move before it has caught up, and then nothing is missing', async (t) => {
  const [own, other] = await startApart(t);
  const sid = await enter(own, 'slow');
  const peer = await WebSocketPeer.open(other, { query: { sid } });
  const before = await arrived(other);
  const filler = 'x'.repeat(60000);
  peer.connection.socket.pause();
  for (let i = 0; i < 5; i++) await emit(own, { to: 'slow', event: 'n', args: [i, filler] });
  peer.send('2probe', '5');
  for (let i = 5; i < 12; i++) await emit(own, { to: 'slow', event: 'n', args: [i, filler] });
  peer.connection.socket.resume();
  const seen = [];
  while (seen.length < 12) {
    const message = await peer.receive();
    if (message === '2') peer.send('3');
    else if (String(message).startsWith('42["n"')) seen.push(JSON.parse(message.slice(2))[1]);
  }
  assert.deepEqual(seen, Array.from({ length: 12 }, (_, i) => i));
  await eventually(async () => await arrived(other) > before, 'the session to move');
  peer.connection.drop();
});

test('half a message, an acknowledgement owed either way: the session moves when that is done', async (t) => {
  const [own, other] = await startApart(t);
  const sid = await enter(own, 'room');
  const listener = await upgrade(own, await enter(own, 'others'));
  listener.socket.send('5');
  const { socket, got } = await upgrade(other, sid);
  const before = await arrived(other);
  socket.send('5');
  socket.send('451-7["bus:emit",{"to":"others","event":"b","args":[{"_placeholder":true,"num":0}]}]');
  const asked = emit(other, { to: 'room', event: 'ask', args: [], ack: 20000 });
  const question = await eventually(() => got.find((text) => /^42\d+\["ask"/.test(text)), 'the question');
  await sleep(100); // twenty looks
  assert.equal(await arrived(other), before);
  socket.send(Buffer.from('attached'));
  await eventually(() => listener.got.some((data) => Buffer.isBuffer(data) && String(data) === 'attached'), 'the attachment');
  await eventually(() => got.some((text) => text.startsWith('437[')), 'its answer');
  await sleep(100);
  assert.equal(await arrived(other), before);
  await sleep(2500); // nobody looks so often any more
  assert.equal(await arrived(other), before);
  socket.send(`43${question.match(/^42(\d+)/)[1]}["answer"]`);
  assert.equal((await asked).acks.length, 1);
  await eventually(async () => await arrived(other) > before, 'the session to move');
  socket.send('428["bus:who","room"]');
  await eventually(() => got.some((text) => text.startsWith('438[{"ok":true,"count":1')), 'an answer after the move');
  socket.close();
  listener.socket.close();
});

test('32 namespaces move together, one of them with U+0000', async (t) => {
  const [own, other] = await startApart(t);
  const sid = await open(own);
  const names = Array.from({ length: 31 }, (_, i) => `/n${i}`);
  names.push('/n1\0x');
  const { socket, got } = await upgrade(other, sid);
  for (const name of names) await post(own, sid, `40${name},`);
  const before = await arrived(other);
  socket.send('5');
  await eventually(() => names.every((name) => got.some((text) => text.startsWith(`40${name},`))), 'all namespaces');
  await eventually(async () => await arrived(other) > before, 'the session to move');
  for (const [i, name] of names.entries()) socket.send(`42${name},${i}["bus:who","nobody"]`);
  await eventually(() => names.every((name, i) => got.some((text) => text.startsWith(`43${name},${i}[`))), 'all answers');
  socket.close();
  await nothingLeft(own, other);
});

test('300 sessions move at once under traffic, and each hears everything once', async (t) => {
  const [own, other] = await startApart(t);
  const sids = [];
  while (sids.length < 300) sids.push(...await Promise.all(Array.from({ length: 50 }, () => enter(own, 'all'))));
  const clients = await Promise.all(sids.map((sid) => upgrade(other, sid)));
  let n = 0, over = false;
  const pump = (async () => {
    while (!over) {
      await emit(n % 2 ? own : other, { to: 'all', event: n % 2 ? 'own' : 'other', args: [n >> 1] });
      n++;
    }
  })();
  clients.forEach(({ socket }) => socket.send('5'));
  await eventually(async () => await arrived(other) === sids.length, 'all to move');
  over = true;
  await pump;
  for (const event of ['own', 'other']) {
    const count = event === 'own' ? n >> 1 : (n + 1) >> 1;
    const all = Array.from({ length: count }, (_, i) => i);
    await eventually(() => clients.every(({ got }) => numbers(got, event).length >= count), `all of ${event}`);
    clients.forEach(({ got }) => assert.deepEqual(numbers(got, event), all));
  }
  assert.ok(clients.every(({ socket }) => socket.readyState === socket.OPEN));
  clients.forEach(({ socket }) => socket.close());
  await nothingLeft(own, other);
});

test('an owner that drains goes on answering relayed polls, and ends its sessions at its rate', async (t) => {
  const [own, other] = await startApart(t, { dies: true, drainRate: 1 });
  afterwards(t, () => other.stop());
  const sids = await Promise.all(Array.from({ length: 4 }, () => enter(own)));
  process.kill(own.pid, 'SIGUSR1');
  await eventually(() => own.output().includes('draining'), 'the drain to begin');
  let answered = 0;
  for (const [i, sid] of [...sids.entries()].reverse()) {
    const posted = await fetch(url(other, sid), { method: 'POST', body: `42${i}["bus:who","nobody"]` });
    answered += posted.status === 200;
    await posted.text();
  }
  assert.ok(answered >= 2, `${answered} of 4 sessions were served while the owner drains`);
  await eventually(() => !own.alive(), 'the owner to end');
  await nothingLeft(other);
});

test('limits of the owner count for what is relayed to it', async (t) => {
  const [own, other] = await startApart(t, { maxWaitingPerAddress: 4, maxConnections: 60, requestTimeout: 1000 });
  const sids = [];
  for (let i = 0; i < 20; i++) sids.push(await enter(own));
  const polls = sids.map((sid) => pending(other, sid));
  await eventually(async () => await relays(own) === 20, 'all polls to wait');
  assert.ok(polls.every(({ ended }) => !ended), 'waiting transports are no waiting connections');
  // 40 connections and some of this test's: there is no place for twenty more relays, whose bodies never come.
  const late = [];
  for (let i = 0; i < 20; i++) {
    const connection = await Connection.open(other);
    connection.request({
      method: 'POST', target: target(other, { sid: sids[i] }), headers: { 'content-length': 10 }, body: '4',
    });
    late.push(connection);
  }
  await eventually(async () => {
    assert.ok(await metric(own, 'starling_connections') <= 60);
    return late.every(({ ended }) => ended);
  }, 'the requests to end');
  assert.ok(await metric(own, 'starling_connections_refused_total{reason="descriptors"}') > 0);
  await Promise.all(polls.map(({ done }) => done));
  await nothingLeft(own, other);
  await post(other, await enter(own), '421["bus:who","x"]');
});

test('with Redis: rooms joined until the last moment move along, and the session outlives its new node, too', async (t) => {
  const redis = await startRedis(t);
  const [own, other] = await startApart(t, { dies: true, redis: redis.url });
  afterwards(t, () => own.stop());
  const sid = await open(own);
  const { socket, got, closed } = await upgrade(other, sid);
  await post(own, sid, '40');
  await eventually(async () => {
    const text = await get(own, sid);
    got.push(...text.split('\x1e'));
    return got.some((packet) => packet.startsWith('40{'));
  }, 'the answer to CONNECT');
  socket.send('5');
  let rooms = 0;
  await eventually(async () => {
    socket.send(`42["bus:join","room-${rooms++}"]`); // nobody waits for an answer
    return await arrived(other) === 1;
  }, 'the session to move');
  socket.send('421["bus:who","room-0"]');
  await eventually(() => got.some((text) => text.startsWith('431[')), 'an answer after the move');
  for (let i = 0; i < rooms; i++) await emit(own, { to: `room-${i}`, event: 'n', args: [i] });
  const all = Array.from({ length: rooms }, (_, i) => i);
  await eventually(() => numbers(got).length >= rooms, 'an event to each room');
  assert.deepEqual(numbers(got), all);
  const connected = JSON.parse(got.find((text) => text.startsWith('40{')).slice(2));
  const offset = JSON.parse(got.filter((text) => text.startsWith('42["n"')).at(-1).slice(2)).at(-1);
  await other.kill();
  await closed;
  await emit(own, { to: 'room-0', event: 'n', args: [rooms] });
  const again = await WebSocketPeer.open(own);
  await again.receive();
  again.send(`40${JSON.stringify({ pid: connected.pid, offset })}`);
  const back = await eventually(async () => {
    const message = await again.receive();
    return message.startsWith('40{') && JSON.parse(message.slice(2));
  }, 'the answer to CONNECT');
  assert.equal(back.sid, connected.sid);
  assert.equal(await eventually(async () => {
    const message = await again.receive();
    return message.startsWith('42["n"') && JSON.parse(message.slice(2))[1];
  }, 'what it has missed'), rooms);
  again.connection.drop();
});
