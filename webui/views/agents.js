import { get } from '../bus.js';
import { code, element, empty, icon, setHidden, setText } from '../dom.js';
import { age, bytes, count, duration, micros, rate, whole } from '../format.js';
import { list, table } from '../table.js';
import { texts } from '../texts.js';
import { dialog } from '../ui.js';

const t = texts.agents;
const SILENT_MS = 1000;

const chips = (names, href) => element('span', { class: 'chips' }, names.map((name) =>
  element(href ? 'a' : 'span', { class: 'chip', title: name, href: href && `#agents/${encodeURIComponent(name)}` }, name)));

// What an agent can be asked for: its groups, and its addresses.
const asked = (a) => (a.groups.length + a.addresses.length ? element('span', { class: 'chips' }, chips(a.groups, true), chips(a.addresses)) : '–');

const columns = [
  { label: t.name, cell: (a) => element('button', { class: 'link', onclick: () => detail(a), title: a.instance }, a.name) },
  { label: t.groups, cell: asked },
  { label: t.node, cell: (a) => a.node },
  { label: t.handlers, num: true, cell: (a) => whole(a.handlers) },
  { label: t.calls, num: true, cell: (a) => rate(a.calls_per_s) },
  { label: t.p50, num: true, cell: (a) => micros(a.p50_us) },
  { label: t.p99, num: true, cell: (a) => micros(a.p99_us) },
  { label: t.timeouts, num: true, cell: (a) => element('span', { class: a.timed_out_total ? 'alarm' : '' }, a.timed_out_total > 0 && icon('warn'), whole(a.timed_out_total)) },
  { label: t.waiting, num: true, cell: (a) => whole(a.waiting) },
  { label: t.credit, num: true, cell: (a) => element('span', { class: a.credit_bytes ? '' : 'alarm' }, !a.credit_bytes && icon('warn'), bytes(a.credit_bytes)) },
  { label: t.connected, num: true, cell: (a) => duration(a.connected_ms / 1000) },
];

// ---- one agent, looked at each second while it is open ----

const figures = {
  instance: (a) => a.instance, about: (a) => a.about || '–', node: (a) => a.node, connected: (a) => duration(a.connected_ms / 1000), silent: (a) => age(a.silent_ms),
  calls: (a) => rate(a.calls_per_s), total: (a) => whole(a.calls_total), answered: (a) => whole(a.answered_total), failed: (a) => whole(a.failed_total), timeouts: (a) => whole(a.timed_out_total),
  p50: (a) => micros(a.p50_us), p99: (a) => micros(a.p99_us), unanswered: (a) => whole(a.unanswered), waiting: (a) => whole(a.waiting), credit: (a) => bytes(a.credit_bytes), behind: (a) => whole(a.behind),
};
const names = Object.keys(figures);

const listed = (items, none) => (items.length ? element('span', { class: 'chips' }, items.map((item) => element('span', { class: 'chip', title: item }, item))) : none);
const regColumns = [
  { label: t.kind, cell: (r) => t.kinds[r.kind] },
  { label: t.regName, cell: (r) => r.name || '–' },
  { label: t.patterns, cell: (r) => (r.kind === 'subscribe' ? listed(r.events, t.every) : listed([...r.events, ...r.life.map((word) => `(${word})`)], '–')) },
  { label: t.namespaces, cell: (r) => (['handle', 'subscribe'].includes(r.kind) ? listed(r.namespaces, '/') : '–') },
  { label: t.rooms, cell: (r) => listed(r.rooms, '–') },
  { label: t.unanswered, num: true, cell: (r) => (r.limit ? `${whole(r.unanswered)} ${t.of} ${whole(r.limit)}` : whole(r.unanswered)) },
];

function detail(first) {
  const cells = Object.fromEntries(names.map((name) => [name, element('dd', { class: 'num', 'data-agent': name })]));
  const note = element('p', { role: 'status' });
  const regs = table(regColumns, undefined, t.registrations);
  const noRegs = element('p', { class: 'faint' }, t.noRegistrations);
  let shown = '';
  const box = dialog(`${t.detail} ${first.name}`, note, element('dl', { class: 'all-figures' }, names.map((name) => element('div', {}, element('dt', {}, t[name]), cells[name]))),
    element('h3', {}, t.registrations), regs.root, noRegs);
  const show = (agent) => {
    for (const name of names) setText(cells[name], figures[name](agent));
    const text = JSON.stringify(agent.registrations ?? []);
    setHidden(note, agent.silent_ms <= SILENT_MS);
    setText(note, t.silentNote);
    if (!agent.registrations || text === shown) return;
    shown = text;
    regs.show(agent.registrations);
    setHidden(regs.root, agent.registrations.length === 0);
    setHidden(noRegs, agent.registrations.length > 0);
  };
  const update = async () => {
    try {
      const { rows } = await get(`agents?instance=${encodeURIComponent(first.instance)}`);
      if (rows.length) {
        show(rows[0]);
      } else {
        setHidden(note, false);
        setText(note, t.gone);
      }
    } catch (error) {
      setHidden(note, false);
      setText(note, texts.error(error.message));
    }
  };
  const timer = setInterval(update, 1000);
  box.addEventListener('close', () => clearInterval(timer), { once: true });
  show(first);
  update();
}

// ---- the view ----

export function agents([q]) {
  const sort = element('select', { 'aria-label': t.sort, onchange: () => view.refresh() },
    element('option', { value: 'name' }, t.byName), element('option', { value: 'calls' }, t.byCalls));
  const nobody = () => element('div', {}, empty(t.nobody, t.how, t.command(location.hostname, Number(location.port || 80) + 100)),
    element('p', { class: 'faint centre' }, t.more, ' ', code('proto/agent.md')));
  const view = list({
    search: t.search, columns, onOpen: detail, none: t.none, nobody, label: texts.views.agents, initial: q, controls: [element('div', {}, sort)],
    countOf: (n) => count(n, 'agents'),
    load: ({ q: text, after }) => get(`agents?limit=50&sort=${sort.value}&q=${encodeURIComponent(text)}&after=${encodeURIComponent(after)}`),
  });
  return view;
}
