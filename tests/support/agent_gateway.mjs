// The node's side of proto/agent.md, played by a test: a ROUTER that welcomes agents, keeps their heartbeats, and hands
// over what else they send. It answers nothing by itself.
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../agent/examples/', import.meta.url));
const { decodeMulti, encode } = require('@msgpack/msgpack');
const { Router } = require('zeromq');

export const kind = {
  HELLO: 1, WELCOME: 2, CREDIT: 3, NODE: 4, BYE: 5, ERROR: 6, OK: 7, EMIT: 16, SUBSCRIBE: 17, HANDLE: 18, REGISTER: 19,
  ASK: 33, CALL: 66, CONNECT: 67, DISCONNECTED: 68, ASKED: 73,
};

const patience = Number(process.env.STARLING_PATIENCE_MS ?? 20000);

export class Gateway {
  #router = new Router({ linger: 0, sendHighWaterMark: 0 });
  #agents = new Map(); // by identity: { identity, received, instance }
  #records = [];
  #waiting = [];
  #beat;
  #peers;
  #sending = Promise.resolve();

  constructor(endpoint, peers = []) {
    this.endpoint = endpoint;
    this.#peers = peers;
  }

  async open() {
    await this.#router.bind(this.endpoint);
    this.#beat = setInterval(() => this.#grant(), 100);
    this.#receive();
  }

  close() {
    clearInterval(this.#beat);
    this.#router.close();
  }

  send(agent, ...record) {
    this.#sending = this.#sending.then(() => this.#router.send([agent.identity, encode(record)])).catch(() => {});
    return this.#sending;
  }

  #grant() {
    for (const agent of this.#agents.values()) this.send(agent, kind.CREDIT, agent.received + 2 ** 20);
  }

  async #receive() {
    for await (const [identity, frame] of this.#router) {
      const key = identity.toString('hex');
      for (const record of decodeMulti(frame)) {
        if (record[0] === kind.HELLO) this.#welcome(key, identity, record);
        else if (record[0] === kind.BYE) this.#agents.delete(key);
        else if (record[0] !== kind.CREDIT && this.#agents.has(key)) this.#hand({ agent: this.#agents.get(key), record });
      }
      if (this.#agents.has(key)) this.#agents.get(key).received += frame.length;
    }
  }

  #welcome(key, identity, record) {
    const agent = { identity, received: -encode(record).length, instance: record[3], hello: record };
    this.#agents.set(key, agent);
    this.send(agent, kind.WELCOME, 1, 'fake', 2 ** 20, { heartbeat_ms: 100, timeout_ms: 500, peers: this.#peers });
    this.#hand({ agent, record });
  }

  #hand(item) {
    const at = this.#waiting.findIndex(({ of }) => of === item.record[0]);
    if (at >= 0) this.#waiting.splice(at, 1)[0].resolve(item);
    else this.#records.push(item);
  }

  // The next record of this kind that has not been taken yet, with the agent that sent it.
  async take(of) {
    const at = this.#records.findIndex(({ record }) => record[0] === of);
    if (at >= 0) return this.#records.splice(at, 1)[0];
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no record of kind ${of} came`)), patience);
      this.#waiting.push({ of, resolve: (item) => (clearTimeout(timer), resolve(item)) });
    });
  }
}
