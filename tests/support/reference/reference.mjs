// The stock Socket.IO server behaving as one of our programs, so that the tests can be tried on it: REFERENCE=1.
// usage: reference.mjs engine_echo|sio_echo|starling-node --port P [the flags of those programs]
import http from 'node:http';
import { parseArgs } from 'node:util';
import { Server as EngineServer } from 'engine.io';
import { Server } from 'socket.io';

const [program, ...argv] = process.argv.slice(2);
const { values: flags } = parseArgs({
  args: argv,
  options: Object.fromEntries(
    ['port', 'bind', 'path', 'namespaces', 'ping-interval', 'ping-timeout', 'max-payload', 'connect-timeout',
      'upgrade-timeout', 'cors', 'transports', 'cookie', 'request-timeout', 'poll-grace']
      .map((name) => [name, { type: 'string' }])
      .concat(['no-pin', 'cors-credentials'].map((name) => [name, { type: 'boolean' }]))),
});

const number = (name) => (flags[name] === undefined ? undefined : Number(flags[name]));
const given = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
const protocol = given({
  pingInterval: number('ping-interval'),
  pingTimeout: number('ping-timeout'),
  maxHttpBufferSize: number('max-payload'),
  connectTimeout: number('connect-timeout'),
  upgradeTimeout: number('upgrade-timeout'),
  cors: flags.cors && {
    origin: flags.cors.includes(',') ? flags.cors.split(',') : flags.cors,
    credentials: flags['cors-credentials'],
  },
  transports: flags.transports?.split(','),
  cookie: flags.cookie && { name: flags.cookie },
});

function engineEcho(server) {
  const engine = new EngineServer(protocol);
  engine.attach(server, { path: (flags.path ?? '/engine.io/').replace(/\/$/, '') });
  engine.on('connection', (socket) => socket.on('message', (data) => socket.send(data)));
}

function sioEcho(io) {
  const onConnection = (socket) => {
    socket.emit('auth', socket.handshake.auth);
    if (socket.nsp.name !== '/') return;
    socket.on('message', (...args) => socket.emit('message-back', ...args));
    socket.on('message-with-ack', (...args) => args.pop()(...args));
    socket.on('emit-with-ack', (...args) =>
      socket.emit('please-ack', ...args, (...answer) => socket.emit('ack-result', ...answer)));
    socket.on('server-disconnect', (close) => socket.disconnect(close === true));
    socket.on('volatile-burst', (n) => {
      for (let i = 0; i < n; i++) socket.volatile.emit('v', i);
    });
  };
  for (const name of (flags.namespaces ?? '/,/custom').split(',')) {
    const namespace = io.of(name);
    namespace.use((socket, next) => {
      if (name === '/' || !socket.handshake.auth.refuse) return next();
      return next(Object.assign(new Error('refused'), { data: { why: 'asked' } }));
    });
    namespace.on('connection', onConnection);
  }
}

const LIMIT = { room: 256, roomsPerCall: 256, roomsPerSocket: 1024 };
let emits = 0;
const asList = (rooms) => (rooms === undefined ? [] : [].concat(rooms));
const validRooms = (rooms) => rooms.length <= LIMIT.roomsPerCall
  && rooms.every((room) => typeof room === 'string' && room.length > 0 && room.length <= LIMIT.room);

function publish(from, { to, except, event, args = [], volatile }) {
  const rooms = asList(to);
  if (typeof event !== 'string' || !Array.isArray(args) || !validRooms(rooms)) return { ok: false, error: 'bad emit' };
  let target = from;
  for (const room of rooms) target = target.to(room);
  target = target.except(asList(except));
  if (volatile) target = target.volatile;
  target.emit(event, ...args);
  return { ok: true, id: `reference:${++emits}` };
}

function changeRooms(socket, names, change) {
  const rooms = asList(names);
  if (!validRooms(rooms) || socket.rooms.size + rooms.length > LIMIT.roomsPerSocket) {
    return { ok: false, error: 'bad rooms' };
  }
  rooms.forEach(change);
  return { ok: true, rooms: [...socket.rooms].filter((room) => room !== socket.id) };
}

function bus(io) {
  const onConnection = (socket) => {
    const answer = (fn) => (argument, ack = () => {}) => {
      if (typeof argument !== 'function') ack(fn(argument));
    };
    socket.on('bus:join', answer((rooms) => changeRooms(socket, rooms, (room) => socket.join(room))));
    socket.on('bus:leave', answer((rooms) => changeRooms(socket, rooms, (room) => socket.leave(room))));
    socket.on('bus:emit', (message, ack) => {
      const result = publish(message.echo ? socket.nsp : socket.broadcast, message);
      if (ack) ack(result);
    });
    socket.on('bus:who', answer((room) => {
      const sids = [...(socket.nsp.adapter.rooms.get(room) ?? [])];
      return { ok: true, count: sids.length, members: sids.map((sid) => ({ sid, user: null })) };
    }));
  };
  io.on('connection', onConnection);
  io.of(/^\/.+$/).on('connection', onConnection);
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return JSON.parse(text);
}

async function serve(io, request, response) {
  const json = (status, value) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  };
  const path = request.url.split('?')[0];
  if (path === '/healthz' || path === '/readyz') return json(200, { ok: true });
  if (path === '/metrics') {
    return response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4' })
      .end(`# TYPE starling_sessions gauge\nstarling_sessions{transport="any"} ${io.engine.clientsCount}\n`);
  }
  if (path === '/api/v1/emit' && request.method === 'POST') {
    try {
      const message = await body(request);
      const result = publish(io.of(message.ns ?? '/'), message);
      return json(result.ok ? 200 : 400, result);
    } catch (error) {
      return json(400, { ok: false, error: String(error) });
    }
  }
  return response.writeHead(404).end();
}

let io;
const server = http.createServer((request, response) => {
  if (request.url.startsWith('/socket.io/')) return;
  if (io) serve(io, request, response);
  else response.writeHead(404).end();
});
if (program === 'engine_echo') {
  engineEcho(server);
} else {
  io = new Server(server, protocol);
  if (program === 'sio_echo') sioEcho(io);
  else bus(io);
}
server.listen(Number(flags.port), flags.bind ?? '127.0.0.1', () => console.log('ready'));
