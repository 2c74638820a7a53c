// "Hosts" that are network namespaces: each has an address, and a cable to a switch that the test may pull.
import { execFile } from 'node:child_process';
import net from 'node:net';
import { promisify } from 'node:util';
import { PATIENCE_MS, afterwards } from './servers.mjs';

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

// A host beside this one, at the other end of a cable: {prefix, address}. Connections to endpoint (of ZeroMQ, as it is seen
// from there) come out at a path of this host.
export async function startNeighbour(context, name, path) {
  const netns = nameOf(name);
  const link = `st${process.pid % 100000}${name[0]}`;
  const subnet = `10.98.${(process.pid >> 6) % 256}.${(process.pid % 64) * 4}`.split('.');
  const at = (k) => [...subnet.slice(0, 3), Number(subnet[3]) + k].join('.');
  const [here, there] = [at(1), at(2)];
  afterwards(context, () => ip('netns', 'delete', netns)); // and the cable with it
  await ip('netns', 'add', netns);
  await ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', netns);
  await ip('address', 'add', `${here}/30`, 'dev', link);
  await ip('link', 'set', link, 'up');
  await ip('-n', netns, 'address', 'add', `${there}/30`, 'dev', 'eth0');
  await ip('-n', netns, 'link', 'set', 'lo', 'up');
  await ip('-n', netns, 'link', 'set', 'eth0', 'up');
  const sockets = new Set();
  const gate = net.createServer((far) => {
    const near = net.connect(path);
    for (const [one, other] of [[far, near], [near, far]]) {
      sockets.add(one);
      one.on('error', () => other.destroy()).on('close', () => { sockets.delete(one); other.destroy(); }).pipe(other);
    }
  });
  afterwards(context, () => { gate.close(); sockets.forEach((socket) => socket.destroy()); });
  await new Promise((resolve, reject) => { gate.once('error', reject).listen(0, here, resolve); });
  return { name, address: there, prefix: ['ip', 'netns', 'exec', netns], endpoint: `tcp://${here}:${gate.address().port}` };
}
