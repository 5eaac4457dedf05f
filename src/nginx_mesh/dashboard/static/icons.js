// Icons. What an icon means always stands beside it in text, or in its title.
import { h } from "./dom.js";

// Paths in a square of 16 units.
const PATHS = {
  lock:
    "M5 7V5a3 3 0 0 1 6 0v2h.5A1.5 1.5 0 0 1 13 8.5v4A1.5 1.5 0 0 1 11.5 14h-7A1.5 1.5 0 0 1 3 12.5v-4"
    + "A1.5 1.5 0 0 1 4.5 7zm1.5 0h3V5a1.5 1.5 0 0 0-3 0z",
  unlocked:
    "M5 7V4.5a3 3 0 0 1 5.9-.75l-1.450.4A1.5 1.5 0 0 0 6.5 4.5V7h5A1.5 1.5 0 0 1 13 8.5v4"
    + "a1.5 1.5 0 0 1-1.5 1.5h-7A1.5 1.5 0 0 1 3 12.5v-4A1.5 1.5 0 0 1 4.5 7zM4.5 8.5v4h7v-4z",
  good: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zm3.3 4.7-1-1L7 8.5 5.7 7.2l-1 1L7 10.5z",
  warn: "M8 1.5 15 14H1zM7.250 6v4h1.5V6zm0 5v1.5h1.5V11z",
  bad:
    "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM5.7 4.7l-1 1L7 8l-2.3 2.3 1 1L8 9l2.3 2.3 1-1L9 8"
    + "l2.3-2.3-1-1L8 7z",
  idle: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3z",
  broken:
    "M1 7.250h4.2a3 3 0 0 1 1.5-1.9l.7 1.3a1.5 1.5 0 0 0 0 2.7l-.7 1.3a3 3 0 0 1-1.5-1.9H1zM15 7.250h-4.2"
    + "a3 3 0 0 0-1.5-1.9l-.7 1.3a1.5 1.5 0 0 1 0 2.7l.7 1.3a3 3 0 0 0 1.5-1.9H15zM7.3 1.5h1.4V4H7.3zm0 10.5h1.4"
    + "v2.5H7.3z",
  split: "M1 7.250h4.4L9 3.6h3V1.5l3.5 2.9L12 7.3V5.1H9.6L6.7 8l2.9 2.9H12V8.7l3.5 2.9-3.5 2.9v-2.1H9L5.4 8.750H1z",
};

/** An icon in the colour of the text around it. */
export function icon(name, attributes = {}) {
  return h("svg", { viewBox: "0 0 16 16", class: `icon icon-${name}`, "aria-hidden": "true", ...attributes },
    h("path", { d: PATHS[name], "fill-rule": "evenodd" }));
}

/** The path of an icon alone, for use inside of an SVG drawing. */
export function path(name, x, y, size, className) {
  const transform = `translate(${x} ${y}) scale(${size / 16})`;
  return h("path", { d: PATHS[name], "fill-rule": "evenodd", class: className, transform });
}
