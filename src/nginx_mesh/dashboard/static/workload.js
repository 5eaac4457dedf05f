// The page of one workload.
import { chart } from "./chart.js";
import { h } from "./dom.js";
import { table as eventTable } from "./events.js";
import * as format from "./format.js";
import { edgeTable } from "./graph.js";
import { icon } from "./icons.js";
import * as messages from "./messages.js";

const MAX_EVENTS = 20;
const EXPIRES_SOON = 60;        // seconds

let direction = null;   // what the charts show: "in", "out", or null for whichever has traffic

export function view(data, page) {
  const incoming = data.edges.filter((edge) => edge.to === data.id);
  const outgoing = data.edges.filter((edge) => edge.from === data.id);
  const noneSent = data.meshed
    ? "It called nobody in the last 30 seconds."
    : "It has no sidecar that would count its calls.";
  return [
    h("p", { key: "up", class: "up" }, h("a", { href: "#/workloads" }, "Workloads"), " / ", data.namespace),
    h("h1", { key: "h1", tabindex: -1 }, data.name, h("span", { class: "kind" }, messages.KINDS[data.kind])),
    h("div", { key: "top", class: "columns" },
      card("identity", "Identity", identity(data)),
      card("policies", "Policies in force", policies(data.policies))),
    charts(data, page),
    card("in", "Received from", edgeTable(incoming, "Nobody with a sidecar called it in the last 30 seconds.")),
    card("out", "Sent to", edgeTable(outgoing, noneSent)),
    card("pods", "Pods", pods(data)),
    card("events", "Events",
      eventTable(data.events.slice(0, MAX_EVENTS), data.time, "Nothing is known to have happened to it.")),
  ];
}

function card(name, title, content) {
  return h("section", { key: name, class: "card", "aria-labelledby": `${name}-title` },
    h("div", { class: "card-head" }, h("h2", { id: `${name}-title` }, title)), content);
}

function identity(data) {
  const state = messages.readiness(data);
  const ids = [...new Set(data.members.map((pod) => pod.identity.spiffe_id).filter(Boolean))];
  const expiries = data.members.map((pod) => pod.identity.not_after).filter(Boolean);
  const noId = h("span", { class: "muted" }, data.meshed ? "none yet" : "none: it has no sidecar");
  return h("dl", { class: "facts" },
    fact("State", h("span", { class: state.tone }, icon(state.icon), state.text)),
    fact("mTLS mode", data.meshed ? data.mtls_modes.join(", ") || "not known" : messages.mtlsMode(data) || "–"),
    fact("SPIFFE ID", ids.length ? ids.map((id) => h("code", { key: id, class: "id" }, id)) : noId),
    fact("Certificates", expiries.length ? expiry(Math.min(...expiries), data.time, expiries.length) : "–"),
    fact("Services", data.services.join(", ") || "–"));
}

function fact(name, ...value) {
  return h("div", { key: name }, h("dt", {}, name), h("dd", {}, ...value));
}

/** When the first of `count` certificates expires; all times are seconds since the epoch. */
function expiry(when, now, count) {
  const left = when - now;
  const tone = left > EXPIRES_SOON ? "good" : "bad";
  const text = left > 0 ? `expires in ${format.span(left)}` : `expired ${format.span(-left)} ago`;
  return [
    h("span", { class: tone }, icon(tone), count > 1 ? `the first of ${count} ${text}` : text),
    h("time", { class: "muted block", datetime: new Date(when * 1000).toISOString() }, format.moment(when)),
  ];
}

function policies(found) {
  if (!found.length) return h("p", { class: "empty" }, "No traffic policy concerns it.");
  return h("ul", { class: "policies" }, found.map((policy) => {
    const { tone, text } = policyStatus(policy);
    return h("li", { key: `${policy.kind} ${policy.namespace} ${policy.name}` },
      h("div", {}, h("span", { class: "muted" }, `${policy.kind} `), h("b", {}, `${policy.namespace}/${policy.name}`)),
      policy.says ? h("div", { class: "summary" }, policy.says) : null,
      h("div", { class: tone }, icon(tone === "muted" ? "idle" : tone), text));
  }));
}

function policyStatus({ in_force: inForce, reason, message }) {
  const detail = `: ${message || reason}`;
  if (inForce === "True") {
    return reason === "InPart" ? { tone: "warn", text: `in force${detail}` } : { tone: "good", text: "in force" };
  }
  return inForce === "False"
    ? { tone: "warn", text: `not in force${detail}` }
    : { tone: "muted", text: `not known yet${detail}` };
}

function charts(data, page) {
  const { times, in: received, out: sent } = data.course;
  const hasRequests = (course) => course.rate.some((value) => value > 0);
  const shown = direction ?? (hasRequests(received) || !hasRequests(sent) ? "in" : "out");
  const course = shown === "in" ? received : sent;
  const choose = (value) => () => {
    direction = value;
    page.redraw();
  };
  const option = (value, text) => h("label", { key: value, class: "segment" },
    h("input", { type: "radio", name: "direction", checked: shown === value, on: { change: choose(value) } }),
    h("span", {}, text));
  return h("section", { key: "charts", class: "card", "aria-labelledby": "charts-title" },
    h("div", { class: "card-head" }, h("h2", { id: "charts-title" }, "Traffic"),
      h("fieldset", { class: "segments" }, h("legend", { class: "hidden" }, "Which requests"),
        option("in", "Received"), option("out", "Sent"))),
    times.length < 2 ? h("p", { key: "wait", class: "empty" },
      "Sidecars are asked every 5 seconds; the first points are on their way.") : null,
    h("div", { key: "charts", class: "charts" },
      requestChart(course, times, data.time), successChart(course, times, data.time),
      latencyChart(course, times, data.time)));
}

function requestChart(course, times, now) {
  return chart({
    title: "Requests", times, now,
    series: [{ name: "requests", values: course.rate }],
    text: (value) => `${Number(value.toPrecision(3))}/s`,
  });
}

function successChart(course, times, now) {
  const lowest = Math.min(1, ...course.success.filter((value) => value !== null));
  return chart({
    title: "Success", times, now,
    series: [{ name: "success", values: course.success, style: "good-line" }],
    text: (value) => `${Number((value * 100).toPrecision(3))}%`,
    low: [0.9, 0.5].find((bound) => lowest >= bound) ?? 0, high: 1,
  });
}

function latencyChart(course, times, now) {
  return chart({
    title: "Latency", times, now,
    series: [
      { name: "p50", values: course.p50 },
      { name: "p90", values: course.p90, style: "two" },
      { name: "p99", values: course.p99, style: "three" },
    ],
    text: format.time,
  });
}

function podState(pod) {
  if (pod.silent) return { tone: "warn", text: "sidecar does not answer" };
  if (pod.ready) return { tone: "good", text: "ready" };
  return { tone: pod.phase === "Succeeded" ? "muted" : "bad", text: pod.phase === "Running" ? "not ready" : pod.phase };
}

function certificate(left) {
  if (left === null) return "–";
  return left > 0 ? `${format.span(left)} left` : "expired";
}

function pods(data) {
  if (!data.members.length) return h("p", { class: "empty" }, "It has no pods.");
  const titles = ["Pod", "State", "Restarts", "Age", "Address", "mTLS mode", "Certificate"];
  const cell = (at, className, ...children) => (
    h("td", { key: titles[at], "data-title": titles[at], class: className }, ...children));
  const heading = (title, at) => h("th", { key: title, scope: "col", class: at === 2 ? "number" : null }, title);
  return h("div", { class: "scroll" }, h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, titles.map(heading))),
    h("tbody", {}, data.members.map((pod) => {
      const { tone, text } = podState(pod);
      const left = pod.identity.not_after ? pod.identity.not_after - data.time : null;
      return h("tr", { key: pod.name },
        h("th", { scope: "row", "data-title": titles[0] }, pod.name),
        cell(1, tone, icon(tone === "muted" ? "idle" : tone), text),
        cell(2, "number", String(pod.restarts)),
        cell(3, "nowrap", format.span(data.time - format.parsed(pod.started))),
        cell(4, null, pod.addresses[0] ?? "–"),
        cell(5, null, pod.meshed ? pod.mtls_mode ?? "not known" : "no sidecar"),
        cell(6, left !== null && left < EXPIRES_SOON ? "bad" : null, certificate(left)));
    }))));
}
