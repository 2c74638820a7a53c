// How the whole bus is, and why, in the order of weight.
import { age, count, duration, micros, percent, whole } from './format.js';
import { busNow } from './bus.js';
import { texts } from './texts.js';

const SILENT_MS = 3000;
const LOOP_US = 50000;
const CPU_PCT = 90;
const MIRROR = 10000;
const t = texts.health;

export const sessionsOf = (node) => node.sessions_polling + node.sessions_websocket;

// What a tile and the map say of a node.
export function stateOf(node, silence = 0) {
  if (node.life === 'dead') return { name: 'dead', kind: 'bad' };
  if (node.life === 'gone') return { name: 'gone', kind: 'idle' };
  if (node.silent_ms + silence > SILENT_MS) return { name: 'silent', kind: 'bad' };
  if (node.state === 'ready') return { name: 'ready', kind: 'good' };
  return { name: node.state, kind: node.state === 'stopping' ? 'idle' : 'wait' };
}

export function linkState(link) {
  if (link.silent_ms > SILENT_MS) return 'broken';
  if (link.hole) return 'hole';
  return link.delay_us === null ? 'unknown' : 'ok';
}

function lifeReasons(node, add) {
  const ago = duration((busNow() - node.time_ms) / 1000);
  const { name } = stateOf(node);
  if (name === 'dead') add('bad', t.dead(node.name, ago, count(sessionsOf(node), 'sessions')));
  else if (name === 'gone') add('idle', t.gone(node.name, ago));
  else if (name === 'silent') add('bad', t.silent(node.name, age(node.silent_ms)));
  else if (name !== 'ready') add('warn', t.state(node.name, texts.states[name]));
}

function linkReasons(node, nodes, add) {
  for (const link of node.links) {
    const other = nodes.find(({ id }) => id === link.from);
    if (!other || other.life !== 'live') continue;
    const state = linkState(link);
    if (state === 'broken') add('bad', t.deaf(node.name, other.name, age(link.silent_ms)));
    if (state === 'hole') add('warn', t.hole(node.name, other.name));
  }
}

function figureReasons(node, add) {
  if (node.store === 'down') add('warn', t.store(node.name));
  if (node.grown.mesh_lost_total) add('bad', t.lostRecords(node.name, count(node.grown.mesh_lost_total, 'records')));
  if (node.mirror_behind > MIRROR) add('warn', t.mirror(node.name, count(node.mirror_behind, 'records')));
  if (node.loop_p99_us > LOOP_US) add('warn', t.loop(node.name, micros(node.loop_p99_us)));
  if (node.cpu_pct > CPU_PCT) add('warn', t.cpu(node.name, percent(node.cpu_pct)));
}

export function health(nodes) {
  const reasons = [];
  const add = (kind, text) => reasons.push({ kind, text });
  let slow = 0;
  for (const node of nodes) {
    lifeReasons(node, add);
    if (node.life !== 'live') continue;
    linkReasons(node, nodes, add);
    figureReasons(node, add);
    slow += node.grown.closed_slow_client_total;
  }
  if (slow) add('warn', t.slow(count(slow, 'clients')));
  const weight = { bad: 0, warn: 1, idle: 2 };
  reasons.sort((a, b) => weight[a.kind] - weight[b.kind]);
  const worst = reasons[0]?.kind ?? 'good';
  const live = nodes.filter(({ life }) => life === 'live').length;
  if (worst === 'bad') return { kind: 'bad', title: t.bad, reasons };
  if (worst === 'warn') return { kind: 'warn', title: t.warn, reasons };
  if (reasons.length === 0) add('good', t.goodWhy(live > 1));
  return { kind: 'good', title: t.good(Number(whole(live))), reasons };
}
