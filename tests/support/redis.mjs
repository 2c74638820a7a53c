// A real redis-server of a test's own, and Sentinels that watch several of them.
import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { PATIENCE_MS, afterwards, eventually, freePort, whileRunning } from './servers.mjs';

// Gives {url, pid, start(), stop(), kill(), cli(...words)}; its data outlives stop() and kill() when it is persistent.
// port: as well as its Unix socket, and what its url names then.
export async function startRedis(context, { port, persistent = false, options = [] } = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'starling-redis-'));
  const socket = path.join(folder, 'redis.sock');
  const redis = { port, socket, url: port ? `redis://127.0.0.1:${port}` : `unix://${socket}` };
  let child;
  let ended;
  redis.start = async () => {
    let output = '';
    child = spawn('redis-server', ['--port', port ?? 0, '--bind', '127.0.0.1', '--unixsocket', socket, '--dir', folder,
      '--save', '', '--appendonly', persistent ? 'yes' : 'no', ...options].map(String));
    whileRunning(child);
    ended = new Promise((resolve) => { child.on('exit', resolve); });
    redis.pid = child.pid;
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { output += data; });
    await eventually(() => {
      if (child.exitCode !== null) throw new Error(`redis-server ended at its start: ${output}`);
      return /Ready to accept connections/i.test(output);
    }, 'Redis to be ready');
  };
  const end = (signal) => {
    child.kill(signal);
    return ended;
  };
  redis.stop = () => end('SIGTERM');
  redis.kill = () => end('SIGKILL');
  redis.cli = async (...words) => {
    const { stdout } = await promisify(execFile)('redis-cli', ['-s', socket, ...words.map(String)], { timeout: PATIENCE_MS });
    return stdout.trim();
  };
  afterwards(context, async () => {
    await redis.kill();
    fs.rmSync(folder, { recursive: true, force: true });
  });
  await redis.start();
  return redis;
}

// Calls of each command so far: {XADD: 12, …}.
export async function commandCalls(redis) {
  const text = await redis.cli('info', 'commandstats');
  return Object.fromEntries([...text.matchAll(/^cmdstat_(\w+):calls=(\d+)/gm)].map(([, name, calls]) => [name, Number(calls)]));
}

async function startSentinel(context, master, quorum) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'starling-sentinel-'));
  const file = path.join(folder, 'sentinel.conf');
  const port = await freePort();
  fs.writeFileSync(file, `port ${port}\nbind 127.0.0.1\ndir ${folder}\n`
    + `sentinel monitor bus 127.0.0.1 ${master.port} ${quorum}\nsentinel down-after-milliseconds bus 700\n`
    + 'sentinel failover-timeout bus 5000\n');
  const child = spawn('redis-server', [file, '--sentinel']);
  whileRunning(child);
  const ended = new Promise((resolve) => { child.on('exit', resolve); });
  afterwards(context, async () => {
    child.kill('SIGKILL');
    await ended;
    fs.rmSync(folder, { recursive: true, force: true });
  });
  return { port, cli: async (...words) => (await promisify(execFile)('redis-cli', ['-p', port, ...words].map(String))).stdout.trim() };
}

// A master, a replica and three Sentinels. Gives {url, master, replica, failedOver()}.
export async function startSentinels(context) {
  const master = await startRedis(context, { port: await freePort() });
  const replica = await startRedis(context, { port: await freePort(), options: ['--replicaof', '127.0.0.1', master.port] });
  await eventually(async () => /master_link_status:up/.test(await replica.cli('info', 'replication')), 'the replica to follow');
  const sentinels = [];
  for (let i = 0; i < 3; i++) sentinels.push(await startSentinel(context, master, 2));
  await eventually(async () => {
    const seen = await Promise.all(sentinels.map(({ cli }) => cli('sentinel', 'master', 'bus').catch(() => '')));
    return seen.every((text) => /num-other-sentinels\n2\b/.test(text) && /num-slaves\n1\b/.test(text));
  }, 'the Sentinels to know each other');
  return {
    master,
    replica,
    url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/bus`,
    failedOver: () => eventually(async () => /role:master/.test(await replica.cli('info', 'replication')), 'the fail-over'),
  };
}
