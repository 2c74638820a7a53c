// Section 2: query parameters, the order of checks, headers, CORS, the client bundle.
import assert from 'node:assert/strict';
import { brotliDecompressSync, gunzipSync, inflateSync } from 'node:zlib';
import { rule } from '../support/rule.mjs';
import { serverFor, useServer } from '../support/servers.mjs';
import {
  Connection, WebSocketPeer, beginPoll, openPolling, openWebSocket, poll, post, probe, request, target,
} from '../support/wire.mjs';

const LONG = { pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 };
const server = useServer('engine_echo', LONG);

const REASONS = {
  0: 'Transport unknown',
  1: 'Session ID unknown',
  2: 'Bad handshake method',
  3: 'Bad request',
  5: 'Unsupported protocol version',
};

async function assertRefused(code, options) {
  const response = await request(server, options);
  assert.equal(response.status, 400, response.text);
  assert.deepEqual(response.json, { code, message: REASONS[code] });
  return response;
}

async function assertAlive(sid) {
  assert.equal((await post(server, sid, '4alive')).text, 'ok');
  assert.equal((await poll(server, sid)).text, '4alive');
}

rule('2.a unknown parameters and the cache buster are ignored', async () => {
  const { sid } = await openPolling(server, { query: { t: 'Pabc123.0', other: 'x y', EIO: '4' } });
  await post(server, sid, '4x', { query: { sid, t: '1700000000000-7' } });
  assert.equal((await poll(server, sid, { query: { sid, t: '' } })).text, '4x');
});

rule('2.b b64 makes binary messages base64 text on WebSocket', async () => {
  const ws = await openWebSocket(server, { query: { b64: '1' } });
  ws.send(Buffer.from([1, 2, 3, 4]));
  assert.equal(await ws.receive(), 'bAQIDBA==');
  ws.drop();
});

rule('2.c the last of a repeated parameter wins', async () => {
  const url = `${server.path}?EIO=3&transport=x&EIO=4&transport=polling`;
  assert.equal((await request(server, { target: url })).status, 200);
  await assertRefused(5, { target: `${server.path}?EIO=4&EIO=3&transport=polling` });
});

rule('2.d an empty sid is no sid', async () => {
  const response = await request(server, { query: { sid: '' } });
  assert.equal(response.status, 200);
  assert.match(response.text, /^0\{/);
});

rule('2.e parameters are percent-decoded', async () => {
  const response = await request(server, { target: `${server.path}?EIO=%34&transport=poll%69ng` });
  assert.equal(response.status, 200);
});

rule('2.f a missing or unknown transport is code 0', async () => {
  const { sid } = await openPolling(server);
  await assertRefused(0, { query: { transport: undefined } });
  await assertRefused(0, { query: { transport: 'tcp' } });
  await assertRefused(0, { query: { transport: 'tcp', sid } });
  await assertAlive(sid);
});

rule('2.g an Origin header with control bytes is refused', async () => {
  const response = await request(server, { headers: { origin: 'http://a\x01b' } });
  assert.equal(response.status, 400);
  if (response.text) assert.equal(response.json.code, 3);
  assert.equal((await request(server, { headers: { origin: 'http://a\tb c\xe9' } })).status, 200);
});

rule('2.h an unknown session is code 1 with any method and version', async () => {
  for (const method of ['GET', 'POST', 'PUT', 'DELETE']) {
    await assertRefused(1, { method, query: { sid: 'AAAAAAAAAAAAAAAAAAAA' }, body: method === 'POST' ? '4x' : undefined });
  }
  await assertRefused(1, { query: { sid: 'AAAAAAAAAAAAAAAAAAAA', EIO: '3' } });
  await assertRefused(1, { query: { sid: 'short' } });
  await assertRefused(1, { query: { sid: 'x'.repeat(500) } });
});

rule('2.i a request on another transport than the session uses is code 3', async () => {
  const { sid } = await openPolling(server);
  await assertRefused(3, { query: { transport: 'websocket', sid } });
  await assertAlive(sid);
  const ws = await openWebSocket(server);
  await assertRefused(3, { query: { sid: ws.sid } });
  ws.send('4alive');
  assert.equal(await ws.receive(), '4alive');
  ws.drop();
});

rule('2.j a handshake by another method than GET is code 2', async () => {
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) await assertRefused(2, { method });
  assert.equal((await request(server, { method: 'HEAD' })).status, 400);
});

rule('2.k a websocket handshake without an upgrade is code 3', async () => {
  await assertRefused(3, { query: { transport: 'websocket' } });
});

rule('2.l another version than 4 is code 5 on a handshake', async () => {
  for (const EIO of [undefined, '3', '5', 'x', '', '44', '04']) await assertRefused(5, { query: { EIO } });
});

rule('2.x a request with a sid never fails with the version code', async () => {
  const { sid } = await openPolling(server);
  for (const EIO of [undefined, '3']) {
    const response = await post(server, sid, '4x', { query: { sid, EIO } });
    if (response.status !== 200) assert.equal(response.json.code, 3);
  }
  await post(server, sid, '4alive');
  assert.match((await poll(server, sid)).text, /4alive$/);
});

rule('2.m the first failing check answers', async () => {
  const sid = 'AAAAAAAAAAAAAAAAAAAA';
  await assertRefused(0, { method: 'POST', query: { transport: 'tcp', sid, EIO: '3' } });
  await assertRefused(1, { method: 'POST', query: { transport: 'websocket', sid, EIO: '3' } });
  await assertRefused(2, { method: 'POST', query: { transport: 'websocket', EIO: '3' } });
  await assertRefused(3, { query: { transport: 'websocket', EIO: '3' } });
  const living = await openPolling(server);
  await assertRefused(3, { method: 'DELETE', query: { transport: 'websocket', sid: living.sid } });
});

rule('2.n a refusal is JSON with its code and message', async () => {
  const response = await assertRefused(0, { query: { transport: 'tcp' } });
  assert.match(response.headers['content-type'], /^application\/json/);
});

rule('2.o another method on a living session is refused and does not harm it', async () => {
  const { sid } = await openPolling(server);
  for (const method of ['PUT', 'DELETE', 'HEAD', 'PATCH']) {
    const { status } = await request(server, { method, query: { sid } });
    assert.ok([400, 405, 500].includes(status), `${method}: ${status}`);
  }
  await assertAlive(sid);
});

rule('2.p a poll is plain text with a length and not stored', async () => {
  const { sid, response } = await openPolling(server);
  await post(server, sid, '4x');
  for (const { headers, body } of [response, await poll(server, sid)]) {
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal(headers['content-type'].toLowerCase(), 'text/plain; charset=utf-8');
    assert.equal(headers['content-length'], String(body.length));
  }
});

rule('2.q a post is answered ok as text/html and not stored', async () => {
  const { sid } = await openPolling(server);
  const response = await post(server, sid, '4x');
  assert.equal(response.status, 200);
  assert.equal(response.text, 'ok');
  assert.match(response.headers['content-type'], /^text\/html/);
  assert.equal(response.headers['cache-control'], 'no-store');
});

rule('2.r connections are kept alive and reused', async () => {
  const connection = await Connection.open(server);
  const { text } = await connection.request({ target: target(server) }).response();
  const { sid } = JSON.parse(text.slice(1));
  for (let i = 0; i < 5; i++) {
    const headers = { 'content-type': 'text/plain' };
    connection.request({ method: 'POST', target: target(server, { sid }), headers, body: `4${i}` });
    assert.equal((await connection.response()).text, 'ok');
    assert.equal((await connection.request({ target: target(server, { sid }) }).response()).text, `4${i}`);
  }
  connection.request({ target: target(server, { transport: 'tcp' }) });
  assert.equal((await connection.response()).status, 400);
  assert.equal((await connection.request({ target: target(server) }).response()).status, 200);
  connection.drop();
});

rule('2.s posts are handled while a poll waits on another connection', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  assert.equal((await post(server, sid, '4x')).text, 'ok');
  assert.equal((await pending.response).text, '4x');
});

rule('2.t no cookie is set', async () => {
  assert.equal((await openPolling(server)).response.headers['set-cookie'], undefined);
});

rule('2.u a response is not compressed for a client that does not ask', async () => {
  const { sid } = await openPolling(server);
  const message = `4${'x'.repeat(5000)}`;
  await post(server, sid, message);
  const response = await poll(server, sid);
  assert.equal(response.headers['content-encoding'], undefined);
  assert.equal(response.text, message);
});

rule('2.v the client bundle is served with its maps, an ETag and 304', async (t) => {
  const node = await serverFor(t, 'starling-node', LONG);
  for (const name of ['socket.io.js', 'socket.io.min.js', 'socket.io.esm.min.js']) {
    for (const file of [name, `${name}.map`]) {
      const response = await request(node, { target: `/socket.io/${file}` });
      assert.equal(response.status, 200, file);
      assert.match(response.headers['content-type'], file.endsWith('.map') ? /json/ : /javascript/);
      assert.equal(response.headers['cache-control'], 'public, max-age=0');
      assert.match(response.headers.etag, /^(W\/)?".+"$/);
      const headers = { 'if-none-match': response.headers.etag };
      const second = await request(node, { target: `/socket.io/${file}`, headers });
      assert.equal(second.status, 304, file);
      assert.equal(second.body.length, 0);
    }
  }
});

rule('2.w the client bundle is compressed as the client accepts', async (t) => {
  const node = await serverFor(t, 'starling-node', LONG);
  const url = '/socket.io/socket.io.min.js';
  const plain = await request(node, { target: url });
  assert.equal(plain.headers['content-encoding'], undefined);
  assert.match(plain.text, /socket\.io/i);
  const decoders = { br: brotliDecompressSync, gzip: gunzipSync, deflate: inflateSync, undefined: (body) => body };
  for (const accept of ['br', 'gzip', 'deflate', 'gzip, deflate, br', 'identity', 'gzip;q=0']) {
    const { status, headers, body } = await request(node, { target: url, headers: { 'accept-encoding': accept } });
    assert.equal(status, 200);
    const encoding = headers['content-encoding'];
    assert.ok(encoding === undefined || accept.includes(encoding), `${encoding} for ${accept}`);
    if (accept === 'gzip') assert.equal(encoding, 'gzip');
    if (accept.endsWith('q=0')) assert.equal(encoding, undefined);
    assert.ok(decoders[encoding](body).equals(plain.body), accept);
  }
});

rule('2.y a transport that is switched off is unknown', async (t) => {
  const polling = await serverFor(t, 'starling-node', { ...LONG, transports: 'polling' });
  const ws = await WebSocketPeer.open(polling);
  assert.equal(ws.status, 400);
  assert.match(ws.response.text, /Transport unknown/);
  assert.deepEqual((await openPolling(polling)).upgrades, []);
  const websocket = await serverFor(t, 'starling-node', { ...LONG, transports: 'websocket' });
  assert.equal((await request(websocket)).json.code, 0);
  (await openWebSocket(websocket)).drop();
});

rule('2.z a cookie that is asked for is set by the polling handshake only', async (t) => {
  const node = await serverFor(t, 'starling-node', { ...LONG, cookie: 'place' });
  const { sid, response } = await openPolling(node);
  const [value, ...attributes] = response.headers['set-cookie'].split('; ');
  assert.equal(value, `place=${sid}`);
  assert.deepEqual(attributes.sort(), ['HttpOnly', 'Path=/', 'SameSite=Lax']);
  await post(node, sid, '40');
  assert.equal((await poll(node, sid)).headers['set-cookie'], undefined);
});

// ---- 2.1 CORS

rule('2.1a without CORS there are no CORS headers and OPTIONS is no handshake', async () => {
  const headers = { origin: 'http://a.example' };
  for (const options of [{ headers }, { headers, query: { transport: 'tcp' } }]) {
    const names = Object.keys((await request(server, options)).headers);
    assert.deepEqual(names.filter((name) => name.startsWith('access-control')), []);
  }
  await assertRefused(2, { method: 'OPTIONS', headers });
});

// Every kind of response of a server: handshake, poll, post, refusals, upgrade.
async function everyResponse(cors) {
  const headers = { origin: 'http://b.example' };
  const { sid, response } = await openPolling(cors, { headers });
  const ws = await WebSocketPeer.open(cors, { headers });
  ws.drop();
  const refused = await WebSocketPeer.open(cors, { headers, query: { sid: 'AAAAAAAAAAAAAAAAAAAA' } });
  return {
    handshake: response,
    post: await post(cors, sid, '4x', { headers }),
    poll: await poll(cors, sid, { headers }),
    refusal: await request(cors, { headers, query: { transport: 'tcp' } }),
    unknown: await poll(cors, 'AAAAAAAAAAAAAAAAAAAA', { headers }),
    preflight: await request(cors, { method: 'OPTIONS', headers }),
    upgrade: ws.response,
    refusedUpgrade: refused.response,
  };
}

rule('2.1b with origin * every response allows every origin', async (t) => {
  const cors = await serverFor(t, 'engine_echo', { ...LONG, cors: '*' });
  for (const [what, { headers }] of Object.entries(await everyResponse(cors))) {
    if (what === 'refusedUpgrade') continue;
    assert.equal(headers['access-control-allow-origin'], '*', what);
    assert.ok(!/\borigin\b/i.test(headers.vary ?? ''), what);
  }
});

rule('2.1c a fixed origin is in every response, with Vary', async (t) => {
  const cors = await serverFor(t, 'engine_echo', { ...LONG, cors: 'http://a.example' });
  for (const [what, { headers }] of Object.entries(await everyResponse(cors))) {
    if (what === 'refusedUpgrade') continue;
    assert.equal(headers['access-control-allow-origin'], 'http://a.example', what);
    assert.match(headers.vary, /\bOrigin\b/, what);
  }
});

rule('2.1d a preflight is answered and does not touch the session', async (t) => {
  const cors = await serverFor(t, 'engine_echo', { ...LONG, cors: 'http://a.example' });
  const { sid } = await openPolling(cors);
  const pending = await beginPoll(cors, sid);
  for (const query of [{}, { sid }, { sid: 'AAAAAAAAAAAAAAAAAAAA' }]) {
    const response = await request(cors, {
      method: 'OPTIONS', query,
      headers: {
        origin: 'http://a.example', 'access-control-request-method': 'POST',
        'access-control-request-headers': 'content-type,x-token',
      },
    });
    assert.equal(response.status, 204);
    assert.ok(['0', undefined].includes(response.headers['content-length']));
    const methods = response.headers['access-control-allow-methods'].split(/, ?/);
    for (const method of ['GET', 'POST']) assert.ok(methods.includes(method));
    assert.equal(response.headers['access-control-allow-headers'], 'content-type,x-token');
    assert.match(response.headers.vary, /Access-Control-Request-Headers/);
  }
  await post(cors, sid, '4alive');
  assert.equal((await pending.response).text, '4alive');
});

rule('2.1e CORS does not restrict WebSocket', async (t) => {
  const cors = await serverFor(t, 'engine_echo', { ...LONG, cors: 'http://a.example' });
  const ws = await openWebSocket(cors, { headers: { origin: 'http://evil.example' } });
  ws.send('4x');
  assert.equal(await ws.receive(), '4x');
  ws.drop();
  const { sid } = await openPolling(cors);
  (await probe(cors, sid)).drop();
});

rule('2.1f of several origins the asking one is echoed, others get no header', async (t) => {
  const cors = await serverFor(t, 'starling-node', { ...LONG, cors: 'http://a.example,http://b.example' });
  for (const origin of ['http://a.example', 'http://b.example', 'http://c.example', 'http://a.example.c', undefined]) {
    for (const query of [{}, { transport: 'tcp' }]) {
      const { headers } = await request(cors, { query, headers: { origin } });
      const allowed = /^http:\/\/[ab]\.example$/.test(origin);
      assert.equal(headers['access-control-allow-origin'], allowed ? origin : undefined);
      assert.match(headers.vary, /\bOrigin\b/);
    }
  }
});

rule('2.1g with credentials every response allows them', async (t) => {
  const cors = await serverFor(t, 'starling-node', { ...LONG, cors: 'http://a.example', corsCredentials: true });
  const headers = { origin: 'http://a.example' };
  const { sid, response } = await openPolling(cors, { headers });
  for (const each of [
    response, await post(cors, sid, '40', { headers }), await poll(cors, sid, { headers }),
    await request(cors, { headers, query: { transport: 'tcp' } }), await request(cors, { method: 'OPTIONS', headers }),
  ]) assert.equal(each.headers['access-control-allow-credentials'], 'true');
});
