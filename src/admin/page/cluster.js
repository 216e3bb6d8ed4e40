// The cluster as the node sees it: who is in it, how far away, what changed, and how far messages go.

import { at, bar, h, show, table, visible } from "./dom.js";
import { bytes, count, nanos, percent, rate, span } from "./units.js";

const PARTITIONS = 4096;
const EVENTS = 12;
const CLOCK_WARN_US = 1_000_000;

// What links had carried at the last two looks, by node, and when they were.
let looks = [];

const colour = (kind, text) => h("span", { class: kind ? `${kind}-text` : "" }, text);

/// What is wrong with it, in words for the head of the page.
export function faults(cluster) {
  if (!cluster) return [];
  const members = cluster.nodes.filter((node) => node.is_member);
  const away = members.filter((node) => node.health !== "this" && (node.health !== "alive" || node.link?.state !== "up"));
  return [
    cluster.waiting && `the cluster waits: ${visible(cluster.waiting)}`,
    !cluster.has_lease && "the node has no lease",
    cluster.has_lease && !cluster.is_settled && "accounts move",
    ...away.map((node) => `${visible(node.name)} is out of reach`),
  ].filter(Boolean);
}

function health(node) {
  switch (node.health) {
    case "this": return colour("good", "this node");
    case "alive": return colour("good", "alive");
    case "suspect": return colour("warn", "suspect");
    default: return node.is_member ? colour("bad", "unknown") : "–";
  }
}

const STATES = { up: ["good", "up"], dialling: ["bad", "dialling"], awaited: ["bad", "awaited"] };

const nameOf = (node) => `${node.id}.${node.incarnation}`;

/// A look that is drawn again, as when the window changes, is no newer one.
function remember(cluster, now) {
  if (looks.at(-1)?.at === now) return;
  const links = new Map(cluster.nodes.filter((node) => node.link).map((node) => [nameOf(node), node.link]));
  looks = [...looks.slice(-1), { at: now, links }];
}

function linkCells(node) {
  if (node.health === "this") return ["–", "–", "–", "–", "–", "–"];
  const link = node.link;
  if (!link) return [node.is_member ? colour("bad", "none") : "–", "–", "–", "–", "–", "–"];
  const [before, now] = looks;
  const passed = now ? (now.at - before.at) / 1000 : 0;
  const old = before.links.get(nameOf(node));
  const perSecond = (field) => (old && passed > 0 ? `${bytes(Math.max(0, link[field] - old[field]) / passed)}/s` : "–");
  const ahead = link.clock_ahead_us;
  const clock = ahead == null ? "–" : `${ahead < 0 ? "−" : "+"}${nanos(Math.abs(ahead) * 1000)}`;
  const end = link.last_end ? { title: `The last one ended: ${visible(link.last_end)}` } : {};
  return [
    h("span", { class: `${STATES[link.state]?.[0] ?? "warn"}-text`, ...end }, STATES[link.state]?.[1] ?? visible(link.state)),
    nanos(link.rtt_us == null ? null : link.rtt_us * 1000),
    colour(Math.abs(ahead ?? 0) > CLOCK_WARN_US ? "warn" : "", clock),
    colour(link.queue_bytes > 1 << 20 ? "warn" : "", bytes(link.queue_bytes)),
    h("span", {}, perSecond("bytes_in"), h("br"), perSecond("bytes_out")),
    link.reconnects ? colour("warn", count(link.reconnects)) : "0",
  ];
}

function members(cluster) {
  const rows = cluster.nodes.map((node) => {
    const share = node.partitions / PARTITIONS;
    const lease = node.lease_ms / 1000;
    const settled = node.settled_epoch >= cluster.epoch;
    return [
      visible(node.name),
      node.is_member ? colour("good", visible(node.state)) : colour("warn", visible(node.state)),
      health(node),
      node.is_member ? colour(lease ? "" : "bad", lease ? `${lease.toFixed(1)} s` : "over") : "–",
      count(node.weight),
      h("span", {}, bar("meter", share), percent(share)),
      count(node.shards),
      node.is_member ? colour(settled ? "" : "warn", count(node.settled_epoch)) : "–",
      ...linkCells(node),
      visible(node.version),
    ];
  });
  show(at("members"), table("Nodes of the cluster", [
    ["Node", ""], ["State", "text"], ["Health", "text"], ["Lease", ""], ["Weight", ""], ["Share", "text"], ["Shards", ""],
    ["Settled", ""], ["Link", "text"], ["Round trip", ""], ["Clock", ""], ["Queue", ""], ["In, out", ""], ["Reconnects", ""],
    ["Version", "text"],
  ], rows));
}

const HOPS = [["0", "none"], ["1", "one"], ["2", "two"], ["3", "three"], ["more", "more"]];

function hops(told) {
  const all = HOPS.reduce((sum, [name]) => sum + (told[name] ?? 0), 0);
  if (!all) {
    show(at("hops"), h("p", { class: "none" }, "No message was delivered yet."));
    return;
  }
  const mean = HOPS.reduce((sum, [name], hop) => sum + hop * (told[name] ?? 0), 0) / all;
  const rows = HOPS.map(([name, word]) => {
    const part = (told[name] ?? 0) / all;
    return [word, h("span", {}, bar("meter", part), percent(part)), count(told[name] ?? 0)];
  });
  show(at("hops"), table("Messages by the nodes that they crossed to", [["Hops", ""], ["Part", "text"], ["Messages", ""]], rows),
    h("p", { class: "sub foot" }, `${rate(mean)} on the average.`));
}

function events(cluster) {
  if (!cluster.events.length) {
    show(at("events"), h("p", { class: "none" }, "Nothing has changed."));
    return;
  }
  const rows = cluster.events.slice(0, EVENTS).map((event) => [
    visible(event.at.replace("T", " ").replace(/\.\d+Z?$|Z$/, "")), count(event.epoch), visible(event.node),
    h("span", { class: "wrap" }, visible(event.what)),
  ]);
  show(at("events"), table("What changed in the cluster", [["When (UTC)", ""], ["Epoch", ""], ["By", "text"], ["What", "wrap text"]], rows));
}

/// - view: of /api/v1/cluster; null, or without a cluster, where the node serves alone
export function board(view, overview) {
  const cluster = view?.cluster;
  for (const card of document.querySelectorAll("[data-of=cluster]")) card.hidden = !cluster;
  if (!cluster) return;
  const state = cluster.waiting ? colour("bad", `It waits: ${visible(cluster.waiting)}`)
    : !cluster.has_lease ? colour("bad", "This node has no lease and serves nobody.")
    : cluster.drain && !cluster.drain.is_done ? colour("warn", `This node lets its clients go; ${count(cluster.drain.connections_left)} connections of others' accounts are left.`)
    : cluster.drain ? colour("warn", "This node is drained.")
    : cluster.is_settled ? colour("good", "All is where it belongs.") : colour("warn", "Accounts move.");
  const since = (overview.now_ms - Date.parse(cluster.changed_at)) / 1000;
  const refused = Object.entries(cluster.refused);
  show(at("cluster-sub"),
    `Epoch ${count(cluster.epoch)}, for ${Number.isFinite(since) ? span(Math.max(0, since)) : "some time"}: ${visible(cluster.why)}. `, state,
    refused.length ? colour("warn", ` Refused: ${refused.map(([what, number]) => `${visible(what)} (${count(number)})`).join(", ")}.`) : null);
  remember(cluster, overview.now_ms);
  members(cluster);
  hops(view.hops);
  events(cluster);
}
