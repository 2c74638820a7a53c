// What the dashboard costs, and how fast it answers: real sessions on two nodes, a crowd of simulated ones in what a third
// says, and pages in a real Chromium. Prints Markdown tables; see README.md.
//
//   node tests/bench/dashboard.mjs [--sessions N] [--crowd N] [--pages N] [--seconds S] [--rounds N]
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { io } from 'socket.io-client';
import { startCluster } from '../support/cluster.mjs';
import { goTo, openDashboard, startAgent, startBrowser, VIEWS } from '../support/dashboard.mjs';
import { afterwards, eventually, freePort, sleep, startServer, support, whileRunning } from '../support/servers.mjs';

const number = (value) => ({ type: 'string', default: String(value) });
const { values } = parseArgs({ options: { sessions: number(15000), crowd: number(100000), pages: number(5), seconds: number(60), rounds: number(1) } });
const options = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value)]));
const ADDRESSES = 16;
const ROOMS = 500;
const PARTS = 3; // of a measured time, for the spread: each has one ping for each client
const CLICKS = 3; // at each view on each page
const PATIENCE_MS = 300000;
const FOREVER_MS = 86400000;
const DATA = ['.tile', '.card', 'tbody td', '.empty'].map((name) => `#view ${name}:not([hidden] *, [hidden])`).join(', ');

// ---- who is there ----

async function startStorm(context, port) {
  const child = spawn(path.join(support, 'storm'), [options.sessions, ADDRESSES, ROOMS].map(String), { stdio: ['pipe', 'pipe', 'inherit'] });
  whileRunning(child);
  afterwards(context, () => child.kill('SIGKILL'));
  const told = new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', (line) => resolve(JSON.parse(line)));
    child.once('exit', (code) => reject(new Error(`the clients ended with ${code}`)));
  });
  child.stdin.write(`come ${port}\n`);
  const { up } = await told;
  if (up !== options.sessions) throw new Error(`${up} of ${options.sessions} clients are there`);
}

async function startCrowd(context, { dir }) {
  const crowd = await startServer('crowd', {
    bind: '127.0.0.1', noPin: true, port: await freePort(), nodePort: await freePort(), mesh: path.join(dir, 'mesh-crowd'),
    siblings: ['mesh-0', 'mesh-1'].map((name) => path.join(dir, name)).join(','), name: 'crowd', recovery: 120000, pingInterval: FOREVER_MS,
  });
  afterwards(context, () => crowd.kill());
  const client = io(crowd.origin, { transports: ['websocket'] });
  afterwards(context, () => client.close());
  await new Promise((resolve) => { client.once('connect', resolve); });
  await client.timeout(PATIENCE_MS).emitWithAck('crowd', options.crowd, ROOMS);
}

const sessionsOf = ({ sessions_websocket: one, sessions_polling: other }) => one + other;

async function everybodyKnown({ nodes }) {
  const all = options.sessions + options.crowd;
  for (const { origin } of nodes) {
    await eventually(async () => {
      const told = await (await fetch(`${origin}/api/v1/nodes`)).json();
      return told.nodes.reduce((sum, node) => sum + sessionsOf(node), 0) >= all;
    }, `${all} sessions in the summaries`, PATIENCE_MS);
    await eventually(async () => (await (await fetch(`${origin}/api/v1/sessions?limit=1`)).json()).total >= all, `${all} sessions to be found`, PATIENCE_MS);
  }
}

// ---- measuring ----

// All its threads, in seconds.
function cpuSeconds(pid) {
  const folder = `/proc/${pid}/task`;
  return fs.readdirSync(folder).reduce((sum, thread) => sum + Number(fs.readFileSync(`${folder}/${thread}/schedstat`, 'utf8').split(' ')[0]), 0) / 1e9;
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const spread = (list, digits = 2) => `${median(list).toFixed(digits)} [${Math.min(...list).toFixed(digits)}..${Math.max(...list).toFixed(digits)}]`;

// CPU time of a page's main thread.
const busySeconds = async ({ debug }) => (await debug.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'TaskDuration').value;

// Percent of a core, in each part of the time; of a page: of its main thread.
async function measure(nodes, pages) {
  const parts = { nodes: nodes.map(() => []), pages: pages.map(() => []) };
  const read = async () => ({
    at: performance.now() / 1000, nodes: nodes.map(({ pid }) => cpuSeconds(pid)),
    pages: await Promise.all(pages.map(busySeconds)),
  });
  let before = await read();
  for (let i = 0; i < PARTS; i++) {
    await sleep((options.seconds * 1000) / PARTS);
    const now = await read();
    for (const kind of ['nodes', 'pages']) parts[kind].forEach((list, k) => list.push((100 * (now[kind][k] - before[kind][k])) / (now.at - before.at)));
    before = now;
  }
  return parts;
}

async function openPages(context, port) {
  const browser = await startBrowser(context);
  const pages = [];
  for (let i = 0; i < options.pages; i++) {
    const view = VIEWS[i % VIEWS.length];
    const own = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'dark' }); // a process of its own
    const page = await openDashboard(context, own, `http://127.0.0.1:${port}/`);
    await goTo(page, view);
    const debug = await own.newCDPSession(page);
    await debug.send('Performance.enable', { timeDomain: 'threadTicks' }); // without the time in which others had the core
    pages.push({ page, view, debug });
  }
  return { pages, close: () => browser.close() };
}

// ---- clicks ----

// Event Timing: from the click to the frame that shows what it did. And from the click until there is data in the view.
async function watchClicks({ page }) {
  await page.evaluate((data) => {
    window.clicks = { shown: [], filled: [] };
    new PerformanceObserver((list) => {
      for (const { name, duration } of list.getEntries()) if (name === 'click') window.clicks.shown.push(duration);
    }).observe({ type: 'event', durationThreshold: 16 });
    let at = 0;
    const filled = () => {
      if (!at || !document.querySelector(data)) return;
      window.clicks.filled.push(performance.now() - at);
      at = 0;
    };
    document.getElementById('nav').addEventListener('click', (event) => { at = event.timeStamp; }, { capture: true });
    new MutationObserver(filled).observe(document.getElementById('view'), { childList: true, subtree: true, attributes: true, attributeFilter: ['hidden'] });
  }, DATA);
}

async function clickThrough(pages) {
  const took = [];
  await Promise.all(pages.map(watchClicks));
  for (let round = 0; round < CLICKS; round++) {
    for (const each of pages) {
      const { page } = each;
      for (const view of VIEWS) {
        const before = await busySeconds(each);
        await goTo(page, view);
        await page.locator(DATA).first().waitFor();
        took.push(1000 * (await busySeconds(each) - before));
      }
      await goTo(page, 'overview');
      await page.locator('.tile-open').first().click(); // a dialog and its end
      await page.getByRole('button', { name: 'Close' }).click();
    }
  }
  await sleep(1000); // for what observers are told late
  const told = await Promise.all(pages.map(({ page }) => page.evaluate(() => window.clicks)));
  return { shown: told.flatMap(({ shown }) => shown), filled: told.flatMap(({ filled }) => filled), took };
}

// ---- the report ----

const loads = [];
const note = () => loads.push(os.loadavg()[0]);

function report(phases, clicks, views) {
  const total = (phase) => phase.nodes[0].map((_, i) => phase.nodes.reduce((sum, list) => sum + list[i], 0));
  const quiet = phases.filter(({ pages }) => pages.length === 0);
  const watched = phases.filter(({ pages }) => pages.length > 0);
  const a = quiet.flatMap(total);
  const b = watched.flatMap(total);
  console.log(`${options.sessions} sessions on two nodes, ${options.crowd} in what a third says, ${options.pages} pages; ${options.seconds} s each; load average ${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}\n`);
  console.log('| phase | CPU of both nodes, % of a core |\n|---|---|');
  for (const phase of phases) console.log(`| ${phase.pages.length ? 'with pages' : 'without'} | ${spread(total(phase))} |`);
  const mean = (list) => list.reduce((sum, x) => sum + x, 0) / list.length;
  console.log(`| the pages' share of it: medians | ${(median(b) - median(a)).toFixed(2)} |`);
  console.log(`| the same: means | ${(mean(b) - mean(a)).toFixed(2)} |\n`);
  console.log('| page at | CPU time of its main thread, % |\n|---|---|');
  views.forEach((view, k) => console.log(`| ${view} | ${spread(watched.flatMap(({ pages }) => pages[k]), 1)} |`));
  const slowest = (list) => [...list].sort((x, y) => x - y);
  const at = (list, share) => slowest(list)[Math.min(list.length - 1, Math.floor(list.length * share))];
  console.log('\n| clicks, while all pages are open | n | p50, ms | p95, ms | max, ms |\n|---|---|---|---|---|');
  for (const [name, list] of [['until the next frame (16 ms and more are told)', clicks.shown], ['until the view has data', clicks.filled], ["CPU time of the page's main thread until then, the driver's share included", clicks.took]]) {
    if (list.length) console.log(`| ${name} | ${list.length} | ${at(list, 0.5).toFixed(0)} | ${at(list, 0.95).toFixed(0)} | ${Math.max(...list).toFixed(0)} |`);
    else console.log(`| ${name} | 0 | | | |`);
  }
}

// ---- all of it ----

const undone = [];
const context = { after: (undo) => undone.push(undo), diagnostic: console.error };
try {
  const cluster = await startCluster(context, 2, { recovery: 120000, pingInterval: Math.round((options.seconds * 1000) / PARTS) });
  startAgent(context, cluster.nodes[0], 'kestrel');
  await startCrowd(context, cluster);
  await startStorm(context, cluster.port);
  await everybodyKnown(cluster);
  await sleep(5000); // what was told of them is repaired, mirrored, freed
  const phases = [];
  let clicks;
  let views;
  const quiet = async () => { note(); phases.push(await measure(cluster.nodes, [])); };
  await quiet();
  for (let round = 0; round < options.rounds; round++) {
    const { pages, close } = await openPages(context, cluster.port);
    await sleep(3000);
    note();
    phases.push(await measure(cluster.nodes, pages));
    views = pages.map(({ view }) => view);
    const more = await clickThrough(pages);
    clicks = { shown: [...(clicks?.shown ?? []), ...more.shown], filled: [...(clicks?.filled ?? []), ...more.filled], took: [...(clicks?.took ?? []), ...more.took] };
    await close();
    await sleep(3000);
    await quiet();
  }
  report(phases, clicks, views);
} finally {
  for (const undo of undone.reverse()) await Promise.resolve().then(undo).catch(() => {});
}
