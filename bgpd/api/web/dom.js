// Elements without markup: text is only ever text, whoever wrote it.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

export const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
export const byId = (id) => document.getElementById(id);
export const show = (id, ...children) => byId(id).replaceChildren(...children.flat(3).filter((one) => one !== null && one !== false));

export const pill = (kind, text) => el("span", { class: `pill ${kind}` }, text);

const number = new Intl.NumberFormat("en");
// A count as people read it; the size of a range of IPv6 as a power.
export const count = (value) => (value < 2 ** 40 ? number.format(value) : `2^${Math.round(Math.log2(value))}`);

// How long ago, as bgpd's tables write it: 8s, 5m12s, 3h04m, 3d04h.
export function ago(since) {
  if (since === null || since === undefined) return "never";
  const s = Math.max(0, Math.floor(Date.now() / 1000 - since));
  const two = (value) => String(value).padStart(2, "0");
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${two(Math.floor((s % 3600) / 60))}m`;
  return `${Math.floor(s / 86400)}d${two(Math.floor((s % 86400) / 3600))}h`;
}
export const when = (since) => (since ? el("span", { title: new Date(since * 1000).toLocaleString() }, ago(since)) : "");

// A table whose cells know their column, so that a narrow screen can show each row as a card.
export function table(caption, columns, rows, empty) {
  if (rows.length === 0) return el("p", { class: "empty" }, empty);
  const head = columns.map(([title, kind]) => el("th", { scope: "col", class: kind || null }, title));
  const body = rows.map((row) =>
    row.wide
      ? el("tr", { class: "detail-row" }, el("td", { colspan: columns.length }, row.wide))
      : el("tr", {}, row.map((cell, at) => {
          const nothing = cell === "" || cell === null || cell === undefined;
          return el("td", { "data-label": columns[at][0], class: [columns[at][1], nothing && "blank"].filter(Boolean).join(" ") || null }, nothing ? null : el("span", {}, cell));
        })));
  return el("table", {}, el("caption", { class: "hidden" }, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
}
