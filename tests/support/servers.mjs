// Starts a program under test on a free port and ends it. A program that dies by itself fails the test.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const fromRoot = (variable, fallback) => path.resolve(root, process.env[variable] ?? fallback);
const folders = {
  node: fromRoot('STARLING_BIN', 'build/release/bin'),
  support: fromRoot('STARLING_SUPPORT', 'build/release/support'),
};

export const bin = folders.node;
export const support = folders.support;

export const reference = Boolean(process.env.REFERENCE);

// How long any wait may take; sanitized builds on busy machines are slow.
export const PATIENCE_MS = Number(process.env.STARLING_PATIENCE_MS ?? 20000);

// tests/run sets these: the programs are the sanitized ones; faults last as long as they are specified.
export const sanitized = Boolean(process.env.STARLING_SANITIZED);
export const long = Boolean(process.env.STARLING_LONG);

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Waits until check() gives something other than undefined or false.
export async function eventually(check, what, patience = PATIENCE_MS) {
  const deadline = Date.now() + patience;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > deadline) throw new Error(`gave up waiting for ${what}`);
    await sleep(20);
  }
}

export function portIsFree(port) {
  return new Promise((resolve) => {
    const probe = net.createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '0.0.0.0', () => probe.close(() => resolve(true)));
  });
}

// Below the range from which the kernel takes the ports of outgoing connections. Of two files that tests/run has run
// at once, each has half of them: a port that is free now would be taken by the other's server.
const lane = process.env.STARLING_LANE;
const [lowest, count] = lane === undefined ? [12000, 20000] : [12000 + 10000 * Number(lane), 10000];
const given = new Set(); // whoever has it may not listen yet

export async function freePort() {
  for (let tries = 0; tries < 100; tries++) {
    const port = lowest + Math.floor(Math.random() * count);
    if (given.has(port) || !await portIsFree(port)) continue;
    given.add(port);
    return port;
  }
  throw new Error('no free port');
}

const children = new Set();
const killAll = () => children.forEach((child) => child.kill('SIGKILL'));

// The child does not outlive this process.
export function whileRunning(child) {
  children.add(child);
  child.on('exit', () => children.delete(child));
}

const undone = new WeakMap();

function stepsOf(context) {
  if (!undone.has(context)) {
    const steps = [];
    undone.set(context, steps);
    context.after(async () => {
      const errors = [];
      for (const step of steps.reverse()) await Promise.resolve().then(step).catch((error) => errors.push(error));
      if (errors.length) throw errors[0];
    });
  }
  return undone.get(context);
}

// Undoes what a test has done when it is over, the last first, whatever fails on the way. (The hooks of node:test run
// in the order in which they were given, and none after one that fails. What they leave keeps the process of the file
// alive, and node --test waits for that, with the results of all files behind it.)
export const afterwards = (context, undo) => { stepsOf(context).push(undo); };

// The same behind all others: clients and agents are still there when their server is told to end, which has to work.
export const atLast = (context, undo) => { stepsOf(context).unshift(undo); };

// Says what a server said, when its test has failed. (Node 18 does not know whether it has.)
export function sayIfFailed(context, server, name = server.program) {
  if (context.passed === false) context.diagnostic(`${name} (pid ${server.pid}) said: ${server.output().slice(-6000)}`);
}

// What is still open when the tests of a file are over is told, and ends: node --test would wait for it.
if (process.argv[1]?.endsWith('.test.mjs')) {
  after(() => {
    const end = () => {
      process.stderr.write(`the tests are over, but not the process, for it has ${process.getActiveResourcesInfo().join(', ')}; `
        + `children: ${[...children].map(({ pid, spawnargs }) => `${pid} ${spawnargs.join(' ')}`).join('; ') || 'none'}\n`);
      process.exit(1);
    };
    setTimeout(end, PATIENCE_MS).unref();
  });
}

process.on('exit', killAll);
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) {
  process.on(signal, () => {
    killAll();
    process.exit(1);
  });
}

function commandOf(program) {
  if (reference) {
    return [process.execPath, path.join(root, 'tests/support/reference/reference.mjs'), program];
  }
  return [path.join(program === 'starling-node' ? folders.node : folders.support, program)];
}

// A folder for what the servers say, a file each: for whoever looks for the cause of a failure.
const logs = process.env.STARLING_LOGS;

// Freed memory must not stay in the sanitizer's quarantine: tests look at the size of the process.
const environment = {
  ...process.env,
  ASAN_OPTIONS: [process.env.ASAN_OPTIONS, 'quarantine_size_mb=8'].filter(Boolean).join(':'),
};

// {pingInterval: 300} is --ping-interval 300.
export const flagsOf = (options) =>
  Object.entries(options).flatMap(([name, value]) => {
    const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    return value === true ? [flag] : [flag, String(value)];
  });

// The application of sio_echo as an agent at a node, so that the same tests hold both to the same rules.
async function startEchoByAgent({ port, ...options }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'starling-echo-'));
  const endpoint = path.join(folder, 'agents');
  const node = await startServer('starling-node', { port, agents: endpoint, ...options });
  const agent = spawn(path.join(folders.support, 'conformance_agent'), [`ipc://${endpoint}`], { stdio: ['ignore', 'pipe', 'inherit'] });
  whileRunning(agent);
  const ended = (end) => async () => {
    agent.kill('SIGKILL');
    fs.rmSync(folder, { recursive: true, force: true });
    return end();
  };
  let ready = false;
  agent.stdout.on('data', () => { ready = true; });
  try {
    await eventually(() => ready, 'the agent to be ready');
  } catch (error) {
    await ended(node.kill)();
    throw new Error(`${error.message}: ${node.output()}`);
  }
  return { ...node, stop: ended(node.stop), kill: ended(node.kill) };
}

// options are the program's flags in camel case.
export async function startServer(program, { port, ...options } = {}) {
  if (program === 'sio_echo' && process.env.STARLING_ECHO_BY_AGENT) return startEchoByAgent({ port, ...options });
  port ??= await freePort();
  const own = program === 'starling-node' ? { bind: '127.0.0.1', noPin: true } : {};
  if (!reference) own.recovery = 'off'; // the protocol without what Starling adds; tests of recovery ask for it
  const [command, ...first] = commandOf(program);
  const child = spawn(command, [...first, ...flagsOf({ port, ...own, ...options })], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: environment,
  });
  whileRunning(child);
  let output = '';
  let ended;
  const keep = (data) => {
    output += data;
    if (logs) fs.appendFileSync(path.join(logs, `${program}-${port}-${child.pid}.log`), data);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  child.on('error', (error) => { ended = String(error); });
  child.on('exit', (code, signal) => {
    ended = signal ?? `exit code ${code}`;
  });
  const tail = () => output.slice(-6000);
  try {
    await eventually(() => ended !== undefined || /\bready\b/.test(output), `${program} to be ready`);
    if (ended !== undefined) throw new Error(`${program} ended at its start (${ended})`);
  } catch (error) {
    child.kill('SIGKILL'); // nobody else knows of it, and with it this process would never end
    throw new Error(`${error.message}: ${tail()}`);
  }

  let finished = false;
  const finish = async (signal) => {
    if (finished) return;
    finished = true;
    if (ended !== undefined) throw new Error(`${program} had ended by itself (${ended}): ${tail()}`);
    child.kill(signal);
    try {
      await eventually(() => ended !== undefined, `${program} to end after ${signal}`);
    } catch (error) {
      child.kill('SIGKILL');
      throw new Error(`${error.message}: ${tail()}`);
    }
    const clean = [signal, 'exit code 0'].includes(ended);
    if (!clean) throw new Error(`${program} ended badly (${ended}): ${tail()}`);
  };
  return {
    program,
    port,
    pid: child.pid,
    path: options.path ?? (program === 'engine_echo' ? '/engine.io/' : '/socket.io/'),
    origin: `http://127.0.0.1:${port}`,
    alive: () => ended === undefined,
    output: () => output,
    stop: () => finish('SIGTERM'),
    kill: () => finish('SIGKILL'),
  };
}

// A server for all tests of a file; onReady(server) runs before the first of them.
export function useServer(program, options, onReady = () => {}) {
  const server = {};
  before(async () => onReady(Object.assign(server, await startServer(program, options))));
  after(() => server.stop?.());
  return server;
}

// A server for one test.
export async function serverFor(context, program, options) {
  const server = await startServer(program, options);
  afterwards(context, () => {
    sayIfFailed(context, server);
    return server.stop();
  });
  return server;
}
