// The dashboard in a real Chromium: pages that keep every complaint, and clients for them to show.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { io } from 'socket.io-client';
import { Agent, KIND, Refused } from './agent.mjs';
import { startCluster } from './cluster.mjs';
import { afterwards, bin, PATIENCE_MS, root, sleep, whileRunning } from './servers.mjs';

const axeSource = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
export const pictures = path.join(root, 'out/dashboard');

export async function startBrowser(context) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'],
  });
  afterwards(context, () => browser.close());
  return browser;
}

// A page of the dashboard. forgiven: complaints that the test itself makes, by a pattern.
export async function openDashboard(context, browser, url, { forgiven = [], onPage = () => {}, ...options } = {}) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: 'dark', reducedMotion: 'reduce', ...options });
  page.setDefaultTimeout(PATIENCE_MS);
  const complaints = [];
  const complain = (text) => { if (!forgiven.some((pattern) => pattern.test(text))) complaints.push(text); };
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) complain(message.text()); });
  page.on('pageerror', (error) => complain(String(error)));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  afterwards(context, () => page.close());
  onPage(page);
  await page.goto(url);
  await page.locator('.tile').first().waitFor().catch(async (error) => {
    throw new Error(`${error.message}; the page says ${JSON.stringify(await page.locator('body').innerText())}, and complains of ${JSON.stringify(complaints)}`);
  });
  // At the end of a test, while its nodes still live.
  page.check = async () => {
    assert.deepEqual(await page.evaluate(() => window.violations), [], 'the security policy is kept');
    assert.deepEqual(complaints, [], 'the console is clean');
  };
  return page;
}

// Stock clients on these nodes in turn, each in rooms of its own choice.
export async function connectClients(context, nodes, count, options = {}) {
  const clients = Array.from({ length: count }, (_, i) =>
    io(nodes[i % nodes.length].origin, { forceNew: true, transports: i % 5 === 0 ? ['polling'] : ['websocket'], reconnection: false, ...options }));
  afterwards(context, () => clients.forEach((client) => client.close()));
  await Promise.all(clients.map((client) => new Promise((resolve, reject) => {
    client.once('connect', resolve);
    client.once('connect_error', reject);
  })));
  await Promise.all(clients.map((client, i) => client.timeout(PATIENCE_MS).emitWithAck('bus:join', ['everybody', `room-${i % 4}`])));
  return clients;
}

// What axe-core finds that is serious or critical.
export async function seriousViolations(page) {
  // Evaluated by the debugger, not by the page: its security policy lets no foreign script in.
  await page.evaluate(fs.readFileSync(axeSource, 'utf8'));
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} (${failureSummary})`).join('; ')}`);
}

export async function takePicture(page, name) {
  fs.mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
}

// An agent that answers calls of its group; one in five with an error, those of the event 'late' never.
export async function openCallee(context, node, name, group) {
  const agent = new Agent(`ipc://${node.agents}`, { name });
  let n = 0;
  agent.handlers[KIND.CALL] = async ([, , , , , event]) => {
    if (event === 'late') await new Promise(() => {});
    await sleep(5);
    if (n++ % 5 === 4) throw new Refused([KIND.ERROR, 0, 'no', 'not this one']);
    return { args: '["done"]' };
  };
  await agent.open();
  afterwards(context, () => agent.close());
  await agent.request(KIND.HANDLE, { group, events: ['job', 'late'], namespaces: ['/'], deadline_ms: 400, limit: 7 });
  return agent;
}

// A starling-agent, under a name of its own: of this machine, or of the neighbour that it runs on.
export function startAgent(context, node, name, neighbour) {
  const [command, ...first] = [...(neighbour?.prefix ?? []), path.join(bin, 'starling-agent')];
  const child = spawn(command, [...first, '--nodes', neighbour?.endpoint ?? `ipc://${node.agents}`, '--name', name, '--interval', '500'], { stdio: 'ignore' });
  whileRunning(child);
  const ended = new Promise((resolve) => { child.on('exit', resolve); });
  const agent = { stop: async () => { child.kill('SIGTERM'); await ended; } };
  afterwards(context, agent.stop);
  return agent;
}

export const VIEWS = ['overview', 'machines', 'sessions', 'rooms', 'agents', 'events', 'trouble'];
export const goTo = (page, view) => page.locator('#nav').getByRole('link', { name: view, exact: false }).click();

// Three nodes, and stock clients on them.
export async function world(context, { clients = 24, ...options } = {}) {
  const cluster = await startCluster(context, 3, { recovery: 120000, ...options });
  const connected = await connectClients(context, cluster.nodes, clients, options.path && { path: options.path });
  return { cluster, clients: connected };
}
