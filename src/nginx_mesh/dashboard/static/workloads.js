// The page that lists workloads.
import { h } from "./dom.js";
import { filter, matching } from "./filter.js";
import * as format from "./format.js";
import { icon } from "./icons.js";
import * as messages from "./messages.js";

const MAX_ROWS = 200;

export function view(data, page) {
  const found = matching(data.workloads, page.query).filter((each) => each.kind !== "service");
  const none = data.workloads.length ? "No workload fits the filter." : "There are no workloads yet.";
  return [
    h("h1", { key: "h1", tabindex: -1 }, "Workloads"),
    h("p", { key: "lead", class: "lead" },
      `${format.plural(found.length, "workload")}; what each received in the last ${data.window} seconds.`),
    h("section", { key: "list", class: "card", "aria-label": "Workloads" },
      h("div", { class: "card-head" }, filter(data.workloads, page)),
      found.length ? table(found.slice(0, MAX_ROWS)) : h("p", { key: "none", class: "empty" }, none),
      found.length > MAX_ROWS
        ? h("p", { key: "more", class: "note" }, `${found.length - MAX_ROWS} more. The filter finds them.`)
        : null),
  ];
}

function table(workloads) {
  const titles = ["Workload", "Kind", "Pods", "mTLS mode", "Received", "Success", "P50", "P99"];
  const cell = (at, className, ...children) => (
    h("td", { key: titles[at], "data-title": titles[at], class: className }, ...children));
  const heading = (title, at) => h("th", { key: title, scope: "col", class: at > 3 ? "number" : null }, title);
  return h("div", { key: "table", class: "scroll" }, h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, titles.map(heading))),
    h("tbody", {}, workloads.map((each) => {
      const state = messages.readiness(each);
      const success = each.in?.success, tone = messages.successTone(success);
      const mode = each.meshed ? each.mtls_modes.join(", ") : h("span", { class: "muted" }, messages.mtlsMode(each));
      return h("tr", { key: each.id },
        h("th", { scope: "row", "data-title": titles[0] },
          h("a", { href: messages.href(each.id) }, h("span", { class: "muted" }, `${each.namespace}/`), each.name)),
        cell(1, "muted", messages.KINDS[each.kind]),
        cell(2, state.tone, icon(state.icon), `${each.ready} of ${each.pods} ready`),
        cell(3, null, mode),
        cell(4, "number", each.in ? format.rate(each.in.rate) : "–"),
        cell(5, `number ${tone}`, tone === "warn" || tone === "bad" ? icon(tone) : null, format.share(success)),
        cell(6, "number", format.time(each.in?.p50)),
        cell(7, "number", format.time(each.in?.p99)));
    }))));
}
