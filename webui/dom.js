// Elements without a framework. What is shown again each second is changed only where it differs.
const svgNames = new Set(['svg', 'path', 'circle', 'line', 'g', 'text', 'rect', 'title']);

// element('a', {class: 'x', href: '#', onclick}, 'text', child, [more])
export function element(name, attributes = {}, ...children) {
  const e = svgNames.has(name) ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) e.addEventListener(key.slice(2), value);
    else if (key === 'value') e.value = value;
    else e.setAttribute(key, value === true ? '' : value);
  }
  e.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return e;
}

export function setText(e, text) {
  if (e.shown === text) return;
  e.shown = text;
  e.textContent = text;
}

export function setAttribute(e, name, value) {
  if (e.getAttribute(name) !== String(value)) e.setAttribute(name, value);
}

// The share of a meter's bar that is filled, in percent. Moved, not resized: nothing is laid out anew for it.
export function fill(bar, share) {
  const percent = Math.min(100, Math.max(0, share)).toFixed(1);
  if (bar.filled === percent) return;
  bar.filled = percent;
  bar.style.transform = `translateX(${percent - 100}%)`;
}

export function setHidden(e, hidden) {
  if (e.hidden !== hidden) e.hidden = hidden;
}

// Children of a container, one for each item, in their order: made, kept and removed by key.
export function keyed(container, items, keyOf, make, update) {
  const known = container.known ??= new Map();
  const seen = new Set();
  let place = container.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let child = known.get(key);
    if (!child) known.set(key, child = make(item));
    update?.(child, item);
    if (child === place) place = place.nextElementSibling;
    else container.insertBefore(child, place);
  }
  for (const [key, child] of known) {
    if (seen.has(key)) continue;
    child.remove();
    known.delete(key);
  }
}

// States are told by shape and text; colour only helps.
const shapes = {
  good: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm3.6 5.3-4.3 4.9-2.9-2.7 1-1.1 1.8 1.6 3.3-3.7z',
  warn: 'M8 1.2 15.4 14.4H.6zM7.2 6v4h1.6V6zm0 5.2v1.6h1.6v-1.6z',
  bad: 'M5 1h6l4 4v6l-4 4H5l-4-4V5zm.8 3.7L4.7 5.8 6.9 8l-2.2 2.2 1.1 1.1L8 9.1l2.2 2.2 1.1-1.1L9.1 8l2.2-2.2-1.1-1.1L8 6.9z',
  idle: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm0 1.8a5.2 5.2 0 1 1 0 10.4A5.2 5.2 0 0 1 8 2.8zM4.8 7.2v1.6h6.4V7.2z',
  wait: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm0 1.8v10.4A5.2 5.2 0 0 1 8 2.8z',
};

export function icon(kind) {
  return element('svg', { viewBox: '0 0 16 16', class: `icon ${kind}`, 'aria-hidden': 'true', width: 16, height: 16 },
    element('path', { d: shapes[kind], 'fill-rule': 'evenodd' }));
}

export function setIcon(holder, kind) {
  if (holder.kind === kind) return;
  holder.kind = kind;
  holder.replaceChildren(icon(kind));
}

export const code = (text) => element('code', {}, text);

export function empty(title, note, command) {
  return element('div', { class: 'empty' }, element('p', { class: 'empty-title' }, title), note && element('p', {}, note),
    command && element('pre', { tabindex: 0 }, command));
}
