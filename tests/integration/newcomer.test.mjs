// The first minutes with Starling, as the README tells them: the bus, its page, this machine, a chat in two tabs.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { goTo, openDashboard, seriousViolations, startBrowser, takePicture } from '../support/dashboard.mjs';
import { eventually } from '../support/servers.mjs';
import { root, up } from '../support/up.mjs';

// deploy/up installs, builds, and then is this.
test('deploy/up ends in what this test runs', () => {
  const [last] = fs.readFileSync(path.join(root, 'deploy/up'), 'utf8').trim().split('\n').slice(-1);
  assert.equal(last, 'exec "$build/bin/starling" up --agent "$@"');
});

test('a newcomer sees this machine move, and a chat in two tabs with both its sessions', { timeout: 240000 }, async (t) => {
  const bus = await up(t, ['--agent'], { nodes: 3 });
  const browser = await startBrowser(t);
  const page = await openDashboard(t, browser, `http://127.0.0.1:${bus.port}/`);
  await goTo(page, 'Sessions');
  await page.getByText('No client is connected yet.').waitFor();
  const opened = Date.now();
  await goTo(page, 'Machines');
  // Its CPU, from one look to the next; on a machine that has no more to give the rest of the card.
  const cpu = page.locator('[data-machine] .gauge text').first();
  const card = page.locator('[data-machine]');
  await cpu.waitFor();
  const first = { cpu: await cpu.textContent(), card: await card.textContent() };
  await eventually(async () => (await cpu.textContent()) !== first.cpu || (first.cpu === '100 %' && (await card.textContent()) !== first.card), "this machine's CPU to move");
  t.diagnostic(`the CPU moved within ${Date.now() - opened} ms`);
  assert.equal(await page.locator('[data-machine]').count(), 1);

  await goTo(page, 'Sessions');
  const [tab] = await Promise.all([page.context().waitForEvent('page'), page.getByRole('link', { name: 'Open the chat' }).click()]);
  const own = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'dark' });
  const other = await own.newPage();
  await other.goto(tab.url());
  const complaints = [];
  for (const each of [tab, other]) each.on('pageerror', (error) => complaints.push(String(error))).on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
  for (const each of [tab, other]) await each.getByText('2 people here').waitFor();
  await tab.getByLabel('Your name').fill('Ada');
  await tab.getByLabel('Message').fill('is <b>anybody</b> there?');
  await tab.keyboard.press('Enter');
  await other.locator('li:not(.own)', { hasText: 'is <b>anybody</b> there?' }).filter({ hasText: 'Ada' }).waitFor();
  await other.getByLabel('Message').fill('I am');
  await other.getByRole('button', { name: 'Send' }).click();
  for (const each of [tab, other]) await each.locator('li', { hasText: 'I am' }).waitFor();
  await takePicture(other, 'chat-1280-dark');
  assert.deepEqual(await seriousViolations(tab), []);

  await page.locator('#view').getByText('3 sockets', { exact: true }).waitFor();
  assert.equal(await page.locator('#view td', { hasText: 'lobby' }).count(), 2);
  await goTo(page, 'overview');
  // Two tabs and this page.
  await eventually(async () => (await page.locator('[data-total=sessions]').innerText()) === '3', 'both sessions');
  await tab.close();
  await other.getByText('1 person here').waitFor();
  await page.check();
  assert.deepEqual(complaints, []);
});
