// Raw HTTP and WebSocket over node:net, byte for byte as the test wants them, and small Engine.IO helpers on top.
import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';
import { PATIENCE_MS } from './servers.mjs';

export const SEPARATOR = '\x1e';
export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

// One TCP connection with everything received so far in `buffer`.
export class Connection {
  constructor(socket) {
    this.socket = socket;
    this.buffer = Buffer.alloc(0);
    this.ended = false;
    this.wake = () => {};
    socket.on('data', (data) => {
      this.buffer = this.buffer.length ? Buffer.concat([this.buffer, data]) : data;
      this.wake();
    });
    const end = () => {
      this.ended = true;
      this.wake();
    };
    socket.on('end', end);
    socket.on('close', end);
    socket.on('error', end);
  }

  static open(server, options = {}) {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ port: server.port, host: '127.0.0.1', noDelay: true, ...options });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Connection(socket));
      });
    });
  }

  write(data) {
    this.socket.write(data);
    return this;
  }

  drop() {
    this.socket.destroy();
  }

  // Waits until check() gives a value; check may consume from `buffer`. An end of the connection is an error
  // unless check still gives a value.
  async until(check, what, patience = PATIENCE_MS) {
    const deadline = Date.now() + patience;
    for (;;) {
      const value = check();
      if (value !== undefined) return value;
      if (this.ended) throw new Error(`connection ended while waiting for ${what}`);
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`gave up waiting for ${what}`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  take(n) {
    const bytes = this.buffer.subarray(0, n);
    this.buffer = this.buffer.subarray(n);
    return bytes;
  }

  end(patience) {
    return this.until(() => (this.ended ? true : undefined), 'the end of the connection', patience);
  }

  async response({ method = 'GET', patience } = {}) {
    const head = await this.until(() => {
      const at = this.buffer.indexOf('\r\n\r\n');
      return at < 0 ? undefined : this.take(at + 4).toString('latin1');
    }, 'a response', patience);
    const [first, ...lines] = head.trimEnd().split('\r\n');
    const headers = {};
    for (const line of lines) {
      const at = line.indexOf(':');
      const name = line.slice(0, at).toLowerCase();
      const value = line.slice(at + 1).trim();
      headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
    }
    const status = Number(first.split(' ')[1]);
    const body = await this.#body(method, status, headers, patience);
    return {
      status, headers, body, text: body.toString(),
      get json() { return JSON.parse(body); },
    };
  }

  async #body(method, status, headers, patience) {
    if (method === 'HEAD' || status < 200 || status === 204 || status === 304) return Buffer.alloc(0);
    if (headers['transfer-encoding'] === 'chunked') return this.#chunks(patience);
    if (headers['content-length'] === undefined) {
      await this.end(patience);
      return this.take(this.buffer.length);
    }
    const length = Number(headers['content-length']);
    return this.until(() => (this.buffer.length < length ? undefined : this.take(length)), 'a body', patience);
  }

  async #chunks(patience) {
    const parts = [];
    for (;;) {
      const line = await this.until(() => {
        const at = this.buffer.indexOf('\r\n');
        return at < 0 ? undefined : this.take(at + 2).toString('latin1');
      }, 'a chunk', patience);
      const length = parseInt(line, 16);
      const chunk = await this.until(
        () => (this.buffer.length < length + 2 ? undefined : this.take(length + 2)), 'a chunk', patience);
      if (length === 0) return Buffer.concat(parts);
      parts.push(chunk.subarray(0, length));
    }
  }

  request(options) {
    return this.write(encodeRequest(options));
  }
}

export function encodeRequest({ method = 'GET', target, headers = {}, body, chunked }) {
  const all = { host: '127.0.0.1', ...headers };
  if (body !== undefined && chunked) all['transfer-encoding'] = 'chunked';
  else if (body !== undefined) all['content-length'] ??= Buffer.byteLength(body);
  const lines = Object.entries(all).filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${value}\r\n`);
  const head = Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`, 'latin1');
  if (body === undefined) return head;
  if (!chunked) return Buffer.concat([head, Buffer.from(body)]);
  return Buffer.concat([head, ...chunks(Buffer.from(body), chunked), Buffer.from('0\r\n\r\n')]);
}

export function chunks(body, size) {
  const parts = [];
  for (let at = 0; at < body.length; at += size) {
    const part = body.subarray(at, at + size);
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n'));
  }
  return parts;
}

// The URL of an Engine.IO request; a query value of undefined leaves the parameter out.
export function target(server, query = {}) {
  const all = Object.entries({ EIO: '4', transport: 'polling', ...query }).filter(([, value]) => value !== undefined);
  return `${server.path}?${new URLSearchParams(all)}`;
}

// One request on a connection of its own.
export async function request(server, { query, connect, patience, ...options } = {}) {
  const connection = await Connection.open(server, connect);
  try {
    connection.request({ target: options.target ?? target(server, query), ...options });
    return await connection.response({ method: options.method, patience });
  } finally {
    connection.drop();
  }
}

// A request whose answer is awaited later; returns when the server has seen the request.
export async function begin(server, { query, ...options } = {}) {
  const connection = await Connection.open(server);
  connection.request({ target: options.target ?? target(server, query), ...options });
  const response = connection.response({ method: options.method });
  response.catch(() => {});
  await settle(server);
  return { connection, response };
}

// The server has read what was written before on other connections: it serves them in order of arrival.
export async function settle(server) {
  await request(server, { query: { transport: 'none' } });
}

export function encodeFrame({ fin = true, rsv = 0, opcode, payload = '', mask = true, length, form }) {
  const data = Buffer.from(payload);
  const claimed = length ?? data.length;
  const size = form ?? (claimed < 126 ? 7 : claimed < 65536 ? 16 : 64);
  const head = Buffer.alloc(size === 7 ? 2 : size === 16 ? 4 : 10);
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  head[1] = (mask ? 0x80 : 0) | (size === 7 ? claimed : size === 16 ? 126 : 127);
  if (size === 16) head.writeUInt16BE(claimed, 2);
  if (size === 64) head.writeBigUInt64BE(BigInt(claimed), 2);
  if (!mask) return Buffer.concat([head, data]);
  const key = randomBytes(4);
  const masked = Buffer.from(data);
  for (let i = 0; i < masked.length; i++) masked[i] ^= key[i & 3];
  return Buffer.concat([head, key, masked]);
}

export class WebSocketPeer {
  constructor(connection, response, key) {
    this.connection = connection;
    this.response = response;
    this.key = key;
  }

  // Sends the upgrade request; the answer may be a refusal (status other than 101).
  static async open(server, { query, headers, target: url, connect } = {}) {
    const connection = await Connection.open(server, connect);
    const key = randomBytes(16).toString('base64');
    connection.request({
      target: url ?? target(server, { transport: 'websocket', ...query }),
      headers: {
        connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': 13, 'sec-websocket-key': key, ...headers,
      },
    });
    const response = await connection.response();
    if (response.status !== 101) connection.drop();
    return new WebSocketPeer(connection, response, key);
  }

  get status() {
    return this.response.status;
  }

  get expectedAccept() {
    return createHash('sha1').update(`${this.key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  }

  write(data) {
    this.connection.write(data);
    return this;
  }

  frame(options) {
    return this.write(encodeFrame(options));
  }

  // A text message for a string, a binary one for a Buffer.
  send(...messages) {
    return this.write(Buffer.concat(messages.map((payload) =>
      encodeFrame({ opcode: typeof payload === 'string' ? OPCODE.text : OPCODE.binary, payload }))));
  }

  #parse() {
    const { buffer } = this.connection;
    if (buffer.length < 2) return undefined;
    const short = buffer[1] & 0x7f;
    const head = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (buffer.length < head) return undefined;
    const length = short < 126 ? short : short === 126 ? buffer.readUInt16BE(2) : Number(buffer.readBigUInt64BE(2));
    if (buffer.length < head + length) return undefined;
    const bytes = this.connection.take(head + length);
    return {
      fin: Boolean(bytes[0] & 0x80), rsv: (bytes[0] >> 4) & 7, opcode: bytes[0] & 15, masked: Boolean(bytes[1] & 0x80),
      payload: bytes.subarray(head),
    };
  }

  nextFrame(patience) {
    return this.connection.until(() => this.#parse(), 'a frame', patience);
  }

  // The next message: a string or a Buffer.
  async receive(patience) {
    const frame = await this.nextFrame(patience);
    if (frame.opcode === OPCODE.text) return frame.payload.toString();
    if (frame.opcode === OPCODE.binary) return frame.payload;
    throw new Error(`expected a message, got a frame with opcode ${frame.opcode}, payload ${frame.payload.toString('hex')}`);
  }

  // Waits for the server to close: {code} from its Close frame, code null when that is empty, undefined without one.
  async closing(patience) {
    let code;
    for (;;) {
      const frame = await this.connection.until(
        () => this.#parse() ?? (this.connection.ended ? { opcode: OPCODE.close, end: true } : undefined), 'a close', patience);
      if (frame.opcode !== OPCODE.close) continue;
      if (!frame.end) code = frame.payload.length ? frame.payload.readUInt16BE(0) : null;
      return { code };
    }
  }

  drop() {
    this.connection.drop();
  }
}

// ---- Engine.IO sessions

export async function openPolling(server, options = {}) {
  const response = await request(server, options);
  if (response.status !== 200) throw new Error(`handshake refused: ${response.status} ${response.text}`);
  return { ...JSON.parse(response.text.slice(1).split(SEPARATOR)[0]), response };
}

export async function openWebSocket(server, options = {}) {
  const ws = await WebSocketPeer.open(server, options);
  if (ws.status !== 101) throw new Error(`upgrade refused: ${ws.status} ${ws.response.text}`);
  const first = await ws.receive();
  ws.handshake = JSON.parse(first.slice(1));
  ws.sid = ws.handshake.sid;
  return ws;
}

export const poll = (server, sid, options = {}) => request(server, { query: { sid }, ...options });

export const post = (server, sid, body, options = {}) => request(server, {
  method: 'POST', query: { sid }, body, ...options,
  headers: { 'content-type': 'text/plain;charset=UTF-8', ...options.headers },
});

// A GET that waits at the server.
export const beginPoll = (server, sid) => begin(server, { query: { sid } });

// The second leg of an upgrade, up to the probe's answer.
export async function probe(server, sid) {
  const ws = await WebSocketPeer.open(server, { query: { sid } });
  if (ws.status !== 101) throw new Error(`upgrade refused: ${ws.status} ${ws.response.text}`);
  ws.send('2probe');
  const answer = await ws.receive();
  if (answer !== '3probe') throw new Error(`expected 3probe, got ${answer}`);
  return ws;
}

// Polls until the packets satisfy done(packets); returns them.
export async function pollPackets(server, sid, done) {
  const packets = [];
  while (!done(packets)) {
    const response = await poll(server, sid);
    if (response.status !== 200) throw new Error(`poll refused: ${response.status} ${response.text} after ${packets}`);
    packets.push(...response.text.split(SEPARATOR));
  }
  return packets;
}
