// The filter of workloads by name and namespace. It is part of the page's address.
import { h } from "./dom.js";

/** Workloads that a filter leaves. */
export function matching(workloads, { q = "", namespace = "" }) {
  const text = q.toLowerCase();
  return workloads.filter((each) => (!namespace || each.namespace === namespace) && (!text || `${each.namespace}/${each.name}`.toLowerCase().includes(text)));
}

export function filter(workloads, page, { idle = false } = {}) {
  const { q = "", namespace = "" } = page.query;
  const namespaces = [...new Set([...workloads.map((each) => each.namespace), ...(namespace ? [namespace] : [])])].sort();
  return h("form", { class: "filter", role: "search", "aria-label": "Workloads", on: { submit: (event) => event.preventDefault() } },
    h("input", { type: "search", "aria-label": "Filter by name", placeholder: "Filter by name", value: q, on: { input: (event) => page.ask({ q: event.target.value }) } }),
    h("select", { "aria-label": "Namespace", on: { change: (event) => page.ask({ namespace: event.target.value }) } },
      h("option", { key: "", value: "", selected: !namespace }, "All namespaces"),
      namespaces.map((name) => h("option", { key: name, value: name, selected: name === namespace }, name))),
    idle ? h("label", { class: "check" },
      h("input", { type: "checkbox", checked: Boolean(page.query.idle), on: { change: (event) => page.ask({ idle: event.target.checked ? "1" : "" }) } }), "Idle workloads") : null);
}
