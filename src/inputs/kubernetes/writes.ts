import type { Cluster, EventText, Outcome, PatchType } from "./types.ts";
import { ApiFault } from "./faults.ts";

/** Kubernetes' own limits of an Event (events.k8s.io validation) and of names (RFC 1123 subdomain). */
const MESSAGE_CHARS_MAX = 1024;
const REASON_CHARS_MAX = 128;
const NAME_CHARS_MAX = 253;
const SUFFIX_CHARS = 12; // room for what generateName adds
const TAINT_TRIES = 3;

export type Send = (method: "GET" | "POST" | "PATCH", path: string, body?: { type: string; value: unknown }) => Promise<Outcome<unknown>>;

/** What an agent writes: Events and patches, never a policy. Needs `create events`; `get nodes`, `patch nodes`. */
export function writes(send: Send): Pick<Cluster, "get" | "patch" | "createEvent" | "removeTaint"> {
  const get: Cluster["get"] = (path) => send("GET", path);
  const patch: Cluster["patch"] = (path, value, type) => send("PATCH", path, { type, value });
  return {
    get,
    patch,
    createEvent: async (event) => {
      const namespace = event.regarding.namespace ?? "default";
      const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/events`;
      const made = await send("POST", path, { type: "application/json", value: eventObject(event, namespace) });
      if (made.ok) return { ok: true, value: "created" };
      return made.fault.status === 409 && event.name !== undefined ? { ok: true, value: "exists" } : made;
    },
    removeTaint: (node, key) => removeTaint(get, patch, `/api/v1/nodes/${encodeURIComponent(node)}`, key),
  };
}

/** A core/v1 Event: every server has them, and `kubectl describe` shows them. */
function eventObject({ regarding, type, reason, message, node, at, name }: EventText, namespace: string): unknown {
  const time = new Date(at).toISOString();
  const named = name === undefined ? { generateName: `${regarding.name.slice(0, NAME_CHARS_MAX - SUFFIX_CHARS)}.` } : { name };
  return {
    apiVersion: "v1",
    kind: "Event",
    metadata: { namespace, ...named },
    involvedObject: regarding,
    type,
    reason: reason.slice(0, REASON_CHARS_MAX),
    message: message.length > MESSAGE_CHARS_MAX ? `${message.slice(0, MESSAGE_CHARS_MAX - 1)}…` : message,
    source: { component: "namegate", host: node },
    reportingComponent: "namegate",
    reportingInstance: node,
    firstTimestamp: time.replace(/\.\d+Z$/, "Z"),
    lastTimestamp: time.replace(/\.\d+Z$/, "Z"),
    count: 1,
  };
}

/**
 * Removes by index, and only if the taint at that index is still the one that was read: others write to the same list, and
 * a merge would put back what they took away.
 */
async function removeTaint(
  get: Cluster["get"],
  patch: (path: string, patch: unknown, type: PatchType) => Promise<Outcome<unknown>>,
  path: string,
  key: string,
): Promise<Outcome<"removed" | "absent">> {
  let last: ApiFault | undefined;
  for (let tries = 0; tries < TAINT_TRIES; tries++) {
    const node = await get(path);
    if (!node.ok) return node;
    const operations = taintsOf(node.value)
      .flatMap((taint, index) => (keyOf(taint) === key ? [{ taint, place: `/spec/taints/${index}` }] : []))
      .reverse()
      .flatMap(({ taint, place }) => [
        { op: "test", path: place, value: taint },
        { op: "remove", path: place },
      ]);
    if (operations.length === 0) return { ok: true, value: "absent" };
    const done = await patch(path, operations, "application/json-patch+json");
    if (done.ok) return { ok: true, value: "removed" };
    if (done.fault.kind !== "conflict") return done;
    last = done.fault;
  }
  return { ok: false, fault: last ?? new ApiFault("conflict", `${path}: not tried`, "try again") };
}

function taintsOf(node: unknown): readonly unknown[] {
  const spec = typeof node === "object" && node !== null ? (node as { spec?: unknown }).spec : undefined;
  const taints = typeof spec === "object" && spec !== null ? (spec as { taints?: unknown }).taints : undefined;
  return Array.isArray(taints) ? taints : [];
}

function keyOf(taint: unknown): unknown {
  return typeof taint === "object" && taint !== null ? (taint as { key?: unknown }).key : undefined;
}
