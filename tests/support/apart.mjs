// Hosts that share nothing but the mesh's ports, and clients that reach a session through either of them, step by step.
import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import { afterwards, eventually, freePort, portIsFree, startServer } from './servers.mjs';

async function meshPort() {
  for (;;) {
    const port = await freePort();
    if (await portIsFree(port + 100)) return port;
  }
}

// The nodes are the test's to end when dies is true.
export async function startApart(context, { count = 2, dies = false, ...options } = {}) {
  const ports = [];
  while (ports.length < count) ports.push(await meshPort());
  const nodes = await Promise.all(ports.map((port, k) => startServer('starling-node', {
    meshPort: port, name: `host-${k}`, recovery: 120000,
    peers: ports.filter((other) => other !== port).map((other) => `127.0.0.1:${other}`).join(','), ...options,
  })));
  if (!dies) afterwards(context, () => Promise.all(nodes.map((node) => node.stop())));
  return nodes;
}

export const url = (node, sid, transport = 'polling') =>
  `${node.origin}/socket.io/?EIO=4&transport=${transport}${sid ? `&sid=${sid}` : ''}`;

export async function get(node, sid) {
  const answer = await fetch(url(node, sid));
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.text();
}

export async function post(node, sid, body) {
  const answer = await fetch(url(node, sid), { method: 'POST', body });
  assert.equal(answer.status, 200, await answer.text());
}

export const open = async (node) => JSON.parse((await get(node)).slice(1)).sid;

// A session with a socket in the main namespace, and in rooms.
export async function enter(node, ...rooms) {
  const sid = await open(node);
  await post(node, sid, '40');
  await get(node, sid);
  if (rooms.length) await post(node, sid, `420["bus:join",${JSON.stringify(rooms)}]`);
  if (rooms.length) await eventually(async () => (await get(node, sid)).includes('430'), 'the answer to the join');
  return sid;
}

export async function metric(node, name) {
  const text = await (await fetch(`${node.origin}/metrics`)).text();
  return Number(text.match(new RegExp(`^${name.replace(/[{}"]/g, '\\$&')} (\\d+)`, 'm'))?.[1]);
}

export const relays = (node) => metric(node, 'starling_relays');
export const arrived = (node) => metric(node, 'starling_sessions_arrived_total');

// A WebSocket whose messages are kept in order, and whose pings are answered; it has probed.
export async function upgrade(node, sid) {
  const socket = new WebSocket(url(node, sid, 'websocket').replace('http', 'ws'));
  const got = [];
  socket.on('message', (data, isBinary) => {
    if (String(data) === '2') socket.send('3');
    else got.push(isBinary ? data : String(data));
  });
  socket.on('error', () => {});
  const closed = new Promise((resolve) => { socket.on('close', () => resolve(true)); });
  await new Promise((resolve, reject) => { socket.once('open', resolve); socket.once('close', reject); });
  socket.send('2probe');
  await eventually(() => got.includes('3probe'), 'the answer to the probe');
  return { socket, got, closed };
}

export async function nothingLeft(...nodes) {
  await eventually(async () => (await Promise.all(nodes.map(relays))).every((n) => n === 0), 'the relays to end');
}
