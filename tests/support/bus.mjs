// `starling up` with several nodes, for tests that do harm to its processes.
import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { PATIENCE_MS, afterwards, bin, eventually, flagsOf, freePort, portIsFree, whileRunning } from './servers.mjs';

const starling = path.join(bin, 'starling');

export const temporary = (context) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'starling-bus-'));
  afterwards(context, () => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
};

// Living, not only a process that nobody has waited for.
export const alive = (pid) => {
  try {
    return fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1][0] !== 'Z';
  } catch {
    return false;
  }
};

// The public port, and behind it those of the nodes, each with its port for agents.
async function freePorts(count) {
  for (;;) {
    const port = await freePort();
    let free = 1;
    while (free < count && await portIsFree(port + free) && await portIsFree(port + 99 + free)) free++;
    if (free === count) return port;
  }
}

// options are those of `starling up` in camel case. prefix: a command that runs it, such as that of a namespace.
// runDir: that of a bus which has ended, for its Redis. Gives {port, pid, runDir, ps(), nodes()}; ends with its test, even when its supervisor was killed.
export async function startBus(context, count, { prefix = [], port, runDir, ...options } = {}) {
  port ??= await freePorts(1 + count);
  runDir ??= path.join(temporary(context), 'run');
  const inside = (...parameters) => [...prefix, starling, ...parameters].map(String);
  const [command, ...parameters] = inside('up', '-n', count, ...flagsOf({ port, runDir, noPin: true, ...options }));
  const child = spawn(command, parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
  const bus = { port, runDir, pid: child.pid, output: '' };
  let ended;
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { bus.output += data; });
  child.on('error', (error) => { ended = String(error); });
  child.on('exit', (code, signal) => { ended = signal ?? code; });
  const seen = new Set(); // nodes of all times
  bus.ps = async () => {
    const [program, ...rest] = inside('ps', '--run-dir', runDir, '--json');
    const { stdout } = await promisify(execFile)(program, rest, { timeout: PATIENCE_MS });
    const state = JSON.parse(stdout);
    for (const { pid } of state.nodes) seen.add(pid);
    for (const other of [state.redis, state.agent]) if (other?.pid) seen.add(other.pid);
    return state;
  };
  bus.ended = () => ended;
  // SIGKILL to all of it at once.
  bus.kill = async () => {
    const { nodes, redis } = await bus.ps();
    const pids = [child.pid, ...nodes.map(({ pid }) => pid), ...(redis?.pid ? [redis.pid] : [])];
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await eventually(() => ended !== undefined && !pids.some(alive), 'the processes to end');
  };
  bus.nodes = async () => (await bus.ps()).nodes;
  whileRunning(child);
  afterwards(context, async () => {
    if (ended === undefined) await bus.ps().catch(() => {});
    child.kill('SIGTERM');
    await eventually(() => ended !== undefined, 'the supervisor to end').catch(() => child.kill('SIGKILL'));
    for (const pid of [...seen].filter(alive)) process.kill(pid, 'SIGKILL');
  });
  await eventually(() => {
    if (ended !== undefined) throw new Error(`the bus ended at its start (${ended}): ${bus.output}`);
    return /^ready: /m.test(bus.output);
  }, 'the bus to be ready').catch((error) => { throw new Error(`${error.message}: ${bus.output}`); });
  await bus.ps();
  return bus;
}
