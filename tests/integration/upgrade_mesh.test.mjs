// A cluster whose nodes change the version of the mesh's format one after the other, under traffic.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCluster } from '../support/cluster.mjs';
import { metric } from '../support/clients.mjs';
import { eventually } from '../support/servers.mjs';
import { LOAD, assertWhole, startTraffic } from '../support/traffic.mjs';

const NODES = 3;
const SECOND = LOAD.rate; // events

const targetsOf = (cluster) => cluster.nodes.map(({ port }, k) => ({ name: `node-${k}`, port }));

async function allHearEachOther(cluster) {
  for (const [k, node] of cluster.nodes.entries()) {
    await eventually(async () => await metric(node, 'starling_mesh_peers') === NODES - 1, `node ${k} to hear the others`);
  }
}

// The version that a node has published in since it started: it begins with its own newest one.
const publishedIn = (node) => Number([...node.output().matchAll(/mesh_version\W.*?version\W+(\d)/g)].at(-1)?.[1]);

async function change(t, from, to) {
  const cluster = await startCluster(t, NODES, { meshVersion: from });
  await allHearEachOther(cluster);
  const traffic = await startTraffic(t, targetsOf(cluster), { reconnect: 50 });
  await traffic.more(SECOND / 2);
  for (let k = 0; k < NODES; k++) {
    await cluster.nodes[k].stop();
    await traffic.more(SECOND / 4);
    await cluster.start(k, undefined, { meshVersion: to });
    await allHearEachOther(cluster);
    await traffic.until(() => traffic.up === LOAD.clients, 'all clients to be back');
    await traffic.more(SECOND / 2);
  }
  assertWhole(t, await traffic.finish());
  return cluster;
}

test('a rolling upgrade of three nodes loses no event, and ends with all in the new version', async (t) => {
  const cluster = await change(t, 1, 2);
  // The last one that started has not met an old one; the others have gone down to its version and up again.
  for (const k of [0, 1]) await eventually(() => publishedIn(cluster.nodes[k]) === 2, `node ${k} to publish in version 2`);
  assert.ok(Number.isNaN(publishedIn(cluster.nodes[2])));
});

test('a rolling downgrade loses no event either', async (t) => {
  await change(t, 2, 1);
});
