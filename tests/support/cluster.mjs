// Several nodes of one host that hear each other, on one shared port and a port each.
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterwards, freePort, sayIfFailed, startServer } from './servers.mjs';

// Waits for all of them also when one fails: the others are not to begin behind the end of their test.
async function all(promises) {
  const failed = (await Promise.allSettled(promises)).find(({ status }) => status === 'rejected');
  if (failed) throw failed.reason;
}

// Gives {port, nodes, start(k), dir}; ends with its test. A node's own port is nodes[k].port, also when it starts again.
export async function startCluster(context, count, options = {}) {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'starling-mesh-'));
  const cluster = { port: await freePort(), nodes: [], dir };
  const base = (k) => path.join(dir, `mesh-${k}`);
  const names = Array.from({ length: count }, (_, k) => k);

  cluster.start = async (k, siblings = names, changed = {}) => {
    const own = cluster.nodes[k]?.port ?? await freePort();
    const others = siblings.filter((other) => other !== k).map(base).join(',');
    const node = await startServer('starling-node', {
      port: cluster.port, nodePort: own, mesh: base(k), agents: path.join(dir, `agents-${k}`), ...(others && { siblings: others }), name: `node-${k}`, ...options, ...changed,
    });
    cluster.nodes[k] = Object.assign(node, { publicPort: cluster.port, port: own, agents: path.join(dir, `agents-${k}`), origin: `http://127.0.0.1:${own}` });
    return cluster.nodes[k];
  };
  afterwards(context, () => rm(dir, { recursive: true, force: true }));
  afterwards(context, async () => {
    cluster.nodes.forEach((node, k) => sayIfFailed(context, node, `node-${k}`));
    await all(cluster.nodes.map((node) => node?.stop()));
  });
  await all(names.map((k) => cluster.start(k)));
  return cluster;
}
