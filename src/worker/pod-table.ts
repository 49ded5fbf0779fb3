import type { Ip } from "../base/address.ts";
import type { Attachment } from "../model/attachment.ts";
import type { PodKey } from "../model/snapshot.ts";
import type { GuardedPod } from "./pods.ts";

/** Bindings of the node are counted anew after so many. */
const RECOUNT = 64;

/** The guarded pods of this node, by name and by address. */
export class PodTable {
  readonly byKey = new Map<PodKey, GuardedPod>();
  private readonly byAddress = new Map<Ip, GuardedPod>();
  /** Where the addresses of known pods are that nobody stops; only what the interface prefixes cover. */
  private readonly free = new Map<Ip, Attachment>();
  /** Indexes of interfaces of such pods → how many addresses each has. */
  private readonly freeIndexes = new Map<number, number>();
  /** Bindings that there is certainly room for, without another look at every pod. */
  private spare = 0;
  /** Whose turn it is. */
  private turn = this.byKey.values();

  setFree(address: Ip, attachment: Attachment | undefined): void {
    const old = this.free.get(address);
    if (old !== undefined && old.kind !== "missing") {
      const left = (this.freeIndexes.get(old.index) ?? 1) - 1;
      if (left > 0) this.freeIndexes.set(old.index, left);
      else this.freeIndexes.delete(old.index);
    }
    if (attachment === undefined) this.free.delete(address);
    else this.free.set(address, attachment);
    if (attachment !== undefined && attachment.kind !== "missing")
      this.freeIndexes.set(attachment.index, (this.freeIndexes.get(attachment.index) ?? 0) + 1);
  }

  /** Has the kernel been told to let this address go, coming in by this interface? */
  isFree(address: Ip, index: number): boolean {
    const free = this.free.get(address);
    return free !== undefined && (free.kind === "missing" || free.index === index);
  }

  /** Is it the interface of a pod that nobody guards? */
  isFreeInterface(index: number): boolean {
    return this.freeIndexes.has(index);
  }

  of(address: Ip): GuardedPod | undefined {
    return this.byAddress.get(address);
  }

  /** A share (0 to 1) of the pods, the next ones each time. */
  inTurn(share: number, visit: (pod: GuardedPod) => void): void {
    for (let left = Math.ceil(this.byKey.size * share); left > 0; left--) {
      let { value: pod } = this.turn.next();
      if (pod === undefined) ({ value: pod } = (this.turn = this.byKey.values()).next());
      if (pod !== undefined) visit(pod);
    }
  }

  set(pod: GuardedPod): void {
    this.byKey.set(pod.pod.key, pod);
    for (const address of pod.pod.addresses) this.byAddress.set(address, pod);
  }

  delete(pod: GuardedPod): void {
    this.byKey.delete(pod.pod.key);
    for (const address of pod.pod.addresses) if (this.byAddress.get(address) === pod) this.byAddress.delete(address);
  }

  /** The pod behind an interface (a routed veth or a bridge port). */
  behind(index: number): GuardedPod | undefined {
    for (const pod of this.byKey.values()) if (pod.attachment.kind !== "missing" && pod.attachment.index === index) return pod;
    return undefined;
  }

  /** Room for one more binding? When the node is full, whoever has the most gives up what it used longest ago. */
  makeRoom(limit: number, now: number): boolean {
    if (this.spare === 0) this.spare = Math.max(0, Math.min(RECOUNT, limit - this.bindings()));
    if (this.spare > 0) {
      this.spare--;
      return true;
    }
    let largest: GuardedPod | undefined;
    for (const pod of this.byKey.values())
      if (largest === undefined || pod.guard.names.bindings > largest.guard.names.bindings) largest = pod;
    return largest?.guard.names.makeRoom(now) ?? false;
  }

  bindings(): number {
    let count = 0;
    for (const { guard } of this.byKey.values()) count += guard.names.bindings;
    return count;
  }
}
