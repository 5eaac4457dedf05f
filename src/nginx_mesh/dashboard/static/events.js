// The page of events, and their table.
import { h } from "./dom.js";
import * as format from "./format.js";
import { icon } from "./icons.js";

const MAX_ROWS = 200;

export function view(data, page) {
  const { q = "", type = "" } = page.query;
  const text = q.toLowerCase();
  const found = data.events.filter((event) => (
    (!type || event.type === type) && (!text || searchText(event).toLowerCase().includes(text))));
  return [
    h("h1", { key: "h1", tabindex: -1 }, "Events"),
    h("p", { key: "lead", class: "lead" },
      "What happened in the mesh, the newest first. The daemon keeps them while it lives."),
    h("section", { key: "list", class: "card", "aria-label": "Events" },
      h("div", { class: "card-head" }, filter(page, q, type)),
      table(found.slice(0, MAX_ROWS), data.time,
        data.events.length ? "No event fits the filter." : "Nothing has happened yet."),
      found.length > MAX_ROWS
        ? h("p", { key: "more", class: "note" }, `${found.length - MAX_ROWS} older ones. The filter finds them.`)
        : null),
  ];
}

function filter(page, text, type) {
  return h("form", {
    class: "filter", role: "search", "aria-label": "Events", on: { submit: (event) => event.preventDefault() },
  },
  h("input", {
    type: "search", "aria-label": "Filter by text", placeholder: "Filter by text", value: text,
    on: { input: (event) => page.setQuery({ q: event.target.value }) },
  }),
  h("select", { "aria-label": "Type", on: { change: (event) => page.setQuery({ type: event.target.value }) } },
    ["", "Warning", "Normal"].map((each) => (
      h("option", { key: each, value: each, selected: each === type }, each || "All types")))));
}

function searchText({ involvedObject: object, reason, message }) {
  return `${object.kind} ${object.namespace}/${object.name} ${reason} ${message}`;
}

/** Events as a table; `none` is the text without any. */
export function table(events, now, none) {
  if (!events.length) return h("p", { key: "none", class: "empty" }, none);
  const titles = ["When", "Type", "Object", "Reason", "Message"];
  const cell = (at, className, ...children) => (
    h("td", { key: titles[at], "data-title": titles[at], class: className }, ...children));
  return h("div", { key: "table", class: "scroll" }, h("table", { class: "stack events" },
    h("thead", {}, h("tr", {}, titles.map((title) => h("th", { key: title, scope: "col" }, title)))),
    h("tbody", {}, events.map((event) => {
      const { kind, namespace, name } = event.involvedObject, isWarning = event.type === "Warning";
      const when = format.parsed(event.lastTimestamp);
      return h("tr", { key: event.metadata.namespace + event.metadata.name },
        cell(0, "nowrap", h("time", { datetime: event.lastTimestamp, title: format.moment(when) },
          `${format.span(now - when)} ago`)),
        cell(1, isWarning ? "warn nowrap" : "muted nowrap", icon(isWarning ? "warn" : "idle"), event.type),
        cell(2, null, h("span", { class: "muted" }, `${kind} `), namespace ? `${namespace}/${name}` : name),
        cell(3, null, event.reason, event.count > 1 ? h("span", { class: "muted" }, ` ×${event.count}`) : null),
        cell(4, "message", event.message));
    }))));
}
