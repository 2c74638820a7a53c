// Sessions whose requests reach another host than their own: two nodes that share nothing but the mesh's ports.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { io } from 'socket.io-client';
import { eventually, freePort, portIsFree, startServer } from '../support/servers.mjs';

async function meshPort() {
  for (;;) {
    const port = await freePort();
    if (await portIsFree(port + 100)) return port;
  }
}

async function startHosts(t, options = {}) {
  const ports = [await meshPort(), await meshPort()];
  const nodes = await Promise.all(ports.map((port, k) => startServer('starling-node', {
    meshPort: port, name: `host-${k}`, peers: `127.0.0.1:${ports[1 - k]}`, recovery: 120000, ...options,
  })));
  t.after(() => Promise.all(nodes.map((node) => node.stop())));
  return nodes;
}

const url = (node, sid, transport = 'polling') => `${node.origin}/socket.io/?EIO=4&transport=${transport}${sid ? `&sid=${sid}` : ''}`;
const get = async (node, sid) => {
  const answer = await fetch(url(node, sid));
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.text();
};
const post = async (node, sid, body) => {
  const answer = await fetch(url(node, sid), { method: 'POST', body });
  assert.equal(answer.status, 200, await answer.text());
};
const open = async (node) => JSON.parse((await get(node)).slice(1)).sid;

async function metric(node, name) {
  const text = await (await fetch(`${node.origin}/metrics`)).text();
  return Number(text.match(new RegExp(`^${name} (\\d+)`, 'm'))?.[1]);
}

// A WebSocket whose messages are kept in order.
async function upgrade(node, sid) {
  const socket = new WebSocket(url(node, sid, 'websocket').replace('http', 'ws'));
  const got = [];
  socket.on('message', (data) => got.push(String(data)));
  socket.closed = new Promise((resolve) => { socket.on('close', () => resolve(true)); });
  await new Promise((resolve, reject) => { socket.once('open', resolve); socket.once('error', reject); });
  socket.send('2probe');
  await eventually(() => got.includes('3probe'), 'the answer to the probe');
  return { socket, got };
}

async function stock(t, node) {
  const socket = io(node.origin, { transports: ['websocket'], forceNew: true });
  t.after(() => socket.close());
  await new Promise((resolve) => { socket.once('connect', resolve); });
  return socket;
}

test('polls of a session reach it from another host, small and large', async (t) => {
  const [own, other] = await startHosts(t);
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
  const [own, other] = await startHosts(t);
  const sid = await open(own);
  await post(own, sid, '1');
  for (const node of [own, other]) {
    await eventually(async () => (await fetch(url(node, sid))).status === 400, 'the session to be forgotten');
  }
});

test('an upgrade on another host moves the session there, and it outlives the first one', async (t) => {
  const ports = [await meshPort(), await meshPort()];
  const [own, other] = await Promise.all(ports.map((port, k) => startServer('starling-node', {
    meshPort: port, name: `host-${k}`, peers: `127.0.0.1:${ports[1 - k]}`, recovery: 120000,
  })));
  t.after(() => other.stop());
  const sid = await open(own);
  await post(own, sid, '40');
  await get(own, sid);
  await post(own, sid, '420["bus:join","room"]');
  await eventually(async () => (await get(own, sid)).includes('430'), 'the answer to the join');
  const sender = await stock(t, other);
  const { socket, got } = await upgrade(other, sid);
  t.after(() => socket.terminate());
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
  const [own, other] = await startHosts(t, { recovery: 'off' });
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
  const [own, other] = await startHosts(t);
  const sid = await open(own);
  const { socket } = await upgrade(other, sid);
  socket.send('5');
  socket.send('40');
  socket.terminate();
  await eventually(async () => await metric(own, 'starling_sessions{transport="websocket"}'.replace(/[{}"]/g, '\\$&')) === 0
    && await metric(other, 'starling_relays') === 0, 'nothing to be left');
});

test('what one sender says before and after its session moves comes in order everywhere', async (t) => {
  const [own, other] = await startHosts(t);
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
