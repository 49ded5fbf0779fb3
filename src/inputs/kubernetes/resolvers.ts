import type { Endpoint, Ip } from "../../base/address.ts";
import type { DnsService, PodView } from "./objects.ts";
import type { ResolvConf } from "./resolv-conf.ts";

/**
 * Which DNS servers are believed, and which search suffixes a pod has.
 *
 * Trust is about the server, not about who asks: a server that answers honestly does so for every pod, and one that does not
 * would poison whoever may ask it. So the node has one list. It is made only of what those say who run the cluster or the node
 * (the Service in the DNS namespace, the address of NodeLocal DNSCache on this very node, the node's resolv.conf, our
 * configuration). What a pod's author wrote into `dnsConfig.nameservers` is in it only with `podDnsConfig: Trust`:
 * a server of his own could give every name of a rule any address. Its queries then are connections like any other.
 *
 * Search suffixes are the same matter: a query for `x.<suffix>` is judged as one for `x`, so a suffix of an attacker's own
 * domain would carry data out under every wildcard. Those of `dnsConfig.searches` count where they lie in the cluster domain, or
 * where the node's resolv.conf or the configuration has them too.
 */
export interface ResolverSources {
  readonly override: readonly Endpoint[] | undefined;
  readonly also: readonly Endpoint[];
  readonly services: Iterable<DnsService>;
  readonly nodeLocal: readonly Ip[];
  /** The node's own addresses. */
  readonly local: ReadonlySet<Ip>;
  readonly node: "DefaultPods" | "Always" | "Never";
  readonly resolvConf: ResolvConf;
  readonly podDnsConfig: "Ignore" | "Trust";
  /** Of this node. */
  readonly pods: Iterable<PodView>;
}

/** More are not trusted; each costs two elements, and a question from nobody. */
export const RESOLVERS_MAX = 256;
const DNS_PORT = 53;

/** The trusted servers, without repeats, in the order of the sources. */
export function resolversOf(from: ResolverSources): Endpoint[] {
  if (from.override !== undefined) return unique(from.override);
  const found: Endpoint[] = [...from.also];
  for (const { addresses, ports } of from.services)
    for (const address of addresses) for (const port of ports) found.push({ address, port });
  const plain = (addresses: readonly Ip[]): void => {
    for (const address of addresses) found.push({ address, port: DNS_PORT });
  };
  plain(from.nodeLocal.filter((address) => from.local.has(address)));
  let defaultPods = false;
  const named: Ip[] = [];
  for (const { finished, hostNetwork, dnsPolicy, nameservers } of from.pods) {
    if (finished || hostNetwork) continue;
    if (dnsPolicy === "Default") defaultPods = true;
    named.push(...nameservers);
  }
  if (from.node === "Always" || (from.node === "DefaultPods" && defaultPods)) plain(from.resolvConf.servers);
  // Last, so that no pod pushes out what others need.
  if (from.podDnsConfig === "Trust") plain(named);
  return unique(found);
}

function unique(list: readonly Endpoint[]): Endpoint[] {
  const found = new Map(list.map((one) => [`${one.port} ${one.address}`, one]));
  return [...found.values()].slice(0, RESOLVERS_MAX);
}

export interface SearchSources {
  readonly clusterDomain: string;
  /** Of the node's resolv.conf. */
  readonly node: readonly string[];
  /** Of the configuration. */
  readonly allowed: readonly string[];
}

/** The suffixes that a pod's resolver library appends, as far as they may be taken off again. */
export function searchesOf(pod: Pick<PodView, "namespace" | "dnsPolicy" | "searches">, from: SearchSources): readonly string[] {
  const { clusterDomain, node, allowed } = from;
  const cluster = [`${pod.namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain];
  const base = pod.dnsPolicy === "None" ? [] : pod.dnsPolicy === "Default" ? node : [...cluster, ...node];
  const own = pod.searches.filter(
    (one) => one === clusterDomain || one.endsWith(`.${clusterDomain}`) || node.includes(one) || allowed.includes(one),
  );
  return [...new Set([...base, ...own])];
}
