// The page of the graph: the mesh in figures, in a drawing, and the same in a table.
import { h } from "./dom.js";
import { filter, matching } from "./filter.js";
import * as format from "./format.js";
import { icon, path } from "./icons.js";
import { NODE, layout } from "./layout.js";
import * as words from "./words.js";

const MOST = 60;        // more workloads than that are not legible
const STEPS = [0.5, 0.65, 0.8, 1, 1.25, 1.5];
const LETTERS = 23;     // of a name fit a node

let zoom = 1;
let active = null;      // the workload that is looked at

export function view(data, page) {
  const shown = choose(data, page.query);
  return [
    h("h1", { key: "h1", tabindex: -1 }, "Service graph"),
    h("p", { key: "lead", class: "lead" }, `Who calls whom, over the last ${data.window} seconds.`),
    figures(data),
    h("section", { key: "graph", class: "card", "aria-labelledby": "graph-title" },
      h("div", { class: "card-head" },
        h("h2", { id: "graph-title" }, "Graph"),
        filter(data.workloads, page, { idle: true }),
        zooming(page)),
      shown.nodes.length ? drawing(shown, page) : h("p", { key: "nothing", class: "empty" }, nothing(data, page.query)),
      shown.hidden ? h("p", { key: "more", class: "note" },
        `${format.plural(shown.hidden, "workload")} with less traffic not drawn. The filter finds them.`) : null,
      legend()),
    h("section", { key: "table", class: "card", "aria-labelledby": "edges-title" },
      h("div", { class: "card-head" }, h("h2", { id: "edges-title" }, "Calls")),
      edgeTable(shown.edges, "No calls in the last 30 seconds.")),
  ];
}

/** What of the mesh is drawn: what the filter leaves, with traffic or a circuit that is not closed, the busiest first. */
function choose(data, query) {
  const found = new Set(matching(data.workloads, query).map((workload) => workload.id));
  const edges = data.edges.filter((edge) => found.has(edge.from) || found.has(edge.to));
  const busy = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
  const weight = (workload) => (workload.in?.rate ?? 0) + (workload.out?.rate ?? 0);
  const wanted = data.workloads
    .filter((workload) => busy.has(workload.id) || (query.idle && found.has(workload.id)))
    .sort((a, b) => weight(b) - weight(a) || (a.id < b.id ? -1 : 1));
  const nodes = wanted.slice(0, MOST);
  const drawn = new Set(nodes.map((node) => node.id));
  return { nodes, hidden: wanted.length - nodes.length, edges: edges.filter((edge) => drawn.has(edge.from) && drawn.has(edge.to)) };
}

function nothing(data, query) {
  if (query.q || query.namespace) return "Nothing that fits the filter has traffic. “Idle workloads” shows those without.";
  if (!data.workloads.length) return "There are no workloads yet.";
  return "No traffic in the last 30 seconds. “Idle workloads” shows what there is.";
}

function figures(data) {
  let rate = 0, success = 0, calls = 0, locked = 0;
  for (const edge of data.edges) {
    rate += edge.rate;
    success += edge.rate * (edge.success ?? 0);
    const made = edge.rate + (edge.tcp?.rate ?? 0);
    calls += made;
    if (edge.security === "mtls") locked += made;
  }
  const open = data.edges.flatMap((edge) => edge.circuits).filter((circuit) => circuit.open || circuit.half_open).length;
  const workloads = data.workloads.filter((workload) => workload.kind !== "service");
  const ready = workloads.filter((workload) => workload.ready >= workload.pods).length;
  const { all, live, silent } = data.sidecars;
  const tile = (title, value, tone, picture, more) => h("div", { key: title, class: `tile ${tone}` },
    h("dt", {}, title), h("dd", {}, picture ? icon(picture) : null, h("span", { class: "big" }, value), h("span", { class: "more" }, more)));
  const good = rate ? success / rate : null;
  const secure = calls ? locked / calls : null;
  return h("dl", { key: "figures", class: "tiles" },
    tile("Requests", format.rate(rate), "", null, `on ${format.plural(data.edges.filter(words.busy).length, "edge")}`),
    tile("Success", format.share(good), words.tone(good), good === null ? null : words.tone(good), "of requests"),
    tile("By mTLS", format.share(secure), secure === null || secure > 0.9999 ? "good" : "warn", secure === null ? null : secure > 0.9999 ? "lock" : "unlocked", `mode ${data.mtls_mode}`),
    tile("Workloads", `${ready} of ${workloads.length}`, ready === workloads.length ? "good" : "warn", ready === workloads.length ? "good" : "warn", "ready"),
    tile("Sidecars", `${live - silent} of ${all}`, live - silent === all ? "good" : "warn", live - silent === all ? "good" : "warn", "answer"),
    tile("Circuits", open ? String(open) : "none", open ? "bad" : "good", open ? "broken" : "good", "open"));
}

function zooming(page) {
  const to = (index) => () => {
    zoom = STEPS[Math.max(0, Math.min(STEPS.length - 1, index))];
    page.redraw();
  };
  const at = STEPS.indexOf(zoom);
  return h("div", { class: "buttons", role: "group", "aria-label": "Size of the graph" },
    h("button", { type: "button", "aria-label": "Smaller", disabled: at === 0, on: { click: to(at - 1) } }, "−"),
    h("button", { type: "button", "aria-label": "Normal size", on: { click: to(STEPS.indexOf(1)) } }, `${Math.round(zoom * 100)}%`),
    h("button", { type: "button", "aria-label": "Larger", disabled: at === STEPS.length - 1, on: { click: to(at + 1) } }, "+"));
}

function drawing({ nodes, edges }, page) {
  const placed = layout(
    nodes.map(({ id, namespace }) => ({ id, group: namespace })),
    edges.map((edge) => ({ from: edge.from, to: edge.to, lines: lines(edge).length })));
  const facts = new Map(edges.map((edge) => [`${edge.from} ${edge.to}`, edge]));
  const workloads = new Map(nodes.map((node) => [node.id, node]));
  const near = new Set(active ? edges.filter((edge) => edge.from === active || edge.to === active).flatMap((edge) => [edge.from, edge.to]) : []);
  const faded = (...ids) => active && workloads.has(active) && !ids.includes(active) ? " faded" : "";
  const look = (id) => () => {
    if (active !== id) {
      active = id;
      page.redraw();
    }
  };
  return h("div", { key: "drawing", class: "drawing", tabindex: 0, role: "region", "aria-label": "Drawing of the graph; the table below says the same" },
    h("svg", {
      width: placed.width * zoom, height: placed.height * zoom, viewBox: `0 0 ${placed.width} ${placed.height}`,
      role: "group", "aria-label": `${format.plural(nodes.length, "workload")}, ${format.plural(edges.length, "edge")}`,
    },
    h("defs", {}, ["plain", "warn", "bad"].map((tone) => h("marker", {
      key: tone, id: `arrow-${tone}`, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto",
    }, h("path", { d: "M0 .5 8 4 0 7.5z", class: `arrow ${tone}` })))),
    placed.groups.map((group) => h("g", { key: `group ${group.name}`, class: "group" },
      h("rect", { x: group.x, y: group.y, width: group.width, height: group.height, rx: 10 }),
      h("text", { x: group.x + 14, y: group.y + 21 }, group.name))),
    placed.edges.map((line) => {
      const edge = facts.get(`${line.from} ${line.to}`);
      return h("path", {
        key: `line ${line.from} ${line.to}`, d: line.path, "marker-end": `url(#arrow-${strokeTone(edge)})`,
        "stroke-width": 1.5 + Math.min(2.5, Math.log10(1 + edge.rate + (edge.tcp?.rate ?? 0))),
        class: `edge ${strokeTone(edge)}${words.busy(edge) ? "" : " quiet"}${["mtls", "unknown"].includes(edge.security) ? "" : " open"}${faded(line.from, line.to)}`,
      });
    }),
    placed.edges.map((line) => label(facts.get(`${line.from} ${line.to}`), line.label, faded(line.from, line.to))),
    placed.nodes.map((box) => node(workloads.get(box.id), box, near.has(box.id) ? "" : faded(box.id), look))));
}

function strokeTone(edge) {
  if (words.circuits(edge)) return "bad";
  const tone = words.tone(words.success(edge));
  return tone === "warn" || tone === "bad" ? tone : "plain";
}

function node(workload, box, faded, look) {
  const state = words.readiness(workload);
  const name = workload.name.length > LETTERS ? `${workload.name.slice(0, LETTERS - 1)}…` : workload.name;
  const about = workload.kind === "service" ? "outside of this mesh" : `${workload.ready}/${workload.pods} ${workload.kind === "pod" ? "" : "pods · "}${words.mode(workload) || "no pods"}`;
  const traffic = workload.in ? `, receives ${format.rate(workload.in.rate)}, ${format.share(workload.in.success)} successful` : "";
  return h("a", {
    key: workload.id, href: words.href(workload.id), class: `node ${state.tone}${workload.meshed ? "" : " bare"}${faded}`, "data-id": workload.id,
    "aria-label": `${workload.name}, ${words.KINDS[workload.kind]} in ${workload.namespace}: ${state.words}${words.mode(workload) ? `, ${words.mode(workload)}` : ""}${traffic}`,
    transform: `translate(${box.x} ${box.y})`,
    on: { focus: look(workload.id), blur: look(null), mouseenter: look(workload.id), mouseleave: look(null) },
  },
  h("title", {}, `${workload.namespace}/${workload.name}`),
  h("rect", { width: NODE.width, height: NODE.height, rx: 8 }),
  path(state.icon, 12, 11, 15, `mark ${state.tone}`),
  h("text", { x: 34, y: 23, class: "name" }, name),
  h("text", { x: 34, y: 41, class: "about" }, about));
}

/** What a label says, a line each: [picture, text, tone]. */
function lines(edge) {
  const security = words.SECURITY[edge.security];
  const success = words.success(edge);
  const good = words.busy(edge) && success !== undefined && success !== null ? format.share(success) : "";
  const found = [[security.icon, [words.rate(edge), good].filter(Boolean).join(" · "), `main ${words.tone(success)}`, security.tone]];
  if (edge.rate) found.push([null, `p50 ${format.brief(edge.p50)} · p99 ${format.time(edge.p99)}`, "small"]);
  if (edge.tcp) found.push([null, edge.rate ? `and TCP, ${format.bytes(edge.tcp.bytes)}` : format.bytes(edge.tcp.bytes), "small"]);
  for (const split of words.splits(edge)) found.push(["split", split, "small"]);
  if (words.circuits(edge)) found.push(["broken", words.circuits(edge), "small bad"]);
  return found;
}

function label(edge, box, faded) {
  const shown = lines(edge), tone = strokeTone(edge);
  const wrong = tone === "plain" ? null : tone;
  return h("g", { key: `label ${edge.from} ${edge.to}`, class: `label ${tone}${faded}`, transform: `translate(${box.x} ${box.y})`, "data-edge": `${edge.from} ${edge.to}`, "data-security": edge.security, role: "img", "aria-label": words.sentence(edge) },
    h("title", {}, words.sentence(edge)),
    h("rect", { width: box.width, height: box.height, rx: 6 }),
    wrong ? path(wrong, box.width - 19, 4, 12, `mark ${wrong}`) : null,
    shown.map(([picture, text, tone, of], index) => {
      const short = text.length > 21 ? `${text.slice(0, 20)}…` : text;
      return h("g", { key: index, transform: `translate(0 ${index * 15 + 3})` },
        picture ? path(picture, 7, 1.5, index ? 11 : 12, `mark ${of ?? (tone.includes("bad") ? "bad" : "muted")}`) : null,
        h("text", { x: picture ? 23 : 8, y: 11, class: tone }, short));
    }));
}

function legend() {
  const item = (picture, tone, text) => h("li", {}, h("span", { class: tone }, icon(picture)), text);
  return h("ul", { key: "legend", class: "legend", "aria-label": "Legend" },
    item("lock", "good", "all by mTLS, both sides proved"),
    item("unlocked", "warn", "plaintext, in part or not proved (dashed)"),
    item("split", "muted", "share of a TrafficSplit"),
    item("broken", "bad", "circuit not closed"));
}

/** Edges as a table; narrow screens show each as a card. */
export function edgeTable(edges, none) {
  if (!edges.length) return h("p", { key: "none", class: "empty" }, none);
  const titles = ["From", "To", "Rate", "Success", "P50", "P90", "P99", "Security", "Policies"];
  const cell = (at, className, ...children) => h("td", { key: titles[at], "data-title": titles[at], class: className }, ...children);
  const link = (id) => {
    const { namespace, kind, name } = words.place(id);
    return h("a", { href: words.href(id), class: kind === "service" ? "plain" : null }, h("span", { class: "muted" }, `${namespace}/`), name);
  };
  return h("div", { key: "edges", class: "scroll" }, h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, titles.map((title, at) => h("th", { key: title, scope: "col", class: at > 1 && at < 7 ? "number" : null }, title)))),
    h("tbody", {}, edges.map((edge) => {
      const security = words.SECURITY[edge.security], tone = words.tone(words.success(edge));
      const circuits = words.circuits(edge);
      return h("tr", { key: `${edge.from} ${edge.to}`, "data-edge": `${edge.from} ${edge.to}` },
        h("th", { scope: "row", "data-title": titles[0] }, link(edge.from)),
        cell(1, null, link(edge.to)),
        cell(2, "number", words.rate(edge), edge.tcp ? h("span", { class: "muted block" }, `TCP, ${format.bytes(edge.tcp.bytes)}`) : null),
        cell(3, `number ${tone}`, tone === "warn" || tone === "bad" ? icon(tone) : null, format.share(words.success(edge))),
        cell(4, "number", format.time(edge.p50)), cell(5, "number", format.time(edge.p90)), cell(6, "number", format.time(edge.p99)),
        cell(7, security.tone, icon(security.icon, { class: "icon" }), h("span", { title: security.words }, security.short)),
        cell(8, null,
          edge.splits.map((each, at) => h("span", { key: `split ${at}`, class: "chip", title: `TrafficSplit ${each.split}${each.matches ? ", of the requests that it matches" : ""}` }, icon("split"), words.splits(edge)[at])),
          circuits ? h("span", { key: "circuit", class: "chip bad", title: edge.circuits.map((each) => `CircuitBreaker ${each.breaker}`).join(", ") }, icon("broken"), circuits)
            : edge.circuits.length ? h("span", { key: "circuit", class: "chip", title: edge.circuits.map((each) => `CircuitBreaker ${each.breaker}`).join(", ") }, icon("good"), "circuit closed") : null));
    }))));
}
