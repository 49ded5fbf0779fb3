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
/** Packets of strangers are remembered this long, and so many addresses. */
const STRANGER_MS = 30_000;
const STRANGERS_MAX = 512;
const SEEN_OF_POD_MAX = 4;
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
  /** Addresses that packets came from before the API said whose they are. */
  private strangers = new Map<Ip, { readonly index: number; readonly atMs: number }>();

  constructor(settings: ClusterSettings, locator: PodLocator) {
    this.settings = settings;
    this.locator = locator;
  }

  /** Some pod's interface has not been found yet, and may be at any moment. */
  get incomplete(): boolean {
    return this.waiting;
  }

  /** Some pod's interface was not found when it was looked for last. */
  get unfound(): boolean {
    return this.missing.size > 0;
  }

  /**
   * A packet of no known pod came from this address, and the node's own route to it leads to the same interface. A pod with that
   * interface that has no address in the API yet (the kubelet reports it a second or two after the start) has this one. False: known.
   */
  seen(address: Ip, index: number, nowMs: number): boolean {
    const old = this.strangers.get(address);
    this.strangers.delete(address);
    for (const [other, { atMs }] of this.strangers)
      if (nowMs - atMs >= STRANGER_MS || this.strangers.size >= STRANGERS_MAX) this.strangers.delete(other);
    this.strangers.set(address, { index, atMs: nowMs });
    return old?.index !== index || nowMs - old.atMs >= STRANGER_MS;
  }

  /** The addresses seen behind an interface that no pod is said to have. They stay while the pod with that interface needs them. */
  private addressesBehind(index: number, running: readonly PodView[], nowMs: number): readonly Ip[] {
    const found = [...this.strangers].flatMap(([address, one]) => (one.index === index ? [address] : []));
    const own = found
      .filter((address) => !running.some((pod) => !pod.hostNetwork && pod.addresses.includes(address)))
      .slice(0, SEEN_OF_POD_MAX);
    for (const address of own) this.strangers.set(address, { index, atMs: nowMs });
    return own;
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
    let soon = false;
    for (const view of running) {
      const key = `${view.namespace}/${view.name}`;
      const searches = searchesOf(view, search);
      if (view.hostNetwork) {
        outside.push({ pod: podOf(view, key, "", [], searches), why: HOST_NETWORK });
        continue;
      }
      const located = this.locator.find(view);
      const addresses =
        view.addresses.length > 0 || located.kind !== "found" ? view.addresses : this.addressesBehind(located.index, running, nowMs);
      if (addresses.length === 0) continue; // nobody knows yet whose packets these are: they wait
      const found = located.kind === "found" ? located.interface : "";
      const old = this.made.get(view.uid);
      const same =
        old !== undefined &&
        old.view === view &&
        old.pod.interface === found &&
        sameList(old.searches, searches) &&
        sameList(old.pod.addresses, addresses);
      const pod = same ? old.pod : podOf(view, key, found, addresses, searches);
      made.set(view.uid, same ? old : { view, searches, pod });
      pods.push(pod);
      if (located.kind === "found") continue;
      const since = this.missing.get(view.uid) ?? nowMs;
      missing.set(view.uid, since);
      if (located.kind === "later" && nowMs - since < LATER_MS) soon = true;
      if (located.kind === "unenforceable" || nowMs - since >= LATER_MS) outside.push({ pod, why: located.why });
    }
    this.made = made;
    this.missing = missing;
    this.waiting = soon;
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
