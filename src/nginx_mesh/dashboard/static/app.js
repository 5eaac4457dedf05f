// The frame of all pages: it chooses the page, fetches the data that the page shows, and tells when data is missing.
import { h, render } from "./dom.js";
import * as events from "./events.js";
import * as format from "./format.js";
import * as graph from "./graph.js";
import { icon } from "./icons.js";
import * as messages from "./messages.js";
import * as workload from "./workload.js";
import * as workloads from "./workloads.js";

const PERIOD = 2000;    // milliseconds between two requests for data
const ANNOUNCEMENTS = 5;        // are kept for screen readers
const main = document.getElementById("main");
const live = document.getElementById("live");
const announcer = document.getElementById("announcer");

let page = null;        // the page that is shown
let data = null;        // its data, the newest that there is
let overview = null;    // the newest graph: every page has its warnings
let problem = null;     // the Problem why there is no newer data
let updated = 0;        // when the newest data came, on the browser's clock
let timer = 0;

/** Data is missing. `missing` is "server", "daemon", "object" (there is no such workload) or "page". */
class Problem extends Error {
  constructor(missing, { message = "", mesh = "" } = {}) {
    super(message);
    this.missing = missing;
    this.mesh = mesh;
  }

  /** Whether it is this object alone that is missing, and the rest of the mesh is known. */
  get isAboutObject() {
    return this.missing === "object";
  }

  /** What is missing, and what to do about it. */
  get text() {
    if (this.missing === "server") {
      return "The dashboard's own server does not answer. Start it again with “nginx-meshctl dashboard”; "
        + "this page goes on by itself then.";
    }
    if (this.isAboutObject) return `${this.message || "There is no such workload."} It may have been deleted.`;
    if (this.missing === "daemon") {
      return `The mesh's daemon does not answer (${this.message || "no reason given"}). Pods and sidecars go on `
        + `without it; “nginx-meshctl local up --name ${this.mesh || "NAME"}” starts it again. `
        + "What you see is from before.";
    }
    return `This page failed: ${this.message}`;
  }
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The page that the address names. */
function parseAddress() {
  const [route, search = ""] = window.location.hash.replace(/^#/, "").split("?");
  const parts = route.split("/").filter(Boolean).map(decode);
  const query = Object.fromEntries(new URLSearchParams(search));
  if (parts[0] === "workloads" && parts.length === 4) {
    const path = `/api/workloads/${parts.slice(1).map(encodeURIComponent).join("/")}`;
    return { name: "workload", title: parts[3], path, view: workload.view, query };
  }
  if (parts[0] === "workloads") {
    return { name: "workloads", title: "Workloads", path: "/api/graph", view: workloads.view, query };
  }
  if (parts[0] === "events") return { name: "events", title: "Events", path: "/api/events", view: events.view, query };
  return { name: "graph", title: "Graph", path: "/api/graph", view: graph.view, query };
}

/** Change parts of the page's query, which is part of its address, and draw the page anew. */
function setQuery(changed) {
  page.query = Object.fromEntries(Object.entries({ ...page.query, ...changed }).filter(([, value]) => value));
  const search = new URLSearchParams(page.query).toString();
  const route = window.location.hash.split("?")[0] || "#/graph";
  window.history.replaceState(null, "", `${route}${search ? `?${search}` : ""}`);
  draw();
}

function markCurrentLink() {
  const current = `#/${page.name === "workload" ? "workloads" : page.name}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function openPage() {
  const before = page;
  page = { ...parseAddress(), redraw: draw, setQuery };
  document.title = `${page.title} · NGINX Mesh`;
  markCurrentLink();
  if (before?.path !== page.path) data = page.path === "/api/graph" ? overview : null;
  if (before) {
    main.replaceChildren();
    window.scrollTo(0, 0);
  }
  draw();
  if (before) (main.querySelector("h1") ?? main).focus({ preventScroll: true });
  refresh();
}

async function getJson(path) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" } });
  } catch {
    throw new Problem("server");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw new Problem(answer.status === 404 ? "object" : body.missing ?? "daemon", body);
}

/** Fetch the page's data and draw it, and do so again after a while. */
async function refresh() {
  clearTimeout(timer);
  const asked = page;
  try {
    const isGraph = asked.path === "/api/graph";
    const [found, whole] = await Promise.all([getJson(asked.path), isGraph ? null : getJson("/api/graph")]);
    if (asked !== page) return;
    const newer = whole ?? found;
    if (overview && !problem) changesBetween(overview, newer).forEach(announce);
    else if (problem && !problem.isAboutObject) announce("The mesh's daemon answers again.");
    [data, overview, problem, updated] = [found, newer, null, Date.now()];
  } catch (error) {
    if (asked !== page) return;
    const failed = error instanceof Problem ? error : new Problem("page", { message: String(error) });
    if (failed.missing !== problem?.missing && !failed.isAboutObject) announce(failed.text);
    problem = failed;
  }
  draw();
  if (!document.hidden) timer = setTimeout(refresh, PERIOD);
}

function drawLiveSign(disconnected) {
  const age = format.span((Date.now() - updated) / 1000);
  if (disconnected) {
    render(live, [icon("bad"), h("span", {}, updated ? `Last seen ${age} ago` : "Nothing seen yet")]);
  } else {
    render(live, updated ? [h("span", { class: "dot" }), h("span", {}, "Live")] : [h("span", {}, "Loading…")]);
  }
  live.className = `live ${disconnected ? "bad" : "good"}`;
}

function draw() {
  const disconnected = problem !== null && !problem.isAboutObject;
  document.getElementById("mesh-name").textContent = overview?.mesh ?? problem?.mesh ?? "";
  drawLiveSign(disconnected);
  let notices = [];
  if (problem) notices = [{ tone: disconnected ? "bad" : "warn", text: problem.text }];
  else if (overview) notices = warnings(overview).map((text) => ({ tone: "warn", text }));
  const isShown = data && !problem?.isAboutObject;
  render(main, [
    ...notices.map(({ tone, text }) => h("p", { key: `notice ${text}`, class: `notice ${tone}` },
      icon(tone), h("span", {}, text))),
    h("div", { key: `page ${page.path}`, class: `page${disconnected ? " stale" : ""}` },
      isShown ? page.view(data, page) : h("h1", { key: "h1", tabindex: -1 }, page.title)),
  ]);
}

/** What the data does not cover, a sentence each. */
function warnings({ sidecars, counted, workloads: all }) {
  const found = [];
  if (!sidecars.all && all.length) {
    found.push("No pod has a sidecar: nothing is counted. "
      + "Label a namespace “injector.nsm.nginx.com/auto-inject: enabled”.");
  } else if (sidecars.all && !counted.length) {
    found.push("Sidecars are being asked for the first time; the first figures come within 10 seconds.");
  }
  if (sidecars.silent) {
    const more = sidecars.silent - sidecars.silent_names.length;
    const names = `${sidecars.silent_names.join(", ")}${more ? ` and ${more} more` : ""}`;
    found.push(`${format.plural(sidecars.silent, "sidecar does", "sidecars do")} not answer, `
      + `and what is counted there is missing: ${names}.`);
  }
  if (sidecars.live < sidecars.all) {
    found.push(`${format.plural(sidecars.all - sidecars.live, "sidecar has", "sidecars have")} no state yet.`);
  }
  return found;
}

/** What changed from one graph to the next and is worth an announcement. */
function changesBetween(before, after) {
  const known = new Map(before.edges.map((edge) => [`${edge.from} ${edge.to}`, edge]));
  return after.edges.flatMap((edge) => {
    const old = known.get(`${edge.from} ${edge.to}`);
    const ends = `${messages.parseId(edge.from).name} to ${messages.parseId(edge.to).name}`;
    const found = [];
    const isComparable = old && messages.hasTraffic(edge) && messages.hasTraffic(old) && edge.security !== "unknown";
    if (isComparable && old.security !== edge.security) {
      found.push(`${ends}: ${messages.SECURITY[edge.security].text}.`);
    }
    const circuits = messages.circuits(edge);
    if ((old ? messages.circuits(old) : "") !== circuits) found.push(`${ends}: ${circuits || "circuit closed"}.`);
    return found;
  });
}

function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  announcer.append(line);
  while (announcer.childElementCount > ANNOUNCEMENTS) announcer.firstChild.remove();
}

const theme = document.getElementById("theme");
theme.value = document.documentElement.dataset.theme ?? "system";
theme.onchange = () => {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  try {
    localStorage.setItem("theme", theme.value);
  } catch { /* Without storage the choice holds for this visit. */ }
};
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  (main.querySelector("h1") ?? main).focus();
};
window.addEventListener("hashchange", openPage);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
setInterval(() => {
  if (problem) draw();
}, 1000);
openPage();
