import { randomBytes } from "node:crypto";
import { attachmentOf } from "../attach/interface.ts";
import type { RawSender } from "../base/addon.ts";
import { family, type Ip } from "../base/address.ts";
import { messageOf } from "../base/fault.ts";
import type { Attachment } from "../model/attachment.ts";
import { CANARY_NONCE_OCTETS, CANARY_POD } from "../model/canary.ts";
import type { EventDraft } from "../model/event.ts";
import type { PodKey } from "../model/snapshot.ts";
import { type Bypass, bypasses } from "../selftest/bypass.ts";
import { canaryFrame } from "../selftest/frame.ts";
import { readLinks } from "../selftest/links.ts";
import { isThere, leadThrough, makePair, type Pair, removePair, type Target } from "../selftest/pair.ts";

/**
 * Do pods' packets really come to our rules? A canary out of a veth of our own shows that hooks, sets, queues and the packet
 * thread are one; a canary that comes in by each guarded pod's own interface, and a look at what sits there before
 * netfilter, show what takes that pod's packets past us (Cilium's eBPF host routing, a redirecting tc filter).
 */

/** A canary that is not seen is sent again: the packet thread may be busy, or a pod's element just being written. */
const TRIES = 3;
const WAIT_MS = 1000;
/** Addresses of pods that one round tries; the next one goes on behind them. */
const TARGETS_MAX = 1024;

export interface GuardedInterface {
  readonly pod: PodKey;
  readonly addresses: readonly Ip[];
  readonly attachment: Attachment;
}

export interface SelfTestDeps {
  readonly emit: (draft: EventDraft) => void;
  readonly log: (level: "info" | "warn" | "error", message: string, detail?: Record<string, unknown>) => void;
  readonly sender: Pick<RawSender, "frame">;
  readonly nowMs: () => number;
}

export interface SelfTestStatus {
  /** `untested`: it cannot be tried here, see `why`. */
  readonly state: "pending" | "ok" | "failed" | "untested";
  readonly why: string | null;
  /** Of the last round. */
  readonly at: string | null;
  /** Guarded pods by whose interface a canary has come. */
  readonly podsSeen: number;
  /** What does not stop enforcement now, and may. */
  readonly warnings: readonly string[];
}

export class SelfTest {
  /** Guarded pods whose packets do not come to our rules, and why. */
  readonly unenforced = new Map<PodKey, string>();
  private readonly deps: SelfTestDeps;
  private pods: readonly GuardedInterface[] = [];
  private pair: Pair | undefined;
  private led = "";
  private ledWhy: string | undefined;
  private state: SelfTestStatus["state"] = "pending";
  private why: string | undefined;
  private atMs = 0;
  private seenPods = 0;
  private turn = 0;
  private warnings = new Map<string, string>();
  private readonly awaited = new Map<string, string>();
  /** Called when none is awaited any more. */
  private allSeen: () => void = () => undefined;
  private line: Promise<void> = Promise.resolve();
  /** The round that has not begun yet. */
  private next: Promise<void> | undefined;
  private closed = false;

  constructor(deps: SelfTestDeps) {
    this.deps = deps;
  }

  /** Why nothing is enforced on this node, as far as canaries tell. */
  get failure(): string | undefined {
    if (this.state === "failed") return this.why;
    const first = this.pods[0] === undefined ? undefined : this.unenforced.get(this.pods[0].pod);
    if (first === undefined || !this.pods.every(({ pod }) => this.unenforced.has(pod))) return undefined;
    return `no guarded pod's packets come to our rules: ${first}`;
  }

  get status(): SelfTestStatus {
    const { state, why = null, atMs, seenPods: podsSeen, warnings } = this;
    return { state, why, at: atMs === 0 ? null : new Date(atMs).toISOString(), podsSeen, warnings: [...warnings.values()] };
  }

  /** The guarded pods as they are now. True: some are new, or elsewhere, and should be tried soon. */
  watch(pods: readonly GuardedInterface[]): boolean {
    if (pods === this.pods) return false;
    const before = new Map(this.pods.map((one) => [one.pod, one]));
    this.pods = pods;
    const keys = new Set(pods.map(({ pod }) => pod));
    for (const key of this.unenforced.keys()) if (!keys.has(key)) this.unenforced.delete(key);
    return pods.some((pod) => {
      const old = before.get(pod.pod);
      return old !== pod && (old === undefined || placeOf(old) !== placeOf(pod));
    });
  }

  /** The packet thread has seen a canary. */
  seen(nonce: string): void {
    if (this.awaited.delete(nonce) && this.awaited.size === 0) this.allSeen();
  }

  /** One round, after the one that is under way; whoever asks meanwhile gets the same. Never throws. */
  run(): Promise<void> {
    this.next ??= this.line = this.line.then(() => {
      this.next = undefined;
      return this.closed ? undefined : this.round();
    });
    return this.next;
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.line;
    if (this.pair !== undefined) await removePair();
  }

  private async round(): Promise<void> {
    try {
      const links = await readLinks();
      if (this.pair === undefined || !isThere(this.pair, links)) {
        this.pair = await makePair();
        this.led = "";
      }
      const pods = this.nextPods();
      const redirected = await bypasses(new Set(pods.map(({ attachment }) => attachment.interface)), links);
      const targets = pods.flatMap(({ addresses, attachment }) =>
        addresses.map((address): Target => ({ interface: attachment.interface, address })),
      );
      await this.lead(targets);
      const own = this.pair.families.map((of) => CANARY_POD[of]);
      const lost = await this.send(this.pair, [...own, ...(this.ledWhy === undefined ? targets.map(({ address }) => address) : [])]);
      this.conclude(own.filter((address) => lost.has(address)));
      this.concludePods(pods, lost, redirected);
    } catch (error) {
      this.enter("untested", messageOf(error));
    }
    this.atMs = this.deps.nowMs();
  }

  /** All of them, or as many as a round may have, in turn. */
  private nextPods(): GuardedInterface[] {
    const there = this.pods.filter(({ attachment }) => attachment.kind !== "missing");
    const chosen: GuardedInterface[] = [];
    let targets = 0;
    for (let i = 0; i < there.length && targets < TARGETS_MAX; i++) {
      const pod = there[(this.turn + i) % there.length] as GuardedInterface;
      chosen.push(pod);
      targets += pod.addresses.length;
    }
    this.turn = there.length === 0 ? 0 : (this.turn + chosen.length) % there.length;
    return chosen;
  }

  private async lead(targets: readonly Target[]): Promise<void> {
    const wanted = targets.map(({ interface: name, address }) => `${name} ${address}`).join("\n");
    if (wanted === this.led && this.ledWhy === undefined) return;
    const why = await leadThrough(targets);
    if (why !== undefined && why !== this.ledWhy)
      this.deps.log("warn", "pods' own interfaces cannot be tried: what sits before netfilter there is only looked at", { why });
    this.ledWhy = why;
    this.led = wanted;
  }

  /** Sends a canary from each address until all are seen. Returns the addresses of those that were not. */
  private async send(pair: Pair, addresses: readonly Ip[]): Promise<ReadonlySet<Ip>> {
    let lost: ReadonlySet<Ip> = new Set(addresses);
    for (let attempt = 0; attempt < TRIES && lost.size > 0; attempt++) {
      const sent = new Map<string, Ip>();
      const random = randomBytes(lost.size * CANARY_NONCE_OCTETS);
      for (const address of lost) {
        const at = sent.size * CANARY_NONCE_OCTETS;
        const nonce = random.subarray(at, at + CANARY_NONCE_OCTETS);
        const name = nonce.toString("hex");
        this.awaited.set(name, address);
        sent.set(name, address);
        const frame = canaryFrame(pair.mac, address, nonce);
        this.deps.sender.frame(pair.feeds, frame, frame.length);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, WAIT_MS);
        this.allSeen = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      lost = new Set([...sent].flatMap(([name, address]) => (this.awaited.has(name) ? [address] : [])));
      this.awaited.clear();
    }
    return lost;
  }

  private conclude(lost: readonly Ip[]): void {
    if (lost.length === 0) this.enter("ok", undefined);
    else {
      const families = lost.map((address) => `IPv${family(address)}`).join(" and ");
      this.enter("failed", `${families} packets out of a veth of this node do not come to our rules`);
    }
  }

  private enter(state: SelfTestStatus["state"], why: string | undefined): void {
    const { state: before, why: whyBefore, deps } = this;
    if (state === "untested" && before === "failed") return; // what was found stays until a packet has come
    this.state = state;
    this.why = why;
    if (state === before && why === whyBefore) return;
    if (state === "failed") {
      deps.log("error", "NOT ENFORCING", { why, fix: "run `namegate doctor`: rules or programs of another component come before ours" });
      deps.emit({ type: "agent", verdict: "info", why: "not-enforcing", message: `NOT ENFORCING: ${why}` });
    } else if (state === "untested") {
      deps.log("warn", "whether packets come to our rules cannot be tried", { why });
    } else if (before === "failed") {
      deps.log("info", "enforcing again");
      deps.emit({ type: "agent", verdict: "info", why: "enforcing-again", message: "packets come to our rules again" });
    }
  }

  private concludePods(pods: readonly GuardedInterface[], lost: ReadonlySet<Ip>, found: ReadonlyMap<string, Bypass> | undefined): void {
    const tried = this.ledWhy === undefined && this.state === "ok";
    this.seenPods = 0;
    const guarded = new Set(this.pods.map(placeOf));
    for (const one of pods) {
      const { pod, addresses, attachment } = one;
      const bypass = found?.get(attachment.interface);
      const missed = tried && addresses.some((address) => lost.has(address));
      if (tried && !missed) this.seenPods++;
      // A pod that ends loses its interface before anybody says so, and its elements while we wait: that proves nothing.
      if (missed && !(guarded.has(placeOf(one)) && isWhereItWas(attachment))) continue;
      const past = bypass === undefined ? "" : `: ${bypass.what} sits on it`;
      this.say(
        pod,
        bypass?.kind === "redirects"
          ? `${bypass.what} takes packets from ${attachment.interface} past netfilter`
          : missed
            ? `a packet that came in by ${attachment.interface} did not come to our rules${past}`
            : undefined,
      );
      const doubt =
        bypass?.kind === "program" && !missed
          ? `${pod}: ${bypass.what} sits on ${attachment.interface}, and may take packets past netfilter`
          : undefined;
      this.warn(pod, doubt);
    }
    for (const key of this.warnings.keys()) if (!this.pods.some(({ pod }) => pod === key)) this.warnings.delete(key);
  }

  private say(pod: PodKey, why: string | undefined): void {
    const before = this.unenforced.get(pod);
    if (why === before) return;
    if (why === undefined) {
      this.unenforced.delete(pod);
      this.deps.emit({ type: "agent", verdict: "info", why: "enforcing-again", message: `${pod}: its packets come to our rules again` });
      return;
    }
    this.unenforced.set(pod, why);
    this.deps.log("error", "pod NOT ENFORCED", { pod, why });
    this.deps.emit({ type: "agent", verdict: "info", why: "not-enforcing", message: `${pod} is NOT ENFORCED: ${why}` });
  }

  private warn(pod: PodKey, doubt: string | undefined): void {
    if (doubt === undefined) this.warnings.delete(pod);
    else if (this.warnings.get(pod) !== doubt) {
      this.warnings.set(pod, doubt);
      this.deps.log("warn", doubt);
    }
  }
}

function isWhereItWas(attachment: Attachment): boolean {
  const now = attachmentOf(attachment.interface);
  return attachment.kind !== "missing" && now.kind !== "missing" && now.index === attachment.index;
}

function placeOf({ pod, addresses, attachment }: GuardedInterface): string {
  const index = attachment.kind === "missing" ? 0 : attachment.index;
  return `${pod} ${attachment.interface} ${index} ${addresses.join(" ")}`;
}
