import { get } from '../bus.js';
import uPlot from '../vendor/uplot.js';
import { element, empty, fill, keyed, setAttribute, setHidden, setIcon, setText } from '../dom.js';
import { age, byteRate, bytes, clock, duration, percent, short, utc } from '../format.js';
import { texts } from '../texts.js';
import { dialog } from '../ui.js';

const t = texts.machines;
const AGAIN_MS = 1000;
const ROUND = 2 * Math.PI * 40;
const sum = (items, key) => items.reduce((total, item) => total + item[key], 0);

function line(label) {
  const parts = { bar: element('i'), value: element('span', { class: 'num' }) };
  const root = element('div', {}, element('span', { class: 'what', title: label }, label), element('span', { class: 'meter' }, parts.bar), parts.value);
  root.show = (share, text) => {
    fill(parts.bar, share);
    parts.bar.className = share > 90 ? 'bad' : share > 75 ? 'warn' : '';
    setText(parts.value, text);
  };
  return root;
}

// ---- a machine ----

function card(first) {
  const p = {
    level: element('circle', { class: 'level', cx: 50, cy: 50, r: 40, transform: 'rotate(-90 50 50)', 'stroke-dasharray': ROUND.toFixed(1) }), value: element('text', { x: 50, y: 55 }), unit: element('text', { x: 50, y: 70, class: 'unit' }, t.cpu),
    icon: element('span'), state: element('span'), about: element('p', { class: 'faint' }), os: element('p', { class: 'faint' }), cores: element('div', { class: 'cores', role: 'img' }),
    memory: line(t.memory), swap: line(t.swap), disks: element('div', { class: 'lines' }), loads: element('dd', { class: 'num' }), network: element('dd', { class: 'num' }), io: element('dd', { class: 'num' }), up: element('dd', { class: 'num' }),
  };
  const name = first.description?.name || first.description?.hostname || first.id;
  const fact = (label, dd) => element('div', {}, element('dt', {}, label), dd);
  const root = element('article', { class: 'card', 'data-machine': first.id },
    element('button', { class: 'tile-open', 'aria-label': t.history(name), onclick: () => history(first.id, name) }),
    element('div', { class: 'card-top' }, element('svg', { viewBox: '0 0 100 100', class: 'gauge', 'aria-hidden': 'true' }, element('circle', { class: 'track', cx: 50, cy: 50, r: 40 }), p.level, p.value, p.unit),
      element('div', {}, element('div', { class: 'spread' }, element('h2', {}, name), element('span', { class: 'state' }, p.icon, p.state)), p.about, p.os)),
    p.cores, element('div', { class: 'lines' }, p.memory, p.swap), p.disks,
    element('dl', { class: 'all-figures' }, fact(t.loads, p.loads), fact(t.network, p.network), fact(t.disks, p.io), fact(t.up, p.up)));
  root.update = (machine) => show(root, p, machine);
  return root;
}

function showCores(box, cores) {
  setAttribute(box, 'aria-label', t.cores(cores.length));
  keyed(box, cores.map((core, i) => ({ i, busy: core ? core.reduce((a, b) => a + b, 0) : 0 })), ({ i }) => i, () => element('i', {}, element('b')),
    (bar, { busy }) => { bar.firstChild.style.transform = `translateY(${100 - Math.min(100, busy)}%)`; });
}

function show(root, p, { state, silent_ms, description: d, tick }) {
  root.classList.toggle('lost', state === 'lost');
  setIcon(p.icon, state === 'lost' ? 'bad' : 'good');
  setText(p.state, state === 'lost' ? t.lost(age(silent_ms)) : texts.states.live);
  setAttribute(p.state, 'title', state === 'lost' && tick ? utc(tick.time_ms) : '');
  if (d) {
    setText(p.about, `${d.cpu_model || d.arch} · ${t.cores(d.cores)}`);
    setText(p.os, `${d.os} · ${d.kernel}`);
  }
  if (!tick) return;
  const busy = tick.cpu.busy_pct;
  p.level.style.strokeDashoffset = ROUND * (1 - Math.min(100, busy) / 100);
  p.level.style.opacity = busy > 0.5 ? 1 : 0;
  setText(p.value, percent(busy));
  showCores(p.cores, tick.cores);
  const { total_bytes: total, available_bytes: free, swap_total_bytes: swap, swap_used_bytes: swapped } = tick.memory;
  p.memory.show((100 * (total - free)) / total, `${bytes(total - free)} ${t.of} ${bytes(total)}`);
  setHidden(p.swap, !swap);
  if (swap) p.swap.show((100 * swapped) / swap, `${bytes(swapped)} ${t.of} ${bytes(swap)}`);
  keyed(p.disks, tick.filesystems.slice(0, 4), ({ path }) => path, ({ path }) => line(path), (child, f) => child.show((100 * f.used_bytes) / (f.total_bytes || 1), `${bytes(f.used_bytes)} ${t.of} ${bytes(f.total_bytes)}`));
  setText(p.loads, [tick.load.one, tick.load.five, tick.load.fifteen].map((load) => load.toFixed(2)).join('  '));
  setText(p.network, `${t.rx} ${byteRate(sum(tick.interfaces, 'rx_bytes_s'))}, ${t.tx} ${byteRate(sum(tick.interfaces, 'tx_bytes_s'))}`);
  setText(p.io, `${t.read} ${byteRate(sum(tick.disks, 'read_bytes_s'))}, ${t.write} ${byteRate(sum(tick.disks, 'write_bytes_s'))}`);
  setText(p.up, duration(tick.uptime_s));
}

// ---- history ----

// name, what one of its units is, and its colour
const charts = [
  [t.cpu, [['cpu_busy', 0.01, '--line'], ['cpu_iowait', 0.01, '--rose']], percent, 100], [t.memory, [['memory_used', 1024, '--violet']], bytes],
  [t.network, [['net_rx', 1, '--teal'], ['net_tx', 1, '--amber']], byteRate], [t.disks, [['disk_read', 1, '--teal'], ['disk_write', 1, '--amber']], byteRate],
  [t.load, [['load_one', 0.01, '--line']], short],
];

// Of a machine that is young, what there is, but at least a tenth of the time.
function young(told) {
  const known = told.load_one.findIndex((value) => value !== null);
  return Math.max(0, Math.min(known, Math.floor(told.load_one.length * 0.9)));
}

// With seconds where marks are closer than a minute.
const times = (u, marks) => marks.map((s) => clock(s * 1000).slice(0, marks[1] - marks[0] < 60 ? 8 : 5));

function plot(box, [title, lines, format, most], told) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const from = young(told);
  const at = told.load_one.slice(from).map((_, i) => (told.from_ms + (from + i) * told.step_ms) / 1000);
  const axis = { stroke: colour('--faint'), grid: { stroke: colour('--edge'), width: 1 }, ticks: { show: false }, font: '12px system-ui' };
  const label = (name) => t.lines[name];
  const incrs = [bytes, byteRate].includes(format) ? Array.from({ length: 60 }, (_, i) => 2 ** i) : undefined; // 512 MiB, not 477
  return new uPlot({
    title, width: box.clientWidth, height: 190, padding: [null, 30, null, null], cursor: { sync: { key: 'history' }, drag: { x: true, y: false } },
    scales: { y: { range: (u, low, high) => [0, most ?? (high > 0 ? high * 1.1 : 1)] } },
    axes: [{ ...axis, size: 30, values: times }, { ...axis, size: 84, ...(incrs && { incrs }), values: (u, values) => values.map(format) }],
    series: [{ label: t.time, value: (u, s) => (s === null ? '–' : `${clock(s * 1000)}, ${utc(s * 1000).slice(11, 19)} UTC`) },
      ...lines.map(([name, , line2]) => ({ label: label(name), stroke: colour(line2), width: 1.6, points: { show: false }, value: (u, v) => (v === null ? '–' : format(v)) }))],
  }, [at, ...lines.map(([name, unit]) => told[name].slice(from).map((value) => (value === null ? null : value * unit)))], box);
}

function history(id, name) {
  let plots = [];
  const body = element('div');
  const buttons = Object.entries(t.levels).map(([level, label]) => element('button', { onclick: () => load(level), 'data-level': level }, label));
  const box = dialog(t.history(name), element('div', { class: 'spread' }, element('div', { class: 'row' }, buttons), element('span', { class: 'faint' }, t.zoom)), body);
  const load = async (level) => {
    for (const button of buttons) button.setAttribute('aria-pressed', button.dataset.level === level);
    try {
      const told = await get(`machines?id=${id}&history=${level}`);
      plots.forEach((each) => each.destroy());
      body.replaceChildren(...charts.map(() => element('div', { class: 'chart' })));
      plots = charts.map((chart, i) => plot(body.children[i], chart, told));
    } catch (error) {
      body.replaceChildren(empty(t.noHistory, texts.error(error.message)));
    }
  };
  box.addEventListener('close', () => plots.forEach((each) => each.destroy()), { once: true });
  load('seconds');
}

export function machines() {
  const grid = element('div', { class: 'cards' });
  const none = empty(t.none, t.how, `starling-agent --nodes tcp://${location.hostname}:${Number(location.port || 80) + 100}`);
  const root = element('div', {}, grid, none);
  setHidden(none, true);
  const load = async () => {
    try {
      const { machines: all } = await get('machines');
      keyed(grid, all, ({ id }) => id, card, (child, machine) => child.update(machine));
      setHidden(none, all.length > 0);
    } catch {
      setHidden(none, grid.children.length > 0);
    }
  };
  const timer = setInterval(() => { if (!document.hidden) load(); }, AGAIN_MS);
  load();
  return { root, leave: () => clearInterval(timer) };
}
