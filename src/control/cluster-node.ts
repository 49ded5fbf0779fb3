import type { Located, PodPlace } from "../attach/place.ts";
import type { Ip } from "../base/address.ts";
import type { ClusterSettings } from "../inputs/config/settings.ts";
import type { DnsService, PodView } from "../inputs/kubernetes/objects.ts";
import type { ResolvConf } from "../inputs/kubernetes/resolv-conf.ts";
import { resolversOf, searchesOf } from "../inputs/kubernetes/resolvers.ts";
import type { Pod } from "../model/snapshot.ts";
import type { Node, Outside } from "./source.ts";

/** Finds the host-side interfaces of this node's pods. */
export interface PodLocator {
  /** Looks, once for all of them. Returns why it could not. */
  refresh(pods: readonly PodPlace[], nowMs: number): string | undefined;
  find(pod: PodPlace): Located;
}

/** What the node itself says. */
export interface NodeFacts {
  /** How the interfaces begin that only pods have. */
  readonly prefixes: readonly string[];
  readonly local: ReadonlySet<Ip>;
  readonly resolvConf: ResolvConf;
}

/** A pod whose interface is not found for this long is said to be not enforced. */
const LATER_MS = 10_000;
const HOST_NETWORK = "hostNetwork: its packets are the node's own, and cannot be told from those of others";

/**
 * Pods, namespaces and DNS Services of the API → everything of a Snapshot but the policies. What did not change is the same
 * object as before, so that the rest of the agent can tell by looking.
 */
export class ClusterNode {
  private readonly settings: ClusterSettings;
  private readonly locator: PodLocator;
  private made = new Map<string, { readonly view: PodView; readonly searches: readonly string[]; readonly pod: Pod }>();
  /** Pod UID → since when it has been looked for in vain, milliseconds. */
  private missing = new Map<string, number>();
  private looked = "";
  private waiting = false;
  private resolvers: Node["resolvers"] = [];

  constructor(settings: ClusterSettings, locator: PodLocator) {
    this.settings = settings;
    this.locator = locator;
  }

  /** Some pod's interface has not been found yet. */
  get incomplete(): boolean {
    return this.waiting;
  }

  /** `lookAgain`: at every interface, though no pod has changed. */
  build(
    from: {
      readonly pods: Iterable<PodView>;
      readonly namespaces: Node["namespaces"];
      readonly services: Iterable<DnsService>;
      readonly facts: NodeFacts;
    },
    nowMs: number,
    lookAgain = false,
  ): { readonly node: Node; readonly outside: readonly Outside[] } {
    const { settings } = this;
    const running = withoutShared([...from.pods].filter(({ finished }) => !finished));
    this.refresh(running, nowMs, lookAgain);
    const search = { clusterDomain: settings.clusterDomain, node: from.facts.resolvConf.searches, allowed: settings.searches };
    const pods: Pod[] = [];
    const outside: Outside[] = [];
    const made: typeof this.made = new Map();
    const missing = new Map<string, number>();
    for (const view of running) {
      const key = `${view.namespace}/${view.name}`;
      const searches = searchesOf(view, search);
      if (view.hostNetwork) {
        outside.push({ pod: podOf(view, key, "", [], searches), why: HOST_NETWORK });
        continue;
      }
      if (view.addresses.length === 0) continue; // nobody knows yet whose packets these are: they wait
      const located = this.locator.find(view);
      const found = located.kind === "found" ? located.interface : "";
      const old = this.made.get(view.uid);
      const same = old !== undefined && old.view === view && old.pod.interface === found && sameList(old.searches, searches);
      const pod = same ? old.pod : podOf(view, key, found, view.addresses, searches);
      made.set(view.uid, same ? old : { view, searches, pod });
      pods.push(pod);
      if (located.kind === "found") continue;
      const since = this.missing.get(view.uid) ?? nowMs;
      missing.set(view.uid, since);
      if (located.kind === "unenforceable" || nowMs - since >= LATER_MS) outside.push({ pod, why: located.why });
    }
    this.made = made;
    this.missing = missing;
    this.waiting = missing.size > 0;
    const resolvers = resolversOf({
      ...settings.resolvers,
      ...from.facts,
      services: from.services,
      pods: running,
    });
    if (!sameList(resolvers.map(keyOf), this.resolvers.map(keyOf))) this.resolvers = resolvers;
    return {
      node: { pods, resolvers: this.resolvers, namespaces: from.namespaces, interfacePrefixes: from.facts.prefixes },
      outside,
    };
  }

  private refresh(running: readonly PodView[], nowMs: number, lookAgain: boolean): void {
    const now = running.map(({ uid, addresses }) => `${uid} ${addresses.join()}`).join("\n");
    if (now === this.looked && !lookAgain) return;
    this.looked = now;
    this.locator.refresh(running, nowMs);
  }
}

function podOf(view: PodView, key: string, found: string, addresses: readonly Ip[], searches: readonly string[]): Pod {
  const { uid, namespace, name, labels, serviceAccountName } = view;
  return { key, uid, namespace, name, labels, serviceAccountName, interface: found, addresses, searches };
}

/**
 * An address is one pod's: while one that ends still has what its successor has been given, the successor's, and else that of
 * the younger one. Pods of the node's own network keep theirs; nobody asks for them.
 */
function withoutShared(pods: readonly PodView[]): PodView[] {
  const holders = new Map<Ip, PodView>();
  let shared = false;
  for (const pod of pods) {
    if (pod.hostNetwork) continue;
    for (const address of pod.addresses) {
      const other = holders.get(address);
      if (other !== undefined) shared = true;
      if (other === undefined || later(pod, other)) holders.set(address, pod);
    }
  }
  if (!shared) return [...pods];
  return pods.map((pod) =>
    pod.hostNetwork || pod.addresses.every((address) => holders.get(address) === pod)
      ? pod
      : { ...pod, addresses: pod.addresses.filter((address) => holders.get(address) === pod) },
  );
}

function later(a: PodView, b: PodView): boolean {
  if (a.deleting !== b.deleting) return b.deleting;
  return a.created === b.created ? a.uid > b.uid : a.created > b.created;
}

const keyOf = ({ address, port }: { readonly address: string; readonly port: number }): string => `${port} ${address}`;

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((one, i) => one === b[i]);
}
