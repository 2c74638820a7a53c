// The dashboard as people meet it: a real Chromium on three nodes with stock clients.
import assert from 'node:assert/strict';
import { test as plainTest } from 'node:test';
import { KIND } from '../support/agent.mjs';
import { goTo, openCallee, openDashboard, seriousViolations, startAgent, startBrowser, takePicture, VIEWS, world } from '../support/dashboard.mjs';
import { startNeighbour, whyNoHosts } from '../support/hosts.mjs';
import { afterwards, eventually, sanitized } from '../support/servers.mjs';

const test = (name, body) => plainTest(name, { timeout: 480000 }, body);
const json = async (url) => (await fetch(url)).json();
const api = (cluster, path) => json(`http://127.0.0.1:${cluster.port}/api/v1/${path}`);

// Something happens all the time.
function traffic(context, clients) {
  let n = 0;
  const timer = setInterval(() => clients.forEach((client, i) => {
    if (i % 3 === 0) client.emit('bus:emit', { to: `room-${i % 4}`, event: 'tick', args: [{ n: n++, text: 'a "quoted" text' }] });
  }), 100);
  afterwards(context, () => clearInterval(timer));
}

// Two machines: this one, and where that can be one in a network namespace, at the other end of a cable.
async function machines(context, cluster) {
  const why = await whyNoHosts();
  if (why) context.diagnostic(`both agents are on this host: ${why}`);
  const neighbour = why ? undefined : await startNeighbour(context, 'merlin', cluster.nodes[1].agents);
  return { kestrel: startAgent(context, cluster.nodes[0], 'kestrel'), merlin: startAgent(context, cluster.nodes[1], 'merlin', neighbour), neighbour };
}

// Two agents of one group and one of another, and calls for them all the time.
async function agents(context, cluster, client) {
  const all = [];
  for (const [i, group] of ['orders', 'orders', 'audit'].entries()) all.push(await openCallee(context, cluster.nodes[i], `${group}-${i}`, group));
  await all[2].request(KIND.REGISTER, 'ledger', {});
  let n = 0;
  const timer = setInterval(() => client.emit(n++ % 50 ? 'job' : 'late', n), 20);
  afterwards(context, () => clearInterval(timer));
  return all;
}

test('every view shows live data, on any width and in both themes, and complains of nothing', async (t) => {
  const { cluster, clients } = await world(t);
  traffic(t, clients);
  await machines(t, cluster);
  await agents(t, cluster, clients[0]);
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/`);
  await eventually(async () => (await page.locator('.tile[data-state=ready]').count()) === 3, 'three ready nodes');
  await eventually(async () => /^All 3 nodes are healthy/.test(await page.locator('#health').innerText()), 'a healthy bus');
  await eventually(async () => Number.parseInt(await page.locator('[data-total=emits]').innerText(), 10) > 20, 'emits');
  const shows = {
    overview: () => page.locator('.way.ok').nth(2).waitFor({ state: 'attached' }),
    machines: async () => {
      for (const hasText of ['kestrel', 'merlin']) await page.locator('[data-machine]', { hasText }).waitFor();
    },
    sessions: () => page.getByText('room-1').first().waitFor(),
    rooms: () => page.locator('td[data-label=Room]', { hasText: 'everybody' }).waitFor(),
    agents: async () => {
      for (const hasText of ['orders-0', 'orders-1', 'audit-2']) await page.locator('td[data-label=Agent]', { hasText }).waitFor();
      await eventually(async () => /^[1-9]/.test(await page.locator('tr', { hasText: 'audit-2' }).locator('td[data-label=Calls]').innerText()), 'calls a second');
    },
    events: async () => {
      await page.getByRole('button', { name: 'Watch' }).click();
      await page.locator('td strong', { hasText: 'tick' }).first().waitFor();
    },
    trouble: () => page.getByText('Sessions that ended, by reason').waitFor(),
  };
  for (const view of VIEWS) {
    await goTo(page, view);
    await shows[view]();
    for (const width of [360, 1280, 2560]) {
      await page.setViewportSize({ width, height: width === 360 ? 740 : 1000 });
      for (const colorScheme of ['dark', 'light']) {
        await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
        const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.equal(beyond, 0, `${view} is cut off at ${width} px`);
        await takePicture(page, `${view}-${width}-${colorScheme}`);
        if (width === 1280 || (width === 360 && colorScheme === 'dark')) assert.deepEqual(await seriousViolations(page), [], `${view}, ${width} px, ${colorScheme}`);
      }
    }
    await page.setViewportSize({ width: 1280, height: 900 });
  }
  // The README's picture (webui/overview.png), with some history by now.
  await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' });
  await goTo(page, 'overview');
  await page.locator('.way.ok').nth(2).waitFor({ state: 'attached' });
  await takePicture(page, 'readme');
  await page.check();
});

test('a node that is killed turns its tile, and the page goes on from another one', async (t) => {
  const { cluster } = await world(t, { clients: 6 });
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/`, { forgiven: [/WebSocket connection to|ERR_|Failed to load resource/] });
  await eventually(async () => (await page.locator('.tile[data-state=ready]').count()) === 3, 'three ready nodes');
  const here = async () => (await page.locator('#here').innerText()).replace('told by ', '');
  const first = await eventually(async () => (await here()) || undefined, 'the node that tells');
  // Seconds of which the page knows how many sessions there were, up to this one.
  const knownUntil = (second) => page.evaluate(async (end) => {
    const { bus } = await import('./bus.js');
    const values = bus.trails.sum(['sessions_websocket']);
    return values.filter((value, i) => !Number.isNaN(value) && bus.trails.newest - values.length + i < end).length;
  }, second);
  // When each tile turned, by the page's own clock, which is this process's: asking from here takes up to half a second.
  await page.evaluate(() => {
    window.turned = {};
    new MutationObserver((changes) => changes.forEach(({ target }) => {
      if (target.dataset.state === 'dead') window.turned[target.dataset.node] ??= Date.now();
    })).observe(document.getElementById('view'), { subtree: true, attributes: true, attributeFilter: ['data-state'] });
  });
  const turnedAfter = async (node, since) => (await page.evaluate((name) => window.turned[name], node)) - since;
  const index = Number(first.split('-')[1]);
  const other = cluster.nodes[(index + 1) % 3];
  // One that the page is not on: its tile turns as soon as the others miss it.
  let at = Date.now();
  await other.kill();
  await page.locator(`.tile[data-node="node-${(index + 1) % 3}"][data-state=dead]`).waitFor();
  t.diagnostic(`a killed node's tile turned after ${await turnedAfter(`node-${(index + 1) % 3}`, at)} ms`);
  await page.locator('#health', { hasText: 'died' }).waitFor();
  // The one that it is on.
  const second = Math.floor(Date.now() / 1000) - 1;
  const before = { second, known: await knownUntil(second) };
  assert.ok(before.known > 1, `${before.known} seconds are known`);
  at = Date.now();
  await cluster.nodes[index].kill();
  await page.locator(`.tile[data-node="${first}"][data-state=dead]`).waitFor();
  t.diagnostic(`the page's own node was shown as dead after ${await turnedAfter(first, at)} ms`);
  const last = `node-${[0, 1, 2].find((k) => k !== index && k !== (index + 1) % 3)}`;
  await eventually(async () => (await here()) === last, 'the page to be on the node that is left');
  assert.equal(await page.locator('.tile').count(), 3);
  assert.ok(await knownUntil(before.second) >= before.known, 'its history is as it was');
  // With all of them gone the page says so, and how old it is.
  await cluster.nodes[Number(last.split('-')[1])].kill();
  await page.locator('#banner', { hasText: /connection to the bus is lost. What you see is .* old/ }).waitFor();
  // And comes back by itself.
  await cluster.start(0, []);
  await page.locator('.tile[data-node=node-0][data-state=ready]').waitFor();
  await eventually(async () => await page.locator('#banner').isHidden(), 'the banner to go');
  await page.check();
});

test('machines are shown whichever node their agents talk to, with their history, and grey when they are lost', async (t) => {
  const { cluster } = await world(t, { clients: 0 });
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/`);
  await goTo(page, 'Machines');
  await page.getByText('No machine reports yet.').waitFor();
  const agent = startAgent(t, cluster.nodes[1], 'kestrel');
  const card = page.locator('[data-machine]', { hasText: 'kestrel' });
  await card.waitFor();
  const ids = new Set();
  for (const { origin } of cluster.nodes) {
    const { machines } = await eventually(async () => {
      const told = await json(`${origin}/api/v1/machines`);
      return told.machines[0]?.tick && told.machines[0].description && told;
    }, 'the machine on every node');
    assert.equal(machines.length, 1);
    assert.equal(machines[0].description.name, 'kestrel');
    ids.add(machines[0].id);
  }
  assert.equal(ids.size, 1);
  const [id] = ids;
  await eventually(async () => (await json(`${cluster.nodes[2].origin}/api/v1/machines?id=${id}&history=seconds`)).cpu_busy?.filter((value) => value !== null).length > 4, 'some history');
  await page.getByRole('button', { name: 'kestrel: history' }).click();
  await page.locator('dialog .uplot').nth(4).waitFor();
  await takePicture(page, 'history-1280-dark');
  for (const level of ['2 h', '24 h', '10 min']) {
    await page.getByRole('button', { name: level, exact: true }).click();
    await page.locator('dialog [aria-pressed=true]', { hasText: level }).waitFor();
    await page.locator('dialog .uplot').nth(4).waitFor();
  }
  await page.keyboard.press('Escape');
  await agent.stop();
  await page.locator('.card.lost', { hasText: 'Not heard for' }).waitFor();
  await takePicture(page, 'machine-lost-1280-dark');
  await page.check();
});

test('an event is sent from the page and seen there, filtered and no more of it than is good', async (t) => {
  const { cluster, clients } = await world(t, { clients: 6 });
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/`);
  await goTo(page, 'Events');
  await page.getByLabel('Event contains').fill('news');
  await page.getByRole('button', { name: 'Watch' }).click();
  const heard = Promise.all(clients.map((client) => new Promise((resolve) => { client.once('news', (...args) => resolve(args)); })));
  await page.getByLabel('Arguments, a JSON array').fill('[{"a":1},"<b>no markup</b>"]');
  await page.getByRole('button', { name: 'Send' }).click();
  for (const args of await heard) assert.deepEqual(args.slice(0, 2), [{ a: 1 }, '<b>no markup</b>']);
  await page.locator('td code', { hasText: '<b>no markup</b>' }).waitFor();
  clients[0].emit('bus:emit', { event: 'other' });
  for (let i = 0; i < 3000; i++) clients[i % 6].emit('bus:emit', { event: 'news', args: [i] });
  await page.getByText(/more were not shown/).waitFor();
  assert.equal(await page.locator('td strong', { hasText: 'other' }).count(), 0);
  await page.getByLabel('Arguments, a JSON array').fill('{}');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByText('The arguments are no JSON array.').waitFor();
  await page.check();
});
