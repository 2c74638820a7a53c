// The example that a newcomer opens in two tabs: a chat of one room, by the stock client and the events of the bus alone.
import { io } from './vendor/socket.io.js';
import { socketPath } from './bus.js';
import { element } from './dom.js';
import { clock, count, utc } from './format.js';
import { texts } from './texts.js';

const t = texts.chat;
const ROOM = 'lobby';
const KEPT = 200;
const name = `${t.guest} ${Math.floor(Math.random() * 900 + 100)}`;

const lines = element('ol', { class: 'chat-lines', 'aria-live': 'polite', 'aria-label': t.lines });
const who = element('input', { value: name, maxlength: 40, autocomplete: 'off' });
const what = element('input', { maxlength: 500, autocomplete: 'off', placeholder: t.placeholder });
const state = document.getElementById('state');

function show({ from, text, at }, own) {
  lines.append(element('li', { class: own && 'own' }, element('strong', {}, String(from)), ' ', element('time', { class: 'faint', title: utc(at) }, clock(at)), element('p', {}, String(text))));
  while (lines.children.length > KEPT) lines.firstElementChild.remove();
  lines.scrollTop = lines.scrollHeight;
}

const socket = io(new URL('/', location.origin).href, { path: await socketPath() });

async function countMembers() {
  const told = await socket.timeout(5000).emitWithAck('bus:who', ROOM).catch(() => undefined);
  if (told?.ok) state.textContent = t.members(count(told.count, 'people'));
}

socket.on('connect', async () => {
  await socket.emitWithAck('bus:join', ROOM);
  socket.emit('bus:emit', { to: ROOM, event: 'chat:come', echo: true });
});
socket.on('disconnect', () => { state.textContent = t.lost; });
socket.on('chat:come', countMembers);
socket.on('chat', (line) => show({ ...line, at: Date.now() }, line.id === socket.id));

document.getElementById('chat').append(
  element('h1', {}, t.title), element('p', { class: 'faint' }, t.how), lines,
  element('form', { class: 'filters', onsubmit: (event) => {
    event.preventDefault();
    if (!what.value.trim()) return;
    socket.emit('bus:emit', { to: ROOM, event: 'chat', args: [{ id: socket.id, from: who.value.trim() || name, text: what.value }], echo: true });
    what.value = '';
  } }, element('label', {}, t.name, who), element('label', { class: 'grow' }, t.text, what), element('button', { class: 'primary' }, t.send)));
what.focus();
setInterval(() => { if (socket.connected && !document.hidden) countMembers(); }, 3000);
