// Several nodes of one host that hear each other, on one shared port and a port each.
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { freePort, startServer } from './servers.mjs';

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
  context.after(async () => {
    await Promise.allSettled(cluster.nodes.map((node) => node.stop()));
    await rm(dir, { recursive: true, force: true });
  });
  await Promise.all(names.map((k) => cluster.start(k)));
  return cluster;
}
