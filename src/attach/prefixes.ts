import type { Cni } from "./cni.ts";
import { type Link, type LinkTable, leadsAway } from "./link.ts";

/**
 * Beginnings of host-side names that only a CNI gives, so that they do no harm where that CNI is not: Calico, the AWS VPC CNI,
 * Azure CNI, GKE (dataplane v1), kindnet. Always covered: the first pod may come before its CNI's configuration.
 */
const ALWAYS = ["cali", "eni", "azv", "gke", "knet"] as const;
/** Cilium's; elsewhere `lxcbr0` is LXC's bridge, so only where Cilium is. */
const CILIUM = { prefix: "lxc", name: /^lxc(?:[0-9a-f]{12}|_health)$/ } as const;
/** The reference plugins' names (ptp; bridge and flannel too, but as bridge ports): four random bytes. Docker's have seven digits. */
const REFERENCE = { prefix: "veth", name: /^veth[0-9a-f]{8}$/ } as const;
/**
 * Plugins whose pods are ports of a bridge: there the bridge is the input interface, and its own name is the prefix. Nobody else gives
 * a bridge these names, so they are always covered too.
 */
const BRIDGING: Readonly<Record<string, string>> = { bridge: "cni0", flannel: "cni0", kubenet: "cbr0" };
/** What a configuration may not make of us: names of the node's own interfaces. */
const NEVER = /^(?:e|en|eth|l|lo|v|vl|vlan|w|wl|b|br|bond|cni|docker)$/;
const PREFIX = /^[A-Za-z][A-Za-z0-9_.-]{1,13}$/;

export interface Prefixes {
  readonly prefixes: readonly string[];
  /** Bridges with ports into other namespaces, of the CNI's own or of others (docker0). */
  readonly bridges: readonly string[];
  /** What an operator should know: why a prefix is not covered. */
  readonly why: readonly string[];
}

/**
 * Which interface prefixes the kernel's catch-all covers: a packet from such an interface that belongs to no known pod waits.
 * So one must not be an interface of anything else, or that would be cut off. `veth` is everybody's name: it is taken only
 * where the CNI's configuration or its interfaces show that pods have it, and nothing else does that is not a bridge port.
 * `setting` overrides it all.
 */
export function detectPrefixes(links: LinkTable, cni: Cni | undefined, setting?: readonly string[]): Prefixes {
  const bridges = [...new Set(bridgesOf(links))].sort();
  if (setting !== undefined) return { prefixes: setting, bridges, why: [] };
  const routed = [...links.byIndex.values()].filter((link) => link.master === 0 || links.masterOf(link)?.kind === "vrf");
  const wanted = new Set<string>(ALWAYS);
  const covered = new Set<string>(Object.values(BRIDGING));
  const why: string[] = [];
  for (const plugin of cni?.plugins ?? []) {
    const prefix = prefixOf(plugin);
    if (prefix !== undefined) wanted.add(prefix);
    const { bridge } = plugin;
    if (plugin.type === "bridge" && typeof bridge === "string" && PREFIX.test(bridge) && !NEVER.test(bridge)) covered.add(bridge);
  }
  for (const { prefix, name } of [CILIUM, REFERENCE])
    if (routed.some((link) => leadsAway(link) && name.test(link.name))) wanted.add(prefix);
  const prefixes: string[] = [];
  for (const prefix of [...wanted].sort()) {
    const foreign = routed.find((link) => link.name.startsWith(prefix) && !isPods(link, prefix));
    if (foreign === undefined) prefixes.push(prefix);
    else
      why.push(
        `interfaces ${prefix}* are not covered: ${foreign.name} is no pod's as far as can be seen; set interfacePrefixes to say which are`,
      );
  }
  return { prefixes: [...prefixes, ...covered].sort(), bridges, why };
}

function isPods(link: Link, prefix: string): boolean {
  return leadsAway(link) && (prefix !== REFERENCE.prefix || REFERENCE.name.test(link.name));
}

function prefixOf(plugin: Readonly<Record<string, unknown>>): string | undefined {
  switch (plugin.type) {
    case "ptp":
      return REFERENCE.prefix;
    case "cilium-cni":
      return CILIUM.prefix;
    case "aws-cni": {
      const { vethPrefix } = plugin;
      return typeof vethPrefix === "string" && PREFIX.test(vethPrefix) && !NEVER.test(vethPrefix) ? vethPrefix : undefined;
    }
    default:
      return undefined;
  }
}

function bridgesOf(links: LinkTable): string[] {
  return [...links.byIndex.values()].flatMap((link) => {
    const master = links.masterOf(link);
    return leadsAway(link) && master?.kind === "bridge" ? [master.name] : [];
  });
}
