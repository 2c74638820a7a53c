import { bus, get } from '../bus.js';
import { element, empty, fill, keyed, setAttribute, setText } from '../dom.js';
import { bytes, clock, count, duration, utc, whole } from '../format.js';
import { list, table } from '../table.js';
import { texts } from '../texts.js';
import { columns as socketColumns, detail } from './sessions.js';

const t = texts.trouble;
const AGAIN_MS = 2000;
const closed = ['closed_slow_client_total', 'closed_ping_timeout_total', 'closed_transport_error_total', 'closed_parse_error_total', 'closed_forced_total', 'closed_shutdown_total', 'closed_taken_total', 'closed_transport_close_total'];
const drops = ['volatile_dropped_total', 'emits_refused_total', 'congestions_total', 'connections_refused_total', 'connections_timed_out_total', 'decode_errors_total', 'events_unhandled_total', 'agent_calls_failed_total', 'mesh_holes_total', 'mesh_lost_total', 'mirror_lost_total'];
const recoveries = ['recoveries_total', 'recoveries_failed_total', 'recovered_events_total'];
const names = { ...t.names, recoveries_total: t.recovered, recoveries_failed_total: t.failed, recovered_events_total: t.events };

const grown = (key) => bus.nodes.filter(({ life }) => life === 'live').reduce((sum, node) => sum + node.grown[key], 0);

function ranking(title, keys, sorted) {
  const items = element('ul', { class: 'ranks' });
  const root = element('section', { class: 'panel' }, element('h2', {}, title), element('p', { class: 'faint' }, t.last), items);
  const update = () => {
    const rows = keys.map((key) => ({ key, n: grown(key) }));
    if (sorted) rows.sort((a, b) => b.n - a.n);
    const most = Math.max(1, ...rows.map(({ n }) => n));
    keyed(items, rows, ({ key }) => key, ({ key }) => element('li', {}, element('span', {}, names[key]), element('span', { class: 'num', 'data-grown': key }), element('span', { class: 'meter' }, element('i'))),
      (item, { n }) => {
        setAttribute(item, 'class', n ? '' : 'zero');
        setText(item.children[1], whole(n));
        fill(item.children[2].firstChild, (100 * n) / most);
      });
  };
  return { root, update };
}

const endColumns = [
  { label: t.when, cell: (e) => element('time', { title: utc(e.time_ms) }, clock(e.time_ms)) },
  { label: t.reason, cell: (e) => e.reason },
  { label: texts.sessions.node, cell: (e) => e.node },
  { label: texts.sessions.address, cell: (e) => e.address },
  { label: texts.sessions.transport, cell: (e) => (e.transport === 'websocket' ? 'WebSocket' : e.transport) },
  { label: t.lived, num: true, cell: (e) => duration(e.connected_ms / 1000) },
  { label: texts.sessions.queue, num: true, cell: (e) => bytes(e.queued_bytes) },
];

export function trouble() {
  const rankings = [ranking(t.reasons, closed, true), ranking(t.drops, drops, true), ranking(t.recoveries, recoveries, false)];
  const queues = table(socketColumns, detail, t.slow);
  const noQueues = element('div');
  const loadQueues = async () => {
    try {
      const { rows } = await get('sessions?sort=queue&limit=10');
      queues.show(rows);
      queues.root.hidden = rows.length === 0;
      noQueues.replaceChildren(...(rows.length ? [] : [empty(t.noSlow)]));
    } catch { /* the banner tells */ }
  };
  const ends = list({
    search: t.search, columns: endColumns, none: t.noEnds, nobody: () => empty(t.noEnds), label: t.ends, countOf: (n) => count(n, 'sessions'),
    load: ({ q, after }) => get(`ends?limit=50&q=${encodeURIComponent(q)}&after=${encodeURIComponent(after)}`),
  });
  ends.root.prepend(element('h2', {}, t.ends));
  const timer = setInterval(() => { if (!document.hidden) loadQueues(); }, AGAIN_MS);
  loadQueues();
  const root = element('div', { class: 'stack' }, element('div', { class: 'columns' }, rankings.map((r) => r.root)),
    element('section', { class: 'panel' }, element('h2', {}, t.slow), queues.root, noQueues), ends.root);
  return { root, search: ends.search, update: () => rankings.forEach((r) => r.update()), leave: () => { clearInterval(timer); ends.leave(); } };
}
