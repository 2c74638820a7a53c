// Clients that go and come back: stock sockets behind a gate that can be shut, moved and cut, which write down everything
// that reaches their handlers.
import net from 'node:net';
import { afterwards, PATIENCE_MS, eventually } from './servers.mjs';
import { call, client } from './clients.mjs';

// A TCP relay. cut(): both sides lose their connections; lose(): the client's side only, so the node believes that it is
// still there. shut: new connections are refused at once.
export async function openGate(context, server) {
  const near = new Set();
  const far = new Set();
  const gate = { server, shut: false };
  const keep = (set, socket) => {
    set.add(socket);
    socket.on('close', () => set.delete(socket));
    socket.on('error', () => {});
  };
  const listener = net.createServer({ noDelay: true }, (here) => {
    if (gate.shut) {
      here.destroy();
      return;
    }
    const there = net.connect({ port: gate.server.port, host: '127.0.0.1', noDelay: true });
    keep(near, here);
    keep(far, there);
    here.pipe(there, { end: false });
    there.pipe(here);
    here.unpipeFar = () => there.unpipe(here).resume(); // so that its end is seen
    here.on('close', () => { if (!here.lost) there.destroy(); });
    there.on('close', () => here.destroy());
  });
  await new Promise((resolve) => { listener.listen(0, '127.0.0.1', resolve); });
  gate.port = listener.address().port;
  gate.halves = () => far.size;
  gate.cut = () => far.forEach((socket) => socket.destroy());
  gate.lose = () => near.forEach((socket) => {
    socket.lost = true;
    socket.unpipeFar();
    socket.destroy();
  });
  gate.moveTo = (server) => {
    gate.server = server;
    gate.cut();
  };
  afterwards(context, () => {
    gate.shut = true;
    gate.cut();
    listener.close();
  });
  return gate;
}

const OFFSET = /^~1[\w-]{8,}$/;

// What a handler sees, without the offset at the end.
const without = (args) => (OFFSET.test(args.at(-1)) ? args.slice(0, -1) : args);

// A stock client behind a gate. log has {connect: recovered, sid} and {event, args} in the order in which they came.
export async function comer(context, server, { rooms = [], namespace = '/', gate, ...options } = {}) {
  gate ??= await openGate(context, server);
  const socket = client(context, gate, { namespace, transports: ['websocket'], ...options });
  const log = [];
  socket.on('connect', () => log.push({ connect: socket.recovered, sid: socket.id }));
  socket.onAny((event, ...args) => {
    if (event !== 'bus:offset') log.push({ event, args: without(args) });
  });
  const each = {
    gate, socket, log,
    connects: () => log.filter((entry) => 'connect' in entry),
    events: (name = 'news') => log.filter(({ event }) => event === name).map(({ args }) => args[0]),
    offset: () => socket._lastOffset,
    join: (...names) => call(socket, 'bus:join', names),
    // Waits until it has connected that often in all; true when the last time was a recovery.
    back: async (times) => {
      await eventually(() => each.connects().length >= times && socket.connected, `connection ${times}`);
      return each.connects().at(-1).connect;
    },
    has: (count, name) => eventually(() => each.events(name).length >= count, `${count} events, not ${each.events(name)}`),
  };
  await each.back(1);
  if (rooms.length) await each.join(...rooms);
  return each;
}

// As another service would; gives the answer.
export async function emit(server, request) {
  const answer = await fetch(`http://127.0.0.1:${server.port}/api/v1/emit`, {
    method: 'POST', body: JSON.stringify({ event: 'news', ...request }), signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const body = await answer.json();
  if (!body.ok) throw new Error(`${answer.status}: ${body.error}`);
  return body;
}

export async function emitAll(server, to, values) {
  for (const value of values) await emit(server, { to, args: [value] });
}

export const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
