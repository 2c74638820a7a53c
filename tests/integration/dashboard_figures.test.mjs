// Every number on every view of the page, compared with what the API told this very page, and that with /metrics.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { goTo, openCallee, openDashboard, startAgent, startBrowser, world } from '../support/dashboard.mjs';
import { afterwards, eventually } from '../support/servers.mjs';

// ---- numbers as people read them ----

const UNITS = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, k: 1e3, M: 1e6, G: 1e9, 'µs': 1, ms: 1e3, s: 1e6, min: 60e6, h: 3600e6, d: 86400e6 };
const pattern = /(\d[\d,]*(?:\.\d+)?)(?: (B|KiB|MiB|GiB|TiB|k|M|G|µs|ms|s|min|h|d)\b)?/g;

// "1.4 GiB of 24 GiB": both in bytes, and how far off they may be by rounding; times in microseconds; "–": none.
const roundedIn = (text) => [...text.matchAll(pattern)].map(([, digits, unit]) => {
  const scale = UNITS[unit] ?? 1;
  return { value: Number(digits.replaceAll(',', '')) * scale, off: (0.501 * scale) / 10 ** (digits.split('.')[1]?.length ?? 0) };
});
const numbersIn = (text) => roundedIn(text).map(({ value }) => value);

const seconds = (s) => ({ seconds: s }); // of which the smallest unit that is shown is not rounded

// told: a number, a list of them, null for none, or seconds().
function agrees(text, told) {
  const shown = roundedIn(text);
  if (told?.seconds !== undefined) {
    const smallest = { s: 1, min: 60, h: 3600 }[text.trim().split(' ').pop()];
    const off = told.seconds - shown.reduce((sum, { value }) => sum + value, 0) / 1e6;
    return shown.length > 0 && off > -0.001 && off < smallest;
  }
  const wanted = [told].flat().filter((value) => value !== null);
  return shown.length === wanted.length && shown.every(({ value, off }, i) => Math.abs(value - wanted[i]) <= off);
}

// ---- what the page was told ----

function listen(page) {
  const told = {};
  page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => {
    const at = typeof payload === 'string' ? payload.indexOf('["') : -1;
    if (!String(payload).startsWith('42/admin') || at < 0) return;
    const [event, value] = JSON.parse(payload.slice(at));
    if (event === 'tail') told.events = [...value.events.reverse(), ...(told.events ?? [])];
    else told[event] = value;
  }));
  page.on('response', async (response) => {
    const { pathname, search } = new URL(response.url());
    const [, what] = /\/api\/v1\/(\w+)$/.exec(pathname) ?? [];
    if (!what) return;
    const body = await response.json().catch(() => undefined);
    if (body) told[new URLSearchParams(search).get('sort') === 'queue' ? 'queues' : /[?&](sid|instance)=/.test(search) ? `one ${what}` : what] = body;
  });
  return told;
}

// ---- what it shows: [what, text, told] of each number ----

const cellsOf = (page, table) => page.locator(`${table} tbody tr`).evaluateAll((rows) => rows.map((row) =>
  Object.fromEntries([...row.querySelectorAll('td.num')].map((cell) => [cell.dataset.label, cell.textContent]))));

// Rows of a table beside those of the API: every cell with a number has to be among the columns.
async function tableNumbers(page, table, rows, columns) {
  const shown = await cellsOf(page, table);
  if (shown.length !== rows.length) return [[`rows of ${table}`, String(shown.length), rows.length]];
  return shown.flatMap((cells, i) => Object.entries(cells).map(([label, text]) => {
    assert.ok(columns[label], `nothing is known of the column ${label}`);
    return [`${label} of row ${i}`, text, columns[label](rows[i])];
  }));
}

const sum = (items, read) => items.reduce((total, item) => total + read(item), 0);
const sessionsOf = (node) => node.sessions_polling + node.sessions_websocket;
const textsOf = (page, selector, key) => page.locator(selector).evaluateAll((all, name) => all.map((e) => [name ? e.dataset[name] : '', e.textContent]), key);

async function overview(page, { nodes: { nodes } }) {
  const live = nodes.filter(({ life }) => life === 'live');
  const totals = {
    sessions: [sum(live, sessionsOf), [sum(live, (n) => n.sessions_websocket), sum(live, (n) => n.sessions_polling)]],
    emits: [sum(live, (n) => n.emits_per_s), sum(live, (n) => n.packets_in_per_s)], deliveries: [sum(live, (n) => n.deliveries_per_s), sum(live, (n) => n.sockets)],
    traffic: [sum(live, (n) => n.bytes_out_per_s), sum(live, (n) => n.bytes_in_per_s)], cpu: [sum(live, (n) => n.cpu_pct), sum(live, (n) => n.rss_bytes)],
  };
  const out = (await textsOf(page, '[data-total]', 'total')).map(([name, text]) => [`total ${name}`, text, totals[name][0]]);
  (await textsOf(page, '.total > .faint')).forEach(([, text], i) => out.push([`note of ${Object.keys(totals)[i]}`, text, Object.values(totals)[i][1]]));
  out.push(['host', (await page.locator('.host h2 .faint').innerText()), [live.length, sum(live, (n) => n.cpu_pct), sum(live, (n) => n.rss_bytes)]]);
  const figures = {
    sessions: sessionsOf, in: (n) => n.emits_per_s, out: (n) => n.deliveries_per_s, memory: (n) => n.rss_bytes, lag: (n) => n.loop_p99_us, links: (n) => [n.links.length, n.links.length],
    holes: (n) => n.mesh_holes_total, mirror: (n) => (n.store === 'up' ? n.mirror_behind : null), restarts: (n) => n.restarts,
  };
  for (const node of live) {
    const tile = `.tile[data-node=${node.name}]`;
    for (const [name, text] of await textsOf(page, `${tile} [data-figure]`, 'figure')) out.push([`${name} of ${node.name}`, text, figures[name](node)]);
    out.push([`CPU of ${node.name}`, await page.locator(`${tile} .tile-cpu .num`).innerText(), node.cpu_pct], [`time of ${node.name}`, (await page.locator(`${tile} .tile-where .faint`).last().innerText()).replace('up ', ''), seconds(node.uptime_s)]);
    for (const link of node.links) {
      const row = page.locator(`tr[data-link="${node.id} ${link.from}"]`);
      for (const [cell, value] of [['delay', link.delay_us], ['silent', link.silent_ms * 1000], ['behind', link.behind]]) {
        out.push([`${cell} of ${node.name}`, await row.locator(`[data-cell=${cell}]`).innerText(), value]);
      }
    }
  }
  return out;
}

async function machines(page, { machines: { machines: all } }) {
  const out = [];
  for (const { id, tick, description } of all) {
    const card = `[data-machine="${id}"]`;
    const { total_bytes: total, available_bytes: free, swap_total_bytes: swap } = tick.memory;
    const lines = [[total - free, total], ...(swap ? [[tick.memory.swap_used_bytes, swap]] : []), ...tick.filesystems.slice(0, 4).map((f) => [f.used_bytes, f.total_bytes])];
    const facts = [Object.values(tick.load).slice(0, 3), [sum(tick.interfaces, (i) => i.rx_bytes_s), sum(tick.interfaces, (i) => i.tx_bytes_s)], [sum(tick.disks, (d) => d.read_bytes_s), sum(tick.disks, (d) => d.write_bytes_s)], seconds(tick.uptime_s)];
    out.push(['CPU', await page.locator(`${card} .gauge text`).first().textContent(), tick.cpu.busy_pct], ['cores', await page.locator(`${card} .cores`).getAttribute('aria-label'), description.cores]);
    const shownLines = await textsOf(page, `${card} .lines > div:not([hidden]) > .num`);
    const shownFacts = await textsOf(page, `${card} dd.num`);
    assert.deepEqual([shownLines.length, shownFacts.length], [lines.length, facts.length]);
    shownLines.forEach(([, text], i) => out.push([`line ${i}`, text, lines[i]]));
    shownFacts.forEach(([, text], i) => out.push([`fact ${i}`, text, facts[i]]));
  }
  return out;
}

const socketColumns = { Queue: (s) => s.queued_bytes, Connected: (s) => seconds(s.connected_ms / 1000) };
const total = async (page, told) => [['total', await page.locator('#view .spread > .faint').innerText(), told]];

const views = {
  overview,
  machines,
  sessions: async (page, { sessions }) => [...await total(page, sessions.total), ...await tableNumbers(page, '#view', sessions.rows, socketColumns)],
  rooms: async (page, { rooms }) => [...await total(page, rooms.total), ...await tableNumbers(page, '#view', rooms.rooms, { Members: (r) => r.members, 'Emits to it': (r) => r.emits })],
  agents: async (page, { agents }) => [...await total(page, agents.total), ...await tableNumbers(page, '#view', agents.rows, {
    Handlers: (a) => a.handlers, Calls: (a) => a.calls_per_s, p50: (a) => a.p50_us, p99: (a) => a.p99_us, 'Time-outs': (a) => a.timed_out_total, Waiting: (a) => a.waiting, Credit: (a) => a.credit_bytes, Connected: (a) => seconds(a.connected_ms / 1000),
  })],
  events: async (page, { events }) => tableNumbers(page, '#view', events.slice(0, 100), { Size: (e) => e.bytes }),
  trouble: async (page, { nodes: { nodes }, queues, ends }) => [
    ...(await textsOf(page, '[data-grown]', 'grown')).map(([key, text]) => [key, text, sum(nodes.filter(({ life }) => life === 'live'), (n) => n.grown[key])]),
    ...await tableNumbers(page, '#view [aria-label="Queues that are longest now"]', queues.rows, socketColumns),
    ...await total(page, ends.total), ...await tableNumbers(page, '#view [aria-label="The last ends"]', ends.rows, { Lived: (e) => seconds(e.connected_ms / 1000), Queue: (e) => e.queued_bytes }),
  ],
};

// Until all of them are right: between two looks something new may have been told.
async function compare(context, name, read) {
  let wrong;
  let n;
  await eventually(async () => {
    const all = await read().catch((error) => { wrong = [error.message]; });
    if (!all) return false;
    n = all.length;
    wrong = all.filter(([, text, told]) => !agrees(text, told));
    return n > 0 && wrong.length === 0;
  }, name).catch((error) => { throw new Error(`${error.message}: ${JSON.stringify(wrong)}`); });
  context.diagnostic(`${name}: ${n} numbers compared`);
}

// ---- /metrics ----

const named = {
  sessions_polling: 'starling_sessions{transport="polling"}', sessions_websocket: 'starling_sessions{transport="websocket"}', sessions_absent: 'starling_sessions_absent', sockets: 'starling_sockets',
  rooms: 'starling_rooms', namespaces: 'starling_namespaces', mirror_behind: 'starling_mirror_behind', mesh_peers: 'starling_mesh_peers',
  emits_total: 'starling_emits_total', deliveries_total: 'starling_deliveries_total', opened_total: 'starling_sessions_opened_total', recoveries_total: 'starling_recoveries_total',
  recoveries_failed_total: 'starling_recoveries_failed_total', recovered_events_total: 'starling_recovered_events_total', volatile_dropped_total: 'starling_volatile_dropped_total',
  agents: 'starling_agents', agent_calls_failed_total: 'starling_agent_calls_failed_total', emits_refused_total: 'starling_emits_refused_total', events_unhandled_total: 'starling_events_unhandled_total', decode_errors_total: 'starling_decode_errors_total', congestions_total: 'starling_congestions_total',
  connections_timed_out_total: 'starling_connections_timed_out_total', connections_refused_total: 'starling_connections_refused_total{reason="address"}',
  mesh_holes_total: 'starling_mesh_holes_total', mesh_lost_total: 'starling_mesh_lost_total', mirror_lost_total: 'starling_mirror_lost_total',
  closed_transport_error_total: 'starling_sessions_closed_total{reason="transport error"}', closed_transport_close_total: 'starling_sessions_closed_total{reason="transport close"}', closed_forced_total: 'starling_sessions_closed_total{reason="forced close"}',
  closed_ping_timeout_total: 'starling_sessions_closed_total{reason="ping timeout"}', closed_parse_error_total: 'starling_sessions_closed_total{reason="parse error"}', closed_slow_client_total: 'starling_sessions_closed_total{reason="slow client"}',
  closed_shutdown_total: 'starling_sessions_closed_total{reason="server shutting down"}', closed_taken_total: 'starling_sessions_closed_total{reason="session taken over"}',
};

const metricsOf = async (node) => Object.fromEntries((await (await fetch(`${node.origin}/metrics`)).text()).split('\n')
  .filter((line) => line && line[0] !== '#').map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));

// Agents of this node and what /metrics says of all of them.
async function agentsAgree(node, name) {
  const { rows } = await (await fetch(`${node.origin}/api/v1/agents`)).json();
  const metrics = await metricsOf(node);
  const own = rows.filter((row) => row.node === name);
  return metrics.starling_agents === own.length && metrics.starling_agent_call_seconds_count === sum(own, (a) => a.answered_total) &&
    metrics.starling_agent_timeouts_total === sum(own, (a) => a.timed_out_total);
}

// ---- what there is to see ----

async function liven(context, { cluster, clients }) {
  startAgent(context, cluster.nodes[0], 'kestrel');
  for (const [i, group] of ['orders', 'orders', 'audit'].entries()) await openCallee(context, cluster.nodes[i], `${group}-${i}`, group);
  for (let i = 0; i < 40; i++) await clients[0].timeout(5000).emitWithAck('job', i);
  await clients[0].timeout(5000).emitWithAck('late');
  clients[5].io.engine.close();
  clients[10].disconnect();
  // One that does not read what comes.
  const slow = clients[7];
  const wire = slow.io.engine.transport.ws._socket;
  wire.pause();
  afterwards(context, () => wire.destroy()); // else it would wait for the answer to its Close, which it does not read
  const text = 'x'.repeat(100000);
  await eventually(async () => { // the kernel takes the first ones
    await clients[1].timeout(5000).emitWithAck('bus:emit', { to: slow.id, event: 'much', args: [text] });
    return (await (await fetch(`${cluster.nodes[0].origin}/api/v1/sessions?sort=queue`)).json()).total === 1;
  }, 'a queue');
  let n = 0;
  const timer = setInterval(() => clients[2].emit('bus:emit', { to: 'room-1', event: 'tick', args: [n++] }), 250);
  afterwards(context, () => clearInterval(timer));
}

test('every number on the page is what the API told it, and what /metrics says', { timeout: 240000 }, async (t) => {
  const { cluster, clients } = await world(t, { queueBytes: 2 ** 26 });
  await liven(t, { cluster, clients });
  const browser = await startBrowser(t);
  let told;
  const page = await openDashboard(t, browser, `http://127.0.0.1:${cluster.port}/`, { onPage: (fresh) => { told = listen(fresh); } });
  for (const [k, node] of cluster.nodes.entries()) {
    await page.getByRole('button', { name: `All figures of node-${k}` }).click();
    await eventually(async () => {
      const metrics = await metricsOf(node);
      const shown = Object.fromEntries(await textsOf(page, 'dialog [data-value]', 'value'));
      for (const [key, name] of Object.entries(named)) {
        if (metrics[name] === undefined) throw new Error(`/metrics has no ${name}`);
        // Some go on while they are looked at.
        const number = numbersIn(shown[key])[0];
        if (['deliveries_total', 'emits_total'].includes(key) ? number > metrics[name] : number !== metrics[name]) return undefined;
      }
      return shown.pid === String(node.pid) && shown.node_port === String(node.port);
    }, `the figures of node-${k} to be those of /metrics`);
    await page.keyboard.press('Escape');
    await eventually(() => agentsAgree(node, `node-${k}`), `the agents of node-${k} to be as /metrics says`);
  }
  for (const [view, read] of Object.entries(views)) {
    await goTo(page, view);
    if (view === 'events') {
      await page.getByRole('button', { name: 'Watch' }).click();
      await eventually(() => told.events?.length > 3, 'events');
    }
    await compare(t, `the view ${view}`, () => read(page, told));
  }
  const { agents } = told;
  const seen = { agents: agents.rows.filter((a) => a.p50_us && a.timed_out_total).length > 0, queues: told.queues.rows.length > 0, ends: told.ends.rows.length };
  assert.deepEqual(seen, { agents: true, queues: true, ends: 2 }, 'there was something to see');
  await page.check();
});
