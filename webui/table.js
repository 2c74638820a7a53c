// A list that a node pages, with its search field; and tables that fold into blocks on a narrow screen.
import { element, empty, setHidden, setText } from './dom.js';
import { texts } from './texts.js';

const TYPING_MS = 250;
const AGAIN_MS = 2000;

// columns: [{label, num?, cell(item)}]; onOpen(item) when a row is chosen.
export function table(columns, onOpen, label) {
  const body = element('tbody');
  const root = element('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': label }, element('table', { class: 'fold' },
    element('thead', {}, element('tr', {}, columns.map(({ label: name, num }) => element('th', { class: num && 'num', scope: 'col' }, name)))), body));
  const row = (item) => element('tr', { class: onOpen && 'open', onclick: onOpen && ((event) => { if (!event.target.closest('a, button')) onOpen(item); }) },
    columns.map(({ label: name, num, cell }) => element('td', { class: num ? 'num' : 'wrap', 'data-label': name }, cell(item))));
  return {
    root, show: (items) => body.replaceChildren(...items.map(row)),
    // Above the others, of which so many are kept in all.
    add(items, most) {
      body.prepend(...items.slice(0, most).map(row));
      while (body.children.length > most) body.lastElementChild.remove();
    },
  };
}

// The page of a list that is shown: fetched when asked for, and again now and then while nobody pages.
// isBare: rows that are there, but say as little as none.
export function list({ search, columns, onOpen, load, none, nobody, isBare = () => false, controls = [], countOf, label, initial = '' }) {
  const field = element('input', { type: 'search', placeholder: search, 'aria-label': search, value: initial, autocomplete: 'off', spellcheck: 'false' });
  const total = element('span', { class: 'faint', 'aria-live': 'polite' });
  const rows = table(columns, onOpen, label);
  const note = element('p', { class: 'faint', role: 'status' });
  const nothing = element('div');
  const first = element('button', { onclick: () => turn('') }, texts.sessions.first);
  const next = element('button', { onclick: () => turn(after) }, texts.sessions.next);
  const pager = element('div', { class: 'row' }, first, next);
  const root = element('section', { class: 'panel stack long' },
    element('div', { class: 'filters' }, element('div', { class: 'grow' }, field), ...controls), element('div', { class: 'spread' }, total, pager), note, rows.root, nothing);
  let page = '';
  let after = null;
  let asked = 0;
  let typing;
  const refresh = async () => {
    const number = ++asked;
    try {
      const told = await load({ q: field.value.trim(), after: page });
      if (number !== asked) return;
      after = told.next;
      rows.show(told.rows);
      setText(total, countOf(told.total));
      setText(note, told.unanswered ? texts.sessions.unanswered(told.unanswered) : '');
      setHidden(rows.root, told.rows.length === 0);
      const isAsked = field.value.trim() || page;
      if (told.rows.length === 0) nothing.replaceChildren(isAsked ? empty(none) : nobody());
      else if (!isAsked && !told.next && isBare(told.rows)) nothing.replaceChildren(nobody());
      else nothing.replaceChildren();
    } catch (error) {
      if (number === asked) setText(note, texts.error(error.message));
    }
    setHidden(note, !note.textContent);
    first.disabled = !page;
    next.disabled = !after;
  };
  const turn = (to) => {
    page = to;
    refresh();
  };
  field.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => turn(''), TYPING_MS);
  });
  const timer = setInterval(() => { if (!document.hidden && !page && !root.contains(document.getSelection()?.anchorNode)) refresh(); }, AGAIN_MS);
  refresh();
  return { root, search: field, refresh: () => turn(''), leave: () => clearInterval(timer) };
}
