// Elements are made from names and texts only: what a peer chose, such as a resource, never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  for (const child of children.flat()) {
    if (child == null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

export const at = (id) => document.getElementById(id);

/// A part of a whole, 0 to 1, as a bar. The number beside it says the same.
export function bar(kind, part) {
  const inner = h("i");
  inner.style.width = `${Math.max(0, Math.min(1, part || 0)) * 100}%`;
  return h("span", { class: kind, "aria-hidden": "true" }, inner);
}

/// A table with a caption for those who cannot see what it stands under.
///
/// - columns: [heading, class]; the first is the heading of its row
/// - rows: lists of cells, each a text, a number or an element
export function table(caption, columns, rows) {
  const cells = (row) => row.map((cell, column) => {
    const attributes = { class: columns[column][1] };
    return column === 0 ? h("th", { ...attributes, scope: "row" }, cell) : h("td", attributes, cell);
  });
  return h("table", {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, columns.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, cells(row)))));
}

export function list(pairs) {
  return h("dl", {}, pairs.filter(Boolean).flatMap(([name, ...value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/// Puts `content` there, unless somebody is using what is there (a selection, a focus).
export function show(place, ...content) {
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && place.contains(selection.anchorNode)) return;
  const scroll = place.scrollLeft;
  place.replaceChildren(...content.filter(Boolean));
  place.scrollLeft = scroll;
}

/// Controls, spaces that take no room and marks that turn the direction of text are shown as what they are.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}]/gu;
const SHOWN = 160;

export function visible(text) {
  const all = [...text];
  const cut = all.length > SHOWN ? all.slice(0, SHOWN).join("") + "…" : text;
  return cut.replace(HIDDEN, (mark) => `\\u{${mark.codePointAt(0).toString(16)}}`);
}

export function jid(text) {
  const slash = text.indexOf("/");
  const bare = slash < 0 ? text : text.slice(0, slash);
  const rest = slash < 0 ? "" : text.slice(slash);
  return h("bdi", { dir: "ltr" }, h("span", {}, visible(bare)), h("span", { class: "rest" }, visible(rest)));
}
