// The page of the graph: the mesh in figures, as a drawing, and as a table.
import { drawing } from "./drawing.js";
import { h } from "./dom.js";
import { filter, matching } from "./filter.js";
import * as format from "./format.js";
import { icon } from "./icons.js";
import * as messages from "./messages.js";

const MAX_NODES = 60;           // more workloads than that are not legible
const ZOOM_STEPS = [0.5, 0.65, 0.8, 1, 1.25, 1.5];

let zoom = 1;

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
        zoomButtons(page)),
      shown.nodes.length
        ? drawing(shown, page, zoom)
        : h("p", { key: "nothing", class: "empty" }, emptyText(data, page.query)),
      shown.hidden ? h("p", { key: "more", class: "note" },
        `${format.plural(shown.hidden, "workload")} with less traffic not drawn. The filter finds them.`) : null,
      legend()),
    h("section", { key: "table", class: "card", "aria-labelledby": "edges-title" },
      h("div", { class: "card-head" }, h("h2", { id: "edges-title" }, "Calls")),
      edgeTable(shown.edges, "No calls in the last 30 seconds.")),
  ];
}

/**
 * Choose what is drawn: workloads that fit the filter and have traffic, or a circuit that is not closed. The busiest
 * come first.
 */
function choose(data, query) {
  const found = new Set(matching(data.workloads, query).map((workload) => workload.id));
  const edges = data.edges.filter((edge) => found.has(edge.from) || found.has(edge.to));
  const busy = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
  const traffic = (workload) => (workload.in?.rate ?? 0) + (workload.out?.rate ?? 0);
  const wanted = data.workloads
    .filter((workload) => busy.has(workload.id) || (query.idle && found.has(workload.id)))
    .sort((a, b) => traffic(b) - traffic(a) || (a.id < b.id ? -1 : 1));
  const nodes = wanted.slice(0, MAX_NODES);
  const drawn = new Set(nodes.map(({ id }) => id));
  return {
    nodes,
    hidden: wanted.length - nodes.length,
    edges: edges.filter((edge) => drawn.has(edge.from) && drawn.has(edge.to)),
  };
}

function emptyText(data, query) {
  if (query.q || query.namespace) {
    return "Nothing that fits the filter has traffic. “Idle workloads” shows those without.";
  }
  if (!data.workloads.length) return "There are no workloads yet.";
  return "No traffic in the last 30 seconds. “Idle workloads” shows what there is.";
}

/** Sums over all edges: requests per second, those that succeeded, calls per second, those by mTLS. */
function sums(edges) {
  const found = { requests: 0, successes: 0, calls: 0, secured: 0 };
  for (const edge of edges) {
    const calls = edge.rate + (edge.tcp?.rate ?? 0);
    found.requests += edge.rate;
    found.successes += edge.rate * (edge.success ?? 0);
    found.calls += calls;
    if (edge.security === "mtls") found.secured += calls;
  }
  return found;
}

function tile(title, value, tone, picture, more) {
  return h("div", { key: title, class: `tile ${tone}` },
    h("dt", {}, title),
    h("dd", {}, picture ? icon(picture) : null,
      h("span", { class: "big" }, value), h("span", { class: "more" }, more)));
}

function securityTile(share, mode) {
  const isAll = share === null || share > 0.9999;
  const picture = isAll ? "lock" : "unlocked";
  return tile("By mTLS", format.share(share), isAll ? "good" : "warn", share === null ? null : picture, `mode ${mode}`);
}

/** A tile about how many of all are well. */
function countTile(title, count, all, more) {
  const tone = count === all ? "good" : "warn";
  return tile(title, `${count} of ${all}`, tone, tone, more);
}

function figures(data) {
  const { requests, successes, calls, secured } = sums(data.edges);
  const success = requests ? successes / requests : null;
  const tone = messages.successTone(success);
  const circuits = data.edges.flatMap((edge) => edge.circuits);
  const open = circuits.filter((circuit) => circuit.open || circuit.half_open).length;
  const workloads = data.workloads.filter((workload) => workload.kind !== "service");
  const ready = workloads.filter((workload) => workload.ready >= workload.pods).length;
  const { all, live, silent } = data.sidecars;
  const edges = data.edges.filter(messages.hasTraffic).length;
  return h("dl", { key: "figures", class: "tiles" },
    tile("Requests", format.rate(requests), "", null, `on ${format.plural(edges, "edge")}`),
    tile("Success", format.share(success), tone, success === null ? null : tone, "of requests"),
    securityTile(calls ? secured / calls : null, data.mtls_mode),
    countTile("Workloads", ready, workloads.length, "ready"),
    countTile("Sidecars", live - silent, all, "answer"),
    tile("Circuits", open ? String(open) : "none", open ? "bad" : "good", open ? "broken" : "good", "open"));
}

function zoomButtons(page) {
  const zoomTo = (index) => () => {
    zoom = ZOOM_STEPS[Math.max(0, Math.min(ZOOM_STEPS.length - 1, index))];
    page.redraw();
  };
  const at = ZOOM_STEPS.indexOf(zoom);
  const last = ZOOM_STEPS.length - 1;
  const button = (label, disabled, index, text) => (
    h("button", { type: "button", "aria-label": label, disabled, on: { click: zoomTo(index) } }, text));
  return h("div", { class: "buttons", role: "group", "aria-label": "Size of the graph" },
    button("Smaller", at === 0, at - 1, "−"),
    button("Normal size", false, ZOOM_STEPS.indexOf(1), `${Math.round(zoom * 100)}%`),
    button("Larger", at === last, at + 1, "+"));
}

function legend() {
  const item = (picture, tone, text) => h("li", {}, h("span", { class: tone }, icon(picture)), text);
  return h("ul", { key: "legend", class: "legend", "aria-label": "Legend" },
    item("lock", "good", "all by mTLS, both sides proved"),
    item("unlocked", "warn", "plaintext, in part or not proved (dashed)"),
    item("split", "muted", "share of a TrafficSplit"),
    item("broken", "bad", "circuit not closed"));
}

function workloadLink(id) {
  const { namespace, kind, name } = messages.parseId(id);
  return h("a", { href: messages.href(id), class: kind === "service" ? "plain" : null },
    h("span", { class: "muted" }, `${namespace}/`), name);
}

function splitChips(edge) {
  const texts = messages.splits(edge);
  return edge.splits.map((each, at) => {
    const title = `TrafficSplit ${each.split}${each.matches ? ", of the requests that it matches" : ""}`;
    return h("span", { key: `split ${at}`, class: "chip", title }, icon("split"), texts[at]);
  });
}

function circuitChip(edge) {
  if (!edge.circuits.length) return null;
  const text = messages.circuits(edge);
  const title = edge.circuits.map((each) => `CircuitBreaker ${each.breaker}`).join(", ");
  return h("span", { key: "circuit", class: text ? "chip bad" : "chip", title },
    icon(text ? "broken" : "good"), text || "circuit closed");
}

/** Edges as a table; narrow screens show each as a card. `none` is the text without any. */
export function edgeTable(edges, none) {
  if (!edges.length) return h("p", { key: "none", class: "empty" }, none);
  const titles = ["From", "To", "Rate", "Success", "P50", "P90", "P99", "Security", "Policies"];
  const cell = (at, className, ...children) => (
    h("td", { key: titles[at], "data-title": titles[at], class: className }, ...children));
  const heading = (title, at) => (
    h("th", { key: title, scope: "col", class: at > 1 && at < 7 ? "number" : null }, title));
  return h("div", { key: "edges", class: "scroll" }, h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, titles.map(heading))),
    h("tbody", {}, edges.map((edge) => {
      const security = messages.SECURITY[edge.security];
      const share = messages.successShare(edge), tone = messages.successTone(share);
      return h("tr", { key: `${edge.from} ${edge.to}`, "data-edge": `${edge.from} ${edge.to}` },
        h("th", { scope: "row", "data-title": titles[0] }, workloadLink(edge.from)),
        cell(1, null, workloadLink(edge.to)),
        cell(2, "number", messages.rate(edge),
          edge.tcp ? h("span", { class: "muted block" }, `TCP, ${format.bytes(edge.tcp.bytes)}`) : null),
        cell(3, `number ${tone}`, tone === "warn" || tone === "bad" ? icon(tone) : null, format.share(share)),
        cell(4, "number", format.time(edge.p50)),
        cell(5, "number", format.time(edge.p90)),
        cell(6, "number", format.time(edge.p99)),
        cell(7, security.tone, icon(security.icon, { class: "icon" }),
          h("span", { title: security.text }, security.short)),
        cell(8, null, splitChips(edge), circuitChip(edge)));
    }))));
}
