// The chat of chat.c, written from proto/agent.md alone: npm zeromq and @msgpack/msgpack.
// usage: node chat.mjs [ENDPOINTS]
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeMulti, encode } from '@msgpack/msgpack';
import { Dealer } from 'zeromq';

const [HELLO, WELCOME, CREDIT, NODE, BYE, ERROR, OK, EMIT, HANDLE] = [1, 2, 3, 4, 5, 6, 7, 16, 18];
const [CALL, CONNECT, DISCONNECTED] = [66, 67, 68];
const WINDOW = 2 ** 20;
const instance = randomBytes(8).toString('hex');
const registration = { namespaces: ['/chat'], events: ['say'], life: ['connect', 'disconnect'] };
const endpoints = (process.argv[2] ?? 'tcp://127.0.0.1:7800').split(',');
const waiting = []; // emits that there is no credit for

function emit(event, ...args) {
  if (waiting.length < 10000) waiting.push([EMIT, 0, '/chat', ['lobby'], event, JSON.stringify(args), {}]);
}

// The chat itself: what is to be answered, or nothing.
function onRecord([kind, id, ...rest]) {
  if (kind === CONNECT) {
    const { name } = JSON.parse(rest[3]); // reg, nsp, sid, auth
    if (typeof name !== 'string' || name === '') return [ERROR, id, 'nameless', 'who are you?'];
    emit('joined', name);
    return [OK, id, { user: JSON.stringify(name), rooms: ['lobby'] }];
  }
  if (kind === CALL) {
    const [, , , , args, { user } = {}] = rest; // reg, nsp, sid, event, args, options
    const [text] = JSON.parse(args);
    if (typeof text !== 'string') return [ERROR, id, 'say', 'say what?'];
    emit('said', JSON.parse(user ?? null), text);
    return [OK, id, { args: '[{"ok":true}]' }];
  }
  if (kind === DISCONNECTED) emit('left', JSON.parse(rest[3]?.user ?? null)); // nsp, sid, reason, options
  else if (kind === OK && id === 1) console.log('ready');
  else if (kind === ERROR) console.log(id, ...rest);
}

// One connection, until it is over; true when there was a WELCOME.
async function serve(endpoint) {
  const socket = new Dealer({ linger: 0, receiveTimeout: 1000, sendHighWaterMark: 0 });
  let [sent, got, credit, welcome, beat] = [0, 0, 0, false, undefined];
  let queue = Promise.resolve(); // one send at a time
  const send = (record, counts = true) => {
    const frame = encode(record);
    sent += counts ? frame.length : 0;
    queue = queue.then(() => socket.send(frame)).catch(() => {});
  };
  socket.connect(endpoint);
  send([HELLO, 1, 'chat', instance, WINDOW, { about: 'chat.mjs' }], false);
  try {
    for (;;) { // receive() fails after receiveTimeout
      const [frame] = await socket.receive();
      got += welcome ? frame.length : 0;
      for (const r of decodeMulti(frame)) {
        if (r[0] === BYE || (r[0] === ERROR && (!welcome || r[2] === 'hello'))) return welcome;
        if (r[0] === WELCOME) {
          [welcome, credit, socket.receiveTimeout] = [true, r[3], r[4].timeout_ms];
          send([HANDLE, 1, registration]);
          beat = setInterval(() => send([CREDIT, got + WINDOW]), r[4].heartbeat_ms);
        } else if (r[0] === CREDIT) credit = r[1];
        const answer = welcome && onRecord(r);
        if (answer) send(answer);
        if (r[0] === WELCOME || r[0] === NODE)
          endpoints.push(...(r.at(-1).peers ?? []).flatMap((p) => p.slice(1)).filter((e) => !endpoints.includes(e)));
      }
      while (waiting.length > 0 && sent < credit) send(waiting.shift());
    }
  } catch { return welcome; } finally { clearInterval(beat); socket.close(); }
}

for (let attempts = 0; ;) { // the next node, sooner after one that was there
  endpoints.push(endpoints.shift());
  attempts = (await serve(endpoints.at(-1))) ? 0 : attempts + 1;
  await sleep(Math.min(5000, 100 * 2 ** attempts) * (0.5 + Math.random() / 2));
}
