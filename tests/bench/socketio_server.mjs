// The peer: a stock Socket.IO server in one process that answers bus:join and bus:emit; with an adapter it is a worker of a
// cluster, as Socket.IO's documentation sets it up. A worker takes WebSocket only, since it has no sticky balancer before it.
import { createServer } from "node:http";
import { Server } from "socket.io";

const usage = "usage: node socketio_server.mjs PORT [redis|streams REDIS_SOCKET [recovery]]";
const [portText, adapterName, redisPath, recovery] = process.argv.slice(2);
const port = Number(portText);

const adapters = {
  async redis(client) {
    const { createAdapter } = await import("@socket.io/redis-adapter");
    const subscriber = client.duplicate();
    await subscriber.connect();
    return createAdapter(client, subscriber);
  },
  async streams(client) {
    const { createAdapter } = await import("@socket.io/redis-streams-adapter");
    return createAdapter(client);
  },
};

async function adapterOptions() {
  if (adapterName === undefined) return {};
  const { createClient } = await import("redis");
  const client = createClient({ socket: { path: redisPath } });
  await client.connect();
  return { adapter: await adapters[adapterName](client), transports: ["websocket"] };
}

if (!Number.isInteger(port) || port < 1 || port > 65535 || (adapterName && !(adapterName in adapters && redisPath))) {
  console.error(usage);
  process.exit(2);
}

const http = createServer();
const io = new Server(http, {
  serveClient: false,
  perMessageDeflate: false,
  httpCompression: false,
  ...(recovery === "recovery" && { connectionStateRecovery: { maxDisconnectionDuration: 120000 } }),
  ...(await adapterOptions()),
});

io.on("connection", (socket) => {
  socket.on("bus:join", (rooms, ack) => {
    socket.join(rooms);
    ack({ ok: true, rooms: [rooms].flat() });
  });
  socket.on("bus:emit", ({ to, event, args }) => {
    socket.to(to).emit(event, ...args);
  });
});

http.listen({ port, host: "127.0.0.1", backlog: 1024 });
