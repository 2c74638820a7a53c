// HAProxy with deploy/haproxy.cfg, on ports and with a certificate of the test's own.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { temporary } from './bus.mjs';
import { afterwards, eventually, freePort, root, whileRunning } from './servers.mjs';

const sample = path.join(root, 'deploy/haproxy.cfg');

export const whyNoHaproxy = () =>
  spawnSync('haproxy', ['-v']).status !== 0 && 'haproxy is not installed (deploy/install-deps --dev)';

function certificate(folder) {
  const key = path.join(folder, 'key.pem');
  const pem = path.join(folder, 'starling.pem');
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', pem,
  ], { stdio: 'ignore' });
  fs.appendFileSync(pem, fs.readFileSync(key));
  return pem;
}

// Each replacement must find what it replaces: the sample and its test stay together.
function replaced(text, replacements) {
  for (const [from, to] of replacements) {
    assert.match(text, from);
    text = text.replace(from, to);
  }
  return text;
}

const statsOf = (socket, command) => new Promise((resolve, reject) => {
  let answer = '';
  net.connect(socket).on('data', (data) => { answer += data; }).on('end', () => resolve(answer)).on('error', reject)
    .end(`${command}\n`);
});

// nodes: [{name, address?, port}…]; more: lines that the defaults have in addition.
export async function startHaproxy(context, nodes, more = []) {
  const folder = temporary(context);
  const haproxy = { port: await freePort(), plainPort: await freePort() };
  const config = path.join(folder, 'haproxy.cfg');
  const socket = path.join(folder, 'stats');
  const servers = nodes.map(({ name, address = '127.0.0.1', port }) => `    server ${name} ${address}:${port}\n`);
  fs.writeFileSync(config, replaced(fs.readFileSync(sample, 'utf8'), [
    [/^ +user .*\n +group .*\n/m, `    stats socket ${socket}\n`],
    [/:::80 /, `:::${haproxy.plainPort} `],
    [/:::443 /, `:::${haproxy.port} `],
    [/\/etc\/haproxy\/starling\.pem/, certificate(folder)],
    [/^defaults\n/m, ['defaults', ...more.map((line) => `    ${line}`), ''].join('\n')],
    [/^( +server .*\n)+/m, servers.join('')],
  ]));
  const child = spawn('haproxy', ['-db', '-f', config], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  let ended;
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { output += data; });
  child.on('exit', (code, signal) => { ended = signal ?? code; });
  whileRunning(child);
  afterwards(context, async () => {
    child.kill('SIGKILL');
    await eventually(() => ended !== undefined, 'haproxy to end');
  });
  // Of each server: the counters that HAProxy keeps, by their names.
  haproxy.stats = async () => {
    const [head, ...rows] = (await statsOf(socket, 'show stat')).trim().split('\n').map((line) => line.split(','));
    const all = rows.map((row) => Object.fromEntries(head.map((name, i) => [name.replace(/^# /, ''), row[i]])));
    return all.filter(({ pxname, svname }) => pxname === 'nodes' && svname !== 'BACKEND');
  };
  haproxy.output = () => output;
  await eventually(async () => {
    if (ended !== undefined) throw new Error(`haproxy ended at its start (${ended}): ${output}`);
    const stats = fs.existsSync(socket) ? await haproxy.stats().catch(() => []) : [];
    return stats.filter(({ status }) => status === 'UP').length === nodes.length;
  }, 'haproxy to find all nodes up');
  return haproxy;
}

// What `haproxy -c` says of the sample with a certificate.
export function checkSample(context) {
  const folder = temporary(context);
  const config = path.join(folder, 'haproxy.cfg');
  fs.writeFileSync(config, replaced(fs.readFileSync(sample, 'utf8'), [
    [/\/etc\/haproxy\/starling\.pem/, certificate(folder)],
  ]));
  const { status, stdout, stderr } = spawnSync('haproxy', ['-c', '-f', config], { encoding: 'utf8' });
  return { status, output: stdout + stderr };
}
