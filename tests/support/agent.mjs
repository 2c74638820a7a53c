// An agent for tests, written from proto/agent.md: one connection to one node, nothing repeated, nothing hidden.
import { createRequire } from 'node:module';
import { randomBytes } from 'node:crypto';
import { PATIENCE_MS, atLast } from './servers.mjs';

const require = createRequire(new URL('../../agent/examples/', import.meta.url));
const { decodeMulti, encode } = require('@msgpack/msgpack');
const { Dealer } = require('zeromq');

export const KIND = {
  HELLO: 1, WELCOME: 2, CREDIT: 3, NODE: 4, BYE: 5, ERROR: 6, OK: 7, EMIT: 16, SUBSCRIBE: 17, HANDLE: 18, REGISTER: 19,
  WATCH: 20, UNDO: 21, JOIN: 24, LEAVE: 25, DISCONNECT: 26, MEMBERS: 27, SET: 28, TELL: 32, ASK: 33, EVENT: 64, LOST: 65,
  CALL: 66, CONNECT: 67, DISCONNECTED: 68, JOINED: 69, LEFT: 70, CANCEL: 71, TOLD: 72, ASKED: 73, GONE: 74, BACK: 75,
  ANSWER: 76, MEMBER: 77, RECOVERED: 78,
};

const WINDOW = 2 ** 20;

export class Refused extends Error {
  constructor([, , code, text, options = {}]) {
    super(text);
    Object.assign(this, { code, options });
  }
}

export class Agent {
  #socket;
  #sending = Promise.resolve();
  #requests = new Map();
  #waiting = [];
  #beat;
  #nextId = 1;
  records = []; // what has come and nobody has taken yet
  received = 0;
  grants = true; // false: gives no more credit, but still says so
  #unread; // messages that have come since deafen()

  constructor(endpoint, { name = 'test', instance = randomBytes(8).toString('hex'), window = WINDOW } = {}) {
    Object.assign(this, { endpoint, name, instance, window });
    this.handlers = {}; // by kind: the record; an answer is what it gives for OK, or a Refused
  }

  async open() {
    this.#socket = new Dealer({ linger: 0, sendHighWaterMark: 0 });
    this.#socket.connect(this.endpoint);
    this.#receive();
    this.sendBytes(encode([KIND.HELLO, 1, this.name, this.instance, this.window]));
    const welcome = await this.take((record) => [KIND.WELCOME, KIND.ERROR].includes(record[0]), 'a WELCOME');
    if (welcome[0] === KIND.ERROR) throw new Refused(welcome);
    this.welcome = welcome;
    this.credit = this.window;
    this.#beat = setInterval(() => this.send([KIND.CREDIT, this.#grant()]), 300);
    return this;
  }

  #grant() {
    if (this.grants) this.credit = this.received + this.window;
    return this.credit;
  }

  close() {
    clearInterval(this.#beat);
    for (const { timer } of [...this.#requests.values(), ...this.#waiting]) clearTimeout(timer);
    this.#socket.close();
    this.closed = true;
  }

  sendBytes(bytes) {
    this.#sending = this.#sending.then(() => this.#socket.send(bytes)).catch(() => {});
    return this.#sending;
  }

  send(...records) {
    return this.sendBytes(Buffer.concat(records.map((record) => encode(record))));
  }

  // A request; gives the options of its OK, or throws a Refused. rest: what stands behind the id.
  request(kind, ...rest) {
    return this.requestAs(this.#nextId++, kind, ...rest);
  }

  requestAs(id, kind, ...rest) {
    const answer = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no answer to request ${id} of kind ${kind}`)), PATIENCE_MS);
      this.#requests.set(id, { name: `the answer to request ${id} of kind ${kind}`, resolve, reject, timer });
    });
    this.send([kind, id, ...rest]);
    return answer;
  }

  get lastId() {
    return this.#nextId - 1;
  }

  emit(event, args = [], { nsp = '/', to = null, ...options } = {}) {
    return this.request(KIND.EMIT, nsp, to, event, JSON.stringify(args), options);
  }

  ask(address, body, options = {}) {
    return this.request(KIND.ASK, address, body, options);
  }

  async #receive() {
    try {
      for await (const [frame] of this.#socket) {
        if (this.#unread) this.#unread.push(frame);
        else this.#read(frame);
        if (this.received + this.window / 2 > this.credit && this.grants) this.send([KIND.CREDIT, this.#grant()]);
      }
    } catch (error) {
      if (!this.closed) throw error;
    }
  }

  #read(frame) {
    let counted = true;
    for (const record of decodeMulti(frame)) {
      if (record[0] === KIND.WELCOME) counted = false;
      this.#take(record);
    }
    if (counted) this.received += frame.length;
  }

  // Grants nothing more, and looks at nothing that comes, until hear().
  deafen() {
    this.grants = false;
    this.#unread = [];
  }

  hear() {
    this.#unread.splice(0).forEach((frame) => this.#read(frame));
    this.#unread = undefined;
  }

  #take(record) {
    const request = [KIND.OK, KIND.ERROR].includes(record[0]) && this.#requests.get(record[1]);
    if (request) {
      clearTimeout(request.timer);
      this.#requests.delete(record[1]);
      if (record[0] === KIND.OK) request.resolve(record[2] ?? {});
      else request.reject(new Refused(record));
    } else if (this.handlers[record[0]]) {
      this.#answer(record);
    } else if (record[0] !== KIND.CREDIT) {
      const at = this.#waiting.findIndex(({ fits }) => fits(record));
      if (at >= 0) this.#waiting.splice(at, 1)[0].resolve(record);
      else this.records.push(record);
      const [kind, idOrCode, code] = record;
      if (kind === KIND.BYE || (this.welcome && kind === KIND.ERROR && idOrCode === 0 && code === 'hello')) this.#end(record);
    }
  }

  // Nothing more will come of what is waited for: who waits is told why instead of waiting to the end of its patience.
  #end(record) {
    const waiting = [...this.#requests.values(), ...this.#waiting.splice(0)];
    this.#requests.clear();
    for (const { name, timer, reject } of waiting) {
      clearTimeout(timer);
      reject(new Error(`${name} will not come: the node has said ${JSON.stringify(record)}`));
    }
  }

  async #answer(record) {
    try {
      const answer = await this.handlers[record[0]](record);
      if ([KIND.CALL, KIND.CONNECT, KIND.ASKED].includes(record[0])) this.send([KIND.OK, record[1], answer ?? {}]);
    } catch (error) {
      const { code = 'failed', message, options } = error;
      this.send([KIND.ERROR, record[1], code, message, options ?? {}]);
    }
  }

  // The next record that fits (or is of this kind), from those that have come or will.
  take(what, name = `a record of kind ${what}`) {
    const fits = typeof what === 'function' ? what : (record) => record[0] === what;
    const at = this.records.findIndex(fits);
    if (at >= 0) return Promise.resolve(this.records.splice(at, 1)[0]);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${name} did not come`)), PATIENCE_MS);
      this.#waiting.push({ fits, name, timer, reject, resolve: (record) => (clearTimeout(timer), resolve(record)) });
    });
  }
}

export const refuse = (code, text, options = {}) => {
  throw new Refused([KIND.ERROR, 0, code, text, options]);
};

// An agent for one test, connected to a node of startCluster() or startServer() that has `agents`.
export async function agentFor(context, node, options) {
  const agent = new Agent(`ipc://${node.agents}`, options);
  atLast(context, () => agent.close());
  return agent.open();
}
