// The map: this node, its routers below it, the other nodes below them; a tunnel passes the routers by.

import { svg } from "./dom.js";

export const KIND = { native: "good", direct: "good", tunnel: "tunnel", fallback: "warn", unreachable: "bad", waiting: "", "": "" };
const SEVERITY = ["unreachable", "fallback", "waiting", "tunnel", "direct", "native", ""];
const DRAWN_MAX = 240; // nodes with a tile; the worst come first, the table has all
const LINES_MAX = 24; // nodes with lines; beyond, the tiles' colours say it
const ROUTERS_MAX = 12;
const TILE = { width: 150, height: 46, gap: 14 };

const short = (text, limit) => (text.length > limit ? `${text.slice(0, limit - 1)}…` : text);
const SUB = { native: "native", direct: "direct", tunnel: "tunnel", fallback: "fallback tunnel", unreachable: "unreachable", waiting: "waiting", "": "no block" };

function tile(x, y, kind, title, sub, label, onclick) {
  const press = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); onclick(); } };
  return svg("g", { class: `tile ${kind}`, transform: `translate(${x - TILE.width / 2} ${y})`, role: "button", tabindex: 0, "aria-label": label, onclick, onkeydown: press },
    svg("rect", { width: TILE.width, height: TILE.height, rx: 10 }),
    svg("circle", { class: "dot", cx: 14, cy: 17, r: 4 }),
    svg("text", { x: 25, y: 21 }, short(title, 16)),
    svg("text", { class: "sub", x: 25, y: 36 }, short(sub, 20)),
    svg("title", {}, label));
}

const centers = (many, width) => Array.from({ length: many }, (_, at) => (width * (at + 0.5)) / many);

// Lay tiles out in rows as wide as the place is.
function rows(many, width) {
  const each = Math.max(1, Math.floor((width + TILE.gap) / (TILE.width + TILE.gap)));
  const places = [];
  for (let start = 0; start < many; start += each) {
    const here = Math.min(each, many - start);
    for (const x of centers(here, Math.min(width, Math.max(here * (TILE.width + TILE.gap), width * (here > 1 ? 0.8 : 1))))) {
      const used = Math.min(width, Math.max(here * (TILE.width + TILE.gap), width * (here > 1 ? 0.8 : 1)));
      places.push([x + (width - used) / 2, Math.floor(start / each)]);
    }
  }
  return places;
}

export function draw(width, me, peers, nodes, ask) {
  const routers = peers.filter((peer) => peer.kind !== "mesh").slice(0, ROUTERS_MAX);
  const others = nodes.filter((node) => !node.own).sort((a, b) => SEVERITY.indexOf(a.path) - SEVERITY.indexOf(b.path) || (a.name < b.name ? -1 : 1));
  const drawn = others.slice(0, DRAWN_MAX).sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const lined = drawn.length <= LINES_MAX;
  const step = TILE.height + 16;
  const top = 12, routerTop = 118;
  const routerAt = rows(routers.length, width).map(([x, row]) => [x, routerTop + row * step]);
  const routerRows = routers.length ? Math.max(...routerAt.map(([, y]) => y)) : routerTop - step;
  const nodeTop = routerRows + TILE.height + 74;
  const nodeAt = rows(drawn.length, width).map(([x, row]) => [x, nodeTop + row * step]);
  const height = (nodeAt.length ? Math.max(...nodeAt.map(([, y]) => y)) : nodeTop - 60) + TILE.height + 12;
  const mine = [width / 2, top];
  const lines = [], tiles = [];
  const place = new Map();

  routers.forEach((peer, at) => {
    const [x, y] = routerAt[at];
    place.set(peer.address, [x, y]);
    const up = peer.state === "Established";
    lines.push(svg("path", { class: `line ${up ? "good" : "bad"}`, "data-session": peer.name, d: curve([mine[0], mine[1] + TILE.height], [x, y]) }));
    tiles.push(tile(x, y, up ? "good" : "bad", peer.name, up ? `AS${peer.asn}` : peer.state, `Router ${peer.name}, AS ${peer.asn}, ${peer.address}: ${up ? "established" : `${peer.state} ${peer.reason}`}`, () => ask("peer", peer.name)));
  });
  drawn.forEach((node, at) => {
    const [x, y] = nodeAt[at];
    const kind = KIND[node.path] ?? "";
    if (lined && (node.path === "fallback" || node.path === "tunnel" || node.path === "direct")) {
      lines.push(svg("path", { class: `line ${kind}`, "data-path": node.name, d: around([mine[0], mine[1] + TILE.height], [x, y], routerAt, width) }));
    } else if (lined) {
      const gateways = node.via.map((leg) => place.get(leg.split(" ")[0])).filter(Boolean);
      for (const [gx, gy] of gateways) lines.push(svg("path", { class: `line ${kind}`, "data-path": node.name, d: curve([gx, gy + TILE.height], [x, y]) }));
      // In a mesh nodes peer with each other: the path goes past the routers that are drawn, if there are any.
      if (node.path === "native" && !gateways.length) lines.push(svg("path", { class: "line good", "data-path": node.name, d: around([mine[0], mine[1] + TILE.height], [x, y], routerAt, width) }));
      if (node.path === "unreachable") lines.push(svg("path", { class: "line bad", "data-path": node.name, d: `M${x} ${y}v-26` }));
    }
    const what = SUB[node.path] ?? node.path;
    tiles.push(tile(x, y, kind, node.name, node.alive ? what : `${what}, not alive`, `Node ${node.name}: ${what}${node.reason ? `, ${node.reason}` : ""}`, () => ask("node", node)));
  });
  tiles.push(tile(mine[0], mine[1], "me", me.node, `AS${me.asn}, this node`, `This node, ${me.node}`, () => ask("me", me)));
  const tier = (y, text) => svg("text", { class: "tier", x: 0, y }, text);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${routers.length} routers and ${others.length} other nodes; the tables below say the same` },
    routers.length && width > 520 ? tier(routerTop - 12, "routers") : null, drawn.length && width > 520 ? tier(nodeTop - 12, "nodes") : null, lines, tiles);
  const left = others.length - drawn.length;
  const note = [left > 0 ? `${left} more nodes are in the table below, none worse than these.` : "", peers.length > routers.length ? `${peers.length - routers.length} more sessions are in the table of peers.` : ""].join(" ").trim();
  return { picture, note };
}

function curve([x1, y1], [x2, y2]) {
  const bend = (y2 - y1) * 0.5;
  return `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`;
}

// Pass beside the routers that would be in the way.
function around(from, to, routerAt, width) {
  if (!routerAt.length) return curve(from, to);
  const half = TILE.width / 2 + 10;
  const top = Math.min(...routerAt.map(([, y]) => y)) - 8, bottom = Math.max(...routerAt.map(([, y]) => y)) + TILE.height + 8;
  const free = (x) => x > 4 && x < width - 4 && routerAt.every(([rx]) => Math.abs(rx - x) >= half);
  let gap = (from[0] + to[0]) / 2;
  for (let off = 0; off < width && !free(gap); off += 6) gap = free((from[0] + to[0]) / 2 + off) ? (from[0] + to[0]) / 2 + off : (from[0] + to[0]) / 2 - off;
  if (!free(gap)) gap = to[0] < width / 2 ? 3 : width - 3;
  return `M${from[0]} ${from[1]}C${from[0]} ${from[1] + 30} ${gap} ${top - 30} ${gap} ${top}L${gap} ${bottom}C${gap} ${bottom + 30} ${to[0]} ${to[1] - 30} ${to[0]} ${to[1]}`;
}
