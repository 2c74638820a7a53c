// What Prometheus is given: the text of /metrics, alert rules and Grafana's dashboard, by Prometheus' own tool.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { startCluster } from '../support/cluster.mjs';
import { connectClients } from '../support/dashboard.mjs';
import { eventually, root } from '../support/servers.mjs';

const folder = path.join(root, 'deploy/prometheus');
const promtool = (parameters, input) => {
  const { status, stdout, stderr } = spawnSync('promtool', parameters, { cwd: folder, input, encoding: 'utf8' });
  assert.equal(status, 0, `promtool ${parameters.join(' ')}: ${stdout}${stderr}`);
  return stdout + stderr;
};

async function metricsOf(context) {
  const cluster = await startCluster(context, 2, { recovery: 120000 });
  const clients = await connectClients(context, cluster.nodes, 4);
  clients[0].emit('bus:emit', { event: 'x' });
  return eventually(async () => {
    const text = await (await fetch(`${cluster.nodes[0].origin}/metrics`)).text();
    return /^starling_mesh_delay_seconds_count [1-9]/m.test(text) && text;
  }, 'a canary');
}

test('promtool finds nothing wrong with /metrics', async (t) => {
  assert.equal(promtool(['check', 'metrics'], await metricsOf(t)), '');
});

test('the sample configuration and the alert rules are right, and rules fire when they should', () => {
  promtool(['check', 'config', 'prometheus.yml']);
  promtool(['test', 'rules', 'alerts_test.yml']);
});

test('rules and dashboard ask for metrics that there are', async (t) => {
  const known = new Set((await metricsOf(t)).split('\n').filter((line) => line && line[0] !== '#').map((line) => line.split(/[ {]/)[0]));
  const asked = (text) => new Set([...text.matchAll(/\b(?:starling|process)_[a-z0-9_]+\b/g)].map(([name]) => name));
  const rules = fs.readFileSync(path.join(folder, 'alerts.yml'), 'utf8').split('\n').filter((line) => /^\s*expr:/.test(line)).join('\n');
  const { panels } = JSON.parse(fs.readFileSync(path.join(folder, 'grafana.json'), 'utf8'));
  const queries = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
  assert.ok(queries.length >= 18);
  for (const name of [...asked(rules), ...asked(queries.join('\n'))]) assert.ok(known.has(name), name);
  for (const query of queries) assert.ok(query.includes('job="starling"'), query);
});
