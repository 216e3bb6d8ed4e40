// The panels of the board: each takes what the node told and fills its place.

import { at, bar, h, jid, list, show, table, visible } from "./dom.js";
import { bytes, count, date, nanos, percent, rate, span } from "./units.js";
import { overTime, percentiles } from "./charts.js";
import { KEPT_MS } from "./history.js";

const WARN_DAYS = 30;
const BAD_DAYS = 7;

const level = (part, warn, bad) => (part >= bad ? "bad" : part >= warn ? "warn" : "");

export const daysLeft = (certificate, overview) => Math.floor((certificate.expires_s - overview.now_ms / 1000) / 86400);

/// Of all stages and parts: what a series of the latency JSON is called.
const WORDS = {
  same_shard: "same core", core: "other core", node: "other node", s2s: "other server",
  parse: "parse", route: "route", core_hop: "core hop", store: "store", write: "write",
  client_ack: "client's ack", total: "whole way", run_queue: "run queue", turn: "turn", stall: "stall", late: "late timer",
  store_commit: "commit", store_batch: "batch", bound: "bound", resumed: "resumed", node_hop: "node hop",
};
const word = (name) => WORDS[name] ?? visible(String(name)).replaceAll("_", " ");

function nameOf(series) {
  switch (series.group) {
    case "stanza": return [series.kind, word(series.path), `${word(series.stage)}${series.estimate ? " (estimate)" : ""}`];
    case "login": return ["login", visible(String(series.mechanism)), word(series.end)];
    default: return [word(series.group), series.shard == null ? "" : `shard ${series.shard}`, ""];
  }
}

export function tiles(overview, change, latency) {
  const sum = (field) => overview.shards.reduce((all, shard) => all + shard[field], 0);
  const connections = sum("connections");
  const busiest = Math.max(...(change?.shards ?? []).map((shard) => shard.busy ?? 0), 0);
  const fullness = overview.connections_max ? connections / overview.connections_max : 0;
  const main = mainSeries(latency, "total");
  const recent = main?.recent?.count ? main.recent : null;
  const tile = (what, value, more, kind = "") =>
    h("div", { class: `tile ${kind}` }, h("div", { class: "what" }, what), h("div", { class: "value" }, value), h("div", { class: "more" }, more));
  const commit = change?.store.commit_us;
  show(at("tiles"),
    tile("Sessions", count(sum("sessions")), `${count(sum("accounts"))} accounts in memory`),
    tile("Connections", count(connections), `${percent(fullness)} of ${count(overview.connections_max)}`, level(fullness, 0.8, 0.95)),
    tile("Stanzas in", change ? `${rate(change.rates.stanzas_in)} /s` : "–", change ? `${rate(change.rates.stanzas_out)} /s out` : "first look"),
    tile("Busiest core", change ? percent(busiest) : "–", `${overview.shards.length} ${overview.shards.length === 1 ? "shard" : "shards"}`, level(busiest, 0.8, 0.95)),
    tile("Latency p99", recent ? nanos(recent.p99) : "–", main ? nameOf(main).slice(0, 2).join(", ") : "no messages yet"),
    tile("Commit", commit == null ? "–" : nanos(commit * 1000), overview.store.failing ? "failing" : `${count(overview.store.writes_queued)} writes queued`,
      overview.store.failing ? "bad" : level(commit ?? 0, 100_000, 1_000_000)));
}

export function shards(overview, change, latency) {
  const rows = overview.shards.map((shard, number) => {
    const moved = change?.shards[number];
    const measured = latency?.shards?.find((one) => one.shard === shard.shard);
    const kind = level(moved?.busy ?? 0, 0.8, 0.95);
    const stalls = measured?.stalls ?? 0;
    const last = measured?.last_stall;
    const waits = latency?.series?.find((one) => one.group === "run_queue" && one.shard === shard.shard);
    return [
      String(shard.shard),
      shard.late ? h("span", { class: "bad-text" }, "late") : h("span", { class: "good-text" }, "answers"),
      h("span", {}, bar(`meter ${kind}`, moved?.busy), percent(moved?.busy)),
      count(shard.sessions), count(shard.connections), rate(moved?.stanzas),
      waits?.recent?.count ? nanos(waits.recent.p99) : "–",
      count(shard.store_waiting), bytes(shard.ring_bytes), count(shard.clients_held),
      stalls
        ? h("span", { class: "warn-text", title: last ? `${last.at}: ${nanos(last.took_ns)}; ${last.did}` : null }, count(stalls))
        : measured ? "0" : "–",
      shard.faults ? h("span", { class: "bad-text" }, count(shard.faults)) : "0",
    ];
  });
  const stalled = (latency?.shards ?? []).filter((one) => one.last_stall);
  const latest = stalled.sort((one, other) => (one.last_stall.at < other.last_stall.at ? 1 : -1))[0];
  show(at("shards"), table("Shards", [
    ["Shard", ""], ["State", "text"], ["Core busy", "text"], ["Sessions", ""], ["Connections", ""], ["Stanzas/s", ""],
    ["Run queue p99", ""], ["Store waits", ""], ["Ring waits", ""], ["Clients held", ""], ["Stalls", ""], ["Faults", ""],
  ], rows), latest && h("p", { class: "none" },
    `Last stall: shard ${latest.shard}, ${nanos(latest.last_stall.took_ns)} at ${visible(latest.last_stall.at)} (${visible(latest.last_stall.did)}; longest: ${word(latest.last_stall.longest)}, ${nanos(latest.last_stall.longest_ns)}).`));
}

export function throughput(overview, history) {
  const points = (name) => history.points.map((point) => [point.at, point.rates[name]]);
  const one = (title, name) => ({ name: title, points: points(name), last: rate(history.points.at(-1)?.rates[name]) });
  overTime(at("throughput"), overview.now_ms, KEPT_MS,
    [one("from clients", "stanzas_in"), one("to clients", "stanzas_out"), one("bounced", "messages_bounced")],
    { what: "Stanzas per second over the last five minutes", format: count, floor: 20 });
}

export function busy(overview, history) {
  // Four lines can be told apart: of more cores, the busiest four now.
  const last = history.points.at(-1)?.shards ?? [];
  const order = overview.shards.map((_, number) => number)
    .sort((one, other) => (last[other]?.busy ?? 0) - (last[one]?.busy ?? 0)).slice(0, 4).sort((one, other) => one - other);
  const series = order.map((number) => ({
    name: `shard ${overview.shards[number].shard}`,
    points: history.points.map((point) => [point.at, point.shards[number]?.busy ?? null]),
    last: percent(last[number]?.busy),
  }));
  overTime(at("busy"), overview.now_ms, KEPT_MS, series,
    { what: "Part of the time that each core works, over the last five minutes", format: (part) => `${Math.round(part * 100)} %`, floor: 1, top: 1 });
}

/// The stage of stanzas that most stand for: messages first, then by number.
function mainSeries(latency, stage) {
  return (latency?.series ?? []).filter((one) => one.group === "stanza" && one.stage === stage)
    .sort((one, other) => (other.kind === "message") - (one.kind === "message") || other.total.count - one.total.count)[0];
}

export function stages(latency) {
  const known = (latency?.series ?? []).filter((one) => one.group === "stanza").map((one) => one.stage);
  return [...new Set(["total", ...known])].map((stage) => [stage, word(stage)]);
}

export function curves(latency, stage) {
  const of = (latency?.series ?? []).filter((one) => one.group === "stanza" && one.stage === stage)
    .sort((one, other) => other.total.count - one.total.count);
  const recent = of.some((one) => one.recent?.count);
  const part = (one) => (recent ? one.recent : one.total);
  const series = of.filter((one) => part(one)?.count).slice(0, 4).map((one) => ({
    name: nameOf(one).slice(0, 2).join(", "),
    last: `p99 ${nanos(part(one).p99)}`,
    points: part(one).curve.map(([percentile, value]) => [percentile, value]),
  }));
  const counted = of.reduce((all, one) => all + (part(one)?.count ?? 0), 0);
  at("curves-sub").textContent = recent
    ? `${count(counted)} in the last ${latency.recent_s} s.`
    : counted ? `Nothing in the last ${latency?.recent_s ?? 10} s; since the start: ${count(counted)}.` : "";
  percentiles(at("curves"), series, {
    what: "Latency by percentile", format: nanos,
    nothing: latency ? (latency.enabled === false ? "Latency is not measured on this node." : "No stanza has come this way yet.") : "This node tells no latency.",
  });
}

export function latencyOverTime(overview, history, latency, stage) {
  const main = mainSeries(latency, stage);
  const same = (one) => main && one.group === "stanza" && one.kind === main.kind && one.path === main.path && one.stage === main.stage;
  const points = (field) => history.points.map((point) => {
    const found = point.latency?.series?.find(same)?.recent;
    return [point.at, found?.count ? found[field] : null];
  });
  const series = [["p50", "p50"], ["p99", "p99"], ["p99.9", "p999"]].map(([name, field]) => {
    const all = points(field);
    return { name, points: all, last: nanos(all.at(-1)?.[1]) };
  });
  at("overtime-sub").textContent = main
    ? `${nameOf(main).join(", ")}; each point is of the last ${latency.recent_s} s.` : "";
  overTime(at("overtime"), overview.now_ms, KEPT_MS, series,
    { what: "Latency over the last five minutes", format: nanos, floor: 10_000, log: true });
}

const GROUPS = ["stanza", "login", "store_commit", "store_batch", "run_queue", "turn", "stall", "late"];

export function latencyTable(latency) {
  const place = (one) => GROUPS.indexOf(one.group) + 1 || GROUPS.length + 1;
  const series = [...(latency?.series ?? [])].sort((one, other) => place(one) - place(other));
  at("latency-sub").textContent = series.length ? `Of the last ${latency.recent_s} s; the slowest since the start as well.` : "";
  if (!series.length) {
    show(at("latency"), h("p", { class: "none" }, "Nothing is measured yet."));
    return;
  }
  const rows = series.map((one) => {
    const value = one.unit === "ns" ? nanos : (number) => rate(number);
    const recent = one.recent?.count ? one.recent : null;
    const cell = (field) => (recent ? value(recent[field]) : "–");
    const [what, way, step] = nameOf(one);
    return [what, way, step, recent ? rate(recent.count / latency.recent_s) : "0",
      cell("p50"), cell("p90"), cell("p99"), cell("p999"), cell("max"), count(one.total.count), value(one.total.max)];
  });
  show(at("latency"), table("Latency of each step", [
    ["What", ""], ["Way", "text"], ["Step", "text"], ["Per second", ""], ["p50", ""], ["p90", ""], ["p99", ""], ["p99.9", ""], ["Slowest", ""],
    ["Count since start", ""], ["Slowest since start", ""],
  ], rows));
}

function talkers(place, caption, told, unit, format, whole) {
  if (!told.length) {
    show(place, h("p", { class: "none" }, "Nobody sends anything."));
    return;
  }
  const most = whole > told[0].per_s ? whole : told[0].per_s;
  show(place, table(caption, [["Who", "jid"], [unit, ""]], told.map((one) => [
    h("div", {}, jid(one.jid), bar("share", one.per_s / most)), format(one.per_s),
  ])));
}

export function topTalkers(overview, change) {
  talkers(at("by-stanzas"), "Who sends most stanzas", overview.talkers.by_stanzas, "Stanzas/s", rate, change?.rates.stanzas_in ?? 0);
  talkers(at("by-bytes"), "Who sends most bytes", overview.talkers.by_bytes, "Per second", bytes, 0);
}

export function store(overview, change) {
  const now = change?.store;
  const buckets = overview.store.commit_buckets;
  const all = buckets.reduce((sum, [, number]) => sum + number, 0);
  const rows = buckets.filter(([, number]) => number).map(([bound, number]) => [
    bound == null ? "longer" : `up to ${nanos(bound * 1000)}`, h("span", {}, bar("meter", number / all), percent(number / all)), count(number),
  ]);
  show(at("store"), list([
    ["State", overview.store.failing ? h("span", { class: "bad-text" }, "commits fail") : h("span", { class: "good-text" }, "takes writes")],
    ["Commits", now ? `${rate(now.commits)} /s` : "–"],
    ["Mean commit", now?.commit_us == null ? "–" : nanos(now.commit_us * 1000)],
    ["Writes per commit", now?.batch == null ? "–" : rate(now.batch)],
    ["Writes queued", count(overview.store.writes_queued)],
    ["Reads", now ? `${rate(now.queries)} /s` : "–"],
    ["Failed commits", overview.store.commits_failed ? h("span", { class: "bad-text" }, count(overview.store.commits_failed)) : "0"],
  ]), rows.length ? table("Commits since the start by their time", [["Commits so far", ""], ["Part", "text"], ["Count", ""]], rows) : null);
}

const LIMITS = [
  ["logins_failed", "Logins failed"],
  ["reads_slowed", "Clients slowed, above their rate"],
  ["reads_paused", "Clients stopped, rings or store full"],
  ["slow_readers_closed", "Clients closed that did not read"],
  ["connections_throttled", "Connections above their network's rate"],
  ["connections_banned", "Connections from banned networks"],
  ["handshakes_failed", "TLS handshakes failed"],
  ["messages_bounced", "Messages bounced"],
  ["presence_dropped", "Presence dropped, rings full"],
  ["posts_dropped", "Own stanzas given up"],
  ["faults", "Bugs contained; please report"],
];
const ALARMING = new Set(["faults", "posts_dropped", "presence_dropped"]);

export function limits(overview, history) {
  const recent = history.recent();
  const rows = LIMITS.map(([name, what]) => {
    const lately = Math.round(recent[name] ?? 0);
    const kind = lately ? (ALARMING.has(name) ? "bad-text" : "warn-text") : "";
    return [h("span", { class: "wrap" }, what), h("span", { class: kind }, count(lately)), count(overview.counters[name])];
  });
  const seen = history.points.length ? Math.min(KEPT_MS, overview.now_ms - history.points[0].at) / 1000 : 0;
  show(at("limits"), table("Limits and refusals", [["What", "wrap"], [`Last ${span(seen)}`, ""], ["Since start", ""]], rows));
}

export function certificates(overview) {
  if (!overview.certificates.length) {
    show(at("certificates"), h("p", { class: "none" }, "No certificate is in use."));
    return;
  }
  const rows = overview.certificates.map((one) => {
    const left = daysLeft(one, overview);
    const kind = left < BAD_DAYS ? "bad-text" : left < WARN_DAYS ? "warn-text" : "good-text";
    const told = left < 0 ? "expired" : left > 36_500 ? "over 100 years" : `${count(left)} ${left === 1 ? "day" : "days"}`;
    return [visible(one.domain), one.self_signed ? h("span", { class: "warn-text" }, "self-signed") : "by an authority",
      h("div", {}, date(one.expires_s), h("div", { class: `small ${kind}` }, told))];
  });
  show(at("certificates"), table("Certificates", [["Domain", "wrap"], ["Issued", "text"], ["Expires", ""]], rows));
}

export function node(overview, change) {
  const process = overview.process;
  const files = process.open_files_max ? process.open_files / process.open_files_max : 0;
  const kind = level(files, 0.8, 0.95);
  show(at("process"), list([
    ["Version", visible(overview.version)],
    ["Up", `${span(overview.uptime_s)} (start ${count(overview.incarnation)})`],
    ["Domains", visible(overview.domains.join(", "))],
    ["Log level", overview.log_level],
    ["Process", overview.pid],
    ["CPU", change ? `${percent(change.cpu)} of one core` : "–"],
    ["Memory", bytes(process.resident_bytes)],
    ["Open files", h("span", { class: kind ? `${kind}-text` : "" }, `${count(process.open_files)} of ${count(process.open_files_max)}`)],
    ["Logins", change ? `${rate(change.rates.logins)} /s, ${count(overview.counters.logins)} since the start` : count(overview.counters.logins)],
    ["Sessions resumed", count(overview.counters.sessions_resumed)],
  ]));
}
