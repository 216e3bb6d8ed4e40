// Curves as SVG, drawn anew at each look for the width there is. Lines differ by colour and by dashes; their last values
// stand in the legend as text.

import { h, s, show } from "./dom.js";

const HEIGHT = 192;
const LEFT = 58;
const RIGHT = 12;
const TOP = 8;
const BOTTOM = 22;

function legend(series) {
  return h("ul", { class: "legend" }, series.map((one, number) =>
    h("li", {},
      s("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" },
        s("line", { class: `line s${number + 1}`, x1: 1, y1: 4, x2: 25, y2: 4 })),
      one.name, " ", h("b", {}, one.last ?? ""))));
}

function path(points, x, y) {
  let text = "";
  let pen = "M";
  for (const [across, value] of points) {
    if (value == null) {
      pen = "M";
      continue;
    }
    text += `${pen}${x(across).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  }
  return text;
}

function frame(place, described, series, yTicks, xTicks, x, y) {
  const width = place.width;
  const parts = [];
  for (const [value, name] of yTicks) {
    parts.push(s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    parts.push(s("text", { class: "axis", x: LEFT - 7, y: y(value) + 4, "text-anchor": "end" }, name));
  }
  for (const [value, name] of xTicks) {
    const across = x(value);
    parts.push(s("line", { class: "grid", x1: across, x2: across, y1: TOP, y2: HEIGHT - BOTTOM }));
    const anchor = across > width - RIGHT - 20 ? "end" : across < LEFT + 12 ? "start" : "middle";
    parts.push(s("text", { class: "axis", x: across, y: HEIGHT - 6, "text-anchor": anchor }, name));
  }
  series.forEach((one, number) => {
    parts.push(s("path", { class: `line s${number + 1}`, d: path(one.points, x, y) }));
  });
  return s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": described, preserveAspectRatio: "none" }, parts);
}

function room(element) {
  return { element, width: Math.max(240, Math.round(element.clientWidth)) };
}

/// A round number not below `value`, whose quarters are round as well.
function round(value) {
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 8, 10].map((times) => times * step).find((one) => one >= value * 0.999);
}

function logTicks(low, high, format) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    if (10 ** power >= low * 0.99 && 10 ** power <= high * 1.01) ticks.push([10 ** power, format(10 ** power)]);
  }
  return ticks;
}

const describe = (what, series) =>
  `${what}. ${series.map((one) => `${one.name}: ${one.last ?? "nothing yet"}`).join("; ")}.`;

/// Values over the last minutes.
///
/// - series: { name, last, points: [[ms, value or null], ...] }, four at most
/// - options: what, format, floor (the axis reaches at least so high), top (and so high always), log
export function overTime(element, now, span, series, options) {
  const place = room(element);
  const values = series.flatMap((one) => one.points.map(([, value]) => value)).filter((value) => value != null && value > 0);
  const x = (at) => LEFT + (1 - (now - at) / span) * (place.width - LEFT - RIGHT);
  const inner = HEIGHT - TOP - BOTTOM;
  let y;
  let yTicks;
  if (options.log) {
    const low = 10 ** Math.floor(Math.log10(Math.min(...values, options.floor)));
    const high = 10 ** Math.ceil(Math.log10(Math.max(...values, options.floor * 10)));
    y = (value) => TOP + inner * (1 - Math.log10(Math.max(value, low) / low) / Math.log10(high / low));
    yTicks = logTicks(low, high, options.format);
  } else {
    const high = options.top ?? round(Math.max(...values, options.floor));
    y = (value) => TOP + inner * (1 - Math.min(value, high) / high);
    yTicks = [0, 0.25, 0.5, 0.75, 1].map((part) => [part * high, options.format(part * high)]);
  }
  const xTicks = [];
  const step = place.width < 460 ? 120_000 : 60_000;
  for (let back = 0; back <= span; back += step) xTicks.push([now - back, back ? `−${back / 60_000} min` : "now"]);
  const svg = frame(place, describe(options.what, series), series, yTicks, xTicks, x, y);
  show(element, legend(series), svg);
}

/// Percentiles, stretched towards the slowest: each step to the right holds a tenth of what the one before held.
///
/// - series: { name, last, points: [[percentile, value], ...] }
export function percentiles(element, series, options) {
  const place = room(element);
  const values = series.flatMap((one) => one.points.map(([, value]) => value)).filter((value) => value > 0);
  if (!values.length) {
    show(element, h("p", { class: "none" }, options.nothing));
    return;
  }
  const furthest = 5;
  const across = (percentile) => Math.min(furthest, -Math.log10(Math.max(1 - percentile / 100, 1e-9)));
  const x = (percentile) => LEFT + (across(percentile) / furthest) * (place.width - LEFT - RIGHT);
  const low = 10 ** Math.floor(Math.log10(Math.min(...values)));
  const high = 10 ** Math.max(Math.ceil(Math.log10(Math.max(...values))), Math.log10(low) + 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - Math.log10(Math.max(value, low) / low) / Math.log10(high / low));
  const xTicks = [[0, "0"], [50, "50"], [90, "90"], [99, "99"], [99.9, "99.9"], [99.99, "99.99"], [99.999, "99.999 %"]]
    .filter(([percentile]) => place.width >= 460 || ![50, 99.99].includes(percentile));
  const svg = frame(place, describe(options.what, series), series, logTicks(low, high, options.format), xTicks, x, y);
  show(element, legend(series), svg);
}
