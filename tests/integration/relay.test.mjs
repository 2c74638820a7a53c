// Sessions whose requests reach another host than their own: two nodes that share nothing but the mesh's ports.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { io } from 'socket.io-client';
import { get, metric, open, post, startApart, upgrade, url } from '../support/apart.mjs';
import { afterwards, eventually } from '../support/servers.mjs';

async function stock(t, node) {
  const socket = io(node.origin, { transports: ['websocket'], forceNew: true });
  afterwards(t, () => socket.close());
  await new Promise((resolve) => { socket.once('connect', resolve); });
  return socket;
}

test('polls of a session reach it from another host, small and large', async (t) => {
  const [own, other] = await startApart(t);
  const sid = await open(own);
  await post(other, sid, '40');
  assert.match(await get(other, sid), /^40\{"sid":/);
  const large = 'x'.repeat(900000);
  await post(other, sid, `420["bus:emit",{"event":"large","args":["${large}"],"echo":true}]`);
  let text = '';
  await eventually(async () => {
    text += await get(other, sid);
    return text.includes(large) && text.includes('430');
  }, 'the large event');
  assert.ok(await metric(other, 'starling_connections_relayed_total') >= 1);
  await post(own, sid, '421["bus:who","nobody"]');
  assert.match(await get(other, sid), /431\[\{"ok":true,"count":0/);
});

test('a session that nobody has is unknown everywhere', async (t) => {
  const [own, other] = await startApart(t);
  const sid = await open(own);
  await post(own, sid, '1');
  for (const node of [own, other]) {
    await eventually(async () => (await fetch(url(node, sid))).status === 400, 'the session to be forgotten');
  }
});

test('an upgrade on another host moves the session there, and it outlives the first one', async (t) => {
  const [own, other] = await startApart(t, { dies: true });
  afterwards(t, () => other.stop());
  const sid = await open(own);
  await post(own, sid, '40');
  await get(own, sid);
  await post(own, sid, '420["bus:join","room"]');
  await eventually(async () => (await get(own, sid)).includes('430'), 'the answer to the join');
  const sender = await stock(t, other);
  const { socket, got } = await upgrade(other, sid);
  afterwards(t, () => socket.terminate());
  let sent = 0;
  const send = () => sender.emitWithAck('bus:emit', { to: 'room', event: 'n', args: [sent++] });
  for (let i = 0; i < 20; i++) await send();
  socket.send('5');
  const pump = (async () => { for (let i = 0; i < 200; i++) await send(); })();
  await eventually(async () => await metric(other, 'starling_sessions_arrived_total') === 1, 'the session to move');
  await pump;
  assert.equal(await metric(own, 'starling_sessions_moved_total'), 1);
  const late = await fetch(url(own, sid));
  assert.equal(late.status, 400, 'a poll that comes late finds the session, which is no polling one any more');
  assert.match(await late.text(), /"code":3/);
  await own.kill();
  for (let i = 0; i < 5; i++) await send();
  socket.send('421["bus:emit",{"to":"room","event":"own","args":[],"echo":true}]');
  await eventually(() => got.some((text) => text.startsWith('431[{"ok":true')), 'an answer from the new node');
  await eventually(() => got.filter((text) => text.startsWith('42["n"')).length >= sent, 'all events');
  const numbers = got.filter((text) => text.startsWith('42["n"')).map((text) => JSON.parse(text.slice(2))[1]);
  assert.deepEqual(numbers, Array.from({ length: sent }, (_, i) => i));
  const who = await sender.emitWithAck('bus:who', 'room');
  assert.equal(who.count, 1);
  assert.equal(socket.readyState, WebSocket.OPEN);
});

test('with recovery off a session stays where it is, relayed', async (t) => {
  const [own, other] = await startApart(t, { recovery: 'off' });
  const sid = await open(own);
  const { socket, got } = await upgrade(other, sid);
  socket.send('5');
  socket.send('40');
  await eventually(() => got.some((text) => text.startsWith('40{')), 'the namespace');
  socket.send('421["bus:who","nobody"]');
  await eventually(() => got.some((text) => text.startsWith('431[')), 'an answer');
  assert.equal(await metric(own, 'starling_sessions_moved_total'), 0);
  assert.equal(await metric(own, 'starling_relays'), 1);
  socket.close();
  await eventually(async () => await metric(own, 'starling_relays') === 0, 'the relay to end');
});

test('a client that goes while it is relayed is gone at once', async (t) => {
  const [own, other] = await startApart(t);
  const sid = await open(own);
  const { socket } = await upgrade(other, sid);
  socket.send('5');
  socket.send('40');
  socket.terminate();
  await eventually(async () => await metric(own, 'starling_sessions{transport="websocket"}') === 0
    && await metric(other, 'starling_relays') === 0, 'nothing to be left');
});

test('what one sender says before and after its session moves comes in order everywhere', async (t) => {
  const [own, other] = await startApart(t);
  const listeners = await Promise.all([own, other].map((node) => stock(t, node)));
  const heard = listeners.map((listener) => {
    const numbers = [];
    listener.on('n', (n) => numbers.push(n));
    return numbers;
  });
  await Promise.all(listeners.map((listener) => listener.emitWithAck('bus:join', 'all')));
  for (let round = 0; round < 5; round++) {
    heard.forEach((numbers) => { numbers.length = 0; });
    const sid = await open(own);
    const { socket } = await upgrade(other, sid);
    socket.send('5');
    socket.send('40');
    const moved = await metric(other, 'starling_sessions_arrived_total');
    let n = 0;
    const say = () => socket.send(`42["bus:emit",{"to":"all","event":"n","args":[${n++}]}]`);
    for (let i = 0; i < 50; i++) say();
    await eventually(async () => {
      say();
      return await metric(other, 'starling_sessions_arrived_total') > moved;
    }, 'the session to move');
    for (let i = 0; i < 50; i++) say();
    await eventually(() => heard.every((numbers) => numbers.length >= n), 'all of it');
    const all = Array.from({ length: n }, (_, i) => i);
    heard.forEach((numbers) => assert.deepEqual(numbers, all));
    socket.close();
  }
});
