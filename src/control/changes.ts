import type { Attachment } from "../model/attachment.ts";
import type { Policy, PolicyId } from "../model/policy.ts";
import type { PodKey, Snapshot } from "../model/snapshot.ts";
import { selectPolicies } from "../policy/select.ts";
import type { PodUpdate, Update } from "../worker/protocol.ts";

/** What the packet thread was told last, so that it is told only what changed: its work does not grow with other pods. */
export class Changes {
  private policies = new Map<PolicyId, { readonly text: string; readonly version: number }>();
  private pods = new Map<PodKey, { readonly text: string; readonly update: PodUpdate }>();
  private resolvers: string | undefined;
  private prefixes: string | undefined;
  private versions = 0;
  private ids = 0;

  /** The change from the last snapshot to this one; undefined when there is none. */
  next(snapshot: Snapshot, attachmentOf: (iface: string) => Attachment): Update | undefined {
    const changed: Policy[] = [];
    const policies = new Map<PolicyId, { text: string; version: number }>();
    for (const policy of snapshot.policies) {
      const text = JSON.stringify(policy);
      const old = this.policies.get(policy.id);
      if (old?.text === text) policies.set(policy.id, old);
      else {
        changed.push(policy);
        policies.set(policy.id, { text, version: ++this.versions });
      }
    }
    const removedPolicies = [...this.policies.keys()].filter((id) => !policies.has(id));
    const pods = new Map<PodKey, { text: string; update: PodUpdate }>();
    const updates: PodUpdate[] = [];
    for (const pod of snapshot.pods) {
      const selected = selectPolicies(snapshot.policies, pod, snapshot.namespaces).map(({ id }) => id);
      const attachment = attachmentOf(pod.interface);
      const update: PodUpdate = { pod, attachment, policies: selected };
      const text = JSON.stringify([pod, attachment, selected.map((id) => [id, policies.get(id)?.version])]);
      pods.set(pod.key, { text, update });
      if (this.pods.get(pod.key)?.text !== text) updates.push(update);
    }
    const removedPods = [...this.pods.keys()].filter((key) => !pods.has(key));
    const resolvers = JSON.stringify(snapshot.resolvers);
    const prefixes = JSON.stringify(snapshot.interfacePrefixes);
    const update: Update = {
      kind: "update",
      id: ++this.ids,
      policies: changed,
      removedPolicies,
      pods: updates,
      removedPods,
      resolvers: resolvers === this.resolvers ? undefined : snapshot.resolvers,
      interfacePrefixes: prefixes === this.prefixes ? undefined : snapshot.interfacePrefixes,
    };
    const first = this.resolvers === undefined;
    this.policies = policies;
    this.pods = pods;
    this.resolvers = resolvers;
    this.prefixes = prefixes;
    const nothing = changed.length + removedPolicies.length + updates.length + removedPods.length === 0 && update.resolvers === undefined && update.interfacePrefixes === undefined;
    return nothing && !first ? undefined : update;
  }

  /** Every pod as it was told last. */
  get current(): readonly PodUpdate[] {
    return [...this.pods.values()].map(({ update }) => update);
  }
}
