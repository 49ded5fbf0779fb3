import type { Ip } from "../base/address.ts";
import type { BridgedPod } from "../firewall/bridge-rules.ts";
import type { Mode, Policy } from "../model/policy.ts";
import type { PodKey } from "../model/snapshot.ts";
import { restrictsQueries } from "../policy/queries.ts";
import type { PodUpdate, Update } from "../worker/protocol.ts";
import type { Told } from "./changes.ts";
import type { Discovered } from "./discover.ts";
import type { Grouped } from "./groups.ts";
import type { GuardedInterface } from "./self-test.ts";

/** Which pods have a thing: an address, an interface. Several may, for a while or by mistake. */
class Holders<T> {
  private readonly pods = new Map<T, Set<PodKey>>();

  has(thing: T): boolean {
    return this.pods.has(thing);
  }

  /** In the order in which they came. */
  of(thing: T): readonly PodKey[] {
    return [...(this.pods.get(thing) ?? [])];
  }

  add(thing: T, pod: PodKey): void {
    const pods = this.pods.get(thing);
    if (pods === undefined) this.pods.set(thing, new Set([pod]));
    else pods.add(pod);
  }

  drop(thing: T, pod: PodKey): void {
    const pods = this.pods.get(thing);
    pods?.delete(pod);
    if (pods?.size === 0) this.pods.delete(thing);
  }
}

/** A pod as the packet thread was told of it. */
interface Known {
  readonly update: PodUpdate;
  readonly policies: readonly Policy[];
  /** The strictest mode of these. */
  readonly mode: Mode | undefined;
  /** Where its packets come from, while it is guarded. */
  readonly place: GuardedInterface | undefined;
}

/**
 * What the pods and the policies that select them mean for rules, interface groups, Discover and the self-test. It takes in
 * changes, so a pod that is as it was costs nothing; the lists are the same ones until something in them is another.
 */
export class Selection {
  private readonly pods = new Map<PodKey, Known>();
  private readonly addresses = new Holders<Ip>();
  /** Of guarded pods. */
  private readonly interfaces = new Holders<string>();
  /** Guarded pods whose interface is a bridge port, or missing. */
  private readonly odd = new Map<PodKey, PodUpdate>();
  /** Interfaces whose pods have changed: see `regrouped`. */
  private readonly changed = new Set<string>();
  /** Has some guarded pod's policy ever restricted queries? */
  queries = false;
  private bridgedPods: { readonly seesFrames: boolean; readonly list: readonly BridgedPod[] } | undefined;
  private discoveredPods: readonly Discovered[] | undefined;
  private guardedPlaces: readonly GuardedInterface[] | undefined;

  take({ pods, removedPods }: Update, told: (key: PodKey) => Told | undefined): void {
    for (const key of removedPods) this.remove(key);
    for (const { pod } of pods) {
      this.remove(pod.key);
      const now = told(pod.key);
      if (now !== undefined) this.add(now);
    }
  }

  private add({ update, policies }: Told): void {
    const { pod, attachment } = update;
    const modes = policies.map(({ mode }) => mode);
    const mode = (["Enforce", "Monitor", "Discover"] as const).find((one) => modes.includes(one));
    for (const address of pod.addresses) this.addresses.add(address, pod.key);
    if (mode === "Discover") this.discoveredPods = undefined;
    if (mode === undefined || mode === "Discover") {
      this.pods.set(pod.key, { update, policies, mode, place: undefined });
      return;
    }
    this.pods.set(pod.key, { update, policies, mode, place: { pod: pod.key, addresses: pod.addresses, attachment } });
    this.guardedPlaces = undefined;
    this.queries ||= policies.some(restrictsQueries);
    this.interfaces.add(attachment.interface, pod.key);
    this.changed.add(attachment.interface);
    if (attachment.kind !== "routed") this.odd.set(pod.key, update);
    if (attachment.kind === "bridged") this.bridgedPods = undefined;
  }

  private remove(key: PodKey): void {
    const old = this.pods.get(key);
    if (old === undefined) return;
    const { pod, attachment } = old.update;
    this.pods.delete(key);
    for (const address of pod.addresses) this.addresses.drop(address, key);
    if (old.mode === "Discover") this.discoveredPods = undefined;
    if (old.place === undefined) return;
    this.guardedPlaces = undefined;
    this.interfaces.drop(attachment.interface, key);
    this.changed.add(attachment.interface);
    this.odd.delete(key);
    if (attachment.kind === "bridged") this.bridgedPods = undefined;
  }

  /** Is it a pod's? */
  hasAddress(address: Ip): boolean {
    return this.addresses.has(address);
  }

  /** Pods that Discover policies select, and nothing stricter. */
  get discovered(): readonly Discovered[] {
    this.discoveredPods ??= [...this.pods.values()].flatMap(({ update: { pod }, policies, mode }) =>
      mode === "Discover" ? [{ pod, policies }] : [],
    );
    return this.discoveredPods;
  }

  get guarded(): readonly GuardedInterface[] {
    this.guardedPlaces ??= [...this.pods.values()].flatMap(({ place }) => place ?? []);
    return this.guardedPlaces;
  }

  bridged(seesFrames: boolean): readonly BridgedPod[] {
    if (this.bridgedPods?.seesFrames === seesFrames) return this.bridgedPods.list;
    const list = [...this.odd.values()].flatMap(({ pod, attachment }) =>
      attachment.kind === "bridged"
        ? [{ port: attachment.interface, addresses: pod.addresses, bridge: seesFrames ? attachment.bridge : undefined }]
        : [],
    );
    this.bridgedPods = { seesFrames, list };
    return list;
  }

  /**
   * Interfaces whose pods have changed since `settleGroups`, each with what is to be grouped: undefined where that is nothing.
   * `covered`: a wildcard element says the same of that interface.
   */
  regrouped(covered: (iface: string) => boolean): ReadonlyMap<string, Grouped | undefined> {
    return new Map([...this.changed].map((iface) => [iface, covered(iface) ? undefined : this.grouped(iface)]));
  }

  settleGroups(): void {
    this.changed.clear();
  }

  private grouped(iface: string): Grouped | undefined {
    const key = this.interfaces.of(iface).at(-1);
    const known = key === undefined ? undefined : this.pods.get(key);
    // A bridge port has NG-BRIDGE.
    if (known?.update.attachment.kind !== "routed") return undefined;
    return { index: known.update.attachment.index, mode: known.mode === "Enforce" ? "Enforce" : "Monitor" };
  }

  /** Guarded pods that are not enforced, and why. `ungrouped`: interfaces that cannot be put into a group. */
  *unenforced(ungrouped: ReadonlyMap<string, string>, seesFrames: boolean): Generator<readonly [PodKey, string]> {
    for (const [key, { attachment }] of this.odd) {
      if (attachment.kind === "missing") yield [key, attachment.why];
      else if (!seesFrames)
        yield [key, "bridged packets do not cross netfilter: set net.bridge.bridge-nf-call-iptables and -ip6tables to 1"];
    }
    for (const [iface, why] of ungrouped)
      for (const key of this.interfaces.of(iface))
        yield [key, `its interface cannot be put into a group, so stolen source addresses would go unseen: ${why}`];
  }
}
