// "Hosts" that are network namespaces: each has an address, and a cable to a switch that the test may pull.
import { execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import { PATIENCE_MS, afterwards, whileRunning } from './servers.mjs';

const run = async (command, ...parameters) =>
  (await promisify(execFile)(command, parameters.map(String), { timeout: PATIENCE_MS })).stdout;
const ip = (...parameters) => run('ip', ...parameters);

const SWITCH = 'switch';
const nameOf = (host) => `starling-${process.pid}-${host}`;

// Why there can be no namespaces here, or false.
export async function whyNoHosts() {
  if (process.getuid() !== 0) return 'network namespaces need root';
  try {
    await ip('netns', 'add', nameOf('try'));
    await ip('netns', 'delete', nameOf('try'));
    return false;
  } catch (error) {
    return `there are no network namespaces here: ${error.stderr?.trim() ?? error.message}`;
  }
}

async function plugIn(host, switchName) {
  const netns = nameOf(host.name);
  await ip('netns', 'add', netns);
  await ip('link', 'add', 'eth0', 'netns', netns, 'type', 'veth', 'peer', 'name', host.name, 'netns', switchName);
  await ip('-n', switchName, 'link', 'set', 'dev', host.name, 'master', 'br0', 'up');
  await ip('-n', netns, 'link', 'set', 'lo', 'up');
  await ip('-n', netns, 'address', 'add', `${host.address}/24`, 'dev', 'eth0');
  await ip('-n', netns, 'link', 'set', 'eth0', 'up');
}

// All that its kernel knew is gone, connections included. Its processes must have ended. The kernel keeps the old
// namespace for a while, for connections that it wants to end in order; without the cable nobody hears of that.
async function replace(host, switchName) {
  await ip('-n', switchName, 'link', 'delete', 'dev', host.name);
  await ip('netns', 'delete', nameOf(host.name));
  await plugIn(host, switchName);
}

// Gives an object for each name: {name, address, netns (a path), prefix, run(...), cut(), heal(), replace()}.
export async function startHosts(context, names) {
  const made = [];
  afterwards(context, async () => {
    for (const name of made) await ip('netns', 'delete', name).catch(() => {});
  });
  const switchName = nameOf(SWITCH);
  made.push(switchName);
  await ip('netns', 'add', switchName);
  await ip('-n', switchName, 'link', 'add', 'br0', 'type', 'bridge');
  await ip('-n', switchName, 'link', 'set', 'br0', 'up');
  const hosts = [];
  for (const [i, name] of names.entries()) {
    const netns = nameOf(name);
    const prefix = ['ip', 'netns', 'exec', netns];
    const cable = (state) => ip('-n', switchName, 'link', 'set', 'dev', name, state);
    const host = {
      name, address: `10.0.0.${i + 1}`, netns: `/run/netns/${netns}`, prefix,
      run: (...command) => run(...prefix, ...command), cut: () => cable('down'), heal: () => cable('up'),
      replace: () => replace(host, switchName),
    };
    made.push(netns);
    await plugIn(host, switchName);
    hosts.push(host);
  }
  return hosts;
}

// In a namespace of its own: what connects to it comes out at a path of this host.
const GATE = `
  import net from 'node:net';
  const [address, path] = process.argv.slice(1);
  net.createServer((far) => {
    const near = net.connect(path);
    for (const [one, other] of [[far, near], [near, far]]) one.on('error', () => other.destroy()).on('close', () => other.destroy()).pipe(other);
  }).listen(0, address, function () { console.log(this.address().port); });
`;

// A host that reaches this one by a cable: {prefix, endpoint}, of which the endpoint (of ZeroMQ) leads to a path of this host.
// No interface comes into this host's own network: a browser that sees one come drops what it is loading.
export async function startNeighbour(context, name, path) {
  const [host] = await startHosts(context, [name]);
  const address = '10.0.0.254';
  await ip('-n', nameOf(SWITCH), 'address', 'add', `${address}/24`, 'dev', 'br0');
  const gate = spawn('ip', ['netns', 'exec', nameOf(SWITCH), process.execPath, '--input-type=module', '--eval', GATE, address, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  whileRunning(gate);
  const ended = new Promise((resolve) => { gate.once('exit', resolve); });
  afterwards(context, () => { gate.kill('SIGKILL'); return ended; });
  const port = await new Promise((resolve, reject) => {
    gate.stdout.once('data', (text) => resolve(Number(text)));
    gate.once('error', reject).once('exit', (code) => reject(new Error(`the gate ended with ${code}`)));
  });
  return { ...host, endpoint: `tcp://${address}:${port}` };
}
