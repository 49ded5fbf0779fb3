import type { Attachment } from "../model/attachment.ts";
import type { Policy, PolicyId } from "../model/policy.ts";
import type { PodKey, Snapshot } from "../model/snapshot.ts";
import { compareJudgement, selectPolicies } from "../policy/select.ts";
import type { PodUpdate, Update } from "../worker/protocol.ts";

interface Told {
  readonly update: PodUpdate;
  /** The policies that select it, as they were told. */
  readonly policies: readonly Policy[];
}

/** Same content, cheaply when it is the same object: inputs keep what did not change. */
function same(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/**
 * What the packet thread was told last, so that it is told only what changed. The work is one comparison a pod and a
 * policy; labels are matched only between what changed and the rest.
 */
export class Changes {
  private policies = new Map<PolicyId, Policy>();
  private pods = new Map<PodKey, Told>();
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
    const changed: Policy[] = [];
    const policies = new Map<PolicyId, Policy>();
    for (const policy of snapshot.policies) {
      const old = this.policies.get(policy.id);
      const kept = old !== undefined && same(old, policy);
      if (!kept) changed.push(policy);
      policies.set(policy.id, kept ? old : policy);
    }
    const removedPolicies = [...this.policies.keys()].filter((id) => !policies.has(id));
    const renamed = !same(this.namespaces, snapshot.namespaces);
    // What a prefix covers is marked otherwise, pod by pod.
    const starting = snapshot.starting === true;
    const recovered = !same(this.prefixes, snapshot.interfacePrefixes) || starting !== this.starting;
    const pods = new Map<PodKey, Told>();
    const updates: PodUpdate[] = [];
    for (const pod of snapshot.pods) {
      const old = this.pods.get(pod.key);
      const samePod = old !== undefined && same(old.update.pod, pod);
      const selected =
        samePod && !renamed
          ? this.selectedAgain(old, policies, changed, snapshot)
          : selectPolicies([...policies.values()], pod, snapshot.namespaces);
      const attachment = samePod && !lookAgain ? old.update.attachment : attachmentOf(pod.interface);
      if (
        samePod &&
        !recovered &&
        selected.length === old.policies.length &&
        selected.every((policy, i) => policy === old.policies[i]) &&
        same(attachment, old.update.attachment)
      ) {
        pods.set(pod.key, old);
        continue;
      }
      const update: PodUpdate = { pod, attachment, policies: selected.map(({ id }) => id) };
      pods.set(pod.key, { update, policies: selected });
      updates.push(update);
    }
    const removedPods = [...this.pods.keys()].filter((key) => !pods.has(key));
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
    this.policies = policies;
    this.pods = pods;
    this.resolvers = snapshot.resolvers;
    this.prefixes = snapshot.interfacePrefixes;
    this.starting = starting;
    this.namespaces = snapshot.namespaces;
    const nothing =
      changed.length + removedPolicies.length + updates.length + removedPods.length === 0 &&
      update.resolvers === undefined &&
      update.interfacePrefixes === undefined;
    return nothing && !first ? undefined : update;
  }

  /** An unchanged pod: those that selected it and are unchanged still do; only the changed ones are matched. */
  private selectedAgain(
    old: Told,
    policies: ReadonlyMap<PolicyId, Policy>,
    changed: readonly Policy[],
    snapshot: Snapshot,
  ): readonly Policy[] {
    const kept = old.policies.filter((policy) => policies.get(policy.id) === policy);
    const added = changed.length === 0 ? [] : selectPolicies(changed, old.update.pod, snapshot.namespaces);
    if (added.length === 0) return kept.length === old.policies.length ? old.policies : kept;
    return [...kept, ...added].sort(compareJudgement);
  }

  /** Every pod as it was told last. */
  get current(): readonly PodUpdate[] {
    return [...this.pods.values()].map(({ update }) => update);
  }
}
