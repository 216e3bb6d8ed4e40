// The page's life: asks for the token, then for what the node tells every two seconds, and shows it.

import * as cluster from "./cluster.js";
import { at, h } from "./dom.js";
import { History } from "./history.js";
import * as panels from "./panels.js";
import { span } from "./units.js";

const EVERY_MS = 2_000;
const PATIENCE_MS = 5_000;
const TOKEN = "corefire-admin-token";

const history = new History();
const shown = { overview: null, change: null, latency: null, cluster: null, stage: "total" };
let token = sessionStorage.getItem(TOKEN);
let paused = false;
let timer = 0;

class Refused extends Error {}

async function ask(path) {
  const response = await fetch(path, {
    headers: { authorization: `Bearer ${token}` },
    cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (response.status === 401) throw new Refused();
  if (response.status === 404) return null;
  if (!response.ok) throw new Error((await response.text()).trim() || `status ${response.status}`);
  return response.json();
}

function state(kind, text) {
  const pill = at("state");
  // Said aloud by screen readers, so only when it changes.
  if (pill.textContent !== text) pill.textContent = text;
  pill.className = `pill ${kind}`;
}

function askForToken(fault) {
  clearTimeout(timer);
  token = null;
  sessionStorage.removeItem(TOKEN);
  history.clear();
  Object.assign(shown, { overview: null, change: null, latency: null, cluster: null });
  at("board").hidden = true;
  at("controls").hidden = true;
  at("login").hidden = false;
  at("fault").textContent = fault;
  at("about").textContent = "";
  at("node").textContent = "";
  document.title = "Corefire";
  state("", "Not connected");
  at("token").focus();
}

function draw() {
  const { overview, change, latency, stage } = shown;
  if (!overview || at("board").hidden) return;
  panels.tiles(overview, change, latency);
  panels.shards(overview, change, latency);
  cluster.board(shown.cluster, overview);
  panels.throughput(overview, history);
  panels.busy(overview, history);
  panels.curves(latency, stage);
  panels.latencyOverTime(overview, history, latency, stage);
  panels.latencyTable(latency);
  panels.topTalkers(overview, change);
  panels.store(overview, change);
  panels.limits(overview, history);
  panels.certificates(overview);
  panels.node(overview, change);
  offerStages(latency);
}

function offerStages(latency) {
  const offered = panels.stages(latency);
  const known = [...picker.options].map((option) => option.value).join();
  if (known === offered.map(([stage]) => stage).join()) return;
  picker.replaceChildren(...offered.map(([stage, name]) => h("option", { value: stage, selected: stage === shown.stage }, name)));
}

function tell(overview) {
  at("node").textContent = overview.node;
  document.title = `${overview.node} – Corefire`;
  at("about").textContent = `Version ${overview.version}, up ${span(overview.uptime_s)}, log level ${overview.log_level}`;
  const soon = overview.certificates.filter((one) => panels.daysLeft(one, overview) < 30).length;
  const faults = [
    overview.shards.some((shard) => shard.late) && "a shard is late",
    overview.store.failing && "the store fails",
    soon && "a certificate expires soon",
    ...cluster.faults(shown.cluster?.cluster),
  ].filter(Boolean);
  if (!overview.ready) state("bad", `Not ready: ${overview.not_ready ?? "unknown"}`);
  else if (faults.length) state("warn", `Ready, but ${faults.join(", ")}`);
  else state("good", "Ready");
}

async function look() {
  clearTimeout(timer);
  const asked = token;
  try {
    const paths = ["/api/v1/overview", "/api/v1/latency", "/api/v1/cluster"];
    const [overview, latency, members] = await Promise.all(paths.map(ask));
    if (asked !== token || paused) return;
    if (!overview) throw new Error("the node tells no overview");
    sessionStorage.setItem(TOKEN, token);
    shown.change = history.add(overview, latency) ?? shown.change;
    if (!history.points.length) shown.change = null;
    shown.overview = overview;
    shown.latency = latency;
    shown.cluster = members;
    at("login").hidden = true;
    at("board").hidden = false;
    at("controls").hidden = false;
    at("board").classList.remove("stale");
    tell(overview);
    draw();
  } catch (error) {
    if (asked !== token) return;
    if (error instanceof Refused) {
      askForToken(shown.overview ? "The node was started anew: it has another token now." : "This is not the token of the running node.");
      return;
    }
    at("board").classList.add("stale");
    state("bad", shown.overview ? "No answer; trying again" : "No answer from the node");
    at("fault").textContent = shown.overview ? "" : `The node gives no answer: ${error.message}`;
  }
  if (token && !paused && !document.hidden) timer = setTimeout(look, EVERY_MS);
}

const picker = h("select", { id: "stage", "aria-label": "Which part of the way" }, h("option", { value: "total" }, "whole way"));
picker.addEventListener("change", () => {
  shown.stage = picker.value;
  draw();
});
at("h-curves").append(" ", picker);

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = at("token").value.trim();
  at("token").value = "";
  at("fault").textContent = "";
  // Anything else cannot stand in a header.
  if (!/^[0-9a-f]{1,128}$/i.test(given)) {
    askForToken("A token is of the digits 0 to 9 and the letters a to f.");
    return;
  }
  token = given;
  look();
});

at("leave").addEventListener("click", () => askForToken(""));

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  if (paused) {
    clearTimeout(timer);
    state("warn", "Paused");
  } else {
    look();
  }
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && token && !paused) look();
});

let width = 0;
new ResizeObserver(() => {
  if (width === innerWidth) return;
  width = innerWidth;
  draw();
}).observe(document.body);

if (token) look();
else askForToken("");
