// A real Chromium on a page of another origin: loads the client bundle from our node and talks to it.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { MODES } from '../support/clients.mjs';
import { PATIENCE_MS, freePort, startServer } from '../support/servers.mjs';

const LONG = { pingInterval: 25000, pingTimeout: 20000 };
const site = {};
let browser;
let node;
let echo;

// Runs in the page: wraps the library so that each step of a test is one awaited call.
function pageHelpers(patience) {
  const within = (promise, what) => Promise.race([
    promise, new Promise((_, reject) => { setTimeout(() => reject(new Error(`gave up waiting for ${what}`)), patience); }),
  ]);
  window.open_ = (url, options) => {
    const socket = window.keep_(window.io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options }));
    const failed = new Promise((_, reject) => { socket.once('connect_error', reject); });
    return within(Promise.race([new Promise((resolve) => { socket.once('connect', () => resolve(socket)); }), failed]), 'connect');
  };
  // Events that nobody awaits yet are kept.
  window.keep_ = (socket) => {
    socket.inbox = [];
    socket.onAny((...event) => socket.inbox.push(event));
    return socket;
  };
  window.received_ = async (socket, name) => {
    const find = () => socket.inbox.findIndex(([each]) => each === name);
    await within((async () => {
      while (find() < 0) await new Promise((resolve) => { setTimeout(resolve, 10); });
    })(), name);
    return socket.inbox.splice(find(), 1)[0].slice(1);
  };
  window.next_ = (socket, name) => within(new Promise((resolve) => { socket.once(name, (...args) => resolve(args)); }), name);
  window.call_ = (socket, ...event) => socket.timeout(patience).emitWithAck(...event);
  window.transport_ = async (socket, name) => {
    const { engine } = socket.io;
    while (engine.transport.name !== name) await within(new Promise((resolve) => { setTimeout(resolve, 20); }), name);
    return engine.transport.name;
  };
}

before(async () => {
  site.port = await freePort();
  site.origin = `http://127.0.0.1:${site.port}`;
  node = await startServer('starling-node', { ...LONG, cors: site.origin });
  echo = await startServer('sio_echo', { ...LONG, cors: site.origin, namespaces: '/,/custom' });
  site.server = http.createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/html' })
      .end(`<!doctype html><title>test</title><script src="${node.origin}/socket.io/socket.io.min.js"></script>`);
  });
  await new Promise((resolve) => { site.server.listen(site.port, '127.0.0.1', resolve); });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
      '--disable-sync', '--no-first-run'],
  });
});

after(async () => {
  await browser?.close();
  site.server?.close();
  site.server?.closeAllConnections();
  await node?.stop();
  await echo?.stop();
});

async function openPage(t) {
  const page = await browser.newPage();
  t.after(() => page.close());
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  await page.goto(site.origin);
  await page.evaluate(pageHelpers, PATIENCE_MS);
  assert.equal(await page.evaluate(() => typeof window.io), 'function', 'the bundle is loaded from the node');
  return { page, problems };
}

test('the ES module bundle loads', async (t) => {
  const { page } = await openPage(t);
  const protocol = await page.evaluate(async (url) => (await import(url)).io.protocol ?? 5,
    `${node.origin}/socket.io/socket.io.esm.min.js`);
  assert.equal(protocol, 5);
});

for (const [mode, options] of Object.entries(MODES)) {
  test(`${mode}: text, binary, acknowledgements and namespaces in a browser`, async (t) => {
    const { page, problems } = await openPage(t);
    const seen = await page.evaluate(async ([url, given, last]) => {
      const socket = await window.open_(url, { ...given, auth: { token: 'x' } });
      const result = { auth: await window.received_(socket, 'auth') };
      result.transport = await window.transport_(socket, last);
      socket.emit('message', '€', 1, { a: [null] });
      result.text = await window.received_(socket, 'message-back');
      socket.emit('message', new Uint8Array([1, 2, 255]), { deep: new Uint8Array([7]).buffer });
      const [bytes, { deep }] = await window.received_(socket, 'message-back');
      result.binary = [[...new Uint8Array(bytes)], [...new Uint8Array(deep)]];
      result.ack = await window.call_(socket, 'message-with-ack', 'question');
      socket.on('please-ack', (...args) => args.pop()(...args, 'answer'));
      socket.emit('emit-with-ack', 5);
      result.acked = await window.received_(socket, 'ack-result');
      const custom = window.keep_(socket.io.socket('/custom', { auth: { who: 'custom' } }));
      result.custom = await window.received_(custom, 'auth');
      result.sids = custom.id !== socket.id;
      const refused = window.io(`${url}/custom`, { ...given, forceNew: true, auth: { refuse: true } });
      const [error] = await window.next_(refused, 'connect_error');
      result.error = [error.message, error.data];
      const gone = window.next_(socket, 'disconnect');
      socket.emit('server-disconnect');
      [result.reason] = await gone;
      return result;
    }, [echo.origin, options, mode === 'polling' ? 'polling' : 'websocket']);
    assert.deepEqual(seen, {
      auth: [{ token: 'x' }],
      transport: mode === 'polling' ? 'polling' : 'websocket',
      text: ['€', 1, { a: [null] }],
      binary: [[1, 2, 255], [7]],
      ack: 'question',
      acked: [5, 'answer'],
      custom: [{ who: 'custom' }],
      sids: true,
      error: ['refused', { why: 'asked' }],
      reason: 'io server disconnect',
    });
    assert.deepEqual(problems, []);
  });

  test(`${mode}: two pages talk over the bus`, async (t) => {
    const { page } = await openPage(t);
    const { page: other } = await openPage(t);
    for (const each of [page, other]) {
      await each.evaluate(async ([url, given]) => {
        window.socket = await window.open_(url, given);
        await window.call_(window.socket, 'bus:join', 'pages');
      }, [node.origin, options]);
    }
    const answer = await page.evaluate(() =>
      window.call_(window.socket, 'bus:emit', { to: 'pages', event: 'hello', args: ['other', new Uint8Array([9])] }));
    assert.equal(answer.ok, true);
    const [text, byte] = await other.evaluate(async () => {
      const [word, bytes] = await window.received_(window.socket, 'hello');
      return [word, new Uint8Array(bytes)[0]];
    });
    assert.deepEqual([text, byte], ['other', 9]);
    const { count } = await page.evaluate(() => window.call_(window.socket, 'bus:who', 'pages'));
    assert.equal(count, 2);
  });

  test(`${mode}: a page reconnects after the server was killed`, async (t) => {
    const first = await startServer('sio_echo', { ...LONG, cors: site.origin });
    t.after(() => first.stop());
    const { page } = await openPage(t);
    await page.evaluate(async ([url, given]) => {
      window.socket = await window.open_(url, given);
      window.lost = window.next_(window.socket, 'disconnect');
      // The stock client overlooks a WebSocket that closes in the very moment in which it becomes the transport.
      const { engine } = window.socket.io;
      const isUpgrading = given.transports.length > 1 && engine.transport.name === 'polling';
      if (isUpgrading) await new Promise((resolve) => { engine.once('upgrade', resolve); });
    }, [first.origin, options]);
    await first.kill();
    const [reason] = await page.evaluate(() => window.lost);
    assert.match(reason, /^transport (close|error)$/);
    const second = await startServer('sio_echo', { ...LONG, cors: site.origin, port: first.port });
    t.after(() => second.stop());
    const answer = await page.evaluate(() => window.call_(window.socket, 'message-with-ack', 'back again'));
    assert.equal(answer, 'back again');
  });
}
