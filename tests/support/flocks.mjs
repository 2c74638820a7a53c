// Many stock clients in several processes, those who speak to them, and an account of who got what.
import { fork } from 'node:child_process';
import http from 'node:http';
import path from 'node:path';
import { connected } from './clients.mjs';
import { afterwards, eventually, root, whileRunning } from './servers.mjs';

const ADDRESSES = 8;

// Gives {up, connects, fresh, all(), drop(n), vanish(n), reports()}. fresh counts connections after the first that were no recovery.
export async function startFlocks(context, { port, clients, rooms, processes = 4 }) {
  const each = clients / processes;
  const members = Array.from({ length: processes }, (_, k) => {
    const child = fork(path.join(root, 'tests/support/flock.mjs'), [JSON.stringify({
      port, first: k * each, count: each, rooms, addresses: ADDRESSES,
    })]);
    whileRunning(child);
    const member = { child, state: { up: 0, joined: 0, connects: 0, fresh: 0, end: 0 } };
    child.on('message', ({ state, report }) => {
      if (state) member.state = state;
      if (report) member.gotReport(report);
    });
    return member;
  });
  afterwards(context, () => members.forEach(({ child }) => child.disconnect()));
  const sum = (key) => members.reduce((all, { state }) => all + state[key], 0);
  const flocks = {
    clients,
    get up() { return sum('up'); },
    get connects() { return sum('connects'); },
    get fresh() { return sum('fresh'); },
    get end() { return Math.min(...members.map(({ state }) => state.end)); },
    all: () => eventually(() => sum('up') === clients, `all clients to be there (${sum('up')} of ${clients} are)`, 120000),
    drop: (every) => members.forEach(({ child }) => child.send({ drop: every })),
    vanish: (every) => members.forEach(({ child }) => child.send({ gone: every })),
    reports: async () => (await Promise.all(members.map((member) => new Promise((resolve) => {
      member.gotReport = resolve;
      member.child.send({ report: true });
    })))).flat(),
  };
  await eventually(() => sum('joined') === clients, 'all clients to join', 120000);
  return flocks;
}

// Speaks to rooms at a steady rate through the given ports, one request after the other for each. events[n] says what
// became of event n: {room, via, at, id}; id is undefined when no answer came.
export function startSpeakers(context, { ports, rooms, rate, events = [] }) {
  const agent = new http.Agent({ keepAlive: true });
  let going = true;
  const say = (port, body) => new Promise((resolve) => {
    const request = http.request({ port, host: '127.0.0.1', method: 'POST', path: '/api/v1/emit', agent }, (answer) => {
      let text = '';
      answer.on('data', (data) => { text += data; });
      answer.on('end', () => {
        try {
          resolve(JSON.parse(text).id);
        } catch {
          resolve(undefined);
        }
      });
      answer.on('error', () => resolve(undefined));
    });
    request.on('error', () => resolve(undefined));
    request.end(JSON.stringify(body));
  });
  const began = Date.now();
  const loops = ports.map(async (port, via) => {
    let sent = 0;
    while (going) {
      const due = ((Date.now() - began) / 1000) * (rate / ports.length);
      if (sent >= due) {
        await new Promise((resolve) => { setTimeout(resolve, 3); });
        continue;
      }
      sent++;
      const event = { room: events.length % rooms, via, at: Date.now() };
      const n = events.push(event) - 1;
      event.id = await say(port, { event: 'e', to: `room-${event.room}`, args: [n] });
      event.answered = Date.now();
    }
  });
  const speakers = {
    events,
    say,
    stop: async () => {
      going = false;
      await Promise.all(loops);
    },
  };
  afterwards(context, async () => {
    await speakers.stop();
    agent.destroy();
  });
  return speakers;
}

// What a node's offset says: its own tag, and how far it is in each origin's numbers, by the origin's tag.
export async function offsetOf(context, port) {
  const socket = await connected(context, { port }, { transports: ['websocket'] });
  const text = await eventually(() => socket._lastOffset, 'an offset');
  socket.disconnect();
  const bytes = Buffer.from(text.slice(2), 'base64url');
  const positions = new Map();
  for (let i = 6; i < bytes.length;) {
    const tag = bytes.readUIntBE(i, 3);
    let number = 0;
    let place = 1;
    for (i += 3; ; place *= 128) {
      number += (bytes[i] & 127) * place;
      if (bytes[i++] < 128) break;
    }
    positions.set(tag, number);
  }
  return { tag: bytes.readUIntBE(3, 3), positions };
}
