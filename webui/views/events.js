import { api, bus, post, watchEvents } from '../bus.js';
import { element, empty, setHidden, setText } from '../dom.js';
import { bytes, clockMs, utc } from '../format.js';
import { table } from '../table.js';
import { texts } from '../texts.js';
import { toast } from '../ui.js';

const KEPT = 100;
const t = texts.events;

const columns = [
  { label: t.time, cell: (e) => element('time', { title: utc(e.time_ms), datetime: new Date(e.time_ms).toISOString() }, clockMs(e.time_ms)) },
  { label: t.ns, cell: (e) => e.ns },
  { label: t.name, cell: (e) => element('strong', {}, e.event) },
  { label: t.to, cell: (e) => (e.to.length ? element('span', { class: 'chips' }, e.to.map((room) => element('span', { class: 'chip', title: room }, room)), e.to_n > e.to.length && `+${e.to_n - e.to.length}`) : t.everybody) },
  { label: t.args, cell: (e) => element('code', {}, `[${e.args}${e.args.length < e.bytes && e.bytes > 400 ? ' …' : ''}]`) },
  { label: t.size, num: true, cell: (e) => bytes(e.bytes) },
  { label: t.origin, cell: (e) => element('span', { class: 'faint' }, e.id) },
];

const input = (label, attributes = {}) => {
  const field = element('input', { autocomplete: 'off', spellcheck: 'false', ...attributes });
  return { field, root: element('label', { class: attributes.class ?? '' }, label, field) };
};

function sender() {
  const ns = input(t.sendNs, { value: '/' });
  const to = input(t.sendTo, { class: 'grow' });
  const event = input(t.sendEvent, { value: 'news', required: true });
  const args = input(t.sendArgs, { value: '["hello"]', class: 'grow' });
  const isVolatile = element('input', { type: 'checkbox' });
  const send = async (submitted) => {
    submitted.preventDefault();
    let list;
    try {
      list = JSON.parse(args.field.value || '[]');
    } catch { /* told below */ }
    if (!Array.isArray(list)) {
      toast(t.notArray, 'bad');
      return;
    }
    const rooms = to.field.value.split(',').map((room) => room.trim()).filter(Boolean);
    try {
      const answer = await post('emit', { ns: ns.field.value || '/', event: event.field.value, args: list, volatile: isVolatile.checked, ...(rooms.length && { to: rooms }) });
      toast(answer.ok ? t.sent(answer.id) : answer.error, answer.ok ? 'good' : 'bad');
    } catch (error) {
      toast(texts.error(error.message), 'bad');
    }
  };
  return element('form', { class: 'panel stack', id: 'send', onsubmit: send }, element('h2', {}, t.send),
    element('div', { class: 'filters' }, ns.root, event.root, to.root, args.root,
      element('label', { class: 'check' }, isVolatile, t.volatile), element('button', { class: 'primary' }, t.sendButton)));
}

export function events() {
  const filters = { ns: input(t.ns), room: input(t.room), event: input(t.event, { type: 'search', class: 'grow' }) };
  const rows = table(columns, undefined, t.title);
  const note = element('p', { class: 'faint', role: 'status' });
  const nothing = element('div');
  const toggle = element('button', { class: 'primary', onclick: () => (watching ? stop() : start()) }, t.start);
  const clear = element('button', { onclick: () => { rows.show([]); any = false; skipped = 0; show(); } }, t.clear);
  let watching = false;
  let any = false; // is shown
  let skipped = 0;
  const show = () => {
    setHidden(rows.root, !any);
    setText(note, skipped ? t.skipped(skipped) : '');
    setHidden(note, !skipped);
    if (any) nothing.replaceChildren();
    else nothing.replaceChildren(empty(watching ? t.none : t.idle, t.how, `curl ${api('emit')} \\\n  -d '{"event":"news","args":["hello"]}'`));
  };
  const take = (told) => {
    rows.add(told.events.reverse(), KEPT);
    any ||= told.events.length > 0;
    skipped += told.skipped;
    show();
  };
  const filter = () => Object.fromEntries(Object.entries(filters).map(([name, { field }]) => [name, field.value.trim()]));
  const begin = async () => {
    try {
      const answer = await watchEvents(filter());
      if (!answer.ok) toast(answer.error, 'bad');
    } catch (error) {
      toast(texts.error(error.message), 'bad');
    }
  };
  const start = () => {
    watching = true;
    toggle.textContent = t.pause;
    bus.tails.add(take);
    show();
    return begin();
  };
  const stop = () => {
    watching = false;
    toggle.textContent = any ? t.resume : t.start;
    bus.tails.delete(take);
    watchEvents(null)?.catch(() => {});
    show();
  };
  for (const { field } of Object.values(filters)) field.addEventListener('change', () => { if (watching) begin(); });
  const root = element('div', { class: 'stack' }, sender(),
    element('section', { class: 'panel stack' }, element('div', { class: 'spread' }, element('h2', {}, t.title), element('div', { class: 'row' }, toggle, clear)),
      element('div', { class: 'filters' }, filters.ns.root, filters.room.root, filters.event.root), note, rows.root, nothing));
  show();
  return { root, search: filters.event.field, leave: () => { if (watching) stop(); }, onConnect: () => { if (watching) begin(); } };
}
