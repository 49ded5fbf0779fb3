import { type Fields, isRecord, type Links, list } from "./links.ts";
import { runTool } from "./tool.ts";

/**
 * What sits on an interface before netfilter does: tc filters at its ingress, and XDP. A redirecting action takes packets
 * past every rule. What a program of eBPF does with them cannot be read off it: that is a question for a canary.
 */
export type Bypass =
  /** An action that sends packets out by another interface, `to`. */
  | { readonly kind: "redirects"; readonly what: string; readonly to: string }
  /** An eBPF program, or a shaper, that may do so. */
  | { readonly kind: "program"; readonly what: string };

/** Interfaces whose filters are asked for one by one. */
const FILTERED_MAX = 1024;
const TEXT_MAX = 80;

/**
 * By interface, of those or (undefined) of all that may be a pod's; what nothing sits on is not in it. undefined: iproute2
 * cannot be asked.
 */
export async function bypasses(
  interfaces: ReadonlySet<string> | undefined,
  links: Links | undefined,
): Promise<ReadonlyMap<string, Bypass> | undefined> {
  if (interfaces?.size === 0) return new Map();
  const qdiscs = await runTool("tc", ["-j", "qdisc", "show"]);
  if (qdiscs.status !== 0 || links === undefined) return undefined;
  const found = new Map<string, Bypass>();
  const counts = (name: string): boolean => interfaces?.has(name) ?? PAIRED.has(links.get(name)?.driver ?? "");
  for (const [name, { program }] of links) if (program !== undefined && counts(name)) found.set(name, { kind: "program", what: program });
  const filtered = ingressOf(qdiscs.stdout).filter(counts);
  for (const name of filtered.slice(0, FILTERED_MAX)) {
    const filters = await runTool("tc", ["-j", "filter", "show", "dev", name, "ingress"]);
    const bypass = filters.status === 0 ? filterBypass(filters.stdout) : undefined;
    if (bypass !== undefined) found.set(name, judged(bypass, links));
  }
  return found;
}

/** Drivers whose interfaces have another end in a pod. */
const PAIRED: ReadonlySet<string> = new Set(["veth", "netkit"]);

/** An ifb shapes what comes in and gives it back (the bandwidth plugin of CNI): that is no bypass in itself. */
export function judged(bypass: Bypass, links: Links): Bypass {
  if (bypass.kind !== "redirects" || links.get(bypass.to)?.driver !== "ifb") return bypass;
  return { kind: "program", what: `a tc filter that redirects to the shaper ${short(bypass.to)}` };
}

/** `tc -j qdisc show` → the interfaces with a hook at their ingress. */
export function ingressOf(text: string): string[] {
  return list(text).flatMap((one) =>
    (one["kind"] === "clsact" || one["kind"] === "ingress") && typeof one["dev"] === "string" ? [one["dev"]] : [],
  );
}

/** `tc -j filter show dev X ingress`: the worst of what is there. */
export function filterBypass(text: string): Bypass | undefined {
  let program: Bypass | undefined;
  for (const filter of list(text)) {
    const options = isRecord(filter["options"]) ? filter["options"] : {};
    for (const action of actionsOf(filter, options)) {
      if (action["kind"] === "mirred" && action["mirred_action"] === "redirect")
        return { kind: "redirects", what: `a tc filter that redirects to ${short(action["to_dev"])}`, to: String(action["to_dev"]) };
      if (action["kind"] === "bpf") program ??= { kind: "program", what: `a tc action of eBPF (${short(action["bpf_name"])})` };
    }
    if (filter["kind"] === "bpf" && Object.keys(options).length > 0)
      program ??= { kind: "program", what: `a tc program of eBPF (${short(options["bpf_name"])})` };
  }
  return program;
}

function actionsOf(filter: Fields, options: Fields): Fields[] {
  return [filter["actions"], options["actions"]].flatMap((actions) => (Array.isArray(actions) ? actions.filter(isRecord) : []));
}

/** Names of interfaces and programs are their makers': shown short and plain. */
function short(value: unknown): string {
  return typeof value === "string" ? value.replace(/[^\x20-\x7e]/g, "?").slice(0, TEXT_MAX) : "?";
}
