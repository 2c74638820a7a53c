// Everything that a node tells, with charts of its last 10 minutes.
import { bus } from '../bus.js';
import { element, setText } from '../dom.js';
import { byteRate, bytes, clock, duration, micros, percent, rate, utc, whole } from '../format.js';
import { draw, spark } from '../spark.js';
import { texts } from '../texts.js';
import { dialog } from '../ui.js';

const charts = [
  ['sessions', ['sessions_polling', 'sessions_websocket'], whole, '--teal'], ['in', ['emits_per_s'], rate, '--line'], ['out', ['deliveries_per_s'], rate, '--violet'],
  ['cpu', ['cpu_pct'], percent, '--rose'], ['memory', ['rss_bytes'], bytes, '--amber'], ['lag', ['loop_p99_us'], micros, '--teal'],
];

function show(key, value) {
  if (value === null) return '–';
  if (key === 'time_ms') return clock(value);
  if (typeof value !== 'number') return String(value);
  if (key.endsWith('_pct')) return percent(value);
  if (key.startsWith('bytes_') && key.endsWith('_per_s')) return byteRate(value);
  if (key.endsWith('_per_s')) return rate(value);
  if (key.endsWith('_bytes')) return bytes(value);
  if (key.endsWith('_us')) return micros(value);
  if (key.endsWith('_s')) return duration(value);
  if (key.endsWith('_ms')) return `${whole(value)} ms`;
  return ['pid', 'port', 'node_port', 'core'].includes(key) ? String(value) : whole(value);
}

const label = (key) => key.replace(/_(total|bytes|pct|us|ms|s)$/, '').replace(/_per$/, '').replaceAll('_', ' ');

export function detail(key) {
  const find = () => bus.nodes.find(({ host, name }) => `${host}/${name}` === key);
  const first = find();
  if (!first) return;
  const sparks = charts.map(([name, series, format, colour]) => {
    const value = element('strong', { class: 'num' });
    const canvas = spark(texts.tile[name], colour);
    return { canvas, value, series, format, root: element('section', { class: 'total small' }, element('h3', {}, texts.tile[name]), value, canvas) };
  });
  const keys = Object.keys(first).filter((name) => !['links', 'grown', 'trail', 'here', 'name', 'host'].includes(name));
  const cells = Object.fromEntries(keys.map((name) => [name, element('dd', { class: 'num', 'data-value': name, title: name })]));
  const box = dialog(first.name, element('h3', {}, texts.detail.of), element('div', { class: 'totals' }, sparks.map(({ root }) => root)),
    element('h3', {}, texts.detail.all), element('dl', { class: 'all-figures' }, keys.map((name) => element('div', {}, element('dt', {}, label(name)), cells[name]))));
  const update = () => {
    const node = find();
    if (!node) return;
    for (const { canvas, value, series, format } of sparks) {
      const sums = bus.trails.sum(series, key);
      draw(canvas, sums, format);
      setText(value, format(series.reduce((sum, name) => sum + node[name], 0)));
    }
    for (const name of keys) setText(cells[name], show(name, node[name]));
    cells.time_ms.title = utc(node.time_ms);
  };
  bus.listeners.add(update);
  box.addEventListener('close', () => bus.listeners.delete(update), { once: true });
  update();
}
