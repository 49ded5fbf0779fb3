import type { Attachment } from "../model/attachment.ts";
import type { Policy, PolicyId } from "../model/policy.ts";
import type { Pod, PodKey, Snapshot } from "../model/snapshot.ts";
import { labelsOf, selectPolicies, selects } from "../policy/select.ts";
import type { PodUpdate, Update } from "../worker/protocol.ts";

/** A pod as the packet thread was told of it. */
export interface Told {
  readonly update: PodUpdate;
  /** The policies that select it. */
  readonly policies: readonly Policy[];
}

/** Same content, cheaply when it is the same object: inputs keep what did not change. */
function same(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/**
 * What the packet thread was told last, so that it is told only what changed. A list that is the same object is not looked
 * at; else the work is one comparison a policy or a pod. Labels are matched only between what changed and the rest.
 */
export class Changes {
  private policies = new Map<PolicyId, Policy>();
  private listed: readonly Policy[] | undefined;
  private pods = new Map<PodKey, Told>();
  private listedPods: readonly Pod[] | undefined;
  private resolvers: Snapshot["resolvers"] | undefined;
  private prefixes: Snapshot["interfacePrefixes"] | undefined;
  private starting = false;
  private namespaces: Snapshot["namespaces"] = {};
  private ids = 0;

  /**
   * The change from the last snapshot to this one; undefined when there is none. Interfaces are looked at for new and
   * changed pods, and for all with `lookAgain`.
   */
  next(snapshot: Snapshot, attachmentOf: (iface: string) => Attachment, lookAgain = false): Update | undefined {
    const first = this.resolvers === undefined;
    const { changed, removed: removedPolicies } = this.nextPolicies(snapshot.policies);
    const { policies } = this;
    const samePolicies = changed.length + removedPolicies.length === 0;
    const renamed = !same(this.namespaces, snapshot.namespaces);
    // What a prefix covers is marked otherwise, pod by pod.
    const starting = snapshot.starting === true;
    const recovered = !same(this.prefixes, snapshot.interfacePrefixes) || starting !== this.starting;
    const samePods = snapshot.pods === this.listedPods;
    const settled = !renamed && !recovered && !lookAgain;
    const pods = samePods ? this.pods : new Map<PodKey, Told>();
    const updates: PodUpdate[] = [];
    for (const pod of samePods && settled && samePolicies ? [] : snapshot.pods) {
      const old = this.pods.get(pod.key);
      const samePod = old !== undefined && same(old.update.pod, pod);
      const concerned = !samePod || renamed || (!samePolicies && this.concerns(old, changed, snapshot));
      if (settled && !concerned) {
        pods.set(pod.key, old);
        continue;
      }
      const selected = concerned ? selectPolicies([...policies.values()], pod, snapshot.namespaces) : old.policies;
      const attachment = samePod && !lookAgain ? old.update.attachment : attachmentOf(pod.interface);
      if (
        samePod &&
        !recovered &&
        (selected === old.policies ||
          (selected.length === old.policies.length && selected.every((policy, i) => policy === old.policies[i]))) &&
        same(attachment, old.update.attachment)
      ) {
        pods.set(pod.key, old);
        continue;
      }
      const update: PodUpdate = { pod, attachment, policies: selected.map(({ id }) => id) };
      pods.set(pod.key, { update, policies: selected });
      updates.push(update);
    }
    const removedPods = samePods ? [] : lostKeys(this.pods, pods);
    const update: Update = {
      kind: "update",
      id: ++this.ids,
      policies: changed,
      removedPolicies,
      pods: updates,
      removedPods,
      resolvers: same(this.resolvers, snapshot.resolvers) ? undefined : snapshot.resolvers,
      interfacePrefixes: recovered ? snapshot.interfacePrefixes : undefined,
      starting,
    };
    this.pods = pods;
    this.listedPods = snapshot.pods;
    this.resolvers = snapshot.resolvers;
    this.prefixes = snapshot.interfacePrefixes;
    this.starting = starting;
    this.namespaces = snapshot.namespaces;
    const nothing =
      samePolicies && updates.length + removedPods.length === 0 && update.resolvers === undefined && update.interfacePrefixes === undefined;
    return nothing && !first ? undefined : update;
  }

  private nextPolicies(list: readonly Policy[]): { readonly changed: readonly Policy[]; readonly removed: readonly PolicyId[] } {
    if (list === this.listed) return { changed: [], removed: [] };
    this.listed = list;
    const old = this.policies;
    const changed: Policy[] = [];
    this.policies = new Map();
    for (const policy of list) {
      const before = old.get(policy.id);
      const kept = before !== undefined && same(before, policy);
      if (!kept) changed.push(policy);
      this.policies.set(policy.id, kept ? before : policy);
    }
    return { changed, removed: lostKeys(old, this.policies) };
  }

  /** Has a policy changed, or gone, that selected this unchanged pod, or one that selects it now? Only those are matched. */
  private concerns({ update: { pod }, policies }: Told, changed: readonly Policy[], { namespaces }: Snapshot): boolean {
    for (const policy of policies) if (this.policies.get(policy.id) !== policy) return true;
    for (const policy of changed) if (selects(policy, pod, labelsOf(pod.namespace, namespaces))) return true;
    return false;
  }

  told(key: PodKey): Told | undefined {
    return this.pods.get(key);
  }

  /** Every pod as it was told last. */
  get current(): readonly PodUpdate[] {
    return [...this.pods.values()].map(({ update }) => update);
  }
}

function lostKeys<K>(before: ReadonlyMap<K, unknown>, now: ReadonlyMap<K, unknown>): K[] {
  const lost: K[] = [];
  for (const key of before.keys()) if (!now.has(key)) lost.push(key);
  return lost;
}
