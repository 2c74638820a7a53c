import { ask, get } from '../bus.js';
import { element, empty, icon, setText } from '../dom.js';
import { bytes, clock, count, duration, short, whole } from '../format.js';
import { list } from '../table.js';
import { texts } from '../texts.js';
import { dialog, go, toast } from '../ui.js';

const t = texts.sessions;
const userText = (user) => (user === null ? '–' : typeof user === 'string' ? user : JSON.stringify(user));

export const roomChips = (ns, rooms, more = 0) => (rooms.length === 0 ? '–' : element('span', { class: 'chips' },
  rooms.map((room) => element('a', { class: 'chip', href: `#rooms/${encodeURIComponent(ns)}/${encodeURIComponent(room)}`, title: room }, room)),
  more > 0 && element('span', { class: 'chip' }, `+${more}`)));

export const columns = [
  { label: t.sid, cell: (s) => element('button', { class: 'link', onclick: () => detail(s) }, element('code', {}, s.sid)) },
  { label: t.user, cell: (s) => userText(s.user) },
  { label: t.node, cell: (s) => s.node },
  { label: t.ns, cell: (s) => s.ns },
  { label: t.transport, cell: (s) => (s.transport === 'websocket' ? 'WebSocket' : s.transport) },
  { label: t.address, cell: (s) => s.address },
  { label: t.rooms, cell: (s) => roomChips(s.ns, s.rooms.slice(0, 3), s.rooms_n - Math.min(3, s.rooms.length)) },
  { label: t.queue, num: true, cell: (s) => bytes(s.queued_bytes) },
  { label: t.connected, num: true, cell: (s) => duration(s.connected_ms / 1000) },
];

async function act(question, done) {
  try {
    const { ok } = await ask(question);
    toast(ok ? done : t.failed, ok ? 'good' : 'bad');
    return ok;
  } catch (error) {
    toast(texts.error(error.message), 'bad');
    return false;
  }
}

// Why a session is not there any more, when its connection has ended.
async function why(session) {
  const { rows: [end] } = await get(`ends?limit=1&q=${encodeURIComponent(session)}`);
  return end ? t.ended(end.reason, clock(end.time_ms), duration(end.connected_ms / 1000)) : t.gone;
}

// One socket, looked at each second while it is open.
export function detail(first) {
  const names = ['node', 'ns', 'transport', 'address', 'user', 'connected', 'messages', 'rates', 'queue', 'recoverable', 'recovered'];
  const cells = Object.fromEntries(names.map((name) => [name, element('dd', { class: 'num', 'data-socket': name })]));
  const rooms = element('div', { class: 'chips' });
  const note = element('p', { class: 'faint', role: 'status' });
  const roomField = element('input', { placeholder: t.roomName, 'aria-label': t.roomName });
  const target = { sid: first.sid, ns: first.ns };
  let last = first.session;
  const box = dialog(`${t.detail} ${first.sid}`, note,
    element('dl', { class: 'all-figures' }, names.map((name) => element('div', {}, element('dt', {}, t[name]), cells[name]))),
    element('h3', {}, t.rooms), rooms,
    element('div', { class: 'filters' }, element('label', { class: 'grow' }, t.roomName, roomField),
      element('button', { onclick: async () => { if (roomField.value && await act({ do: 'join', ...target, room: roomField.value }, t.done.join)) { roomField.value = ''; update(); } } }, t.join)),
    element('div', { class: 'row' },
      element('button', { class: 'danger', onclick: () => confirm(t.sure(first.sid)) && act({ do: 'disconnect', ...target }, t.done.disconnect) }, t.disconnect),
      element('button', { class: 'danger', onclick: () => confirm(t.sure(first.sid)) && act({ do: 'disconnect', close: true, ...target }, t.done.disconnect) }, t.close)));
  let before;
  const show = (s) => {
    const now = performance.now();
    const perSecond = (key) => (before ? `${short(((s[key] - before.s[key]) * 1000) / (now - before.now))}/s` : '–');
    const yes = (value) => (value ? t.yes : t.no);
    const values = { node: s.node, ns: s.ns, transport: s.transport, address: s.address, user: userText(s.user), connected: duration(s.connected_ms / 1000),
      messages: `${whole(s.messages_in)} / ${whole(s.messages_out)}`, rates: `${perSecond('messages_in')} / ${perSecond('messages_out')}`,
      queue: `${count(s.queued_messages, 'messages')}, ${bytes(s.queued_bytes)}`, recoverable: yes(s.recoverable), recovered: yes(s.recovered) };
    for (const name of names) setText(cells[name], values[name]);
    const names2 = s.rooms.join('\n');
    if (rooms.names !== names2) {
      rooms.names = names2;
      rooms.replaceChildren(...s.rooms.map((room) => element('button', { class: 'chip', onclick: async () => { await act({ do: 'leave', ...target, room }, t.done.leave); update(); } }, t.leave(room))));
    }
    setText(note, s.blocked ? t.blocked : '');
    before = { s, now };
  };
  const update = async () => {
    try {
      const { rows } = await get(`sessions?sid=${first.sid}&ns=${encodeURIComponent(first.ns)}`);
      if (rows.length) {
        show(rows[0]);
        last = rows[0].session;
      } else {
        note.replaceChildren(icon('idle'), ` ${await why(last)}`);
      }
    } catch (error) {
      setText(note, texts.error(error.message));
    }
  };
  const timer = setInterval(update, 1000);
  box.addEventListener('close', () => clearInterval(timer), { once: true });
  show({ ...first });
  update();
}

export function sessions([q]) {
  const nobody = () => empty(t.nobody, element('span', {}, t.how, ' ', element('a', { href: 'chat.html', target: '_blank' }, t.chat)), `const socket = io('${location.origin}');\nsocket.emit('bus:join', 'room-1');`);
  return list({
    search: t.search, columns, onOpen: detail, none: t.none, nobody, label: texts.views.sessions,
    isBare: (rows) => rows.every(({ ns }) => ns === '/admin'), // pages as this one initial: q,
    countOf: (n) => count(n, 'sockets'),
    load: ({ q: text, after }) => get(`sessions?limit=50&q=${encodeURIComponent(text)}&after=${encodeURIComponent(after)}`),
  });
}

export const searchSessions = (text) => go('sessions', text);
