// Socket.IO over the raw wire: sessions joined to namespaces, packets with attachments put together.
import { SEPARATOR, openPolling, openWebSocket, poll, post } from './wire.mjs';

// The next Socket.IO or Engine.IO packet that is not a ping; answers pings.
export async function next(ws, patience) {
  for (;;) {
    const message = await ws.receive(patience);
    if (message !== '2') return message;
    ws.send('3');
  }
}

// Joins a namespace of sio_echo on an open WebSocket; eats the reply and the auth event. Returns the reply's object.
export async function join(ws, namespace = '/') {
  const prefix = namespace === '/' ? '' : `${namespace},`;
  ws.send(`40${prefix}`);
  const reply = await next(ws);
  if (!reply.startsWith(`40${prefix}{`)) throw new Error(`CONNECT answered by ${reply}`);
  const auth = await next(ws);
  if (auth !== `42${prefix}["auth",{}]`) throw new Error(`expected the auth event, got ${auth}`);
  return JSON.parse(reply.slice(2 + prefix.length));
}

export async function sioWebSocket(server, ...namespaces) {
  const ws = await openWebSocket(server);
  for (const namespace of namespaces.length ? namespaces : ['/']) await join(ws, namespace);
  return ws;
}

export async function sioPolling(server) {
  const { sid } = await openPolling(server);
  await post(server, sid, '40');
  let seen = '';
  while (!seen.includes('42["auth"')) seen += SEPARATOR + (await poll(server, sid)).text;
  return sid;
}

// A binary packet and its attachments from the WebSocket: {head, json} with the placeholders resolved to Buffers.
export async function nextBinary(ws) {
  const text = await next(ws);
  const [, head, count, json] = /^(4[56](\d+)-(?:\/[^,]*,)?\d*)(\[.*)$/s.exec(text) ?? [];
  if (!head) throw new Error(`expected a binary packet, got ${text}`);
  const parts = [];
  for (let i = 0; i < Number(count); i++) {
    const part = await next(ws);
    if (!Buffer.isBuffer(part)) throw new Error(`expected an attachment, got ${part}`);
    parts.push(part);
  }
  const resolve = (_, value) => (value?._placeholder === true ? parts[value.num].toString('latin1') : value);
  return { head, args: JSON.parse(json, resolve), raw: json };
}
