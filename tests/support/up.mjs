// `starling up` for tests: started on free ports with a run directory of the test's own, and ended with it.
import { execFile, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { alive, temporary } from './bus.mjs';
import { afterwards, bin, eventually, freePort, PATIENCE_MS } from './servers.mjs';

export { alive, bin, temporary };

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const starling = path.join(bin, 'starling');

export function run(...parameters) {
  const { status, stdout, stderr } = spawnSync(starling, parameters, { encoding: 'utf8', timeout: PATIENCE_MS });
  return { status, stdout, stderr };
}

// A server that has the port, or undefined.
export const listen = (port) => new Promise((resolve) => {
  const server = net.createServer().on('error', () => resolve(undefined));
  server.listen(port, '127.0.0.1', () => resolve(server));
});

export async function portIsFree(port) {
  const server = await listen(port);
  if (server) await new Promise((resolve) => { server.close(resolve); });
  return server !== undefined;
}

// As many free ports in a row as a bus needs: the public one and each node's own.
// The public port, and behind it those of the nodes, each with its port for agents.
export async function freePorts(count) {
  for (;;) {
    const port = await freePort();
    let free = 1;
    while (free < count && await portIsFree(port + free) && await portIsFree(port + 99 + free)) free++;
    if (free === count) return port;
  }
}

// What is in the run directory beside the logs.
export const leftovers = ({ runDir }) => fs.readdirSync(runDir).filter((name) => !/\.log$/.test(name));

// What a bus whose supervisor was killed has left; nothing when another supervisor looks after it.
function endOrphans(runDir) {
  const read = (name) => {
    try {
      return fs.readFileSync(path.join(runDir, name), 'utf8');
    } catch {
      return '';
    }
  };
  if (alive(Number(read('starling.pid')))) return;
  const { nodes, ...others } = JSON.parse(read('state.json') || '{"nodes":[]}');
  const more = ['redis', 'agent', 'old', 'next'].map((name) => others[name]).filter(Boolean);
  for (const { pid } of [...nodes, ...more]) if (pid > 0 && alive(pid)) process.kill(pid, 'SIGKILL');
}

// Starts `starling up` without waiting for anything.
export async function begin(context, parameters = [],
  { program = starling, runDir, port, nodes = 1, redis = 'none', env = {}, copy = false, node } = {}) {
  port ??= await freePorts(1 + Math.max(nodes || os.availableParallelism(), 4));
  const folder = runDir ? undefined : fs.mkdtempSync(path.join(os.tmpdir(), 'starling-test-'));
  runDir ??= path.join(folder, 'run');
  // Programs of its own, so that a test may put another one in the place of starling-node; from the start: node.
  const programs = copy ? path.join(folder, 'bin') : undefined;
  if (copy) {
    fs.mkdirSync(programs);
    for (const name of ['starling', 'starling-node', 'starling-agent']) {
      fs.copyFileSync(path.join(bin, name), path.join(programs, name));
    }
    if (node) fs.writeFileSync(path.join(programs, 'starling-node'), node);
    program = path.join(programs, 'starling');
  }
  const count = nodes === undefined ? [] : ['-n', String(nodes)];
  const child = spawn(program,
    ['up', ...count, '--port', String(port), '--run-dir', runDir, '--redis', redis, ...parameters],
    { env: { ...process.env, ...env } });
  const bus = { port, runDir, pid: child.pid, stdout: '', stderr: '', child };
  child.stdout.on('data', (data) => { bus.stdout += data; });
  child.stderr.on('data', (data) => { bus.stderr += data; });
  bus.exited = new Promise((resolve) => { child.on('exit', resolve); });
  bus.ended = new Promise((resolve) => {
    child.on('close', (code, signal) => resolve(signal ?? code));
    child.on('error', (error) => {
      bus.stderr += error;
      resolve(String(error));
    });
  });
  bus.run = (verb, ...rest) => run(verb, '--run-dir', runDir, ...rest);
  // The same without waiting for its end: {code, stdout, stderr} comes later.
  bus.start = (verb, ...rest) => new Promise((resolve) => {
    execFile(starling, [verb, '--run-dir', runDir, ...rest], (error, stdout, stderr) =>
      resolve({ code: error ? error.code : 0, stdout, stderr }));
  });
  bus.replaceProgram = (name, script) => {
    const program = path.join(programs, name);
    const next = `${program}.next`; // there is a program at every moment
    if (script) fs.writeFileSync(next, script, { mode: 0o755 });
    else fs.copyFileSync(path.join(bin, name), next);
    fs.renameSync(next, program);
  };
  bus.replaceNode = (script) => bus.replaceProgram('starling-node', script);
  bus.ps = () => {
    const { status, stdout } = bus.run('ps', '--json');
    return status === 0 ? JSON.parse(stdout) : undefined;
  };
  bus.node = (index = 0) => bus.ps()?.nodes[index];
  bus.pids = () => bus.ps().nodes.map(({ pid }) => pid);
  bus.killSupervisor = async () => {
    child.kill('SIGKILL');
    await bus.exited;
  };
  afterwards(context, async () => {
    child.kill('SIGTERM');
    await bus.exited;
    endOrphans(runDir);
    await bus.ended;
    if (folder) fs.rmSync(folder, { recursive: true, force: true });
  });
  return bus;
}

export async function up(context, parameters, options) {
  const bus = await begin(context, parameters, options);
  let end;
  bus.ended.then((how) => { end = how; });
  await eventually(() => {
    if (end !== undefined) throw new Error(`the bus ended at its start (${end}): ${bus.stderr}`);
    return /^ready: /m.test(bus.stdout);
  }, 'the bus to be ready');
  return bus;
}
