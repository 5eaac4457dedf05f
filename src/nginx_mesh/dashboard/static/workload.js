// The page of one workload.
import { chart } from "./chart.js";
import { h } from "./dom.js";
import { table as eventTable } from "./events.js";
import * as format from "./format.js";
import { edgeTable } from "./graph.js";
import { icon } from "./icons.js";
import * as words from "./words.js";

let direction = null;   // what the charts show: "in", "out", or null for what there is

export function view(data, page) {
  const state = words.readiness(data);
  const ids = [...new Set(data.members.map((pod) => pod.identity.spiffe_id).filter(Boolean))];
  const expiries = data.members.map((pod) => pod.identity.not_after).filter(Boolean);
  const first = expiries.length ? Math.min(...expiries) : null;
  const incoming = data.edges.filter((edge) => edge.to === data.id);
  const outgoing = data.edges.filter((edge) => edge.from === data.id);
  return [
    h("p", { key: "up", class: "up" }, h("a", { href: "#/workloads" }, "Workloads"), " / ", data.namespace),
    h("h1", { key: "h1", tabindex: -1 }, data.name, h("span", { class: "kind" }, words.KINDS[data.kind])),
    h("div", { key: "top", class: "columns" },
      h("section", { class: "card", "aria-labelledby": "identity-title" },
        h("div", { class: "card-head" }, h("h2", { id: "identity-title" }, "Identity")),
        h("dl", { class: "facts" },
          fact("State", h("span", { class: state.tone }, icon(state.icon), state.words)),
          fact("mTLS mode", data.meshed ? data.mtls_modes.join(", ") || "not known" : words.mode(data) || "–"),
          fact("SPIFFE ID", ids.length ? ids.map((id) => h("code", { key: id, class: "id" }, id)) : h("span", { class: "muted" }, data.meshed ? "none yet" : "none: it has no sidecar")),
          fact("Certificates", first === null ? "–" : expiry(first, data.time, expiries.length)),
          fact("Services", data.services.join(", ") || "–"))),
      h("section", { class: "card", "aria-labelledby": "policies-title" },
        h("div", { class: "card-head" }, h("h2", { id: "policies-title" }, "Policies in force")),
        policies(data.policies))),
    charts(data, page),
    h("section", { key: "in", class: "card", "aria-labelledby": "in-title" },
      h("div", { class: "card-head" }, h("h2", { id: "in-title" }, "Received from")), edgeTable(incoming, "Nobody with a sidecar called it in the last 30 seconds.")),
    h("section", { key: "out", class: "card", "aria-labelledby": "out-title" },
      h("div", { class: "card-head" }, h("h2", { id: "out-title" }, "Sent to")), edgeTable(outgoing, data.meshed ? "It called nobody in the last 30 seconds." : "It has no sidecar that would count its calls.")),
    h("section", { key: "pods", class: "card", "aria-labelledby": "pods-title" },
      h("div", { class: "card-head" }, h("h2", { id: "pods-title" }, "Pods")), pods(data)),
    h("section", { key: "events", class: "card", "aria-labelledby": "events-title" },
      h("div", { class: "card-head" }, h("h2", { id: "events-title" }, "Events")), eventTable(data.events.slice(0, 20), data.time, "Nothing is known to have happened to it.")),
  ];
}

function fact(name, ...value) {
  return h("div", { key: name }, h("dt", {}, name), h("dd", {}, ...value));
}

function expiry(when, now, count) {
  const left = when - now;
  const said = left > 0 ? `expires in ${format.span(left)}` : `expired ${format.span(-left)} ago`;
  return [h("span", { class: left > 60 ? "good" : "bad" }, icon(left > 60 ? "good" : "bad"), count > 1 ? `the first of ${count} ${said}` : said),
    h("time", { class: "muted block", datetime: new Date(when * 1000).toISOString() }, format.moment(when))];
}

function policies(found) {
  if (!found.length) return h("p", { class: "empty" }, "No traffic policy concerns it.");
  return h("ul", { class: "policies" }, found.map((policy) => {
    const tone = policy.in_force === "True" ? (policy.reason === "InPart" ? "warn" : "good") : policy.in_force === "False" ? "warn" : "muted";
    return h("li", { key: `${policy.kind} ${policy.namespace} ${policy.name}` },
      h("div", {}, h("span", { class: "muted" }, `${policy.kind} `), h("b", {}, `${policy.namespace}/${policy.name}`)),
      policy.says ? h("div", { class: "says" }, policy.says) : null,
      h("div", { class: tone }, icon(tone === "muted" ? "idle" : tone), policy.in_force === "True" ? "in force" : policy.in_force === "False" ? "not in force" : "not known yet",
        policy.in_force === "True" && policy.reason !== "InPart" ? "" : `: ${policy.message || policy.reason}`));
  }));
}

function charts(data, page) {
  const { times, in: received, out: sent } = data.course;
  const busy = (course) => course.rate.some((value) => value > 0);
  const shown = direction ?? (busy(received) || !busy(sent) ? "in" : "out");
  const course = shown === "in" ? received : sent;
  const option = (value, text) => h("label", { key: value, class: "segment" },
    h("input", { type: "radio", name: "direction", checked: shown === value, on: { change: () => { direction = value; page.redraw(); } } }), h("span", {}, text));
  const lowest = Math.min(1, ...course.success.filter((value) => value !== null));
  const common = { times, now: data.time };
  return h("section", { key: "charts", class: "card", "aria-labelledby": "charts-title" },
    h("div", { class: "card-head" }, h("h2", { id: "charts-title" }, "Traffic"),
      h("fieldset", { class: "segments" }, h("legend", { class: "hidden" }, "Which requests"), option("in", "Received"), option("out", "Sent"))),
    times.length < 2 ? h("p", { key: "wait", class: "empty" }, "Sidecars are asked every 5 seconds; the first points are on their way.") : null,
    h("div", { key: "charts", class: "charts" },
      chart({ ...common, title: "Requests", series: [{ name: "requests", values: course.rate }], say: (value) => `${Number(value.toPrecision(3))}/s` }),
      chart({ ...common, title: "Success", series: [{ name: "success", values: course.success, look: "good-line" }], say: (value) => `${Number((value * 100).toPrecision(3))}%`, low: lowest >= 0.9 ? 0.9 : lowest >= 0.5 ? 0.5 : 0, high: 1 }),
      chart({ ...common, title: "Latency", series: [{ name: "p50", values: course.p50 }, { name: "p90", values: course.p90, look: "two" }, { name: "p99", values: course.p99, look: "three" }], say: format.time })));
}

function pods(data) {
  if (!data.members.length) return h("p", { class: "empty" }, "It has no pods.");
  const titles = ["Pod", "State", "Restarts", "Age", "Address", "mTLS mode", "Certificate"];
  const cell = (at, className, ...children) => h("td", { key: titles[at], "data-title": titles[at], class: className }, ...children);
  return h("div", { class: "scroll" }, h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, titles.map((title, at) => h("th", { key: title, scope: "col", class: at === 2 ? "number" : null }, title)))),
    h("tbody", {}, data.members.map((pod) => {
      const tone = pod.silent ? "warn" : pod.ready ? "good" : pod.phase === "Succeeded" ? "muted" : "bad";
      const left = pod.identity.not_after ? pod.identity.not_after - data.time : null;
      return h("tr", { key: pod.name },
        h("th", { scope: "row", "data-title": titles[0] }, pod.name),
        cell(1, tone, icon(tone === "muted" ? "idle" : tone), pod.silent ? "sidecar does not answer" : pod.ready ? "ready" : pod.phase === "Running" ? "not ready" : pod.phase),
        cell(2, "number", String(pod.restarts)),
        cell(3, "nowrap", format.span(data.time - format.parsed(pod.started))),
        cell(4, null, pod.addresses[0] ?? "–"),
        cell(5, null, pod.meshed ? pod.mtls_mode ?? "not known" : "no sidecar"),
        cell(6, left !== null && left < 60 ? "bad" : null, left === null ? "–" : left > 0 ? `${format.span(left)} left` : "expired"));
    }))));
}
