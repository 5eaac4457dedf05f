// Small charts of the last minutes.
import { h } from "./dom.js";

const WIDTH = 560, HEIGHT = 168, LEFT = 52, RIGHT = 10, TOP = 10, BOTTOM = 24;
const MINUTES = 15;

const isKnown = (value) => value !== null && value !== undefined;

/** The least of 1, 2, 5, 10, … that is no less than `value`. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

/**
 * A chart with its legend. `series` have a `name`, `values` (null where there is none) and an optional `style`, a class
 * of the style sheet; `times` are seconds since the epoch. `text(value)` writes a value with its unit. `low` and `high`
 * are the ends of the axis, by default 0 and what the values need.
 */
export function chart({ title, times, now, series, text, low = 0, high = null }) {
  const highest = Math.max(0, ...series.flatMap(({ values }) => values.filter(isKnown)));
  const end = high ?? ceiling(highest);
  const x = (when) => LEFT + (WIDTH - LEFT - RIGHT) * (1 - (now - when) / (MINUTES * 60));
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (Math.max(low, Math.min(end, value)) - low) / (end - low));
  const summary = series.map((each) => summarize(each, text)).join("; ");
  const heading = `chart-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h("figure", { key: title, class: "chart" },
    h("figcaption", { id: heading }, h("span", {}, title),
      h("span", { class: "keys" }, series.map((each) => legend(each, series.length > 1, text)))),
    h("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
      "aria-label": `${title} over the last ${MINUTES} minutes. ${summary}`,
    },
    [0, 0.5, 1].map((share) => {
      const value = low + (end - low) * share;
      return h("g", { key: share, class: "axis" },
        h("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
        h("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, text(value)));
    }),
    [[15, "start"], [10, "middle"], [5, "middle"], [0, "end"]].map(([minutes, anchor]) => h("text", {
      key: `t${minutes}`, class: "axis-text", x: x(now - minutes * 60), y: HEIGHT - 6, "text-anchor": anchor,
    }, minutes ? `−${minutes} min` : "now")),
    series.map(({ name, values, style = "one" }) => (
      h("path", { key: name, class: `line ${style}`, d: line(times, values, x, y) })))));
}

/** A series in text, for screen readers. */
function summarize({ name, values }, text) {
  const known = values.filter(isKnown);
  if (!known.length) return `${name}: nothing`;
  const last = isKnown(values.at(-1)) ? text(values.at(-1)) : "nothing";
  return `${name}: now ${last}, lowest ${text(Math.min(...known))}, highest ${text(Math.max(...known))}`;
}

/** The legend of a series, with its latest value. */
function legend({ name, values, style = "one" }, isNamed, text) {
  return h("span", { key: name, class: `key ${style}` },
    h("svg", { viewBox: "0 0 18 6", "aria-hidden": "true" }, h("line", { x1: 0, x2: 18, y1: 3, y2: 3 })),
    isNamed ? `${name} ` : "",
    h("b", {}, isKnown(values.at(-1)) ? text(values.at(-1)) : "–"));
}

/** A line that is interrupted where there are no values. A value alone is a short dash. */
function line(times, values, x, y) {
  let d = "", isOpen = false;
  times.forEach((when, at) => {
    if (!isKnown(values[at])) {
      isOpen = false;
      return;
    }
    const isAlone = !isOpen && !isKnown(values[at + 1]);
    d += `${isOpen ? "L" : "M"}${x(when).toFixed(1)} ${y(values[at]).toFixed(1)}${isAlone ? "h2" : ""}`;
    isOpen = true;
  });
  return d;
}
