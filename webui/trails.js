// The last 10 minutes of each node, by its name and host: a node that starts again goes on where it was, and so does a page
// whose connection goes to another node.
export const SECONDS = 600;
const LATE_S = 2; // a node that tells a little late leaves out a second: what it said before holds for it
const series = ['sessions_polling', 'sessions_websocket', 'emits_per_s', 'deliveries_per_s', 'packets_in_per_s', 'bytes_in_per_s',
  'bytes_out_per_s', 'cpu_pct', 'rss_bytes', 'loop_p99_us', 'queued_bytes', 'mirror_behind'];

class Trail {
  constructor() {
    this.at = new Float64Array(SECONDS);
    this.value = Object.fromEntries(series.map((name) => [name, new Float32Array(SECONDS)]));
  }

  put(second, read) {
    const place = second % SECONDS;
    if (this.at[place] > second) return;
    this.at[place] = second;
    for (const name of series) this.value[name][place] = read(name) ?? 0;
  }
}

export class Trails {
  constructor() {
    this.byNode = new Map();
    this.newest = 0;
  }

  take(node) {
    const key = `${node.host}/${node.name}`;
    let trail = this.byNode.get(key);
    if (!trail) this.byNode.set(key, trail = new Trail());
    if (node.trail) {
      const { from_ms, step_ms } = node.trail;
      node.trail.cpu_pct.forEach((known, i) => {
        if (known !== null) trail.put(Math.floor((from_ms + i * step_ms) / 1000), (name) => node.trail[name][i]);
      });
      delete node.trail;
    }
    if (node.life !== 'live') return;
    const second = Math.floor(node.time_ms / 1000);
    trail.put(second, (name) => node[name]);
    this.newest = Math.max(this.newest, second);
  }

  // Sums of these series over these nodes, oldest first; NaN where nothing is known.
  sum(names, only) {
    const out = new Float32Array(SECONDS).fill(NaN);
    const end = this.newest - 1; // of the second that is not over yet some nodes have not told
    for (const [key, trail] of this.byNode) {
      if (only && key !== only) continue;
      let told = -Infinity;
      let sum = 0;
      for (let i = 0; i < SECONDS; i++) {
        const second = end - SECONDS + 1 + i;
        const place = ((second % SECONDS) + SECONDS) % SECONDS;
        if (trail.at[place] === second) {
          told = i;
          sum = 0;
          for (const name of names) sum += trail.value[name][place];
        } else if (i - told > LATE_S) {
          continue;
        }
        out[i] = (Number.isNaN(out[i]) ? 0 : out[i]) + sum;
      }
    }
    return out;
  }
}
