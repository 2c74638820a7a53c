// The page's own connection: how all nodes are, each second; questions and actions. Comes back by itself, on any node.
import { io } from './vendor/socket.io.js';
import { Trails } from './trails.js';

const STALE_MS = 4000;
const root = new URL('.', document.baseURI);

export const api = (path) => new URL(`api/v1/${path}`, root);

export async function get(path) {
  const response = await fetch(api(path), { cache: 'no-store' });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error ?? response.statusText);
  return body;
}

export async function post(path, body) {
  const response = await fetch(api(path), { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
  return response.json();
}

export const bus = {
  nodes: [],
  timeMs: 0, // of the node that told
  heardAt: 0, // performance.now() at that time
  connected: false,
  refused: '',
  version: '',
  trails: new Trails(),
  listeners: new Set(),
  tails: new Set(),
};

const tell = () => bus.listeners.forEach((listener) => listener());
let socket;

// Now, by the clock of the bus: ages of what it told stay right while nothing comes.
export const busNow = () => bus.timeMs + (performance.now() - bus.heardAt);
export const silenceMs = () => (bus.heardAt ? performance.now() - bus.heardAt : 0);

function take({ time_ms, nodes }) {
  bus.nodes = nodes.sort((a, b) => a.host.localeCompare(b.host) || a.name.localeCompare(b.name, 'en', { numeric: true }) || b.time_ms - a.time_ms);
  bus.timeMs = time_ms;
  bus.heardAt = performance.now();
  bus.refused = '';
  for (const node of nodes) bus.trails.take(node);
  tell();
}

async function key() {
  const told = await get('key');
  bus.version = told.version;
  return told;
}

// Where Socket.IO is: below this page as the node sees it, so that a proxy's prefix holds for it, too.
function pathOf({ path, base_path }) {
  return path.startsWith(base_path) ? root.pathname + path.slice(base_path.length) : path;
}

export const socketPath = async () => pathOf(await key());

export async function connect() {
  for (;;) {
    try {
      const told = await key();
      open(pathOf(told));
      return;
    } catch {
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
    }
  }
}

function open(path) {
  socket = io(new URL('/admin', root.origin).href, {
    path,
    transports: ['websocket', 'polling'],
    tryAllTransports: true,
    reconnectionDelay: 200,
    reconnectionDelayMax: 2000,
    timeout: 5000,
    auth: (give) => { key().then(({ key: value }) => give({ key: value }), () => give({})); },
  });
  socket.on('nodes', take);
  socket.on('tail', (told) => bus.tails.forEach((listener) => listener(told)));
  socket.on('connect', () => {
    bus.connected = true;
    bus.onConnect?.();
    tell();
  });
  socket.on('disconnect', (reason) => {
    bus.connected = false;
    if (reason === 'io server disconnect') socket.connect();
    tell();
  });
  // Without a connection the client tries again by itself, but not when it was refused.
  socket.on('connect_error', (error) => {
    if (socket.active) return;
    bus.refused = error.message;
    setTimeout(() => socket.connect(), 1000);
    tell();
  });
  // A node that hangs keeps its connections: another one may be reached by a new one. Unless it was this page that hung.
  let lookedAt = performance.now();
  setInterval(() => {
    const wasAway = performance.now() - lookedAt > STALE_MS / 2;
    lookedAt = performance.now();
    if (bus.connected && !wasAway && silenceMs() > STALE_MS) socket.io.engine?.close();
  }, 1000);
}

// Resolves to the answer; rejects when there is none in time.
export const ask = (question) => socket.timeout(5000).emitWithAck('ask', question);
export const watchEvents = (filter) => socket?.timeout(5000).emitWithAck('tail', filter);
