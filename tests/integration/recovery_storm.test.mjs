// All clients of a killed node come back at the same moment.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { metric } from '../support/clients.mjs';
import { startCluster } from '../support/cluster.mjs';
import { emit } from '../support/comer.mjs';
import { commandCalls, startRedis } from '../support/redis.mjs';
import { afterwards, eventually, sanitized, sleep, support, whileRunning } from '../support/servers.mjs';

const CLIENTS = sanitized ? 500 : 3000;
const ADDRESSES = 8;
const ROOMS = 100;
const EVENTS = 5; // missed in each room
const THREADS = 4; // that look at requests

function startStorm(t, count) {
  const child = spawn(path.join(support, 'storm'), [count, ADDRESSES, ROOMS].map(String), { stdio: ['pipe', 'pipe', 'inherit'] });
  whileRunning(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = new Promise((resolve) => { child.on('exit', resolve); });
  afterwards(t, () => {
    child.stdin.end();
    return ended;
  });
  return async (order) => {
    child.stdin.write(`${order}\n`);
    const { value } = await lines.next();
    if (value === undefined) throw new Error(`storm ended at "${order}"`);
    return JSON.parse(value);
  };
}

const rooms = Array.from({ length: ROOMS }, (_, room) => `room-${room}`);

// The clients of node a, which is killed, come back to node b when somebody has said what they miss.
async function killUnderStorm(t, options, say) {
  const redis = await startRedis(t);
  const cluster = await startCluster(t, 2, { recovery: 120000, redis: redis.url, ...options });
  const [a, b] = cluster.nodes;
  const storm = startStorm(t, CLIENTS);
  const came = await storm(`come ${a.port}`);
  assert.equal(came.up, CLIENTS, JSON.stringify(came));
  await emit(b, { to: 'nobody', confirm: 'mesh' });
  await a.kill();
  assert.equal((await storm('lose')).up, 0);
  await say(b);
  await redis.cli('config', 'resetstat');
  const back = await storm(`back ${b.port}`);
  const calls = await commandCalls(redis);
  t.diagnostic(`${CLIENTS} clients back in ${back.ms} ms, from ${ADDRESSES} addresses; ${calls.eval} scripts run in Redis, ${JSON.stringify(calls)}`);
  assert.equal(back.up, CLIENTS, JSON.stringify(back));
  assert.equal(back.recovered, CLIENTS);
  assert.equal(back.events, CLIENTS * EVENTS);
  return { b, back, calls };
}

test(`${CLIENTS} clients of a killed node are back at once, with at most one question to Redis each`, async (t) => {
  const { back, calls } = await killUnderStorm(t, {}, async (b) => {
    for (let event = 0; event < EVENTS; event++) await emit(b, { to: rooms, args: [event] });
  });
  // Beside them the node renews its lease once a second.
  assert.ok(calls.eval <= CLIENTS + back.ms / 1000 + 2, JSON.stringify(calls));
});

test(`${CLIENTS} clients of a killed node have all missed more than the ring holds: they share what is read`, async (t) => {
  const { b, back, calls } = await killUnderStorm(t, { ringBytes: 1 << 20 }, async (b) => {
    const padding = 'x'.repeat(4000);
    for (let event = 0; event < EVENTS; event++) {
      for (let n = 0; n < 80; n++) await emit(b, { to: 'nobody', args: [padding] });
      await emit(b, { to: rooms, args: [event] });
    }
    await emit(b, { to: 'nobody', args: [padding], confirm: 'mirror' });
  });
  t.diagnostic(`${await metric(b, 'starling_recoveries_read_total')} of them got something from Redis, by ${await metric(b, 'starling_recovery_reads_total')} questions in ${back.ms} ms`);
  assert.ok(await metric(b, 'starling_recoveries_read_total') > CLIENTS / 2);
  assert.ok(await metric(b, 'starling_recovery_reads_total') < CLIENTS / 4, 'shared');
  assert.ok(calls.eval <= CLIENTS + back.ms / 1000 + 2, JSON.stringify(calls));
});

// Those who look at requests have one thread after the other, whose turn may not come for a while on a busy host. Beyond
// the 1,024 that they take at a time requests were answered with 503.
test('the threads that look at requests hardly get a CPU: whoever comes has to wait, and nobody is sent away', async (t) => {
  const cluster = await startCluster(t, 1, { recovery: 120000, httpThreads: THREADS });
  const [node] = cluster.nodes;
  const tasks = await eventually(() => { // they name themselves when they get to it
    const named = fs.readdirSync(`/proc/${node.pid}/task`)
      .filter((task) => fs.readFileSync(`/proc/${node.pid}/task/${task}/comm`, 'utf8').startsWith('civetweb'));
    return named.length > THREADS && named;
  }, 'the threads to run');
  const schedule = (policy) => tasks.forEach((task) => execFileSync('chrt', [policy, '--pid', '0', task]));
  const storm = startStorm(t, CLIENTS);
  schedule('--idle');
  const busy = os.cpus().map(() => spawn('sh', ['-c', 'while :; do :; done']));
  busy.forEach(whileRunning);
  const coming = storm(`come ${node.port}`);
  await sleep(1000);
  busy.forEach((child) => child.kill('SIGKILL'));
  schedule('--other');
  const came = await coming;
  t.diagnostic(JSON.stringify(came));
  assert.equal(came.failed, 0);
  assert.equal(came.up, CLIENTS);
});
