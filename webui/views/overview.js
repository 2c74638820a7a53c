import { bus, busNow, silenceMs } from '../bus.js';
import { element, empty, fill, keyed, setAttribute, setHidden, setIcon, setText } from '../dom.js';
import { age, bytes, byteRate, count, duration, micros, percent, rate, short, whole } from '../format.js';
import { health, linkState, sessionsOf, stateOf } from '../health.js';
import { mesh } from '../mesh.js';
import { detail } from './node.js';
import { draw, spark } from '../spark.js';
import { texts } from '../texts.js';

const t = texts.tile;
const keyOf = (node) => `${node.host}/${node.name}`;
const sum = (nodes, read) => nodes.reduce((total, node) => total + read(node), 0);

// ---- totals ----

const totals = [
  { name: 'sessions', series: ['sessions_polling', 'sessions_websocket'], colour: '--teal', format: short, value: (n) => short(sum(n, sessionsOf)),
    note: (n) => texts.totals.sessionsNote(short(sum(n, (x) => x.sessions_websocket)), short(sum(n, (x) => x.sessions_polling))) },
  { name: 'emits', series: ['emits_per_s'], colour: '--line', format: rate, value: (n) => rate(sum(n, (x) => x.emits_per_s)),
    note: (n) => texts.totals.emitsNote(rate(sum(n, (x) => x.packets_in_per_s))) },
  { name: 'deliveries', series: ['deliveries_per_s'], colour: '--violet', format: rate, value: (n) => rate(sum(n, (x) => x.deliveries_per_s)),
    note: (n) => texts.totals.deliveriesNote(count(sum(n, (x) => x.sockets), 'sockets')) },
  { name: 'traffic', series: ['bytes_out_per_s'], colour: '--amber', format: byteRate, value: (n) => byteRate(sum(n, (x) => x.bytes_out_per_s)),
    note: (n) => texts.totals.trafficNote(byteRate(sum(n, (x) => x.bytes_in_per_s))) },
  { name: 'cpu', series: ['cpu_pct'], colour: '--rose', format: percent, value: (n) => percent(sum(n, (x) => x.cpu_pct)),
    note: (n) => texts.totals.cpuNote(bytes(sum(n, (x) => x.rss_bytes))) },
];

function totalCard(total) {
  const parts = { value: element('strong', { 'data-total': total.name }), note: element('span', { class: 'faint' }), spark: spark(texts.totals[total.name], total.colour) };
  const root = element('section', { class: 'total', 'aria-label': texts.totals[total.name] },
    element('h2', {}, texts.totals[total.name]), parts.value, parts.note, parts.spark);
  return { root, update(live) {
    setText(parts.value, total.value(live));
    setText(parts.note, total.note(live));
    draw(parts.spark, bus.trails.sum(total.series), total.format);
  } };
}

// ---- a node ----

const figures = [
  ['sessions', (n) => whole(sessionsOf(n))], ['in', (n) => rate(n.emits_per_s)], ['out', (n) => rate(n.deliveries_per_s)],
  ['memory', (n) => bytes(n.rss_bytes)], ['lag', (n) => micros(n.loop_p99_us)], ['links', (n) => t.heard(n.links.filter((l) => linkState(l) !== 'broken').length, n.links.length)],
  ['holes', (n) => whole(n.mesh_holes_total)], ['mirror', (n) => (n.store === 'none' ? t.noStore : n.store === 'down' ? t.storeDown : t.behind(short(n.mirror_behind)))], ['restarts', (n) => whole(n.restarts)],
];

function tile(first) {
  const p = {
    icon: element('span'), state: element('span', { class: 'state-name' }), where: element('span', { class: 'faint' }),
    cpu: element('span', { class: 'num' }), bar: element('i'), spark: spark(t.in), up: element('span', { class: 'faint' }),
    value: Object.fromEntries(figures.map(([name]) => [name, element('dd', { class: 'num', 'data-figure': name })])),
  };
  const root = element('article', { class: 'tile', 'data-node': first.name },
    element('button', { class: 'tile-open', 'aria-label': t.more(first.name), onclick: () => detail(keyOf(first)) }),
    element('header', {}, element('h3', {}, first.name), element('span', { class: 'state' }, p.icon, p.state)),
    element('p', { class: 'tile-where' }, p.where, p.up),
    element('div', { class: 'tile-cpu' }, element('span', { class: 'faint' }, t.cpu), element('span', { class: 'meter' }, p.bar), p.cpu),
    p.spark,
    element('dl', { class: 'figures' }, figures.map(([name]) => element('div', {}, element('dt', {}, t[name]), p.value[name]))));
  root.update = (node) => {
    const { name, kind } = stateOf(node);
    setAttribute(root, 'class', `tile ${kind}`);
    setAttribute(root, 'data-state', name);
    setIcon(p.icon, kind);
    setText(p.state, texts.states[name]);
    setText(p.where, `${node.core === null ? t.noCore : t.core(node.core)}${node.here ? ` · ${t.here}` : ''}`);
    const ago = duration((busNow() - node.time_ms) / 1000);
    setText(p.up, node.life === 'dead' ? t.died(ago) : node.life === 'gone' ? t.went(ago) : `${t.uptime.toLowerCase()} ${duration(node.uptime_s)}`);
    setText(p.cpu, percent(node.cpu_pct));
    fill(p.bar, node.cpu_pct);
    p.bar.className = node.cpu_pct > 90 ? 'bad' : node.cpu_pct > 70 ? 'warn' : '';
    for (const [figure, read] of figures) setText(p.value[figure], read(node));
    draw(p.spark, bus.trails.sum(['emits_per_s'], keyOf(node)), rate);
  };
  return root;
}

function hostGroup(first) {
  const note = element('span', { class: 'faint' });
  const grid = element('div', { class: 'tiles' });
  const root = element('section', { class: 'host' }, element('h2', {}, first.host, note), grid);
  root.update = ({ nodes }) => {
    const live = nodes.filter(({ life }) => life === 'live');
    setText(note, texts.host(count(live.length, 'nodes'), percent(sum(live, (n) => n.cpu_pct)), bytes(sum(live, (n) => n.rss_bytes))));
    keyed(grid, nodes, ({ id }) => id, tile, (child, node) => child.update(node));
  };
  return root;
}

function byHost(nodes) {
  const hosts = new Map();
  for (const node of nodes) {
    if (!hosts.has(node.host)) hosts.set(node.host, { host: node.host, nodes: [] });
    hosts.get(node.host).nodes.push(node);
  }
  return [...hosts.values()];
}

// ---- the view ----

export function overview() {
  const p = { icon: element('span', { class: 'health-icon' }), title: element('h1', {}), reasons: element('ul', { class: 'reasons' }), hosts: element('div', { class: 'hosts' }) };
  const bar = element('section', { class: 'health', id: 'health' }, p.icon, element('div', {}, p.title, p.reasons));
  const cards = totals.map(totalCard);
  const net = mesh();
  const waiting = empty(texts.connection.first);
  const body = element('div', { class: 'stack' }, bar, element('div', { class: 'totals' }, cards.map(({ root }) => root)), p.hosts, net.root);
  const root = element('div', { class: 'stack' }, waiting, body);
  const update = () => {
    const { nodes } = bus;
    setHidden(waiting, nodes.length > 0);
    setHidden(body, nodes.length === 0);
    if (nodes.length === 0) return;
    const live = nodes.filter(({ life }) => life === 'live');
    const { kind, title, reasons } = health(nodes);
    setAttribute(bar, 'class', `health ${kind}`);
    setIcon(p.icon, kind);
    setText(p.title, title);
    keyed(p.reasons, reasons.slice(0, 8).map((reason, i) => ({ ...reason, key: i })), ({ key }) => key, () => element('li', {}, element('span'), element('span')),
      (item, reason) => {
        setIcon(item.firstChild, reason.kind);
        setText(item.lastChild, reason.text);
      });
    for (const card of cards) card.update(live);
    keyed(p.hosts, byHost(nodes), ({ host }) => host, hostGroup, (child, host) => child.update(host));
    net.update(live);
  };
  return { root, update };
}
