// What all views share: the dialog, short notes, and the way to another view.
import { element, icon } from './dom.js';
import { texts } from './texts.js';

const $ = (id) => document.getElementById(id);

// A view's name, and what it is to show.
export const go = (...parts) => { location.hash = parts.map(encodeURIComponent).join('/'); };

export function dialog(title, ...content) {
  const box = $('dialog');
  box.replaceChildren(
    element('div', { class: 'dialog-head' }, element('h2', { id: 'dialog-title' }, title),
      element('button', { class: 'ghost', 'aria-label': texts.close, onclick: () => box.close() }, '✕')),
    element('div', { class: 'dialog-body' }, ...content));
  if (!box.open) box.showModal();
  return box;
}

export function toast(text, kind = 'good') {
  const note = element('div', { class: `toast ${kind}` }, icon(kind), element('span', {}, text));
  $('toasts').append(note);
  setTimeout(() => note.remove(), 5000);
}
