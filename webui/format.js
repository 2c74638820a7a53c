// Numbers and times as people read them; always with their unit.
import { texts } from './texts.js';

const group = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

export const whole = (n) => group.format(n);

// Three digits that count: 0.12, 3.4, 56, 1,234, 56.7 k, 8.9 M.
export function short(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return '–';
  if (n === 0) return '0';
  if (n < 1) return n.toFixed(2);
  if (n < 10 && !Number.isInteger(n)) return n.toFixed(1);
  if (n < 10000) return group.format(n);
  if (n < 1e6) return `${(n / 1e3).toFixed(n < 1e5 ? 1 : 0)} k`;
  if (n < 1e9) return `${(n / 1e6).toFixed(n < 1e8 ? 1 : 0)} M`;
  return `${(n / 1e9).toFixed(1)} G`;
}

export const rate = (n) => `${short(n)}${texts.units.perSecond}`;

export function bytes(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return '–';
  if (n < 1000) return `${Math.round(n)} B`;
  const names = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = n / 1024;
  let i = 0;
  while (value >= 1000 && i < names.length - 1) {
    value /= 1024;
    i++;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${names[i]}`;
}

export const byteRate = (n) => `${bytes(n)}${texts.units.perSecond}`;

export const percent = (n) => (n === null || n === undefined || Number.isNaN(n) ? '–' : `${n < 10 && n !== 0 ? n.toFixed(1) : Math.round(n)} %`);

export function micros(us) {
  if (us === null || us === undefined) return '–';
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 10000) return `${(us / 1000).toFixed(1)} ms`;
  if (us < 1e6) return `${Math.round(us / 1000)} ms`;
  return `${(us / 1e6).toFixed(1)} s`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const age = (ms) => (ms < 10000 ? `${(ms / 1000).toFixed(1)} s` : duration(ms / 1000));

export const count = (n, name) => `${whole(n)} ${texts.units[name][n === 1 ? 0 : 1]}`;

const pad = (n, digits = 2) => String(n).padStart(digits, '0');
export const clock = (ms) => {
  const t = new Date(ms);
  return `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}`;
};
export const clockMs = (ms) => `${clock(ms)}.${pad(new Date(ms).getMilliseconds(), 3)}`;
export const utc = (ms) => `${new Date(ms).toISOString().replace('T', ' ').replace('Z', '')} UTC`;
