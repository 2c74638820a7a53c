import { bus, busNow, connect, silenceMs } from './bus.js';
import { element, icon, keyed, setAttribute, setHidden, setText } from './dom.js';
import { age, clock, utc } from './format.js';
import { forgetColours } from './spark.js';
import { texts } from './texts.js';
import { dialog, go } from './ui.js';
import { overview } from './views/overview.js';
import { machines } from './views/machines.js';
import { sessions } from './views/sessions.js';
import { rooms } from './views/rooms.js';
import { agents } from './views/agents.js';
import { events } from './views/events.js';
import { trouble } from './views/trouble.js';

const LOST_MS = 1000;
const views = { overview, machines, sessions, rooms, agents, events, trouble };
const names = Object.keys(views);
const $ = (id) => document.getElementById(id);
let current;
let shown; // the address of the view that is shown
let lostAt = 0;

// ---- views: each gives {root, update?(), leave?(), search?} ----

function place() {
  const [name, ...rest] = location.hash.slice(1).split('/');
  return { name: views[name] ? name : 'overview', rest: rest.map(decodeURIComponent) };
}

// On a narrow screen the views' names do not fit: the current one is in the middle.
function showPlace() {
  const link = $('nav').querySelector('[aria-current]');
  if (link) $('nav').scrollLeft = link.offsetLeft - $('nav').offsetLeft - ($('nav').clientWidth - link.offsetWidth) / 2;
}

function show() {
  if (shown === location.hash) return;
  shown = location.hash;
  const { name, rest } = place();
  current?.leave?.();
  current = views[name](rest);
  current.name = name;
  $('view').replaceChildren(current.root);
  document.title = `${texts.views[name]} · ${texts.title}`;
  for (const link of $('nav').children) {
    if (link.hash === `#${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  showPlace();
  scrollTo(0, 0);
  current.update?.();
}

// ---- the connection's state ----

function banner() {
  const silence = silenceMs();
  lostAt = bus.connected ? 0 : lostAt || performance.now();
  const lost = !bus.connected && performance.now() - lostAt > LOST_MS;
  const t = texts.connection;
  let text = '';
  if (bus.refused) text = t.refused(bus.refused);
  else if (!bus.heardAt) text = lost ? t.first : '';
  else if (lost) text = t.lost(age(silence), clock(bus.timeMs));
  else if (silence > 3000) text = t.stale(age(silence));
  setText($('banner'), text);
  setAttribute($('banner'), 'title', lost && bus.heardAt ? utc(bus.timeMs) : '');
  setHidden($('banner'), !text);
  document.body.classList.toggle('old', Boolean(text) && bus.heardAt > 0);
  const here = bus.nodes.find((node) => node.here);
  setText($('here'), here && !text ? t.by(here.name) : '');
  setText($('clock'), bus.heardAt ? clock(busNow()) : '');
  setAttribute($('clock'), 'title', bus.heardAt ? utc(Math.floor(busNow() / 1000) * 1000).replace('.000', '') : '');
}

function update() {
  banner();
  if (!document.hidden) current?.update?.();
}

// ---- theme, help, keys ----

const themes = ['auto', 'dark', 'light'];
const theme = () => localStorage.getItem('starling-theme') ?? 'auto';

function applyTheme() {
  const name = theme();
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const button = $('theme');
  button.title = texts.theme[name];
  button.setAttribute('aria-label', texts.theme[name]);
  forgetColours();
  button.textContent = { auto: '◐', dark: '☾', light: '☀' }[name];
}

function nextTheme() {
  localStorage.setItem('starling-theme', themes[(themes.indexOf(theme()) + 1) % themes.length]);
  applyTheme();
  current?.update?.();
}

function help() {
  const t = texts.keys;
  const mark = (kind, ...states) => element('li', {}, icon(kind), states.map((name) => texts.states[name]).join(', '));
  dialog(t.title,
    element('dl', { class: 'keys' }, t.rows.map(([key, what]) => [element('dt', {}, element('kbd', {}, key)), element('dd', {}, what)])),
    element('h3', {}, t.marks),
    element('ul', { class: 'marks' }, mark('good', 'ready', 'live'), mark('wait', 'starting', 'draining'), mark('bad', 'dead', 'silent', 'lost'), mark('idle', 'gone', 'stopping')),
    element('p', { class: 'faint' }, t.times), element('p', { class: 'faint' }, t.about(bus.version)));
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea, select')) return;
  show(); // the event that tells of a new address comes later than the next key of whoever types fast
  const number = Number(event.key);
  if (event.key === '/') {
    const field = current?.search ?? document.querySelector('#view input[type=search]');
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.select();
  } else if (event.key === '?') {
    help();
  } else if (event.key === 't') {
    nextTheme();
  } else if (number >= 1 && number <= names.length) {
    go(names[number - 1]);
  }
}

// ---- begin ----

keyed($('nav'), names, (name) => name, (name) => element('a', { href: `#${name}` }, texts.views[name]));
$('tools').append(
  element('span', { id: 'here', class: 'faint here' }), element('time', { id: 'clock', class: 'faint clock' }),
  element('button', { id: 'theme', class: 'ghost', onclick: nextTheme }),
  element('button', { class: 'ghost', title: texts.help, 'aria-label': texts.help, onclick: help }, '?'));
applyTheme();
addEventListener('hashchange', show);
addEventListener('keydown', onKey);
addEventListener('resize', () => { showPlace(); current?.update?.(); });
document.addEventListener('visibilitychange', update);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { forgetColours(); current?.update?.(); });
$('dialog').addEventListener('click', (event) => { if (event.target === $('dialog')) $('dialog').close(); });
bus.listeners.add(update);
bus.onConnect = () => current?.onConnect?.();
setInterval(banner, 500);
show();
connect();
