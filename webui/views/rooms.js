import { get } from '../bus.js';
import { element, empty } from '../dom.js';
import { count, whole } from '../format.js';
import { list } from '../table.js';
import { texts } from '../texts.js';
import { columns as socketColumns, detail } from './sessions.js';

const t = texts.rooms;
const hrefOf = (room) => `#rooms/${encodeURIComponent(room.ns)}/${encodeURIComponent(room.name)}`;

const columns = [
  { label: t.name, cell: (r) => element('a', { href: hrefOf(r) }, r.name) },
  { label: t.ns, cell: (r) => r.ns },
  { label: t.members, num: true, cell: (r) => whole(r.members) },
  { label: t.emits, num: true, cell: (r) => whole(r.emits) },
];

function members(ns, room) {
  const view = list({
    search: texts.sessions.search, columns: socketColumns, onOpen: detail, none: texts.sessions.none, nobody: () => empty(texts.sessions.none), label: t.show(room),
    countOf: (n) => count(n, 'sockets'),
    load: ({ q, after }) => get(`sessions?limit=50&ns=${encodeURIComponent(ns)}&room=${encodeURIComponent(room)}&q=${encodeURIComponent(q)}&after=${encodeURIComponent(after)}`),
  });
  const root = element('div', { class: 'stack' }, element('div', { class: 'row' }, element('a', { href: '#rooms' }, `← ${texts.views.rooms}`), element('h1', { class: 'wrap' }, t.show(room)), element('code', {}, ns)), view.root);
  return { ...view, root };
}

export function rooms([ns, room]) {
  if (ns && room) return members(ns, room);
  const sort = element('select', { 'aria-label': t.sort, onchange: () => view.refresh() },
    element('option', { value: 'members' }, t.byMembers), element('option', { value: 'traffic' }, t.byTraffic));
  const view = list({
    search: t.search, columns, none: t.none, label: texts.views.rooms, controls: [element('div', {}, sort)],
    onOpen: (r) => { location.hash = hrefOf(r); },
    nobody: () => empty(t.nobody, t.how, "socket.emit('bus:join', 'room-1');"),
    countOf: (n) => count(n, 'rooms'),
    load: async ({ q, after }) => {
      const told = await get(`rooms?limit=50&sort=${sort.value}&q=${encodeURIComponent(q)}&after=${encodeURIComponent(after)}`);
      return { ...told, rows: told.rooms };
    },
  });
  return view;
}
