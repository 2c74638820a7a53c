// Stock socket.io-client sockets that end with their test, promises for what they receive, and a TCP proxy to harm them.
import net from 'node:net';
import { io } from 'socket.io-client';
import { PATIENCE_MS, afterwards, atLast, eventually } from './servers.mjs';
import { request } from './wire.mjs';

export const MODES = {
  polling: { transports: ['polling'] },
  websocket: { transports: ['websocket'] },
  upgrade: { transports: ['polling', 'websocket'] },
};

export const transportOf = (socket) => socket.io.engine.transport.name;

// A socket that may not be connected yet; events that nobody awaits are kept in socket.inbox.
export function client(context, server, { namespace = '/', ...options } = {}) {
  const socket = io(`http://127.0.0.1:${server.port}${namespace}`, {
    forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, randomizationFactor: 0, ...options,
  });
  socket.inbox = [];
  socket.onAny((name, ...args) => socket.inbox.push([name, ...args]));
  atLast(context, () => socket.disconnect());
  return socket;
}

// The arguments of the first of the socket's own events (connect, disconnect, connect_error) to happen.
export function occurrence(socket, ...names) {
  return new Promise((resolve, reject) => {
    const happened = (...args) => {
      clearTimeout(timer);
      names.forEach((name) => socket.off(name, happened));
      resolve(args);
    };
    const timer = setTimeout(() => reject(new Error(`gave up waiting for ${names}`)), PATIENCE_MS);
    names.forEach((name) => socket.on(name, happened));
  });
}

export async function connected(context, server, options) {
  const socket = client(context, server, options);
  const [error] = await occurrence(socket, 'connect', 'connect_error');
  if (error) throw error;
  if (options?.transports?.length === 2) await upgraded(socket);
  return socket;
}

export const upgraded = (socket) => eventually(() => transportOf(socket) === 'websocket', 'the upgrade');

// Takes the oldest event of that name out of the inbox, waiting for it; gives its arguments.
export function received(socket, name) {
  return eventually(() => {
    const at = socket.inbox.findIndex(([each]) => each === name);
    return at < 0 ? undefined : socket.inbox.splice(at, 1)[0].slice(1);
  }, `the event ${name}`);
}

export const call = (socket, ...event) => socket.timeout(PATIENCE_MS).emitWithAck(...event);

export async function metric(server, name) {
  return metricOf((await request(server, { target: '/metrics' })).text, name);
}

// The sum over all labels of a metric.
export function metricOf(text, name) {
  const values = [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].map(([, value]) => Number(value));
  return values.length ? values.reduce((sum, value) => sum + value) : undefined;
}

// A proxy in front of a server: cut() resets all its connections, delayMs holds every segment up.
export async function proxy(context, server, { delayMs = 0 } = {}) {
  const sockets = new Set();
  const relay = (from, to) => {
    from.on('data', (data) => setTimeout(() => to.writable && to.write(data), delayMs));
    from.on('close', () => setTimeout(() => to.destroy(), delayMs));
    from.on('error', () => {});
    sockets.add(from);
    from.on('close', () => sockets.delete(from));
  };
  const listener = net.createServer((near) => {
    const far = net.connect({ port: server.port, host: '127.0.0.1', noDelay: true });
    relay(near, far);
    relay(far, near);
  });
  await new Promise((resolve) => { listener.listen(0, '127.0.0.1', resolve); });
  const cut = () => sockets.forEach((socket) => socket.destroy());
  afterwards(context, () => {
    cut();
    listener.close();
  });
  return { port: listener.address().port, cut };
}
