// The frame of all pages: which is shown, where its facts come from, and what is missing.
import { h, render } from "./dom.js";
import * as events from "./events.js";
import * as format from "./format.js";
import * as graph from "./graph.js";
import { icon } from "./icons.js";
import * as words from "./words.js";
import * as workload from "./workload.js";
import * as workloads from "./workloads.js";

const PERIOD = 2000;
const main = document.getElementById("main");
const live = document.getElementById("live");
const announcer = document.getElementById("announcer");

let page = null;        // what is shown
let data = null;        // its facts, the newest that there are
let overview = null;    // the newest graph: the banner is about it on every page
let problem = null;     // why there are no newer ones
let seen = 0;           // when there were, on this page's clock
let timer = 0;

function parse() {
  const [route, search = ""] = location.hash.replace(/^#/, "").split("?");
  const parts = route.split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const query = Object.fromEntries(new URLSearchParams(search));
  if (parts[0] === "workloads" && parts.length === 4) {
    return { name: "workload", title: parts[3], path: `/api/workloads/${parts.slice(1).map(encodeURIComponent).join("/")}`, view: workload.view, query };
  }
  if (parts[0] === "workloads") return { name: "workloads", title: "Workloads", path: "/api/graph", view: workloads.view, query };
  if (parts[0] === "events") return { name: "events", title: "Events", path: "/api/events", view: events.view, query };
  return { name: "graph", title: "Graph", path: "/api/graph", view: graph.view, query };
}

function open() {
  const before = page;
  page = parse();
  page.redraw = draw;
  page.ask = (changes) => {
    const query = Object.fromEntries(Object.entries({ ...page.query, ...changes }).filter(([, value]) => value));
    page.query = query;
    const search = new URLSearchParams(query).toString();
    history.replaceState(null, "", `${location.hash.split("?")[0] || "#/graph"}${search ? `?${search}` : ""}`);
    draw();
  };
  document.title = `${page.title} · NGINX Mesh`;
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.hash === `#/${page.name === "workload" ? "workloads" : page.name}`;
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (before?.path !== page.path) data = page.path === "/api/graph" ? overview : null;
  if (before) {
    main.replaceChildren();
    scrollTo(0, 0);
  }
  draw();
  if (before) (main.querySelector("h1") ?? main).focus({ preventScroll: true });
  refresh();
}

async function get(path) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" } });
  } catch {
    throw { missing: "server" };
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw answer.status === 404 ? { missing: "object", message: body.message } : { missing: "daemon", ...body };
  return body;
}

async function refresh() {
  clearTimeout(timer);
  const asked = page;
  try {
    const [found, whole] = await Promise.all([get(asked.path), asked.path === "/api/graph" ? null : get("/api/graph")]);
    if (asked !== page) return;
    const newer = whole ?? found;
    if (overview && !problem) changes(overview, newer).forEach(announce);
    else if (problem && problem.missing !== "object") announce("The mesh's daemon answers again.");
    [data, overview, problem, seen] = [found, newer, null, Date.now()];
  } catch (error) {
    if (asked !== page) return;
    const failed = error.missing ? error : { missing: "page", message: String(error) };
    if (failed.missing !== problem?.missing && failed.missing !== "object") announce(missing(failed));
    problem = failed;
  }
  draw();
  if (!document.hidden) timer = setTimeout(refresh, PERIOD);
}

function draw() {
  const mesh = overview?.mesh ?? problem?.mesh ?? "";
  document.getElementById("mesh-name").textContent = mesh;
  const lost = problem && problem.missing !== "object";
  render(live, lost
    ? [icon("bad"), h("span", {}, seen ? `Last seen ${format.span((Date.now() - seen) / 1000)} ago` : "Nothing seen yet")]
    : seen ? [h("span", { class: "dot" }), h("span", {}, "Live")] : [h("span", {}, "Loading…")]);
  live.className = `live ${lost ? "bad" : "good"}`;
  const notices = [problem ? { tone: problem.missing === "object" ? "warn" : "bad", text: missing(problem) } : null, ...(problem || !overview ? [] : gaps(overview))].filter(Boolean);
  const shown = data && !(problem?.missing === "object") ? page.view(data, page) : [h("h1", { key: "h1", tabindex: -1 }, page.title)];
  render(main, [
    ...notices.map((notice) => h("p", { key: `notice ${notice.text}`, class: `notice ${notice.tone}` }, icon(notice.tone === "bad" ? "bad" : "warn"), h("span", {}, notice.text))),
    h("div", { key: `page ${page.path}`, class: `page${lost ? " stale" : ""}` }, shown),
  ]);
}

/** What is missing, and what to do. */
function missing({ missing: what, message, mesh }) {
  if (what === "server") return "The dashboard's own server does not answer. Start it again with “nginx-meshctl dashboard”; this page goes on by itself then.";
  if (what === "object") return `${message ?? "There is no such workload."} It may have been deleted.`;
  if (what === "daemon") return `The mesh's daemon does not answer (${message ?? "no reason given"}). Pods and sidecars go on without it; “nginx-meshctl local up --name ${mesh ?? "NAME"}” starts it again. What you see is from before.`;
  return `This page failed: ${message}`;
}

/** What the mesh's facts do not cover. */
function gaps({ sidecars, counted, workloads: all }) {
  const found = [];
  if (!sidecars.all && all.length) found.push("No pod has a sidecar: nothing is counted. Label a namespace “injector.nsm.nginx.com/auto-inject: enabled”.");
  else if (sidecars.all && !counted.length) found.push("Sidecars are being asked for the first time; the first figures come within 10 seconds.");
  if (sidecars.silent) {
    const more = sidecars.silent - sidecars.silent_names.length;
    found.push(`${format.plural(sidecars.silent, "sidecar does", "sidecars do")} not answer, and what is counted there is missing: ${sidecars.silent_names.join(", ")}${more ? ` and ${more} more` : ""}.`);
  }
  if (sidecars.live < sidecars.all) found.push(`${format.plural(sidecars.all - sidecars.live, "sidecar has", "sidecars have")} no state yet.`);
  return found.map((text) => ({ tone: "warn", text }));
}

/** What is worth saying of the step from one graph to the next. */
function changes(before, after) {
  const known = new Map(before.edges.map((edge) => [`${edge.from} ${edge.to}`, edge]));
  return after.edges.flatMap((edge) => {
    const old = known.get(`${edge.from} ${edge.to}`);
    const ends = `${words.place(edge.from).name} to ${words.place(edge.to).name}`;
    const said = [];
    if (old && words.busy(edge) && words.busy(old) && edge.security !== "unknown" && old.security !== edge.security) said.push(`${ends}: ${words.SECURITY[edge.security].words}.`);
    if ((old ? words.circuits(old) : "") !== words.circuits(edge)) said.push(`${ends}: ${words.circuits(edge) || "circuit closed"}.`);
    return said;
  });
}

function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  announcer.append(line);
  while (announcer.childElementCount > 5) announcer.firstChild.remove();
}

const theme = document.getElementById("theme");
theme.value = document.documentElement.dataset.theme ?? "system";
theme.onchange = () => {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  try {
    localStorage.setItem("theme", theme.value);
  } catch { /* no storage: it holds for this visit */ }
};
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  (main.querySelector("h1") ?? main).focus();
};
addEventListener("hashchange", open);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
setInterval(() => problem && draw(), 1000);
open();
