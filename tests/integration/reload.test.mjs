// New processes for old ones while clients are connected and more of them come: nobody is turned away, and everybody is
// back at the rate that was asked for.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { test as plainTest } from 'node:test';
import { client, MODES, occurrence, transportOf } from '../support/clients.mjs';
import { eventually, PATIENCE_MS, sleep } from '../support/servers.mjs';
import { alive, freePorts, temporary, up } from '../support/up.mjs';

const test = (name, body) => plainTest(name, { timeout: 180000 }, body);

// The largest number of these times (in ms) within any second.
function peak(times) {
  const sorted = [...times].sort((a, b) => a - b);
  let first = 0;
  return Math.max(0, ...sorted.map((time, last) => {
    while (time - sorted[first] >= 1000) first++;
    return last - first + 1;
  }));
}

// Clients of all kinds that stay, and what happens to them.
async function crowd(context, bus, count) {
  const seen = { failed: [], left: [], tried: [], came: [], sockets: [] };
  const modes = Object.values(MODES);
  for (let i = 0; i < count; i++) {
    const socket = client(context, bus, { ...modes[i % modes.length], reconnectionDelay: 200 });
    seen.sockets.push(socket);
    socket.on('connect_error', (error) => seen.failed.push(error.message));
    if (i % 20 === 19) await occurrence(socket, 'connect');
  }
  await eventually(() => seen.sockets.every(({ connected }) => connected), 'all clients to connect');
  await eventually(() => seen.sockets.every((socket, i) => i % 3 === 0 || transportOf(socket) === 'websocket'),
    'the upgrades');
  for (const socket of seen.sockets) {
    socket.on('disconnect', (reason) => seen.left.push({ reason, at: performance.now() }));
    socket.io.on('reconnect_attempt', () => seen.tried.push(performance.now()));
    socket.on('connect', () => seen.came.push(performance.now()));
  }
  return seen;
}

// New connections, one after the other, for as long as it takes: the errors, and how many went well.
function knock(context, ports) {
  const result = { errors: [], good: 0, running: true };
  const once = (port) => new Promise((resolve) => {
    http.get({ port, host: '127.0.0.1', path: '/healthz', agent: false }, (answer) => {
      answer.resume();
      answer.on('end', () => {
        result.good += answer.statusCode === 200;
        resolve();
      });
    }).on('error', (error) => {
      result.errors.push(`${port}: ${error.message}`);
      resolve();
    });
  });
  const all = ports.map(async (port) => {
    while (result.running) {
      await once(port);
      await sleep(2);
    }
  });
  result.stop = () => {
    result.running = false;
    return Promise.all(all);
  };
  context.after(result.stop);
  return result;
}

const allReady = (bus, count) => () => {
  const nodes = bus.ps()?.nodes;
  return nodes?.length === count && nodes.every(({ state }) => state === 'ready');
};

test('reload under load: no connect fails, every client is back, none faster than the drain rate', async (t) => {
  const RATE = 60;
  const bus = await up(t, ['--drain-rate', String(RATE)], { nodes: 3 });
  const before = bus.pids();
  const seen = await crowd(t, bus, 300);
  const knocks = knock(t, [bus.port, bus.port + 1, bus.port + 2, bus.port + 3]);
  const { code, stderr } = await bus.start('reload');
  assert.deepEqual([code, stderr], [0, '']);
  const after = bus.pids();
  assert.equal(new Set([...before, ...after]).size, 6);
  await eventually(() => before.every((pid) => !alive(pid)), 'the end of the old processes');
  await eventually(() => seen.sockets.every(({ connected }) => connected), 'every client to be back');
  await knocks.stop();
  const closes = peak(seen.left.map(({ at }) => at)), tries = peak(seen.tried);
  t.diagnostic(`${seen.left.length} sent off; at most ${closes} of them, ${tries} reconnects begun and ${peak(seen.came)} `
    + `done in one second; ${knocks.good} new connections meanwhile`);
  assert.deepEqual(seen.failed, []);
  assert.deepEqual(knocks.errors, []);
  assert.ok(knocks.good > 500, String(knocks.good));
  // Each at least once: all nodes were replaced.
  assert.ok(seen.left.length >= 300);
  // By a closed transport: a Socket.IO DISCONNECT would keep the client from coming back.
  assert.deepEqual([...new Set(seen.left.map(({ reason }) => reason))], ['transport close']);
  // What the nodes are asked for; when it is done depends on the machine. The clock is this busy process: a tenth is for
  // its hiccups.
  assert.equal(seen.tried.length, seen.left.length);
  assert.ok(closes <= RATE * 1.1 && tries <= RATE * 1.1, `${closes} ${tries}`);
  assert.deepEqual(bus.ps().nodes.map(({ restarts }) => restarts), [0, 0, 0]);
});

test('reload with a Redis: every client recovers, and its handlers miss nothing and see nothing twice', async (t) => {
  const bus = await up(t, [], { nodes: 3, redis: 'private' });
  const clients = [];
  for (let i = 0; i < 60; i++) {
    const socket = client(t, bus, { transports: ['websocket'] });
    const one = { socket, recovered: [], got: [] };
    await occurrence(socket, 'connect');
    await socket.emitWithAck('bus:join', 'room');
    socket.on('connect', () => one.recovered.push(socket.recovered));
    socket.on('event', (number) => one.got.push(number));
    clients.push(one);
  }
  let sent = 0, running = true;
  const emits = (async () => {
    while (running) {
      const body = JSON.stringify({ to: ['room'], event: 'event', args: [sent] });
      const options = { method: 'POST', headers: { connection: 'close' }, body };
      const answer = await fetch(`http://127.0.0.1:${bus.port}/api/v1/emit`, options);
      assert.equal(answer.status, 200);
      sent++;
      await sleep(20);
    }
  })();
  const { code, stderr } = await bus.start('reload');
  running = false;
  await emits;
  assert.deepEqual([code, stderr], [0, '']);
  await eventually(() => clients.every(({ socket, got }) => socket.connected && got.length >= sent), 'all events');
  const all = Array.from({ length: sent }, (_, number) => number);
  for (const { recovered, got } of clients) {
    assert.ok(recovered.length > 0 && recovered.every(Boolean), String(recovered));
    assert.deepEqual([...got].sort((a, b) => a - b), all);
  }
});

test('reload twice: the paths of the mesh are used again', async (t) => {
  const bus = await up(t, [], { nodes: 2 });
  const pids = new Set(bus.pids());
  for (let i = 1; i <= 3; i++) {
    assert.deepEqual(bus.run('reload'), { status: 0, stdout: '', stderr: '' });
    for (const pid of bus.pids()) pids.add(pid);
    assert.equal(pids.size, 2 + 2 * i);
    await eventually(async () => {
      const headers = { connection: 'close' };
      const text = await (await fetch(`http://127.0.0.1:${bus.port + 1}/metrics`, { headers })).text();
      return /^starling_mesh_peers 1$/m.test(text);
    }, 'the nodes to hear each other');
  }
});

test('a node that drains says so, and takes nobody in', async (t) => {
  const bus = await up(t, ['--drain-rate', '1'], { nodes: 2 });
  const node = { port: bus.port + 2 };
  const sockets = [];
  for (let i = 0; i < 3; i++) {
    sockets.push(client(t, node, { transports: ['websocket'], reconnection: false }));
    await occurrence(sockets[i], 'connect');
  }
  const waiting = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => waiting.destroy());
  const ready = () => new Promise((resolve, reject) => {
    http.get({ port: node.port, host: '127.0.0.1', path: '/readyz', agent: waiting }, (answer) => {
      let text = '';
      answer.on('data', (data) => { text += data; });
      answer.on('end', () => resolve([answer.statusCode, JSON.parse(text).state]));
    }).on('error', reject);
  });
  assert.deepEqual(await ready(), [200, 'ready']);
  const scaling = bus.start('scale', '1');
  await eventually(() => bus.ps().nodes[1]?.state === 'draining', 'the drain');
  // Over the connection that is there already: there are no new ones.
  assert.deepEqual(await ready(), [503, 'draining']);
  await assert.rejects(fetch(`http://127.0.0.1:${node.port}/readyz`));
  assert.ok(sockets.some(({ connected }) => connected), 'they go one by one');
  assert.deepEqual(await scaling, { code: 0, stdout: '', stderr: '' });
  assert.ok(sockets.every(({ connected }) => !connected));
  assert.deepEqual(bus.ps().nodes.map(({ state }) => state), ['ready']);
});

test('scale down under load: the clients come back on the nodes that stay', async (t) => {
  const bus = await up(t, ['--drain-rate', '100'], { nodes: 3 });
  const seen = await crowd(t, bus, 90);
  const { code, stderr } = await bus.start('scale', '1');
  assert.deepEqual([code, stderr], [0, '']);
  await eventually(() => seen.sockets.every(({ connected }) => connected), 'every client to be back');
  assert.ok(seen.left.every(({ reason }) => reason === 'transport close'));
  await eventually(() => bus.ps().nodes[0].sessions === 90, 'all on the node that stays');
});

test('a new process that does not come up changes nothing', async (t) => {
  const bus = await up(t, ['--listen-timeout', '3000'], { nodes: 2, copy: true });
  const before = bus.pids();
  bus.replaceNode('#!/bin/sh\nexec sleep 1000\n');
  const { status, stderr } = bus.run('reload');
  assert.deepEqual([status, stderr],
    [1, 'starling reload: the new process of node 0 did not come up; the old one goes on; see starling logs\n']);
  await eventually(() => /node 0: pid \d+ was not ready after 3000 ms and is killed/.test(bus.stderr), 'the message');
  assert.deepEqual(bus.pids(), before);
  assert.ok(allReady(bus, 2)());
  bus.replaceNode();
  assert.deepEqual(bus.run('reload'), { status: 0, stdout: '', stderr: '' });
  assert.notDeepEqual(bus.pids(), before);
});

test('reload takes the new configuration, and refuses what it cannot take', async (t) => {
  const file = path.join(temporary(t), 'starling.conf');
  const write = (...lines) => fs.writeFileSync(file, lines.join('\n'));
  write('ping-interval = 1234');
  const bus = await up(t, ['--config', file], { nodes: 2 });
  const before = bus.pids();
  const interval = async () => {
    const url = `http://127.0.0.1:${bus.port}/socket.io/?EIO=4&transport=polling`;
    const text = await (await fetch(url, { headers: { connection: 'close' } })).text();
    return JSON.parse(text.slice(1)).pingInterval;
  };
  assert.equal(await interval(), 1234);
  write('ping-interval = 4321', 'drain-rate = 1000');
  assert.deepEqual(bus.run('reload'), { status: 0, stdout: '', stderr: '' });
  assert.equal(await interval(), 4321);
  const pids = bus.pids();
  assert.ok(pids.every((pid) => !before.includes(pid)));
  write('cluster = another');
  assert.equal(bus.run('reload').stderr,
    'starling reload: cluster of the configuration has changed, which takes a stop and a start\n');
  write('ping-interval = never');
  assert.equal(bus.run('reload').stderr,
    'starling reload: the configuration is not taken; see the messages of `starling up`\n');
  await eventually(() => bus.stderr.includes(`${file}:1: ping-interval takes a number`), 'the message');
  assert.deepEqual(bus.pids(), pids);
});

test('stop in the middle of a reload ends everything', async (t) => {
  const bus = await up(t, ['--drain-rate', '1'], { nodes: 2 });
  const pids = new Set(bus.pids());
  for (let i = 0; i < 20; i++) await occurrence(client(t, bus, { reconnection: false }), 'connect');
  const reloading = bus.start('reload');
  await eventually(() => bus.pids().some((pid) => !pids.has(pid)), 'the first new process');
  for (const pid of bus.pids()) pids.add(pid);
  assert.equal(bus.run('reload').stderr, 'starling reload: a reload is under way\n');
  assert.equal(bus.run('scale', '3').stderr, 'starling scale: a reload is under way\n');
  assert.equal(bus.run('stop').status, 0);
  assert.equal(await bus.ended, 0);
  assert.equal((await reloading).code, 1);
  assert.deepEqual([...pids].filter(alive), []);
});

test('a supervisor that is killed in the middle of a reload: the next one takes all processes over', async (t) => {
  const bus = await up(t, ['--drain-rate', '2'], { nodes: 2 });
  const before = bus.pids();
  for (let i = 0; i < 40; i++) await occurrence(client(t, bus, { reconnection: false }), 'connect');
  bus.start('reload');
  await eventually(() => bus.pids()[0] !== before[0], 'the first new process');
  const now = bus.pids();
  await bus.killSupervisor();
  assert.ok(alive(before[0]), 'the old process drains');
  const next = await up(t, [], { nodes: 2, runDir: bus.runDir, port: bus.port });
  assert.deepEqual(next.pids(), now);
  assert.equal(next.run('reload').stderr, 'starling reload: a reload is under way\n');
  await eventually(() => !alive(before[0]), 'the end of the old process', 2 * PATIENCE_MS);
  await eventually(() => next.run('reload').status === 0, 'a reload of its own');
});

test('hosts that know each other by address still do after a reload of each, and of each again', async (t) => {
  const port = await freePorts(8);
  const hosts = [1, 2].map((k) => `127.0.0.${k}`);
  const peers = (k) => ['--bind', hosts[k], '--peers', `${hosts[1 - k]}:${port + 200}`, '--peers', `${hosts[1 - k]}:${port + 201}`];
  const buses = await Promise.all([0, 1].map((k) => up(t, peers(k), { nodes: 2, port })));
  const hear = (count) => eventually(async () => {
    const texts = await Promise.all(hosts.flatMap((host) => [1, 2].map(async (own) => {
      const answer = await fetch(`http://${host}:${port + own}/metrics`, { headers: { connection: 'close' } });
      return answer.text();
    })));
    return texts.every((text) => text.includes(`\nstarling_mesh_peers ${count}\n`));
  }, 'all nodes to hear each other');
  await hear(3);
  for (const bus of [buses[0], buses[1], buses[0]]) {
    assert.deepEqual(await bus.start('reload'), { code: 0, stdout: '', stderr: '' });
    await hear(3);
  }
  // Back on the ports that are in the configuration, or not: whoever starts again is found.
  process.kill(buses[1].pids()[0], 'SIGKILL');
  await eventually(() => buses[1].node(0).restarts === 1 && allReady(buses[1], 2)(), 'the node to start again');
  await hear(3);
});
