import { family, type Ip, parseIp } from "../base/address.ts";
import { collect } from "../base/collect.ts";
import type { Element } from "../firewall/ipset.ts";
import { type Attachment, sourceInterface } from "../model/attachment.ts";
import type { Policy, PolicyId } from "../model/policy.ts";
import type { PodKey } from "../model/snapshot.ts";
import { SourceClass } from "../model/verdict.ts";
import type { Comparison } from "./compare.ts";
import type { Context } from "./context.ts";
import { type Rulebook, rulebook } from "./guard.ts";
import type { Live } from "./live.ts";
import { GuardedPod } from "./pods.ts";
import type { PodUpdate, Update } from "./protocol.ts";
import type { UnknownPods } from "./unknown.ts";

/** Longest stretch of policy work before packets get a turn, milliseconds. */
const SLICE_MS = 4;
/** Compiled rulebooks that no pod has any more: whoever may label pods chooses which policies go together. */
const BOOKS_SPARE = 64;

type FreeElement = readonly ["src" | "guard", Element];

export interface DesiredParts {
  readonly context: Context;
  readonly live: Live;
  readonly comparison: Comparison;
  readonly unknown: UnknownPods;
  /** Interface groups tell whose veth a packet came from. */
  readonly groups: boolean;
  readonly gone: (pod: GuardedPod) => void;
  /** The kernel has it. */
  readonly applied: (id: number, microseconds: number) => void;
}

/** Applies updates one after the other, with a pause for packets between pods. */
export class Desired {
  ready = false;
  private readonly parts: DesiredParts;
  private readonly context: Context;
  private readonly policies = new Map<PolicyId, Policy>();
  /** Pods with the same policies share one compiled rulebook. */
  private readonly books = new Map<string, Rulebook | undefined>();
  /** What the kernel has of known pods that nobody guards, and whose each address is. */
  private readonly free = new Map<PodKey, readonly FreeElement[]>();
  private readonly freeHolders = new Map<Ip, PodKey>();
  private prefixes: readonly string[] = [];
  private starting = false;
  private lenient = true;
  private readonly waiting: Update[] = [];
  private working = false;

  constructor(parts: DesiredParts) {
    this.parts = parts;
    this.context = parts.context;
  }

  apply(update: Update): void {
    this.waiting.push(update);
    if (!this.working) this.next();
  }

  private next(): void {
    const update = this.waiting.shift();
    this.working = update !== undefined;
    if (update === undefined) return;
    const from = performance.now();
    const work = this.steps(update);
    const slice = (): void => {
      const until = performance.now() + SLICE_MS;
      for (;;) {
        const { done } = work.next();
        if (done === true) break;
        // Before the first answer there are no packets to be kept waiting.
        if (this.ready && performance.now() > until) {
          this.context.kernel.commit();
          setImmediate(slice);
          return;
        }
      }
      this.context.kernel.commit();
      this.forgetBooks();
      const first = !this.ready;
      if (first) this.takeOver();
      this.parts.applied(update.id, Math.round((performance.now() - from) * 1000));
      this.parts.unknown.release(update.pods.flatMap(({ pod }) => pod.addresses));
      this.parts.live.tick();
      this.next();
    };
    slice();
  }

  /** The first state is complete: what an earlier agent left in the kernel is read back, or removed. */
  private takeOver(): void {
    const restored = this.parts.comparison.restore();
    this.parts.comparison.runNow();
    this.context.kernel.takingOver = this.context.meter.takingOver = false;
    if (restored > 0) collect();
    this.ready = true;
    for (const pod of this.context.pods.byKey.values()) this.parts.live.judge(pod, true);
    if (restored > 0) this.context.log("info", "bindings read back from the kernel", { restored });
  }

  private *steps(update: Update): Generator<void> {
    const { kernel, pods } = this.context;
    if (update.resolvers !== undefined) this.setResolvers(update.resolvers);
    // Pods that ran before the first list are judged as those that ran before the agent.
    this.lenient = this.starting || !this.ready;
    this.starting = update.starting;
    if (update.interfacePrefixes !== undefined) this.setPrefixes(update.interfacePrefixes, update.starting);
    for (const id of update.removedPolicies) {
      this.policies.delete(id);
      this.context.meter.forget(id);
    }
    for (const slots of update.slots ?? []) this.context.meter.know(slots);
    for (const policy of update.policies) this.policies.set(policy.id, policy);
    if (update.policies.length + update.removedPolicies.length > 0) this.books.clear();
    for (const key of update.removedPods) {
      this.dropFree(key);
      const pod = pods.byKey.get(key);
      if (pod === undefined) continue;
      this.remove(pod);
      yield;
    }
    for (const pod of update.pods) {
      yield* this.put(pod);
      kernel.commit();
      yield;
    }
  }

  private forgetBooks(): void {
    const { byKey } = this.context.pods;
    if (this.books.size <= byKey.size + BOOKS_SPARE) return;
    const used = new Set([...byKey.values()].map(({ guard }) => guard.book));
    for (const [key, book] of this.books) if (book === undefined || !used.has(book)) this.books.delete(key);
  }

  private remove(pod: GuardedPod): void {
    pod.remove();
    this.context.pods.delete(pod);
    this.parts.gone(pod);
    this.parts.live.release(pod);
  }

  private *put({ pod, attachment, policies }: PodUpdate): Generator<void> {
    const { kernel, pods, limits } = this.context;
    const key = policies.join("\n");
    if (!this.books.has(key)) this.books.set(key, rulebook(policies.flatMap((id) => this.policies.get(id) ?? [])));
    const book = this.books.get(key);
    const old = pods.byKey.get(pod.key);
    const same =
      old !== undefined &&
      old.pod.uid === pod.uid &&
      old.pod.interface === pod.interface &&
      old.pod.addresses.join() === pod.addresses.join();
    if (old !== undefined && (!same || book === undefined)) this.remove(old);
    // Whoever had one of its addresses has another by now, or is gone; removed later, it would take ours along.
    for (const address of pod.addresses) {
      const holder = pods.of(address);
      if (holder !== undefined && holder.pod.key !== pod.key) this.remove(holder);
      const free = this.freeHolders.get(address);
      if (free !== undefined && free !== pod.key) this.dropFree(free, address);
    }
    const covered = (iface: string): boolean => this.covered(iface);
    this.setFree(pod.key, book?.enforce === undefined ? pod.addresses : [], attachment, book === undefined);
    if (book === undefined) return;
    if (old !== undefined && same) {
      yield* old.update(book, attachment, covered, this.context.now(), pod);
      this.parts.live.judge(old, this.lenient);
      return;
    }
    const guarded = new GuardedPod(pod, book, attachment, kernel, limits, (now) => pods.makeRoom(limits.bindings, now), this.parts.groups);
    pods.set(guarded);
    guarded.writeFixed(covered);
    this.parts.live.judge(guarded, this.lenient);
  }

  /**
   * A known pod that nobody guards is left alone where a prefix covers its interface; what the prefix covers and nobody
   * knows waits, and so does its address on another interface. Where its interface could not be found, its address is let go
   * on all that the prefixes cover, and so is a Monitor pod's: nothing of theirs is to be stopped.
   */
  private setFree(key: PodKey, addresses: readonly Ip[], attachment: Attachment, unguarded: boolean): void {
    const { kernel, pods } = this.context;
    this.dropFree(key);
    const lost = attachment.kind === "missing";
    const own = sourceInterface(attachment);
    const here = !lost && unguarded && this.covered(own);
    const elements = addresses.flatMap((address): FreeElement[] => {
      const src = { address, bits: address.length * 8, mark: SourceClass.unguarded };
      if (lost) return this.prefixes.map((iface) => ["src", { ...src, iface, wildcard: true }] as const);
      if (!here) return [];
      return [
        ["src", { ...src, iface: own }],
        ["guard", { address, mark: SourceClass.spoof }],
      ];
    });
    for (const [role, element] of elements) {
      kernel.putFixed(role, family(element.address), element);
      pods.setFree(element.address, attachment);
      this.freeHolders.set(element.address, key);
    }
    if (elements.length > 0) this.free.set(key, elements);
  }

  /** The kernel forgets a pod that nobody guards, or one of its addresses. */
  private dropFree(key: PodKey, only?: Ip): void {
    const { kernel, pods } = this.context;
    const left: FreeElement[] = [];
    for (const one of this.free.get(key) ?? []) {
      const [role, element] = one;
      if (only !== undefined && element.address !== only) {
        left.push(one);
        continue;
      }
      kernel.removeFixed(role, family(element.address), element);
      pods.setFree(element.address, undefined);
      this.freeHolders.delete(element.address);
    }
    if (left.length > 0) this.free.set(key, left);
    else this.free.delete(key);
  }

  private covered(iface: string): boolean {
    return this.prefixes.some((prefix) => iface.startsWith(prefix));
  }

  private setResolvers(resolvers: NonNullable<Update["resolvers"]>): void {
    const { kernel, pods } = this.context;
    kernel.setResolvers(resolvers);
    const now = this.context.now();
    for (const pod of pods.byKey.values()) for (const { address } of resolvers) pod.forget(address, now);
  }

  /** `starting`: nobody is known yet, so connections that were there before go on. */
  private setPrefixes(prefixes: readonly string[], starting: boolean): void {
    const { kernel } = this.context;
    const mark = starting ? SourceClass.starting : SourceClass.unknown;
    for (const any of ["0.0.0.0", "::"]) {
      const address = parseIp(any) as Ip;
      const of = family(address);
      // What stays is changed in place: between two elements a packet would go by unjudged.
      for (const iface of this.prefixes)
        if (!prefixes.includes(iface)) kernel.removeFixed("src", of, { address, bits: 0, iface, wildcard: true });
      for (const iface of prefixes) kernel.putFixed("src", of, { address, bits: 0, iface, wildcard: true, mark });
    }
    this.prefixes = prefixes;
  }
}
