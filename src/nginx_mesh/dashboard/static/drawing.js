// The drawing of the graph: workloads as boxes in the lanes of their namespaces, calls as lines with labels.
import { h } from "./dom.js";
import * as format from "./format.js";
import { path } from "./icons.js";
import { NODE, layout } from "./layout.js";
import * as messages from "./messages.js";

const MAX_NAME = 23;            // letters of a name fit into a node
const MAX_LINE = 21;            // letters of a line fit into a label

let active = null;      // the ID of the workload that has the focus or is under the pointer

/** Draw nodes and edges of the graph. */
export function drawing({ nodes, edges }, page, zoom) {
  const placed = layout(
    nodes.map(({ id, namespace }) => ({ id, group: namespace })),
    edges.map((edge) => ({ from: edge.from, to: edge.to, lines: labelLines(edge).length })));
  const edgeOf = new Map(edges.map((edge) => [`${edge.from} ${edge.to}`, edge]));
  const workloadOf = new Map(nodes.map((node) => [node.id, node]));
  const isActive = workloadOf.has(active);
  const near = new Set(isActive
    ? edges.filter((edge) => edge.from === active || edge.to === active).flatMap((edge) => [edge.from, edge.to])
    : []);
  const fade = (...ids) => (isActive && !ids.includes(active) ? " faded" : "");
  const activate = (id) => () => {
    if (active !== id) {
      active = id;
      page.redraw();
    }
  };
  return h("div", {
    key: "drawing", class: "drawing", tabindex: 0, role: "region",
    "aria-label": "Drawing of the graph; the table below says the same",
  },
  h("svg", {
    width: placed.width * zoom, height: placed.height * zoom, viewBox: `0 0 ${placed.width} ${placed.height}`,
    role: "group", "aria-label": `${format.plural(nodes.length, "workload")}, ${format.plural(edges.length, "edge")}`,
  },
  arrowHeads(),
  placed.groups.map(drawLane),
  placed.edges.map((line) => drawLine(edgeOf.get(`${line.from} ${line.to}`), line, fade(line.from, line.to))),
  placed.edges.map((line) => drawLabel(edgeOf.get(`${line.from} ${line.to}`), line.label, fade(line.from, line.to))),
  placed.nodes.map((box) => drawNode(workloadOf.get(box.id), box, near.has(box.id) ? "" : fade(box.id), activate))));
}

function arrowHeads() {
  return h("defs", {}, ["plain", "warn", "bad"].map((tone) => h("marker", {
    key: tone, id: `arrow-${tone}`, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 8, markerHeight: 8,
    markerUnits: "userSpaceOnUse", orient: "auto",
  }, h("path", { d: "M0 .5 8 4 0 7.5z", class: `arrow ${tone}` }))));
}

function drawLane(lane) {
  return h("g", { key: `group ${lane.name}`, class: "group" },
    h("rect", { x: lane.x, y: lane.y, width: lane.width, height: lane.height, rx: 10 }),
    h("text", { x: lane.x + 14, y: lane.y + 21 }, lane.name));
}

function strokeTone(edge) {
  if (messages.circuits(edge)) return "bad";
  const tone = messages.successTone(messages.successShare(edge));
  return tone === "warn" || tone === "bad" ? tone : "plain";
}

function drawLine(edge, line, faded) {
  const tone = strokeTone(edge);
  const quiet = messages.hasTraffic(edge) ? "" : " quiet";
  const open = ["mtls", "unknown"].includes(edge.security) ? "" : " open";
  return h("path", {
    key: `line ${line.from} ${line.to}`, d: line.path, "marker-end": `url(#arrow-${tone})`,
    "stroke-width": 1.5 + Math.min(2.5, Math.log10(1 + edge.rate + (edge.tcp?.rate ?? 0))),
    class: `edge ${tone}${quiet}${open}${faded}`,
  });
}

/** A text cut to a length. */
function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function nodeDetail(workload) {
  if (workload.kind === "service") return "outside of this mesh";
  const unit = workload.kind === "pod" ? "" : "pods · ";
  return `${workload.ready}/${workload.pods} ${unit}${messages.mtlsMode(workload) || "no pods"}`;
}

/** A workload in a sentence, for screen readers. */
function nodeSentence(workload) {
  const mode = messages.mtlsMode(workload);
  const received = workload.in
    ? `receives ${format.rate(workload.in.rate)}, ${format.share(workload.in.success)} successful`
    : "";
  const details = [messages.readiness(workload).text, mode, received].filter(Boolean).join(", ");
  return `${workload.name}, ${messages.KINDS[workload.kind]} in ${workload.namespace}: ${details}`;
}

function drawNode(workload, box, faded, activate) {
  const state = messages.readiness(workload);
  const enter = activate(workload.id), leave = activate(null);
  return h("a", {
    key: workload.id, href: messages.href(workload.id), "data-id": workload.id,
    class: `node ${state.tone}${workload.meshed ? "" : " bare"}${faded}`,
    "aria-label": nodeSentence(workload),
    transform: `translate(${box.x} ${box.y})`,
    on: { focus: enter, blur: leave, mouseenter: enter, mouseleave: leave },
  },
  h("title", {}, `${workload.namespace}/${workload.name}`),
  h("rect", { width: NODE.width, height: NODE.height, rx: 8 }),
  path(state.icon, 12, 11, 15, `sign ${state.tone}`),
  h("text", { x: 34, y: 23, class: "name" }, cut(workload.name, MAX_NAME)),
  h("text", { x: 34, y: 41, class: "about" }, nodeDetail(workload)));
}

/** The lines of an edge's label: icon or null, text, class of the text, tone of the icon. */
function labelLines(edge) {
  const security = messages.SECURITY[edge.security];
  const share = messages.successShare(edge);
  const isKnown = messages.hasTraffic(edge) && share !== undefined && share !== null;
  const main = [messages.rate(edge), isKnown ? format.share(share) : ""].filter(Boolean).join(" · ");
  const lines = [
    { icon: security.icon, text: main, style: `main ${messages.successTone(share)}`, iconTone: security.tone },
  ];
  if (edge.rate) {
    lines.push({ icon: null, text: `p50 ${format.brief(edge.p50)} · p99 ${format.time(edge.p99)}`, style: "small" });
  }
  if (edge.tcp) {
    const bytes = format.bytes(edge.tcp.bytes);
    lines.push({ icon: null, text: edge.rate ? `and TCP, ${bytes}` : bytes, style: "small" });
  }
  for (const text of messages.splits(edge)) lines.push({ icon: "split", text, style: "small", iconTone: "muted" });
  const circuits = messages.circuits(edge);
  if (circuits) lines.push({ icon: "broken", text: circuits, style: "small bad", iconTone: "bad" });
  return lines;
}

function drawLabel(edge, box, faded) {
  const tone = strokeTone(edge);
  const sentence = messages.sentence(edge);
  return h("g", {
    key: `label ${edge.from} ${edge.to}`, class: `label ${tone}${faded}`, transform: `translate(${box.x} ${box.y})`,
    "data-edge": `${edge.from} ${edge.to}`, "data-security": edge.security, role: "img", "aria-label": sentence,
  },
  h("title", {}, sentence),
  h("rect", { width: box.width, height: box.height, rx: 6 }),
  tone === "plain" ? null : path(tone, box.width - 19, 4, 12, `sign ${tone}`),
  labelLines(edge).map(({ icon, text, style, iconTone }, index) => (
    h("g", { key: index, transform: `translate(0 ${index * 15 + 3})` },
      icon ? path(icon, 7, 1.5, index ? 11 : 12, `sign ${iconTone}`) : null,
      h("text", { x: icon ? 23 : 8, y: 11, class: style }, cut(text, MAX_LINE))))));
}
