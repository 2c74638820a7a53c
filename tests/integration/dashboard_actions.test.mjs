// The dashboard by keyboard and by its actions: short enough to be run against the sanitized build as well.
import assert from 'node:assert/strict';
import { test as plainTest } from 'node:test';
import { KIND } from '../support/agent.mjs';
import { goTo, openCallee, openDashboard, seriousViolations, startBrowser, takePicture, VIEWS, world } from '../support/dashboard.mjs';

const test = (name, body) => plainTest(name, { timeout: 240000 }, body);
const api = async (cluster, path) => (await fetch(`http://127.0.0.1:${cluster.port}/api/v1/${path}`)).json();

test('sessions of all nodes are found, looked at, and acted on', async (t) => {
  const { cluster, clients } = await world(t);
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/`);
  await goTo(page, 'Sessions');
  await page.keyboard.press('/');
  const target = clients[7];
  await page.keyboard.type(target.id);
  await page.getByText('1 socket', { exact: true }).waitFor();
  await page.getByRole('button', { name: target.id }).click();
  await page.locator('[data-socket=node]', { hasText: 'node-1' }).waitFor();
  await page.getByLabel('Room to join').last().fill('invited');
  await page.getByRole('button', { name: 'Join' }).click();
  await page.getByRole('button', { name: 'Leave invited' }).waitFor();
  const rooms = await api(cluster, 'rooms?q=invited');
  assert.deepEqual(rooms.rooms.map(({ name, members }) => [name, members]), [['invited', 1]]);
  await page.getByRole('button', { name: 'Leave invited' }).click();
  await page.getByRole('button', { name: 'Leave invited' }).waitFor({ state: 'detached' });
  const gone = new Promise((resolve) => { target.once('disconnect', resolve); });
  page.once('dialog', (box) => box.accept());
  await page.getByRole('button', { name: 'Disconnect', exact: true }).click();
  assert.equal(await gone, 'io server disconnect');
  await page.getByText(/^ ?This socket is not connected any more/).waitFor();
  await page.keyboard.press('Escape');
  // A room's members, by its link.
  await goTo(page, 'Rooms');
  await page.locator('td[data-label=Room] a', { hasText: 'room-2' }).click();
  await page.getByText('6 sockets').waitFor();
  await page.check();
});

test('agents of all nodes are found and looked at, until they go', async (t) => {
  const { cluster, clients } = await world(t, { clients: 3 });
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/`);
  await goTo(page, 'Agents');
  await page.getByText('No agent is connected yet.').waitFor();
  await page.getByText(`chat.py tcp://127.0.0.1:${cluster.port + 100}`).waitFor();
  assert.deepEqual(await seriousViolations(page), []);
  const agents = [];
  for (const [i, group] of ['orders', 'orders', 'audit'].entries()) agents.push(await openCallee(t, cluster.nodes[i], `${group}-${i}`, group));
  await agents[2].request(KIND.REGISTER, 'ledger', {});
  await agents[2].request(KIND.SUBSCRIBE, { events: ['orders.>'] });
  for (let i = 0; i < 10; i++) await clients[0].timeout(60000).emitWithAck('job', i);
  await page.getByText('3 agents', { exact: true }).waitFor();
  await page.locator('td[data-label^=Groups] a', { hasText: 'audit' }).click(); // those of this group
  await page.getByText('1 agent', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'audit-2' }).click();
  const figure = (name, text) => page.locator(`[data-agent=${name}]`, { hasText: text }).waitFor();
  await figure('node', 'node-2');
  await figure('total', /^10$/);
  await figure('failed', /^2$/);
  for (const [kind, name, patterns] of [['handler', 'audit', 'job'], ['actor', 'ledger', '–'], ['subscription', '–', 'orders.>']]) {
    await page.locator('dialog tr', { hasText: kind }).filter({ hasText: name }).filter({ hasText: patterns }).waitFor();
  }
  assert.deepEqual(await seriousViolations(page), []);
  await takePicture(page, 'agent-1280-dark');
  agents[2].close();
  await page.getByText('This agent is not connected any more.').waitFor();
  await page.check();
});

test('keys lead to views, to help and to the search field', async (t) => {
  const { cluster } = await world(t, { clients: 0 });
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/`);
  for (const [i, view] of VIEWS.entries()) {
    await page.keyboard.press(String(i + 1));
    await page.locator(`#nav a[href="#${view}"][aria-current=page]`).waitFor();
  }
  await page.keyboard.press('?');
  await page.getByRole('heading', { name: 'Keyboard' }).waitFor();
  assert.deepEqual(await seriousViolations(page), []);
  await page.keyboard.press('Escape');
  await page.keyboard.press('3');
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.type), 'search');
  await page.keyboard.press('Tab');
  await page.check();
});

test('a page below a path of a proxy works as one at the root', async (t) => {
  const { cluster } = await world(t, { clients: 3, basePath: '/bus/', path: '/bus/socket.io/' });
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/bus`);
  assert.equal(new URL(page.url()).pathname, '/bus/');
  await page.locator('.tile[data-state=ready]').nth(2).waitFor();
  await goTo(page, 'Sessions');
  await page.getByText('4 sockets', { exact: true }).waitFor();
  await page.check();
});
