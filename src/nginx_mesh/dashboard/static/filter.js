// The filter of workloads by name and namespace. It is part of the page's address.
import { h } from "./dom.js";

/** The workloads that fit the filter of a page's query. */
export function matching(workloads, { q = "", namespace = "" }) {
  const text = q.toLowerCase();
  return workloads.filter((each) => (
    (!namespace || each.namespace === namespace)
    && (!text || `${each.namespace}/${each.name}`.toLowerCase().includes(text))));
}

/** The form. With `idle` it also asks whether idle workloads are shown. */
export function filter(workloads, page, { idle = false } = {}) {
  const { q = "", namespace = "" } = page.query;
  const chosen = namespace ? [namespace] : [];
  const namespaces = [...new Set([...workloads.map((each) => each.namespace), ...chosen])].sort();
  return h("form", {
    class: "filter", role: "search", "aria-label": "Workloads", on: { submit: (event) => event.preventDefault() },
  },
  h("input", {
    type: "search", "aria-label": "Filter by name", placeholder: "Filter by name", value: q,
    on: { input: (event) => page.setQuery({ q: event.target.value }) },
  }),
  h("select", {
    "aria-label": "Namespace", on: { change: (event) => page.setQuery({ namespace: event.target.value }) },
  },
  h("option", { key: "", value: "", selected: !namespace }, "All namespaces"),
  namespaces.map((name) => h("option", { key: name, value: name, selected: name === namespace }, name))),
  idle ? h("label", { class: "check" },
    h("input", {
      type: "checkbox", checked: Boolean(page.query.idle),
      on: { change: (event) => page.setQuery({ idle: event.target.checked ? "1" : "" }) },
    }),
    "Idle workloads") : null);
}
