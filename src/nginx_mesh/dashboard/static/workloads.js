// The page that lists workloads.
import { h } from "./dom.js";
import { filter, matching } from "./filter.js";
import * as format from "./format.js";
import { icon } from "./icons.js";
import * as words from "./words.js";

const MOST = 200;

export function view(data, page) {
  const found = matching(data.workloads, page.query).filter((each) => each.kind !== "service");
  return [
    h("h1", { key: "h1", tabindex: -1 }, "Workloads"),
    h("p", { key: "lead", class: "lead" }, `${format.plural(found.length, "workload")}; what each received in the last ${data.window} seconds.`),
    h("section", { key: "list", class: "card", "aria-label": "Workloads" },
      h("div", { class: "card-head" }, filter(data.workloads, page)),
      found.length ? table(found.slice(0, MOST)) : h("p", { key: "none", class: "empty" }, data.workloads.length ? "No workload fits the filter." : "There are no workloads yet."),
      found.length > MOST ? h("p", { key: "more", class: "note" }, `${found.length - MOST} more. The filter finds them.`) : null),
  ];
}

function table(workloads) {
  const titles = ["Workload", "Kind", "Pods", "mTLS mode", "Received", "Success", "P50", "P99"];
  const cell = (at, className, ...children) => h("td", { key: titles[at], "data-title": titles[at], class: className }, ...children);
  return h("div", { key: "table", class: "scroll" }, h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, titles.map((title, at) => h("th", { key: title, scope: "col", class: at > 3 ? "number" : null }, title)))),
    h("tbody", {}, workloads.map((each) => {
      const state = words.readiness(each), tone = words.tone(each.in?.success);
      return h("tr", { key: each.id },
        h("th", { scope: "row", "data-title": titles[0] }, h("a", { href: words.href(each.id) }, h("span", { class: "muted" }, `${each.namespace}/`), each.name)),
        cell(1, "muted", words.KINDS[each.kind]),
        cell(2, state.tone, icon(state.icon), `${each.ready} of ${each.pods} ready`),
        cell(3, null, each.meshed ? each.mtls_modes.join(", ") : h("span", { class: "muted" }, words.mode(each))),
        cell(4, "number", each.in ? format.rate(each.in.rate) : "–"),
        cell(5, `number ${tone}`, tone === "warn" || tone === "bad" ? icon(tone) : null, format.share(each.in?.success)),
        cell(6, "number", format.time(each.in?.p50)), cell(7, "number", format.time(each.in?.p99)));
    }))));
}
