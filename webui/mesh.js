// The map of the mesh: nodes on a circle, and how each hears each other one.
import { element, keyed, setAttribute, setHidden, setText, setIcon } from './dom.js';
import { age, count, micros, whole } from './format.js';
import { linkState, stateOf } from './health.js';
import { texts } from './texts.js';

const t = texts.mesh;
const SIZE = 420;
const MAP_MAX = 24;
const kinds = { ok: 'good', broken: 'bad', hole: 'warn', unknown: 'wait' };

function places(nodes) {
  const radius = SIZE / 2 - 62;
  return new Map(nodes.map((node, i) => {
    const angle = (i / nodes.length) * 2 * Math.PI - Math.PI / 2;
    return [node.id, { x: SIZE / 2 + radius * Math.cos(angle), y: SIZE / 2 + radius * Math.sin(angle), node }];
  }));
}

// Both ways between two nodes are one line, whose worse way it shows.
function pairs(nodes) {
  const out = new Map();
  for (const to of nodes) {
    for (const link of to.links) {
      const from = nodes.find(({ id }) => id === link.from);
      if (!from) continue;
      const key = [from.id, to.id].sort().join(' ');
      const pair = out.get(key) ?? { key, a: from, b: to, links: [] };
      pair.links.push(link);
      out.set(key, pair);
    }
  }
  const rank = { broken: 3, hole: 2, unknown: 1, ok: 0 };
  return [...out.values()].map((pair) => {
    const states = pair.links.map(linkState);
    const delays = pair.links.map(({ delay_us }) => delay_us).filter((us) => us !== null);
    return { ...pair, state: states.sort((x, y) => rank[y] - rank[x])[0], delay: delays.length ? Math.max(...delays) : null };
  });
}

function drawLine(line, { a, b, state, delay }, at) {
  const from = at.get(a.id);
  const to = at.get(b.id);
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  // Bent a little away from the middle of the map, so that labels of crossing lines do not meet.
  const bend = { x: middle.x + (middle.y - SIZE / 2) * 0.12, y: middle.y - (middle.x - SIZE / 2) * 0.12 };
  const [path, label] = line.children;
  setAttribute(path, 'd', `M${from.x.toFixed(1)} ${from.y.toFixed(1)}Q${bend.x.toFixed(1)} ${bend.y.toFixed(1)} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`);
  setAttribute(line, 'class', `way ${state}`);
  setAttribute(label, 'x', ((from.x + to.x) / 4 + bend.x / 2).toFixed(1));
  setAttribute(label, 'y', ((from.y + to.y) / 4 + bend.y / 2 + 4).toFixed(1));
  setText(label, state === 'broken' ? `✕ ${t.broken}` : state === 'hole' ? t.hole : micros(delay));
}

function drawNode(group, { x, y, node }) {
  const [, circle, label] = group.children;
  const { kind, name } = stateOf(node);
  setAttribute(group, 'class', `knot ${kind}`);
  setAttribute(group, 'transform', `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  setAttribute(circle, 'r', 9);
  const below = y >= SIZE / 2 - 1;
  setAttribute(label, 'y', below ? 30 : -20);
  setText(label, name === 'ready' ? node.name : `${node.name}: ${texts.states[name]}`);
}

function row(item) {
  const cells = ['link', 'state', 'delay', 'silent', 'behind'].map((name) => element('td', { class: name === 'link' || name === 'state' ? '' : 'num', 'data-cell': name, 'data-label': t[name] }));
  const root = element('tr', { 'data-link': item.key }, cells);
  const state = [element('span'), element('span')];
  cells[1].append(element('span', {}, ...state));
  root.update = ({ to, from, link }) => {
    const name = linkState(link);
    setText(cells[0], `${to.name} ${t.hears} ${from.name}`);
    setIcon(state[0], kinds[name]);
    setText(state[1], ` ${t[name]}`);
    setText(cells[2], micros(link.delay_us));
    setText(cells[3], age(link.silent_ms));
    setText(cells[4], whole(link.behind));
  };
  return root;
}

export function mesh() {
  const lines = element('g');
  const knots = element('g');
  const map = element('svg', { viewBox: `0 0 ${SIZE} ${SIZE}`, class: 'map', role: 'img' }, lines, knots);
  const body = element('tbody');
  const table = element('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': t.table }, element('table', { class: 'fold' },
    element('thead', {}, element('tr', {}, [t.link, t.state].map((name) => element('th', {}, name)), [t.delay, t.silent, t.behind].map((name) => element('th', { class: 'num' }, name)))), body));
  const alone = element('p', { class: 'faint' }, t.alone, ' ', element('code', {}, 'starling up -n 2'));
  const content = element('div', { class: 'mesh' }, map, table);
  const root = element('section', { class: 'panel' }, element('h2', {}, t.title), element('p', { class: 'faint' }, t.note), alone, content);
  const update = (nodes) => {
    setHidden(alone, nodes.length > 1);
    setHidden(content, nodes.length < 2);
    if (nodes.length < 2) return;
    const at = places(nodes);
    const big = nodes.length > MAP_MAX;
    setAttribute(map, 'class', nodes.length > 8 ? 'map many' : 'map');
    setAttribute(map, 'aria-label', t.map(count(nodes.length, 'nodes')));
    setHidden(map, big);
    const heights = [...at.values()].map(({ y }) => y);
    const top = Math.min(...heights) - 44;
    setAttribute(map, 'viewBox', `0 ${top.toFixed(0)} ${SIZE} ${(Math.max(...heights) + 44 - top).toFixed(0)}`);
    if (!big) {
      keyed(lines, pairs(nodes), ({ key }) => key, () => element('g', {}, element('path'), element('text')), (line, pair) => drawLine(line, pair, at));
      keyed(knots, [...at.values()], ({ node }) => node.id, () => element('g', {}, element('title'), element('circle'), element('text')), drawNode);
    }
    const all = nodes.flatMap((to) => to.links.map((link) => ({ to, link, from: nodes.find(({ id }) => id === link.from), key: `${to.id} ${link.from}` })))
      .filter(({ from }) => from);
    const rank = { broken: 0, hole: 1, unknown: 2, ok: 3 };
    all.sort((a, b) => rank[linkState(a.link)] - rank[linkState(b.link)]);
    keyed(body, all.slice(0, 60), ({ key }) => key, row, (child, item) => child.update(item));
  };
  return { root, update };
}
