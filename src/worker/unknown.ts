import { HOLD, NfVerdict, type PacketQueue } from "../base/addon.ts";
import type { Ip } from "../base/address.ts";
import { TokenBucket } from "../base/bucket.ts";
import { decodeIp, newPacket } from "../capture/decode.ts";
import type { Context, Held, Settlement } from "./context.ts";
import type { GuardedPod } from "./pods.ts";
import type { Queries } from "./queries.ts";

/**
 * Packets from a pod's interface with an address that is no known pod's: the CNI is quicker than the API. They are held until the
 * pod is known and then go through the chains once more, which judge them like any others; what nobody claims in time is
 * dropped, and TCP asks again.
 */

/** Below the deadline of the queue's watchdog (thread.ts), milliseconds. */
const HOLD_MS = 1500;
const SWEEP_MS = 100;
/** Of the 16 384 that the queue has room for; a stranger on one interface must not take all of it. */
const HELD_MAX = 2048;
const HELD_OF_INTERFACE_MAX = 128;
/** Packets that the kernel took for unknown just before it knew better, sent back to it, per second. */
const AGAIN = 1000;
/** Sources that the control thread is told of, per second. */
const SAID = 100;

interface Waiting {
  readonly queue: PacketQueue;
  readonly id: number;
  readonly mark: number;
  readonly source: Ip;
  readonly iface: number;
  readonly untilMs: number;
  /** What was copied of it, for a query must be read again. */
  readonly copy: Uint8Array;
  settled: boolean;
}

export class UnknownPods {
  private readonly context: Context;
  private readonly queries: Pick<Queries, "mayGo">;
  private readonly say: (source: Ip, index: number) => void;
  private readonly saying = new TokenBucket(SAID, SAID);
  /** In order of arrival; settled ones are left in it until their time is over. */
  private line: Waiting[] = [];
  private readonly bySource = new Map<Ip, Waiting[]>();
  private readonly ofInterface = new Map<number, number>();
  private held = 0;
  private readonly repeats = new TokenBucket(AGAIN, AGAIN);
  private timer: NodeJS.Timeout | undefined;
  private readonly packet = newPacket();

  /** `say`: somebody is to find out whose packets these are. */
  constructor(context: Context, queries: Pick<Queries, "mayGo">, say: (source: Ip, index: number) => void) {
    this.context = context;
    this.queries = queries;
    this.say = say;
  }

  /** Holds the packet, or drops it (the answer as it is) where there is no room. */
  take(queue: PacketQueue, held: Held, answer: Settlement): void {
    const { counters, kernel, pods } = this.context;
    const nowMs = this.context.nowMs();
    const { source } = held.packet;
    const iface = held.physindev || held.indev;
    answer.mark = kernel.marks.put(held.mark, 0);
    if (pods.isFree(source, iface) && this.repeats.take(nowMs)) {
      answer.verdict = NfVerdict.repeat;
      return;
    }
    // Nobody guards this pod: what other addresses it has is its own business, as long as they are no guarded pod's.
    if (pods.isFreeInterface(iface) && pods.of(source) === undefined) {
      answer.verdict = NfVerdict.accept;
      return;
    }
    const own = this.ofInterface.get(iface) ?? 0;
    if (this.held >= HELD_MAX || own >= HELD_OF_INTERFACE_MAX) {
      counters.unknownDropped++;
      return;
    }
    answer.verdict = HOLD;
    const { bytes, start, end } = held.packet;
    const copy = bytes.slice(start, end);
    const entry = { queue, id: held.id, mark: held.mark, source, iface, untilMs: nowMs + HOLD_MS, copy, settled: false };
    this.held++;
    this.ofInterface.set(iface, own + 1);
    this.line.push(entry);
    const same = this.bySource.get(source);
    if (same !== undefined) same.push(entry);
    else {
      this.bySource.set(source, [entry]);
      if (this.saying.take(nowMs)) this.say(source, iface);
    }
    this.timer ??= setTimeout(this.sweep, SWEEP_MS);
  }

  /** A packet to a resolver, of a pod that became known just behind it: the kernel lets it go, which no rule may do. Else it is dropped. */
  again(pod: GuardedPod, held: Held, answer: Settlement): void {
    answer.mark = this.context.kernel.marks.put(held.mark, 0);
    if (this.repeats.take(this.context.nowMs()) && this.queries.mayGo(pod, held.packet)) answer.verdict = NfVerdict.repeat;
  }

  /** The kernel knows whose these addresses are. */
  release(addresses: readonly Ip[]): void {
    if (this.held === 0) return;
    const { counters, kernel } = this.context;
    for (const address of addresses) {
      for (const entry of this.bySource.get(address) ?? []) {
        const go = this.mayGo(entry);
        if (go) counters.unknownReleased++;
        else counters.unknownDropped++;
        this.settle(entry, go ? NfVerdict.repeat : NfVerdict.drop, kernel.marks.put(entry.mark, 0));
      }
      this.bySource.delete(address);
    }
  }

  /** The chain that reads queries is behind it: one to a resolver is read here. */
  private mayGo({ source, copy }: Waiting): boolean {
    const { kernel, pods } = this.context;
    const pod = pods.of(source);
    if (pod === undefined) return true;
    const { packet } = this;
    if (!decodeIp(copy, 0, copy.length, packet)) return false;
    return !kernel.isResolver(packet.destination, (packet.protocol << 16) | packet.destinationPort) || this.queries.mayGo(pod, packet);
  }

  private settle(entry: Waiting, verdict: number, mark: number): void {
    entry.settled = true;
    this.held--;
    const own = (this.ofInterface.get(entry.iface) ?? 1) - 1;
    if (own > 0) this.ofInterface.set(entry.iface, own);
    else this.ofInterface.delete(entry.iface);
    entry.queue.settle(entry.id, verdict, mark);
  }

  private readonly sweep = (): void => {
    this.timer = undefined;
    const nowMs = this.context.nowMs();
    let over = 0;
    for (const entry of this.line) {
      if (!entry.settled && entry.untilMs > nowMs) break;
      over++;
      if (entry.settled) continue;
      this.context.counters.unknownDropped++;
      this.settle(entry, NfVerdict.drop, entry.mark);
      const left = this.bySource.get(entry.source)?.filter((one) => !one.settled) ?? [];
      if (left.length > 0) this.bySource.set(entry.source, left);
      else this.bySource.delete(entry.source);
    }
    if (over > 0) this.line = this.line.slice(over);
    if (this.line.length > 0) this.timer = setTimeout(this.sweep, SWEEP_MS);
  };
}
