// What is told of edges and workloads in text, and the tone and the icon that go with it. A tone is a class of the
// style sheet: "good", "warn", "bad" or "muted".
import * as format from "./format.js";

export const SECURITY = {
  mtls: { icon: "lock", tone: "good", short: "mTLS", text: "all of it by mTLS, both sides proved who they are" },
  plaintext: { icon: "unlocked", tone: "warn", short: "plaintext", text: "in plaintext" },
  mixed: { icon: "unlocked", tone: "warn", short: "partly mTLS", text: "some of it by mTLS, some in plaintext" },
  unproved: {
    icon: "unlocked", tone: "bad", short: "not proved",
    text: "mTLS is wanted, but nobody answered and proved who they are",
  },
  unknown: { icon: "idle", tone: "muted", short: "not known", text: "no new connection or request to tell by" },
};

export const KINDS = {
  deployment: "Deployment", statefulset: "StatefulSet", daemonset: "DaemonSet", replicaset: "ReplicaSet",
  replicationcontroller: "ReplicationController", job: "Job", pod: "Pod", service: "Service outside of this mesh",
};

/** The tone of a share of successes, from 0 to 1; null or undefined when there is none. */
export function successTone(share) {
  if (share === null || share === undefined) return "muted";
  if (share >= 0.999) return "good";
  return share >= 0.95 ? "warn" : "bad";
}

/** Whether a workload's pods are ready. */
export function readiness(workload) {
  if (workload.kind === "service") return { tone: "muted", icon: "idle", text: "outside of this mesh" };
  const text = `${workload.ready} of ${format.plural(workload.pods, "pod")} ready`;
  if (workload.pods === 0) return { tone: "muted", icon: "idle", text: "no pods" };
  if (workload.ready === workload.pods) return { tone: "good", icon: "good", text };
  return workload.ready ? { tone: "warn", icon: "warn", text } : { tone: "bad", icon: "bad", text };
}

/** The mTLS modes of a workload's pods; "" when it has none. */
export function mtlsMode(workload) {
  if (workload.kind === "service") return "";
  if (!workload.meshed) return workload.pods ? "no sidecar" : "";
  return workload.mtls_modes.length ? `mTLS ${workload.mtls_modes.join(", ")}` : "mTLS mode not known";
}

/** The circuits of an edge that are not closed, as one line; "" when there are none. */
export function circuits(edge) {
  return edge.circuits.filter((each) => each.open || each.half_open).map((each) => {
    const all = each.open + each.half_open + each.closed;
    const state = each.open ? "open" : "half-open";
    const count = each.open || each.half_open;
    return count < all ? `circuit ${state} in ${count} of ${all}` : `circuit ${state}`;
  }).join("; ");
}

/** The splits of an edge, a line each. */
export function splits(edge) {
  return edge.splits.map((each) => {
    const percent = each.whole ? Number((100 * each.weight / each.whole).toFixed(1)) : 0;
    return `${percent}% of ${each.root}`;
  });
}

/** The parts of a workload's ID. */
export function parseId(id) {
  const [namespace, kind, name] = id.split("/");
  return { namespace, kind, name };
}

/** The address of a workload's page. */
export function href(id) {
  return `#/workloads/${id.split("/").map(encodeURIComponent).join("/")}`;
}

/** Whether there is traffic on an edge. */
export function hasTraffic(edge) {
  return Boolean(edge.rate || edge.tcp);
}

/** The share of an edge's requests that succeeded, or of its TCP connections when it has no requests. */
export function successShare(edge) {
  return edge.success ?? edge.tcp?.success;
}

/** The rate of an edge's requests, or of its TCP connections when it has no requests. */
export function rate(edge) {
  if (edge.rate || !edge.tcp) return format.rate(edge.rate);
  return edge.tcp.rate ? format.rate(edge.tcp.rate).replace("/", " conn/") : "TCP";
}

/** An edge in a sentence, for screen readers. */
export function sentence(edge) {
  const parts = [];
  if (edge.rate) {
    parts.push(
      `${format.rate(edge.rate)}, ${format.share(edge.success)} successful`,
      `half within ${format.time(edge.p50)}, 99% within ${format.time(edge.p99)}`);
  }
  if (edge.tcp) {
    parts.push(`TCP: ${format.rate(edge.tcp.rate).replace("/", " connections/")}, ${format.bytes(edge.tcp.bytes)}`);
  }
  parts.push(hasTraffic(edge) ? SECURITY[edge.security].text : "no traffic");
  parts.push(...splits(edge), circuits(edge));
  return `${parseId(edge.from).name} calls ${parseId(edge.to).name}: ${parts.filter(Boolean).join(", ")}`;
}
