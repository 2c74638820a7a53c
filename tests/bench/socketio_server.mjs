// The peer: a stock Socket.IO server in one process, without an adapter, that answers bus:join and bus:emit.
import { createServer } from "node:http";
import { Server } from "socket.io";

const port = Number(process.argv[2]);
if (!Number.isInteger(port) || port < 1 || port > 65535) {
  console.error("usage: node socketio_server.mjs PORT");
  process.exit(2);
}

const http = createServer();
const io = new Server(http, { serveClient: false, perMessageDeflate: false, httpCompression: false });

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
