// A line of the last 10 minutes, drawn on a canvas.
import { element } from './dom.js';

// Who asks an element for its size makes the browser lay everything out at once: it is told here instead, when that is done.
const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect: { width, height } } of entries) {
    target.size = { width, height };
    if (target.drawn) paint(target);
  }
});

// As the theme has them, until it changes.
let colours = new Map();
export const forgetColours = () => { colours = new Map(); };

function colourOf(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return colours.get(name);
}

export function spark(label, colour = '--line') {
  const canvas = element('canvas', { class: 'spark', role: 'img', 'aria-label': label });
  canvas.colour = colour;
  canvas.label = label;
  sizes.observe(canvas);
  return canvas;
}

// A second or two without news is no gap worth a picture.
function bridge(values) {
  const out = values.slice();
  for (let i = 1; i < out.length - 1; i++) if (Number.isNaN(out[i])) out[i] = Number.isNaN(values[i + 1]) ? NaN : out[i - 1];
  return out;
}

// Of a bus that is young, what there is, but at least a minute.
function young(values) {
  let first = 0;
  while (first < values.length && Number.isNaN(values[first])) first++;
  return values.slice(Math.min(first, values.length - 60));
}

export function draw(canvas, raw, format) {
  canvas.drawn = { raw, format };
  if (canvas.size) paint(canvas);
}

function paint(canvas) {
  const { raw, format } = canvas.drawn;
  const { width, height } = canvas.size;
  if (!width || !height) return;
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const values = bridge(young(raw));
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  let top = 0;
  for (const value of values) if (value > top) top = value;
  const colour = colourOf(canvas.colour);
  const bottom = height - 1.5;
  const y = (value) => bottom - (top ? value / top : 0) * (height - 4);
  const x = (i) => (i / (values.length - 1)) * width;
  context.lineWidth = 1.5;
  context.lineJoin = 'round';
  context.strokeStyle = colour;
  const shade = context.createLinearGradient(0, 0, 0, height);
  shade.addColorStop(0, `${colour}55`);
  shade.addColorStop(1, `${colour}00`);
  context.fillStyle = shade;
  for (let i = 0; i < values.length;) {
    while (i < values.length && Number.isNaN(values[i])) i++;
    const from = i;
    while (i < values.length && !Number.isNaN(values[i])) i++;
    if (from === i) break;
    context.beginPath();
    context.moveTo(x(from), y(values[from]));
    for (let k = from + 1; k < i; k++) context.lineTo(x(k), y(values[k]));
    context.stroke();
    context.lineTo(x(i - 1), height);
    context.lineTo(x(from), height);
    context.fill();
  }
  const now = values[values.length - 1];
  canvas.setAttribute('aria-label', `${canvas.label}: now ${format(now)}, at most ${format(top)}`);
}
