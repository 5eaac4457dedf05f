// Small charts of the last minutes.
import { h } from "./dom.js";

const WIDTH = 560, HEIGHT = 168, LEFT = 52, RIGHT = 10, TOP = 10, BOTTOM = 24;
const MINUTES = 15;

/** The least of 1, 2, 5, 10, … that is no less than `value`. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

/**
 * `series` have a `name`, `values` (null: nothing) and an optional `look`; `times` are seconds since the epoch.
 * `say(value)` words one value. `low` and `high` are the axis' ends, by default 0 and what the values need.
 */
export function chart({ title, times, now, series, say, low = 0, high = null }) {
  const most = Math.max(0, ...series.flatMap((each) => each.values.filter((value) => value !== null)));
  const top = high ?? ceiling(most);
  const x = (when) => LEFT + (WIDTH - LEFT - RIGHT) * (1 - (now - when) / (MINUTES * 60));
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (Math.max(low, Math.min(top, value)) - low) / (top - low));
  const known = (values) => values.filter((value) => value !== null);
  const summary = series.map(({ name, values }) => {
    const some = known(values);
    return some.length ? `${name}: now ${values.at(-1) === null ? "nothing" : say(values.at(-1))}, lowest ${say(Math.min(...some))}, highest ${say(Math.max(...some))}` : `${name}: nothing`;
  }).join("; ");
  const heading = `chart-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h("figure", { key: title, class: "chart" },
    h("figcaption", { id: heading }, h("span", {}, title),
      h("span", { class: "keys" }, series.map(({ name, values, look = "one" }) => h("span", { key: name, class: `key ${look}` },
        h("svg", { viewBox: "0 0 18 6", "aria-hidden": "true" }, h("line", { x1: 0, x2: 18, y1: 3, y2: 3 })),
        series.length > 1 ? `${name} ` : "", h("b", {}, values.length && values.at(-1) !== null ? say(values.at(-1)) : "–"))))),
    h("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} over the last ${MINUTES} minutes. ${summary}` },
      [0, 0.5, 1].map((share) => {
        const value = low + (top - low) * share;
        return h("g", { key: share, class: "axis" },
          h("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
          h("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, say(value)));
      }),
      [15, 10, 5, 0].map((minutes) => h("text", { key: `t${minutes}`, class: "axis-text", x: x(now - minutes * 60), y: HEIGHT - 6, "text-anchor": minutes === 15 ? "start" : minutes ? "middle" : "end" }, minutes ? `−${minutes} min` : "now")),
      series.map(({ name, values, look = "one" }) => h("path", { key: name, class: `line ${look}`, d: line(times, values, x, y) }))));
}

/** A line that breaks where there is nothing. A value alone is a short dash. */
function line(times, values, x, y) {
  let d = "", open = false;
  times.forEach((when, at) => {
    const value = values[at];
    if (value === null || value === undefined) {
      open = false;
      return;
    }
    const alone = !open && (values[at + 1] === null || values[at + 1] === undefined);
    d += `${open ? "L" : "M"}${x(when).toFixed(1)} ${y(value).toFixed(1)}${alone ? "h2" : ""}`;
    open = true;
  });
  return d;
}
