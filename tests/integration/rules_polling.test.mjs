// Section 4: long-polling.
import assert from 'node:assert/strict';
import { rule } from '../support/rule.mjs';
import { eventually, sleep, useServer } from '../support/servers.mjs';
import {
  Connection, SEPARATOR, beginPoll, chunks, encodeRequest, openPolling, poll, pollPackets, post, settle, target,
} from '../support/wire.mjs';

const MAX_PAYLOAD = 20000;
const server = useServer('engine_echo', { pingInterval: 25000, pingTimeout: 20000, maxPayload: MAX_PAYLOAD });

async function assertGone(sid) {
  const response = await poll(server, sid);
  assert.equal(response.status, 400);
  assert.equal(response.json.code, 1);
}

async function assertAlive(sid) {
  assert.equal((await post(server, sid, '4alive')).text, 'ok');
  await pollPackets(server, sid, (packets) => packets.includes('4alive'));
}

// The answer of a POST that closes the session: 200, 400 or a reset are all allowed.
async function postFatal(sid, body) {
  const { status } = await post(server, sid, body).catch(() => ({ status: 'reset' }));
  assert.ok([200, 400, 'reset'].includes(status), String(status));
}

// A POST of which only a part has been sent.
async function beginPost(sid, part, length) {
  const connection = await Connection.open(server);
  connection.write(encodeRequest({
    method: 'POST', target: target(server, { sid }), body: '',
    headers: { 'content-type': 'text/plain', 'content-length': length },
  })).write(part);
  await settle(server);
  return connection;
}

rule('4.1a packets are joined by 0x1e without a trailing one', async () => {
  const { sid } = await openPolling(server);
  await post(server, sid, ['4a', '4b', '4c'].join(SEPARATOR));
  await post(server, sid, '4d');
  assert.equal((await poll(server, sid)).text, ['4a', '4b', '4c', '4d'].join(SEPARATOR));
});

rule('4.1b an empty item in a payload is a parse error', async () => {
  for (const body of ['', SEPARATOR, `4a${SEPARATOR}`, `${SEPARATOR}4a`, `4a${SEPARATOR}${SEPARATOR}4b`]) {
    const { sid } = await openPolling(server);
    await postFatal(sid, body);
    assert.equal((await poll(server, sid)).status, 400, JSON.stringify(body));
  }
});

rule('4.1c packets before the first bad one are processed, later ones are not', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  await postFatal(sid, ['4first', 'x', '4later'].join(SEPARATOR));
  const { text } = await pending.response;
  assert.equal(text.split(SEPARATOR)[0], '4first');
  assert.ok(!text.includes('later'));
});

rule('4.2a a poll is answered at once with everything queued', async () => {
  const { sid } = await openPolling(server);
  for (let i = 0; i < 10; i++) await post(server, sid, `4${i}`);
  const expected = Array.from({ length: 10 }, (_, i) => `4${i}`).join(SEPARATOR);
  assert.equal((await poll(server, sid)).text, expected);
});

rule('4.2b a poll without queued packets waits for one', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  assert.equal(await Promise.race([pending.response, sleep(300)]), undefined);
  await post(server, sid, '4x');
  assert.equal((await pending.response).text, '4x');
});

rule('4.2c what the server sends is not limited by maxPayload', async () => {
  const { sid } = await openPolling(server);
  const message = `4${'x'.repeat(MAX_PAYLOAD - 100)}`;
  for (let i = 0; i < 4; i++) await post(server, sid, message);
  assert.equal((await poll(server, sid)).text, Array(4).fill(message).join(SEPARATOR));
});

rule('4.3a a second poll while one is pending is refused', async () => {
  const { sid } = await openPolling(server);
  await beginPoll(server, sid);
  const { status } = await poll(server, sid);
  assert.ok([400, 500].includes(status), String(status));
});

rule('4.3b the poll that was pending gets exactly a close packet', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  await poll(server, sid);
  const response = await pending.response;
  assert.deepEqual([response.status, response.text], [200, '1']);
});

rule('4.3c the session of overlapping polls is closed', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  await poll(server, sid);
  await pending.response;
  await assertGone(sid);
});

rule('4.4a a post is taken with any content type for text', async () => {
  const { sid } = await openPolling(server);
  for (const type of ['text/plain;charset=UTF-8', 'text/plain', 'application/json', 'x', undefined]) {
    const response = await post(server, sid, '4x', { headers: { 'content-type': type } });
    assert.deepEqual([response.status, response.text], [200, 'ok'], type);
    assert.equal((await poll(server, sid)).text, '4x');
  }
});

rule('4.4b a post of application/octet-stream is 400 and closes the session', async () => {
  const { sid } = await openPolling(server);
  const { status } = await post(server, sid, '4x', { headers: { 'content-type': 'application/octet-stream' } });
  assert.equal(status, 400);
  await assertGone(sid);
});

rule('4.4c a post is answered after its packets were handled', async () => {
  const { sid } = await openPolling(server);
  for (let i = 0; i < 20; i++) {
    assert.equal((await post(server, sid, `4${i}`)).text, 'ok');
    assert.equal((await poll(server, sid)).text, `4${i}`);
  }
});

rule('4.4d a post that overlaps another is refused and closes the session', async () => {
  const { sid } = await openPolling(server);
  const first = await beginPost(sid, '4ha', 100);
  const { status } = await post(server, sid, '4x').catch(() => ({ status: 'reset' }));
  assert.ok([400, 500, 'reset'].includes(status), String(status));
  await assertGone(sid);
  first.drop();
});

rule('4.4e a body larger than maxPayload is 413', async () => {
  const { sid } = await openPolling(server);
  const response = await post(server, sid, `4${'x'.repeat(MAX_PAYLOAD)}`);
  assert.equal(response.status, 413);
});

rule('4.4f a chunked body is 413 as soon as it exceeds maxPayload', async () => {
  const { sid } = await openPolling(server);
  const connection = await Connection.open(server);
  connection.write(`POST ${target(server, { sid })} HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n`
    + 'transfer-encoding: chunked\r\n\r\n');
  connection.write(Buffer.concat(chunks(Buffer.from(`4${'x'.repeat(MAX_PAYLOAD)}`), 4096)));
  assert.equal((await connection.response()).status, 413);
  connection.drop();
});

rule('4.4g a session survives a body that was too large', async () => {
  const { sid } = await openPolling(server);
  await post(server, sid, `4${'x'.repeat(MAX_PAYLOAD)}`);
  await assertAlive(sid);
});

rule('4.4h a body of exactly maxPayload is allowed', async () => {
  const { sid } = await openPolling(server);
  const message = `4${'x'.repeat(MAX_PAYLOAD - 1)}`;
  assert.equal((await post(server, sid, message)).status, 200);
  assert.equal((await poll(server, sid)).text, message);
});

rule('4.4i invalid UTF-8 becomes U+FFFD', async () => {
  const { sid } = await openPolling(server);
  await post(server, sid, Buffer.from([0x34, 0x61, 0xff, 0x62]));
  assert.equal((await poll(server, sid)).text, '4a\ufffdb');
});

rule('4.4j a body may be chunked', async () => {
  const { sid } = await openPolling(server);
  const message = `4${'héllo'.repeat(500)}`;
  assert.equal((await post(server, sid, message, { chunked: 7 })).text, 'ok');
  assert.equal((await poll(server, sid)).text, message);
});

rule('4.4k a body may trickle in', async () => {
  const { sid } = await openPolling(server);
  const connection = await beginPost(sid, '4he', 6);
  for (const part of ['l', 'l', 'o']) {
    await settle(server);
    connection.write(part);
  }
  assert.equal((await connection.response()).text, 'ok');
  assert.equal((await poll(server, sid)).text, '4hello');
  connection.drop();
});

rule('4.5a a dropped poll closes the session', async () => {
  for (const how of ['end', 'destroy', 'resetAndDestroy']) {
    const { sid } = await openPolling(server);
    const pending = await beginPoll(server, sid);
    pending.connection.socket[how]();
    assert.equal((await poll(server, sid)).status, 400, how);
    await assertGone(sid);
  }
});

rule('4.5b an aborted post closes the session', async () => {
  const { sid } = await openPolling(server);
  const connection = await beginPost(sid, '4ha', 100);
  connection.drop();
  await eventually(async () => (await post(server, sid, '3')).status === 400, 'the session to be gone', 3000);
  await assertGone(sid);
});

rule('4.7a after a parse error in a post the session is gone', async () => {
  const { sid } = await openPolling(server);
  await postFatal(sid, 'abc');
  await assertGone(sid);
});

rule('4.7b a poll pending at a parse error gets a close packet', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  await postFatal(sid, 'abc');
  const response = await pending.response;
  assert.deepEqual([response.status, response.text], [200, '1']);
});

rule('4.8a a close packet in a post is answered ok and removes the session', async () => {
  const { sid } = await openPolling(server);
  const response = await post(server, sid, '1');
  assert.deepEqual([response.status, response.text], [200, 'ok']);
  await assertGone(sid);
});

rule('4.8b a poll pending at a close packet gets exactly a noop', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  await post(server, sid, '1');
  const response = await pending.response;
  assert.deepEqual([response.status, response.text], [200, '6']);
});

rule('4.8c packets after a close packet are ignored', async () => {
  const { sid } = await openPolling(server);
  const pending = await beginPoll(server, sid);
  await post(server, sid, ['1', '4later', '4more'].join(SEPARATOR));
  assert.equal((await pending.response).text, '6');
  await assertGone(sid);
});
