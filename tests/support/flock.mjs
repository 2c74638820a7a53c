// A process full of stock clients, for tests of faults: each is in one room and writes down what its handler gets.
// Started by startFlock() with fork(); its arguments are one JSON object.
import { io } from 'socket.io-client';

const { port, first, count, rooms, addresses } = JSON.parse(process.argv[2]);

const clients = Array.from({ length: count }, (_, i) => {
  const index = first + i;
  const socket = io(`http://127.0.0.1:${port}`, {
    forceNew: true, transports: ['websocket'], localAddress: `127.0.0.${2 + (index % addresses)}`,
  });
  const client = { index, room: index % rooms, socket, got: [], connects: 0, fresh: 0, downs: [], joined: false, end: 0 };
  socket.on('connect', async () => {
    client.connects++;
    if (client.connects > 1 && !socket.recovered) client.fresh++;
    if (client.joined) return;
    const { ok } = await socket.emitWithAck('bus:join', `room-${client.room}`);
    client.joined = ok;
  });
  socket.on('disconnect', () => client.downs.push(Date.now()));
  socket.on('e', (n) => client.got.push(n));
  socket.on('end', (n) => { client.end = Math.max(client.end, n); });
  return client;
});

const sum = (f) => clients.reduce((all, client) => all + f(client), 0);

setInterval(() => process.send({
  state: {
    up: sum(({ socket }) => Number(socket.connected)),
    joined: sum(({ joined }) => Number(joined)),
    connects: sum(({ connects }) => connects),
    fresh: sum(({ fresh }) => fresh),
    end: Math.min(...clients.map(({ end }) => end)),
  },
}, () => { /* the test may be over */ }), 50).unref();

// As when a phone leaves the net: the connection stays, and nobody is at its end.
function vanish({ io: manager }) {
  const { engine } = manager;
  if (!engine?.transport.ws) return;
  engine.transport.close = () => {};
  engine.transport.ws.onclose = engine.transport.ws.onerror = () => {};
  engine._onClose('transport error');
}

process.on('message', ({ drop, gone, report }) => {
  // The network takes the connection: no Close, no last word.
  if (drop) for (const { socket, index } of clients) if (index % drop === 0) socket.io.engine?.transport.ws?.terminate();
  if (gone) for (const { socket, index } of clients) if (index % gone === 0) vanish(socket);
  if (report) process.send({ report: clients.map(({ index, room, got, connects, fresh, downs }) => ({ index, room, got, connects, fresh, downs })) });
});
process.on('disconnect', () => process.exit(0));
