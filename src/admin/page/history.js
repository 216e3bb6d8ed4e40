// What the node told in the last minutes, and the rates between: it tells counts, each look is compared with the one
// before.

export const KEPT_MS = 300_000;

export class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.points = [];
    this.last = null;
  }

  /// Takes over a look; gives what has changed since the one before, or null.
  add(overview, latency) {
    const before = this.last;
    // Another start of the node counts from zero.
    if (before && before.incarnation !== overview.incarnation) this.clear();
    const passed = this.last ? (overview.now_ms - this.last.now_ms) / 1000 : 0;
    if (this.last && passed <= 0) return this.points.at(-1) ?? null;
    const change = this.last ? difference(this.last, overview, passed) : null;
    this.last = overview;
    if (!change) return null;
    change.latency = latency;
    this.points.push(change);
    while (this.points.length && overview.now_ms - this.points[0].at > KEPT_MS) this.points.shift();
    return change;
  }

  /// Counts since the page looks, or for five minutes.
  recent() {
    const sums = {};
    for (const point of this.points) {
      for (const [name, rate] of Object.entries(point.rates)) {
        sums[name] = (sums[name] ?? 0) + rate * point.passed;
      }
    }
    return sums;
  }
}

function difference(before, now, passed) {
  const rate = (one, other) => Math.max(0, one - other) / passed;
  const rates = {};
  for (const [name, value] of Object.entries(now.counters)) rates[name] = rate(value, before.counters[name] ?? value);
  const shards = now.shards.map((shard) => {
    const old = before.shards.find((one) => one.shard === shard.shard);
    const micros = old ? shard.at_us - old.at_us : 0;
    if (micros <= 0) return { busy: null, stanzas: null };
    return {
      busy: Math.min(1, (shard.cpu_us - old.cpu_us) / micros),
      stanzas: ((shard.stanzas_in - old.stanzas_in + shard.stanzas_out - old.stanzas_out) / micros) * 1e6,
    };
  });
  const commits = now.store.commits - before.store.commits;
  const store = {
    commits: commits / passed,
    writes: rate(now.store.writes, before.store.writes),
    queries: rate(now.store.queries, before.store.queries),
    commit_us: commits > 0 ? (now.store.commit_us - before.store.commit_us) / commits : null,
    batch: commits > 0 ? (now.store.writes - before.store.writes) / commits : null,
  };
  const cpu = (now.process.cpu_s - before.process.cpu_s) / passed;
  return { at: now.now_ms, passed, rates, shards, store, cpu };
}
