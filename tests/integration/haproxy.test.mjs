// A real HAProxy that sends every request to the next node: stock clients must not notice.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import { io } from 'socket.io-client';
import { startBus } from '../support/bus.mjs';
import { MODES, call, occurrence, transportOf } from '../support/clients.mjs';
import { checkSample, startHaproxy, whyNoHaproxy } from '../support/haproxy.mjs';
import { PATIENCE_MS, eventually, freePort, long, sleep } from '../support/servers.mjs';

const CLIENTS = 200;
const ROOM_SIZE = 10;
const RUN_MS = long ? 60000 : 15000;
const EMIT_EACH_MS = 1000; // of each client

const skip = whyNoHaproxy();
const roomOf = (i) => `room-${Math.floor(i / ROOM_SIZE)}`;
const ownPorts = (bus, count, name = 'node', address = '127.0.0.1') =>
  Array.from({ length: count }, (_, k) => ({ name: `${name}-${k}`, address, port: bus.port + 1 + k }));

// Clients that send numbers to their rooms and keep what they hear, until stopped.
class Crowd {
  constructor(context, url) {
    this.troubles = [];
    this.sent = Array.from({ length: CLIENTS }, () => 0);
    this.heard = Array.from({ length: CLIENTS }, () => new Map());
    this.acks = 0;
    this.sockets = this.sent.map((_, i) => this.#open(context, url, i));
  }

  #open(context, url, i) {
    const socket = io(url, {
      forceNew: true, reconnection: false, rejectUnauthorized: false, ...(i % 2 ? MODES.upgrade : MODES.polling),
    });
    context.after(() => socket.disconnect());
    socket.on('disconnect', (reason, details) => this.troubles.push(`${i}: ${reason} ${details?.description ?? ''}`));
    socket.on('connect_error', (error) => this.troubles.push(`${i}: ${error.message}`));
    socket.on('n', (from, number) => {
      const all = this.heard[i];
      if (!all.has(from)) all.set(from, []);
      all.get(from).push(number);
    });
    return socket;
  }

  async join() {
    await Promise.all(this.sockets.map((socket) => occurrence(socket, 'connect', 'connect_error')));
    assert.deepEqual(this.troubles, []);
    const answers = await Promise.all(this.sockets.map((socket, i) => call(socket, 'bus:join', roomOf(i))));
    assert.ok(answers.every(({ ok }) => ok));
  }

  #emit(i) {
    const number = this.sent[i]++;
    call(this.sockets[i], 'bus:emit', { to: roomOf(i), event: 'n', args: [i, number] }).then((answer) => {
      this.acks++;
      if (!answer.ok) this.troubles.push(`${i}: refused, ${answer.error}`);
    }, (error) => this.troubles.push(`${i}: emit ${number}, ${error.message}`));
  }

  // Each client in its turn, so that the load is even.
  async emitFor(ms) {
    const start = performance.now();
    const intended = ms * CLIENTS / EMIT_EACH_MS;
    let next = 0;
    // A machine that is busy with something else may take longer, not send less.
    while (next < intended && performance.now() - start < 3 * ms && this.troubles.length === 0) {
      const due = Math.min(intended, (performance.now() - start) * CLIENTS / EMIT_EACH_MS);
      for (; next < due; next++) this.#emit(next % CLIENTS);
      await sleep(5);
    }
    return { sent: next, intended };
  }

  #missing() {
    let missing = 0;
    for (let i = 0; i < CLIENTS; i++) {
      for (const from of this.#mates(i)) missing += this.sent[from] - (this.heard[i].get(from)?.length ?? 0);
    }
    return missing;
  }

  #mates(i) {
    const first = i - i % ROOM_SIZE;
    return Array.from({ length: ROOM_SIZE }, (_, k) => first + k).filter((k) => k !== i);
  }

  async settle() {
    const total = this.sent.reduce((sum, each) => sum + each);
    const isWhole = () => this.#missing() <= 0 && this.acks === total;
    await eventually(() => this.troubles.length > 0 || isWhole(), 'all events').catch((error) => {
      this.troubles.push(`${error.message}: ${this.#missing()} missing, ${this.acks} of ${total} acknowledged`);
    });
    await sleep(200); // what came twice
    assert.deepEqual(this.troubles, []);
    for (let i = 0; i < CLIENTS; i++) {
      assert.deepEqual([...this.heard[i].keys()].sort(), this.#mates(i).filter((from) => this.sent[from] > 0).sort());
      for (const [from, numbers] of this.heard[i]) {
        assert.deepEqual(numbers, Array.from({ length: this.sent[from] }, (_, n) => n), `what ${i} heard of ${from}`);
      }
    }
    return total;
  }
}

async function crowdThrough(t, haproxy, ms = RUN_MS) {
  const crowd = new Crowd(t, `https://127.0.0.1:${haproxy.port}`);
  await crowd.join();
  const { sent, intended } = await crowd.emitFor(ms);
  const total = await crowd.settle();
  assert.equal(total, sent);
  assert.ok(sent >= 0.95 * intended, `${sent} of ${intended} events were sent`);
  crowd.sockets.forEach((socket, i) => assert.equal(transportOf(socket), i % 2 ? 'websocket' : 'polling'));
  const stats = await haproxy.stats();
  const requests = stats.map(({ hrsp_2xx: good }) => Number(good));
  t.diagnostic(`${total} events of ${CLIENTS} clients; requests at the nodes: ${requests}`);
  for (const server of stats) {
    assert.equal(Number(server.hrsp_4xx) + Number(server.hrsp_5xx), 0, JSON.stringify(server));
    assert.equal(server.status, 'UP');
  }
  assert.ok(Math.min(...requests) > 0.8 * Math.max(...requests), `spread by turns: ${requests}`);
}

test('HAProxy takes the sample without a word', { skip }, (t) => {
  const { status, output } = checkSample(t);
  assert.equal(status, 0, output);
  assert.doesNotMatch(output, /WARNING|ALERT/);
});

test('200 clients, polling or upgrading, each request on a connection of its own to the next node', { skip }, async (t) => {
  const bus = await startBus(t, 3);
  const haproxy = await startHaproxy(t, ownPorts(bus, 3), ['option http-server-close', 'http-reuse never']);
  await crowdThrough(t, haproxy);
});

test('200 clients, polling or upgrading, over connections to the nodes that they share', { skip }, async (t) => {
  const bus = await startBus(t, 3);
  const haproxy = await startHaproxy(t, ownPorts(bus, 3), ['http-reuse always']);
  await crowdThrough(t, haproxy, RUN_MS / 3);
});

test('a browser over HTTP/2, its WebSocket included; IPv6; health', { skip }, async (t) => {
  const bus = await startBus(t, 2);
  const haproxy = await startHaproxy(t, ownPorts(bus, 2));
  const curl = async (...parameters) =>
    (await promisify(execFile)('curl', ['--silent', '--insecure', ...parameters])).stdout;
  const shown = ['--output', '/dev/null', '--write-out', '%{http_code} %{http_version} %{redirect_url}'];
  assert.equal(await curl(...shown, `https://[::1]:${haproxy.port}/readyz`), '200 2 ');
  assert.equal(await curl(...shown, '--http1.1', `https://127.0.0.1:${haproxy.port}/readyz`), '200 1.1 ');
  assert.equal(await curl(...shown, '--header', 'Host: example.org', `http://127.0.0.1:${haproxy.plainPort}/readyz`),
    '308 1.1 https://example.org/readyz');

  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run'],
  });
  t.after(() => browser.close());
  const page = await browser.newPage({ ignoreHTTPSErrors: true });
  await page.goto(`https://localhost:${haproxy.port}/readyz`);
  await page.addScriptTag({ url: '/socket.io/socket.io.min.js' });
  const seen = await page.evaluate(async (patience) => {
    const socket = window.io();
    const happened = (emitter, name) => new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`gave up waiting for ${name}`)), patience);
      emitter.once(name, resolve);
    });
    await happened(socket, 'connect');
    if (socket.io.engine.transport.name !== 'websocket') await happened(socket.io.engine, 'upgrade');
    const joined = await socket.emitWithAck('bus:join', 'room');
    const heard = happened(socket, 'x');
    await socket.emitWithAck('bus:emit', { to: 'room', event: 'x', args: ['é'], echo: true });
    const protocols = performance.getEntriesByType('resource').map(({ nextHopProtocol }) => nextHopProtocol);
    return { joined, heard: await heard, transport: socket.io.engine.transport.name, protocols: [...new Set(protocols)] };
  }, PATIENCE_MS);
  assert.deepEqual(seen, { joined: { ok: true, rooms: ['room'] }, heard: 'é', transport: 'websocket', protocols: ['h2'] });
  // The WebSocket as well; it is logged when it ends.
  await page.close();
  const line = await eventually(() => haproxy.output().match(/.*transport=websocket.*/)?.[0], 'the log of the WebSocket');
  assert.match(line, / 101 .*HTTP\/2\.0"$/);
});

test('200 clients, each request to the next of two hosts, on connections of their own or shared', { skip }, async (t) => {
  const ports = [await freePort(), await freePort()];
  const addresses = ['127.0.0.1', '127.0.0.2'];
  const meshOf = (host) => [0, 1].map((k) => `${addresses[host]}:${ports[host] + 200 + k}`).join(',');
  const buses = await Promise.all([0, 1].map((host) => startBus(t, 2, {
    port: ports[host], bind: addresses[host], advertise: addresses[host], peers: meshOf(1 - host),
  })));
  const nodes = buses.flatMap((bus, host) => ownPorts(bus, 2, `host-${host}`, addresses[host]));
  await crowdThrough(t, await startHaproxy(t, nodes, ['option http-server-close', 'http-reuse never']));
  await crowdThrough(t, await startHaproxy(t, nodes, ['http-reuse always']), RUN_MS / 3);
});
