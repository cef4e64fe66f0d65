// The page: asks the daemon what it shows, follows its events, and asks again after each.

import { ago, byId, count, el, pill, show, svg, table, when } from "./dom.js";
import { KIND, draw } from "./map.js";

const SOON_MS = 200; // events of so long are one reason to ask again
const REST_MS = 1000; // between two times of asking, however many events there are
const OFTEN_MS = 10000; // and without any, so often
const EVENTS_MAX = 200;
const ROWS_MAX = 100;
const PAGE_ROWS = 25;
const WORD = { fallback: "fallback tunnel", "": "no block" };

const known = { status: null, peers: [], nodes: [], pools: [] };
const opened = new Set(); // peers whose details are shown
const pages = [null]; // where each page of routes begins
let nodesAll = false;

async function ask(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  if (response.ok) return response.json();
  const text = await response.text();
  let sentence = text;
  try { sentence = JSON.parse(text).error; } catch { /* not from the API: as it is */ }
  throw new Error(sentence || `HTTP status ${response.status}`);
}

// ------------------------------------------------------------------ at a glance

function showState({ status }) {
  byId("node").textContent = status.node;
  document.title = `${status.node} · bgpd`;
  const ready = status.phase.name === "ready";
  show("state",
    pill(ready ? "good" : "warn", ready ? "ready" : `${status.phase.name}${status.phase.waiting_for.length ? `: waiting for ${status.phase.waiting_for.join(", ")}` : ""}`),
    pill(status.store === "synced" ? "good" : "bad", `store ${status.store}`),
    pill(status.speaker === "attached" ? "good" : "bad", `ExaBGP ${status.speaker}`),
    status.drain ? pill("warn", "drained") : null);
  byId("about").textContent = `bgpd ${status.version}, AS ${status.asn}, router id ${status.router_id}, up ${ago(status.started)}`;
}

const card = (kind, label, figure, of, hint) => el("div", { class: `card ${kind}` },
  el("div", { class: "label" }, label), el("div", { class: "figure" }, figure, of ? el("small", {}, ` ${of}`) : null), el("div", { class: "hint" }, hint));

function showCards({ status, nodes, pools }) {
  const others = nodes.filter((node) => !node.own);
  const down = status.peers_configured - status.peers_established;
  const dead = others.filter((node) => !node.alive).length;
  const used = pools.reduce((sum, pool) => sum + pool.in_use, 0);
  const fullest = Math.max(0, ...pools.map((pool) => pool.in_use / pool.size));
  const bad = others.filter((node) => node.path === "unreachable").length, fallen = others.filter((node) => node.path === "fallback").length;
  show("cards",
    card(down ? (status.peers_established ? "warn" : "bad") : "", "Sessions", count(status.peers_established), `of ${count(status.peers_configured)}`, down ? `${count(down)} not established` : "all established"),
    card(bad ? "bad" : fallen ? "warn" : "", "Nodes reached", count(others.length - bad), `of ${count(others.length)}`,
      [bad ? `${count(bad)} unreachable` : "", fallen ? `${count(fallen)} by fallback` : "", dead ? `${count(dead)} not alive` : ""].filter(Boolean).join(", ") || "none by fallback"),
    card(status.routes_failed ? "bad" : "", "Routes in the kernel", count(status.routes_desired - status.routes_failed), "", status.routes_failed ? `${count(status.routes_failed)} refused` : `${count(status.routes_learned)} prefixes learned`),
    card(fullest > 0.9 ? "warn" : "", "Addresses in use", count(used), "", `${count(pools.length)} ${pools.length === 1 ? "pool" : "pools"}, the fullest ${fullest && fullest < 0.01 ? "<1" : Math.round(fullest * 100)}\u00a0%`));
}

// ------------------------------------------------------------------ map

function showMap({ status, peers, nodes }) {
  const place = byId("map");
  const width = Math.max(280, Math.round(place.clientWidth));
  const focus = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  const { picture, note } = draw(width, status, peers, nodes, (what, one) => {
    if (what === "peer") openPeer(one);
    else if (what === "node" && one.address) explain(one.address);
    else byId("nodes-title").scrollIntoView();
  });
  place.replaceChildren(picture);
  if (focus) [...place.querySelectorAll("[tabindex]")].find((one) => one.getAttribute("aria-label") === focus)?.focus();
  byId("map-note").textContent = note;
}

function showLegend() {
  show("legend", [["native", "native"], ["tunnel", "tunnel by the pool's mode"], ["fallback", "fallback tunnel"], ["unreachable", "down, unreachable"]].map(([kind, text]) => el("li", { class: kind }, el("i"), el("span", {}, text))));
}

// ------------------------------------------------------------------ tables

function peerKind(peer) {
  return peer.state === "Established" ? "good" : peer.state.startsWith("Idle") ? "warn" : "bad";
}

async function openPeer(name) {
  if (opened.has(name)) opened.delete(name); else opened.add(name);
  await refreshPeers();
  byId("peers-title").scrollIntoView({ block: "nearest" });
}

async function refreshPeers() {
  for (const name of opened) {
    try {
      const [one] = await ask(`v1/peers?name=${encodeURIComponent(name)}`);
      details.set(name, one);
    } catch { opened.delete(name); }
  }
  showPeers(known);
}
const details = new Map();

function peerDetail(peer) {
  const facts = [
    ["Address", peer.address], ["Ours", `${peer.local_address} AS ${peer.local_asn}`], ["Router id", peer.router_id], ["From", peer.kind],
    ["Hold time", peer.hold_time_s === null ? "" : `${peer.hold_time_s} s`], ["Transitions", peer.transitions], ["Last end", peer.reason],
    ["Capabilities", peer.capabilities.join(", ")], ["BFD", peer.bfd ? `${peer.bfd.state}${peer.bfd.reason ? `: ${peer.bfd.reason}` : ""}` : ""],
    ["Malformed", Object.entries(peer.errors).map(([kind, many]) => `${many} × ${kind}`).join(", ")],
    ...peer.families.map((one) => [one.family, `${count(one.received)} received, ${count(one.accepted)} accepted, ${count(one.announced)} announced${one.stale ? `, ${count(one.stale)} stale` : ""}`]),
  ];
  return el("dl", { class: "facts" }, facts.filter(([, value]) => value !== "" && value !== null).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function showPeers({ peers }) {
  const rows = peers.slice(0, ROWS_MAX).flatMap((peer) => {
    const up = peer.state === "Established";
    const button = el("button", { class: "link", type: "button", "aria-expanded": opened.has(peer.name) ? "true" : "false", onclick: () => openPeer(peer.name) }, peer.name);
    const row = [button, `AS${peer.asn}`, [pill(peerKind(peer), up ? "established" : peer.state), !up && peer.reason ? el("span", { class: "why" }, peer.reason) : null],
      when(peer.since), `${count(peer.received)} / ${count(peer.accepted)}`, count(peer.announced)];
    return opened.has(peer.name) && details.has(peer.name) ? [row, { wide: peerDetail(details.get(peer.name)) }] : [row];
  });
  show("peers", table("BGP sessions", [["Peer"], ["AS", "tight"], ["State"], ["Since", "tight"], ["Received / accepted", "number"], ["Announced", "number"]], rows, "No peer is configured."),
    peers.length > ROWS_MAX ? el("p", { class: "muted" }, `${count(peers.length - ROWS_MAX)} more: bgpd peers`) : null);
}

const legs = (via) => (via.length ? el("span", {}, via.map((leg) => el("div", { class: "address" }, leg))) : "");
const pathPill = (path) => pill(KIND[path] ?? "", WORD[path] ?? path);

function showNodes({ nodes }) {
  const others = nodes.filter((node) => !node.own);
  const shown = nodesAll ? others : others.slice(0, ROWS_MAX);
  const rows = shown.map((node) => [
    node.address ? el("button", { class: "link", type: "button", onclick: () => explain(node.address) }, node.name) : node.name,
    el("span", { class: "address" }, node.address), [pathPill(node.path), node.alive ? null : el("span", { class: "why" }, "keeps no lease")],
    legs(node.via), node.reason, Object.values(node.paths).reduce((a, b) => a + b, 0) || "", when(node.since)]);
  show("nodes", table("Other nodes, and how they are reached", [["Node"], ["Address"], ["Path"], ["By"], ["Why"], ["Blocks", "number"], ["Since", "tight"]], rows, "This node is alone so far."),
    shown.length < others.length ? el("p", {}, el("button", { type: "button", onclick: () => { nodesAll = true; showNodes(known); } }, `Show all ${count(others.length)}`)) : null);
}

function bar(share) {
  const kind = share > 0.9 ? "bad" : share > 0.75 ? "warn" : "";
  return el("div", { class: `bar ${kind}`, role: "img", "aria-label": `${Math.round(share * 100)} % in use` }, svg("svg", { preserveAspectRatio: "none", viewBox: "0 0 100 8" }, svg("rect", { width: share ? Math.max(share * 100, 1) : 0, height: 8 })));
}

function showPools({ pools }) {
  const rows = pools.map((pool) => [pool.name, el("span", { class: "address" }, pool.cidr), [`${count(pool.in_use)} of ${count(pool.size)}`, bar(pool.size ? pool.in_use / pool.size : 0)],
    count(pool.blocks_count), pool.mode, pool.fallback || "none",
    pool.blocks.length === 0 ? "" : el("span", {}, pool.blocks.slice(0, ROWS_MAX).map((block) => el("div", {}, el("span", { class: "address" }, block.cidr), el("span", { class: "muted" }, ` ${count(block.in_use)} of ${count(block.size)}`))))]);
  show("pools", table("Pools of addresses, and their use", [["Pool"], ["Range"], ["In use"], ["Blocks", "number"], ["Tunnel mode"], ["Fallback"], ["Blocks here"]], rows, "No pool is known."));
}

// ------------------------------------------------------------------ routes

async function showRoutes() {
  const query = new URLSearchParams({ limit: PAGE_ROWS });
  const within = byId("within").value.trim(), kind = byId("kind").value, after = pages[pages.length - 1];
  if (within) query.set("within", within);
  if (kind) query.set("kind", kind);
  if (after) query.set("after", after);
  try {
    const page = await ask(`v1/route-page?${query}`);
    const rows = page.rows.map((route) => [
      el("button", { class: "link address", type: "button", onclick: () => explain(route.prefix) }, route.prefix), [pill(KIND[route.kind] ?? "", route.kind)], route.node,
      legs(route.via), route.status === "programmed" ? "in the kernel" : el("span", { class: route.status.startsWith("failed") ? "pill bad" : "" }, route.status), when(route.since)]);
    show("routes", table("Routes, in order of prefixes", [["Prefix"], ["Kind"], ["Node"], ["By"], ["Status"], ["Since", "tight"]], rows, within || kind ? "No route fits." : "No route so far."));
    const first = (pages.length - 1) * PAGE_ROWS;
    byId("place").textContent = page.total ? `${count(first + 1)} to ${count(first + page.rows.length)} of ${count(page.total)}` : "";
    byId("next").disabled = !page.next;
    byId("next").onclick = () => { pages.push(page.next); showRoutes(); };
  } catch (error) {
    show("routes", el("p", { class: "empty" }, error.message));
    byId("place").textContent = "";
    byId("next").disabled = true;
  }
  byId("back").disabled = pages.length < 2;
}

function firstPage() { pages.length = 1; showRoutes(); }

// ------------------------------------------------------------------ explain

async function explain(query) {
  byId("query").value = query;
  try {
    const found = await ask(`v1/explain?q=${encodeURIComponent(query)}`);
    show("answer", el("p", { class: "sentence" }, found.answer),
      el("ol", { class: "steps" }, found.steps.map((one) => el("li", {}, el("span", { class: "step" }, one.step), ` ${one.outcome}`, one.detail.map((text) => el("span", { class: "detail" }, text))))),
      found.changes.length ? [el("h3", { class: "answer-head" }, "Last changes"), el("ul", { class: "changes" }, found.changes.map((text) => el("li", {}, text)))] : null);
  } catch (error) {
    show("answer", el("p", { class: "notice bad" }, error.message));
  }
  byId("explain-title").scrollIntoView({ block: "nearest" });
}

// ------------------------------------------------------------------ events

function showEvent(event) {
  const at = new Date(event.at * 1000);
  const fields = Object.entries(event.fields).map(([name, value]) => `${name} ${value}`).join(" · ");
  const list = byId("events");
  list.prepend(el("li", { class: event.level }, el("time", { datetime: at.toISOString(), title: at.toLocaleString() }, at.toLocaleTimeString("en-GB")), el("span", { class: "name" }, event.event), el("span", { class: "fields" }, fields)));
  while (list.children.length > EVENTS_MAX) list.lastElementChild.remove();
}

function live(kind, text) {
  byId("live").className = `live ${kind}`;
  byId("live").textContent = text;
}

function follow() {
  const stream = new EventSource("v1/stream");
  stream.onopen = () => { live("on", "live"); soon(); };
  stream.onmessage = (message) => { showEvent(JSON.parse(message.data)); soon(); };
  stream.onerror = () => {
    live("off", "no connection; trying again");
    if (stream.readyState === EventSource.CLOSED) setTimeout(follow, OFTEN_MS);
  };
}

// ------------------------------------------------------------------ asking again

let waiting = null, asking = false, again = false, asked = 0;

function soon() {
  if (waiting === null) waiting = setTimeout(refresh, Math.max(SOON_MS, asked + REST_MS - Date.now()));
}

async function refresh() {
  waiting = null;
  if (asking) { again = true; return; }
  asking = true;
  try {
    const [status, peers, nodes, pools] = await Promise.all(["v1/status", "v1/peers", "v1/nodes", "v1/pools?blocks=own"].map(ask));
    Object.assign(known, { status, peers, nodes, pools });
    for (const part of [showState, showCards, showMap, showNodes, showPools]) part(known);
    await refreshPeers();
    await showRoutes();
  } catch (error) {
    show("state", pill("bad", error instanceof TypeError ? "the daemon does not answer" : error.message));
  } finally {
    asking = false;
    asked = Date.now();
    if (again) { again = false; soon(); }
  }
}

// ------------------------------------------------------------------ light and dark

function theme(wanted) {
  document.documentElement.dataset.theme = wanted;
  byId("theme").textContent = wanted === "dark" ? "☀" : "☾";
}

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem("theme");
  theme(chosen() ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => { if (!chosen()) theme(system.matches ? "dark" : "light"); });
  byId("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", next);
    theme(next);
  });
}

startTheme();
showLegend();
live("", "connecting");
byId("explain").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = byId("query").value.trim();
  if (query) explain(query);
});
byId("filter").addEventListener("submit", (event) => { event.preventDefault(); firstPage(); });
byId("within").addEventListener("change", firstPage);
byId("kind").addEventListener("change", firstPage);
byId("back").addEventListener("click", () => { if (pages.length > 1) { pages.pop(); showRoutes(); } });
new ResizeObserver(() => { if (known.status) showMap(known); }).observe(byId("map").parentElement);
document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
setInterval(() => { if (!document.hidden) soon(); }, OFTEN_MS);
refresh();
follow();
