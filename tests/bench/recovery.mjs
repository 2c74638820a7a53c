// What becomes of stock clients when one of two servers is killed: Starling beside Socket.IO's own answer,
// @socket.io/redis-streams-adapter with connectionStateRecovery. Prints a Markdown table; see README.md.
//
//   node tests/bench/recovery.mjs [--clients N] [--rate N] [--rounds N]
import { spawn } from 'node:child_process';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { io } from 'socket.io-client';
import { startCluster } from '../support/cluster.mjs';
import { startRedis } from '../support/redis.mjs';
import { eventually, freePort, root, sleep, whileRunning } from '../support/servers.mjs';

const { values } = parseArgs({
  options: { clients: { type: 'string', default: '200' }, rate: { type: 'string', default: '200' }, rounds: { type: 'string', default: '3' } },
});
const CLIENTS = Number(values.clients);
const RATE = Number(values.rate);
const ROUNDS = Number(values.rounds);
const ROOMS = Math.max(1, CLIENTS / 10);
const CALM_MS = 2000; // before and after each fault
const BACK_MS = 15000; // by then everybody is

const WORKERS = {
  async starling(context, redis) {
    const { nodes } = await startCluster(context, 2, { recovery: 120000, redis: redis.url });
    return nodes.map(({ port, pid }) => ({ port, pid }));
  },
  async 'socketio-streams'(context, redis) {
    return Promise.all([0, 1].map(async () => {
      const port = await freePort();
      const child = spawn(process.execPath, [path.join(root, 'tests/bench/socketio_server.mjs'), port, 'streams', redis.socket, 'recovery'].map(String),
        { stdio: ['ignore', 'inherit', 'inherit'] });
      whileRunning(child);
      const ended = new Promise((resolve) => { child.on('exit', resolve); });
      context.after(() => {
        child.kill('SIGKILL');
        return ended;
      });
      await eventually(async () => (await fetch(`http://127.0.0.1:${port}/socket.io/`).catch(() => undefined)) !== undefined, 'a worker');
      return { port, pid: child.pid };
    }));
  },
};

async function startClient(port, index) {
  const socket = io(`http://127.0.0.1:${port}`, { forceNew: true, transports: ['websocket'] });
  const client = { socket, room: index % ROOMS, got: new Map(), connects: 0, recovered: 0 };
  socket.on('connect', () => {
    client.connects++;
    client.recovered += socket.recovered;
    // As an application has to, when it was not recovered.
    if (!socket.recovered) socket.emit('bus:join', `room-${client.room}`, () => { client.joined = true; });
  });
  socket.on('e', (n) => client.got.set(n, (client.got.get(n) ?? 0) + 1));
  await eventually(() => client.joined, 'a client to join');
  return client;
}

// All clients lose their connections; gives the share of them that was recovered.
async function afterFault(clients, fault) {
  const before = clients.map(({ connects, recovered }) => ({ connects, recovered }));
  await fault();
  await eventually(() => clients.every(({ socket, connects }, i) => socket.connected && connects > before[i].connects), 'all to be back', BACK_MS);
  await sleep(CALM_MS);
  return clients.reduce((sum, { recovered }, i) => sum + (recovered - before[i].recovered), 0) / clients.length;
}

async function run(name) {
  const cleanups = [];
  const context = { after: (f) => cleanups.unshift(f) };
  try {
    const redis = await startRedis(context);
    const [victim, survivor] = await WORKERS[name](context, redis);
    const clients = await Promise.all(Array.from({ length: CLIENTS }, (_, i) => startClient(victim.port, i)));
    context.after(() => clients.forEach(({ socket }) => socket.disconnect()));
    const speaker = io(`http://127.0.0.1:${survivor.port}`, { forceNew: true, transports: ['websocket'] });
    context.after(() => speaker.disconnect());
    await eventually(() => speaker.connected, 'the speaker');
    let sent = 0;
    const began = Date.now();
    const timer = setInterval(() => {
      for (; sent < ((Date.now() - began) / 1000) * RATE; sent++) {
        speaker.emit('bus:emit', { to: `room-${sent % ROOMS}`, event: 'e', args: [sent] });
      }
    }, 5);
    await sleep(CALM_MS);
    const killed = await afterFault(clients, () => {
      for (const { socket } of clients) socket.io.uri = `http://127.0.0.1:${survivor.port}`;
      process.kill(victim.pid, 'SIGKILL');
    });
    const drop = () => clients.forEach(({ socket }) => socket.io.engine.transport.ws.terminate());
    // The last words are said while they are away; after that there is nothing to be given again.
    const dropped = await afterFault(clients, async () => {
      drop();
      await sleep(300);
      clearInterval(timer);
    });
    const idle = await afterFault(clients, drop);
    let lost = 0;
    let twice = 0;
    for (const { room, got } of clients) {
      for (let n = room; n < sent; n += ROOMS) lost += !got.has(n);
      for (const times of got.values()) twice += times - 1;
    }
    return { killed, dropped, idle, deliveries: sent * (CLIENTS / ROOMS), lost, twice };
  } finally {
    for (const cleanup of cleanups) await Promise.resolve(cleanup()).catch(() => { /* it was killed */ });
  }
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
console.log(`${CLIENTS} stock clients on one of two servers, ${RATE} events/s to rooms of 10 through the other one.\n`);
console.log('| server | round | recovered after kill -9 | after a network drop | after a second drop, when idle | deliveries due | lost | twice |');
console.log('|---|---|---|---|---|---|---|---|');
for (let round = 1; round <= ROUNDS; round++) {
  for (const name of Object.keys(WORKERS)) {
    const { killed, dropped, idle, deliveries, lost, twice } = await run(name);
    console.log(`| ${name} | ${round} | ${percent(killed)} | ${percent(dropped)} | ${percent(idle)} | ${deliveries} | ${lost} | ${twice} |`);
  }
}
process.exit(0);
