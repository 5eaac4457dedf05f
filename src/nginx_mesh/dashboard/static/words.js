// What the facts of an edge and of a workload mean, in words and by the picture that stands for them.
import * as format from "./format.js";

export const SECURITY = {
  mtls: { icon: "lock", tone: "good", short: "mTLS", words: "all of it by mTLS, both sides proved who they are" },
  plaintext: { icon: "unlocked", tone: "warn", short: "plaintext", words: "in plaintext" },
  mixed: { icon: "unlocked", tone: "warn", short: "partly mTLS", words: "some of it by mTLS, some in plaintext" },
  unproved: { icon: "unlocked", tone: "bad", short: "not proved", words: "mTLS is wanted, but nobody answered and proved who they are" },
  unknown: { icon: "idle", tone: "muted", short: "not known", words: "nothing new to tell by" },
};

export const KINDS = {
  deployment: "Deployment", statefulset: "StatefulSet", daemonset: "DaemonSet", replicaset: "ReplicaSet",
  replicationcontroller: "ReplicationController", job: "Job", pod: "Pod", service: "Service outside of this mesh",
};

/** How a share of successes is to be taken. */
export function tone(success) {
  if (success === null || success === undefined) return "muted";
  if (success >= 0.999) return "good";
  return success >= 0.95 ? "warn" : "bad";
}

/** Whether a workload's pods are ready. */
export function readiness(workload) {
  if (workload.kind === "service") return { tone: "muted", icon: "idle", words: "outside of this mesh" };
  const words = `${workload.ready} of ${format.plural(workload.pods, "pod")} ready`;
  if (workload.pods === 0) return { tone: "muted", icon: "idle", words: "no pods" };
  if (workload.ready === workload.pods) return { tone: "good", icon: "good", words };
  return workload.ready ? { tone: "warn", icon: "warn", words } : { tone: "bad", icon: "bad", words };
}

export function mode(workload) {
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
  return edge.splits.map((each) => `${each.whole ? Number((100 * each.weight / each.whole).toFixed(1)) : 0}% of ${each.root}`);
}

export function place(id) {
  const [namespace, kind, name] = id.split("/");
  return { namespace, kind, name };
}

export function href(id) {
  return `#/workloads/${id.split("/").map(encodeURIComponent).join("/")}`;
}

/** Whether anything goes over an edge. */
export function busy(edge) {
  return Boolean(edge.rate || edge.tcp);
}

/** The share of an edge's requests, or else connections, that succeeded. */
export function success(edge) {
  return edge.success ?? edge.tcp?.success;
}

/** How often an edge is used: requests, or else connections. */
export function rate(edge) {
  return edge.rate || !edge.tcp ? format.rate(edge.rate) : edge.tcp.rate ? format.rate(edge.tcp.rate).replace("/", " conn/") : "TCP";
}

/** An edge in a sentence, for those who hear it. */
export function sentence(edge) {
  const from = place(edge.from).name, to = place(edge.to).name;
  const parts = [];
  if (edge.rate) parts.push(`${format.rate(edge.rate)}, ${format.share(edge.success)} successful`, `half within ${format.time(edge.p50)}, 99% within ${format.time(edge.p99)}`);
  if (edge.tcp) parts.push(`TCP: ${format.rate(edge.tcp.rate).replace("/", " connections/")}, ${format.bytes(edge.tcp.bytes)}`);
  parts.push(busy(edge) ? SECURITY[edge.security].words : "no traffic");
  parts.push(...splits(edge), circuits(edge));
  return `${from} calls ${to}: ${parts.filter(Boolean).join(", ")}`;
}
