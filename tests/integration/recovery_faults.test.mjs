// The promise of recovery under load: many stock clients, events without a pause, and harm to nodes, networks and Redis.
// What is lost is counted in the clients' handlers.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { alive } from '../support/bus.mjs';
import { metric } from '../support/clients.mjs';
import { offsetOf } from '../support/flocks.mjs';
import { RATE, allAreBack, finish, isReady, killOne, mirroredOf, originOf, seconds, startAll } from '../support/promise.mjs';
import { startRedis, startSentinels } from '../support/redis.mjs';
import { eventually, long, sanitized, sleep } from '../support/servers.mjs';
import { starling } from '../support/up.mjs';

const ROUNDS = long ? 20 : 2;
const CLIENTS = long ? 1000 : sanitized ? 120 : 300;
const FEWER = long ? 1000 : 120;
const WHILE = long ? 1 : 0.5; // seconds
const SILENT_MS = 5 * 60 * 1000;

test(`kill -9 of a random node, ${ROUNDS} times, under ${RATE} events/s to ${CLIENTS} clients: all are recovered, nothing is lost or doubled`, async (t) => {
  const all = await startAll(t, { clients: CLIENTS });
  const { flocks } = all;
  const speakers = all.speak();
  const kills = [];
  for (let round = 0; round < ROUNDS; round++) {
    await seconds(speakers, 1);
    kills.push(await killOne(t, all, speakers));
    // And the network takes some of the others.
    const connects = flocks.connects;
    flocks.drop(5);
    await allAreBack(all, connects, CLIENTS / 5);
  }
  await finish(t, all, speakers, kills);
});

test(`${CLIENTS} clients that were silent for ${SILENT_MS / 60000} minutes before the kill`, { skip: !long && 'only with --long' }, async (t) => {
  const all = await startAll(t, { clients: CLIENTS });
  const { bus, ports, flocks } = all;
  const first = all.speak();
  await seconds(first, 1);
  await first.stop();
  // Nobody of them hears this, and the numbers go on.
  const until = Date.now() + SILENT_MS;
  while (Date.now() < until) {
    for (const port of ports) await first.say(port, { event: 'e', to: 'nobody', args: [0] });
    await sleep(50);
  }
  assert.ok((await bus.nodes()).every(({ pid }) => alive(pid)));
  assert.equal(flocks.connects, CLIENTS);
  const kill = await killOne(t, all, first);
  const second = all.speak({ events: first.events });
  await seconds(second, 2);
  await finish(t, all, second, [kill]);
});

// Few clients in the ordinary run: mostly they wait to try again, so these are done side by side.
describe('other harm', { concurrency: long ? 1 : 2 }, () => {
  // All at once, some so that their nodes believe that they are still there.
  test(`the network of ${FEWER} clients drops, under ${RATE} events/s: all are recovered, nothing is lost or doubled`, async (t) => {
    const all = await startAll(t, { clients: FEWER });
    const { flocks } = all;
    const speakers = all.speak();
    for (let round = 0; round < (long ? 10 : 2); round++) {
      await seconds(speakers, WHILE);
      const { connects } = flocks;
      if (round % 2) flocks.vanish(1);
      else flocks.drop(1);
      await allAreBack(all, connects, FEWER);
    }
    t.diagnostic(`${flocks.connects - FEWER} reconnections`);
    await finish(t, all, speakers, []);
  });

  test(`rolling reload under ${RATE} events/s to ${FEWER} clients: all are recovered, nothing is lost or doubled`, async (t) => {
    const all = await startAll(t, { clients: FEWER });
    const { flocks, bus } = all;
    const speakers = all.speak();
    for (let round = 0; round < (long ? 3 : 1); round++) {
      await seconds(speakers, WHILE);
      const { connects } = flocks;
      const before = (await bus.nodes()).map(({ pid }) => pid);
      await promisify(execFile)(starling, ['reload', '--run-dir', bus.runDir]);
      assert.ok((await bus.nodes()).every(({ pid }) => !before.includes(pid)));
      await allAreBack(all, connects, FEWER);
      await eventually(() => !before.some(alive), 'the old nodes to end', 60000);
      await flocks.all();
    }
    t.diagnostic(`${flocks.connects - FEWER} reconnections`);
    await finish(t, all, speakers, []);
  });

  const storeIsUp = async ({ ports }) => {
    for (const port of ports) {
      await eventually(async () => await metric({ port }, 'starling_store_up') === 1, 'the store to be up', 60000);
      await eventually(async () => await metric({ port }, 'starling_mirror_behind') < RATE, 'the mirror to catch up', 60000);
    }
  };

  // Who comes back while it is away is recovered too: its node lives. Then a node dies that has to have been written again.
  test(`Redis is started again and forgets its scripts, under ${RATE} events/s to ${FEWER} clients: all are recovered`, async (t) => {
    const redis = await startRedis(t, { persistent: true });
    const all = await startAll(t, { clients: FEWER, redis });
    const { flocks } = all;
    const speakers = all.speak();
    const kills = [];
    for (let round = 0; round < (long ? 5 : 1); round++) {
      await seconds(speakers, WHILE);
      await redis.cli('script', 'flush');
      await redis.kill();
      const { connects } = flocks;
      flocks.drop(2);
      await allAreBack(all, connects, FEWER / 2);
      await redis.start();
      await storeIsUp(all);
      await redis.cli('script', 'flush');
      kills.push(await killOne(t, all, speakers));
    }
    await finish(t, all, speakers, kills);
  });

  test(`Sentinel fails over, under ${RATE} events/s to ${FEWER} clients: all are recovered, nothing is lost or doubled`, async (t) => {
    const sentinels = await startSentinels(t);
    let { master } = sentinels;
    const all = await startAll(t, { clients: FEWER, redis: { url: sentinels.url, cli: (...words) => master.cli(...words) } });
    const { flocks } = all;
    const speakers = all.speak();
    await seconds(speakers, WHILE);
    await sentinels.master.kill();
    master = sentinels.replica;
    const { connects } = flocks;
    flocks.drop(2);
    await allAreBack(all, connects, FEWER / 2);
    await sentinels.failedOver();
    await storeIsUp(all);
    const kills = [await killOne(t, all, speakers)];
    await finish(t, all, speakers, kills);
  });

  for (const how of ['stopped', 'killed']) {
    test(`the whole bus is ${how} and started again, under ${RATE} events/s to ${FEWER} clients: Redis alone recovers all`, async (t) => {
      const redis = await startRedis(t, { persistent: true });
      const all = await startAll(t, { clients: FEWER, redis });
      const { flocks, bus, ports } = all;
      const speakers = all.speak();
      const kills = [];
      await seconds(speakers, 2 * WHILE);
      const tags = await Promise.all(ports.map(async (port) => (await offsetOf(t, port)).tag));
      const { connects } = flocks;
      let at = Date.now();
      if (how === 'killed') {
        await bus.kill();
        at = Date.now();
        // What Redis has not got is lost: nobody lives who had it.
        for (const [index, tag] of tags.entries()) {
          kills.push({ index, at, origin: originOf(speakers, index, at), settled: await mirroredOf(redis, tag) });
        }
      } else {
        process.kill(bus.pid, 'SIGTERM');
        await eventually(() => bus.ended() !== undefined, 'the bus to end', 60000);
      }
      await all.startAgain();
      for (const port of ports) await eventually(() => isReady(port), 'the node to be ready', 60000);
      await allAreBack(all, connects, FEWER);
      t.diagnostic(`all there again ${Date.now() - at} ms after the end`);
      await seconds(speakers, WHILE);
      await finish(t, all, speakers, kills);
    });
  }
});
