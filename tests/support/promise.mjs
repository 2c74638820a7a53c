// The promise of recovery, put to the test: a bus, stock clients that write down what their handlers get, speakers, harm,
// and an account of what was lost.
import assert from 'node:assert/strict';
import { startBus } from './bus.mjs';
import { offsetOf, startFlocks, startSpeakers } from './flocks.mjs';
import { startRedis } from './redis.mjs';
import { eventually } from './servers.mjs';

export const NODES = 3;
export const RATE = 500; // events a second
const ROOM_SIZE = 20;

// redis: {url, cli()}, a server of its own when it is left out.
export async function startAll(t, { clients, redis }) {
  redis ??= await startRedis(t);
  const options = { redis: redis.url, recovery: 120000 };
  const bus = await startBus(t, NODES, options);
  const ports = Array.from({ length: NODES }, (_, k) => bus.port + 1 + k);
  const rooms = Math.max(1, Math.floor(clients / ROOM_SIZE));
  const flocks = await startFlocks(t, { port: bus.port, clients, rooms });
  const all = { redis, bus, ports, rooms, flocks, clients };
  // After it has ended.
  all.startAgain = async () => { all.bus = await startBus(t, NODES, { ...options, port: bus.port }); };
  all.speak = (more) => startSpeakers(t, { ports, rooms, rate: RATE, ...more });
  return all;
}

// Some of them are away for a while: all of the clients are there again, and have connected that often more.
export async function allAreBack({ flocks }, connects, more) {
  await eventually(() => flocks.connects >= connects + more, `${more} clients to come back (${flocks.connects - connects} are)`, 120000);
  await flocks.all();
}

export const seconds = (speakers, n) => {
  const before = speakers.events.length;
  return eventually(() => speakers.events.length >= before + n * RATE, `${n} seconds of events`, 60000);
};

export const isReady = async (port) => (await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => ({}))).status === 200;

// The newest number that the mirror has of the origin with this tag.
export async function mirroredOf(redis, tag) {
  const hex = tag.toString(16).padStart(6, '0');
  const origins = (await redis.cli('zrange', 'starling:{starling}:origins', 0, -1)).split('\n');
  const last = await redis.cli('xrevrange', `starling:{starling}:mirror:${origins.find((each) => each.startsWith(hex))}`, '+', '-', 'count', 1);
  return Number(last.split('-')[0]) || 0;
}

// What the ids began with that a node gave its emits then.
export const originOf = (speakers, index, at) => speakers.events
  .filter(({ via, id, answered }) => via === index && id && answered <= at).at(-1)?.id.split(':')[0];

// Kills one node that has clients, and waits until it and they are back. Gives what is known of its origin.
export async function killOne(t, { bus, ports, redis, flocks, clients }, speakers) {
  const nodes = (await bus.nodes()).filter(({ sessions }) => sessions > 0);
  const { index, pid, sessions } = nodes[Math.floor(Math.random() * nodes.length)];
  const { tag } = await offsetOf(t, ports[index]);
  const ups = flocks.connects;
  const at = Date.now();
  process.kill(pid, 'SIGKILL');
  await eventually(() => flocks.up < clients, 'its clients to notice');
  await flocks.all();
  const took = Date.now() - at;
  await eventually(() => isReady(ports[index]), 'the node to be back', 60000);
  const others = ports.filter((_, k) => k !== index);
  // What the living know of its words is settled when all of them know the same, and the mirror has no more.
  let settled = -1;
  await eventually(async () => {
    const known = await Promise.all(others.map(async (port) => (await offsetOf(t, port)).positions.get(tag) ?? 0));
    settled = Math.max(...known);
    return known.every((each) => each === settled) && settled >= await mirroredOf(redis, tag);
  }, 'the last words of the dead to be settled');
  const origin = originOf(speakers, index, at);
  t.diagnostic(`node ${index} killed with ${sessions} sessions: ${flocks.connects - ups} reconnections, all there after ${took} ms`);
  return { index, at, origin, settled };
}

export const numberOf = (id) => Number(id.split(':')[1]);

// Every event is at all members of its room or at none; at none only when nobody who lives had received it.
function account(t, events, reports, kills) {
  const seen = events.map(() => new Set());
  let twice = 0;
  let disordered = 0;
  for (const { index, got } of reports) {
    const last = [];
    for (const n of got) {
      if (seen[n].has(index)) twice++;
      seen[n].add(index);
      if (n < last[events[n].via]) disordered++;
      last[events[n].via] = n;
    }
  }
  const members = new Map();
  for (const { room } of reports) members.set(room, (members.get(room) ?? 0) + 1);
  const wrong = [];
  let refused = 0;
  let unheard = 0; // nobody who lived had them
  let onlyThere = 0; // of these, clients of the killed node had got
  for (const [n, event] of events.entries()) {
    if (seen[n].size === members.get(event.room)) continue;
    if (!event.id && seen[n].size === 0) { // the node was not there to take it, or died over it
      refused++;
      continue;
    }
    const kill = kills.find(({ index, at }) => event.via === index && event.at <= at && (event.answered ?? Infinity) >= at - 1000);
    const mayBeLost = kill && (!event.id || (event.id.split(':')[0] === kill.origin && numberOf(event.id) > kill.settled));
    if (mayBeLost) {
      unheard++;
      onlyThere += seen[n].size > 0;
    } else {
      wrong.push({ n, ...event, seen: seen[n].size, kill });
    }
  }
  t.diagnostic(`${events.length - refused} events (and ${refused} that no node answered, seen by nobody), ${reports.reduce((all, { got }) => all + got.length, 0)} deliveries`);
  t.diagnostic(`loss window: ${unheard} events in ${kills.length} kills were in nobody's hands (${onlyThere} of them had reached clients of the killed node)`);
  assert.deepEqual(wrong.slice(0, 10), [], `${wrong.length} events lost or given to some only`);
  assert.equal(twice, 0, 'events given twice');
  assert.equal(disordered, 0, 'events of one speaker out of order');
}

export async function finish(t, all, speakers, kills) {
  await speakers.stop();
  const { flocks, ports } = all;
  const [port] = ports;
  for (let n = 1; n <= 2; n++) {
    await speakers.say(port, { event: 'end', args: [n], confirm: 'mesh' });
    await eventually(() => flocks.end >= n, 'the end to reach everybody', 60000);
  }
  const reports = await flocks.reports();
  assert.equal(flocks.fresh, 0, 'every client that came back was recovered');
  assert.equal(reports.reduce((sum, { fresh }) => sum + fresh, 0), 0);
  account(t, speakers.events, reports, kills);
  return reports;
}

