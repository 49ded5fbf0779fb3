import { NfVerdict, type PacketQueue } from "../base/addon.ts";
import { mayHaveEch, stripEch } from "../dns/ech.ts";
import { learn, type ReplyOutcome } from "../dns/reply.ts";
import { resealed } from "../dns/rewrite.ts";
import type { Fed } from "../dns/tcp.ts";
import type { Learned } from "../model/binding.ts";
import type { Notice } from "../model/event.ts";
import type { Ip } from "../base/address.ts";
import { type Packet, Protocol } from "../model/packet.ts";
import type { DnsName } from "../base/name.ts";
import { NAME_LIMITS } from "../names/table.ts";
import { type Context, eachPacket, emitFor, type Held, packetAgain, sayFault, type Settlement } from "./context.ts";
import type { NameWatch } from "./name-watch.ts";
import type { GuardedPod } from "./pods.ts";

const REFUSAL_EVENT_SECONDS = 60;
/**
 * Longest that one reply is preloaded for; the rest of its addresses is asked for at the first packet. The few addresses
 * that most replies have get more: a thread that has to wait for a processor for a moment has not worked.
 */
const PRELOAD_MS = 2;
const PRELOAD_FEW = 16;
const PRELOAD_FEW_MS = 20;
/** Longest that one reply is learned from, looked at every LOOK_EVERY pairs beyond those that a name may have addresses. */
const LEARN_MS = 10;
const LEARNED_ALWAYS = NAME_LIMITS.addressesPerName;
const LOOK_EVERY = 64;
/**
 * A pod that has had its share of the thread is preloaded for no more: its connections ask. Only when it owes this much
 * are its replies not learned, for then it would be refused what it was told (and a thread that had to wait for a
 * processor has spent as long as one that worked).
 */
const DEBT_MS = 250;

/** Milliseconds for the address of this number in its reply. */
function preloadMs(share: boolean, number: number): number {
  return !share ? 0 : number < PRELOAD_FEW ? PRELOAD_FEW_MS : PRELOAD_MS;
}

/** A message that was learned from, and what can be done with it when it is on its way. */
interface Taken {
  pod: GuardedPod | undefined;
  /** Of its packet in the batch, where the message is the packet's whole payload. */
  index: number;
  resolver: Ip;
  /** undefined: it was not read. */
  outcome: ReplyOutcome | undefined;
  readonly learned: Learned[];
  /** Of these, what the kernel has and can be told later that it lasts longer. */
  readonly longer: Learned[];
}

/**
 * DNS replies to guarded pods, held on their way to the pod. Whatever a reply says, it goes through unharmed (less the ECH keys
 * that a rule wants stripped); but only after the kernel has acknowledged what it taught, so that the pod's first packet finds
 * its answer there. What is of no use to that packet is done when the reply is on its way.
 */
export class Replies {
  private readonly context: Context;
  private readonly taken: Taken[] = [];
  private takenCount = 0;
  private readonly refusedAt = new WeakMap<GuardedPod, number>();
  /** The pod whose packet is in hand, and the packet. */
  private pod: GuardedPod | undefined;
  private packet: Packet | undefined;
  /** Its place in the batch. */
  private index = 0;
  /** The UDP packet in hand was changed. */
  private changed = false;

  private readonly watch: NameWatch;

  constructor(context: Context, watch: NameWatch) {
    this.context = context;
    this.watch = watch;
  }

  hold(queue: PacketQueue, count: number): void {
    const from = performance.now();
    eachPacket(this.context, queue, count, NfVerdict.accept, (held, answer) => {
      answer.verdict = NfVerdict.accept;
      this.read(queue, held, answer);
    });
    this.context.kernel.commit();
    const heldMs = performance.now() - from;
    queue.release();
    this.context.meter.histograms.dnsHold.observe(heldMs, count);
    for (let i = 0; i < this.takenCount; i++) this.afterwards(queue, this.taken[i] as Taken);
    this.takenCount = 0;
    this.context.kernel.commit();
  }

  private afterwards(queue: PacketQueue, taken: Taken): void {
    const pod = taken.pod as GuardedPod;
    const from = performance.now();
    try {
      const packet = packetAgain(queue, taken.index);
      if (packet !== undefined) this.watch.reply(pod, packet, packet.bytes, packet.payloadStart, packet.payloadEnd);
      this.keep(taken, from);
    } catch (error) {
      sayFault(this.context, "a DNS reply that is on its way could not be looked at again", error);
    }
    this.forget(taken);
    pod.work.spend(performance.now() - from);
  }

  private forget(taken: Taken): void {
    taken.pod = taken.outcome = undefined;
    taken.learned.length = 0;
    taken.longer.length = 0;
  }

  /** What explanations and the next agent need, and what the kernel can be told later. */
  private keep({ pod, outcome, learned, longer, resolver }: Taken, from: number): void {
    if (pod === undefined || outcome === undefined) return;
    const nowMs = this.context.nowMs();
    pod.heard.take(outcome, learned, resolver, Math.floor(nowMs / 1000), pod.pod.searches);
    const share = pod.work.has(nowMs);
    for (let i = 0; i < longer.length; i++) {
      pod.prolong(longer[i] as Learned, Math.ceil(nowMs / 1000), from + preloadMs(share, i));
      if (i % LOOK_EVERY === LOOK_EVERY - 1 && performance.now() > from + LEARN_MS) break; // what is over is asked for when it has run out
    }
  }

  /** Room for what is known of one more message. */
  private next(pod: GuardedPod, packet: Packet): Taken {
    const { taken } = this;
    let one = taken[this.takenCount];
    if (one === undefined) taken.push((one = { pod, index: 0, resolver: packet.source, outcome: undefined, learned: [], longer: [] }));
    this.forget(one);
    one.pod = pod;
    one.index = this.index;
    one.resolver = packet.source;
    return one;
  }

  private read(queue: PacketQueue, { packet, index }: Held, answer: Settlement): void {
    const { counters, pods } = this.context;
    const pod = pods.of(packet.destination);
    if (pod === undefined) {
      counters.repliesUnlearned++;
      return;
    }
    this.pod = pod;
    this.packet = packet;
    this.index = index;
    this.changed = false;
    if (packet.protocol === Protocol.UDP) this.message(packet.bytes, packet.payloadStart, packet.payloadEnd, 0);
    else if (packet.protocol === Protocol.TCP) {
      const fed = pod.replyStreams.feed(packet, this.context.nowMs(), this.message);
      if (pod.guard.book.stripsEch) this.rewriteSegment(pod, packet, fed, answer);
    }
    const whole = this.changed ? resealed(packet) : undefined;
    if (whole !== undefined) queue.replace(index, whole);
  }

  /** A message may be in several segments, and each may come again: all say what the changed message says. */
  private rewriteSegment(pod: GuardedPod, packet: Packet, fed: Fed, answer: Settlement): void {
    this.changed = pod.replyPatches.apply(packet);
    if (fed !== "partial" && fed !== "gap" && fed !== "old") return;
    const begun = pod.replyStreams.pending(packet);
    // Not to be released before the message is whole and read; TCP sends it again.
    if ((fed === "gap" || (begun !== undefined && mayHaveEch(begun, 2, begun.length, this.strips))) && pod.replyPatches.mayWait(packet))
      answer.verdict = NfVerdict.drop;
  }

  private readonly strips = (name: DnsName): boolean => (this.pod as GuardedPod).guard.stripsEch(name);

  private strip(bytes: Uint8Array, start: number, end: number, sequence: number): void {
    const packet = this.packet as Packet;
    const udp = packet.protocol === Protocol.UDP;
    // The stream keeps what the resolver sent, to be compared with what it sends again.
    const octets = udp ? bytes : bytes.slice(start, end);
    const changed = udp ? stripEch(octets, start, end, this.strips) : stripEch(octets, 0, octets.length, this.strips);
    if (changed === 0) return;
    this.context.counters.echStripped++;
    if (udp) this.changed = true;
    else (this.pod as GuardedPod).replyPatches.add(packet, sequence, octets);
  }

  private readonly message = (bytes: Uint8Array, start: number, end: number, sequence: number): void => {
    const pod = this.pod as GuardedPod;
    const packet = this.packet as Packet;
    const taken = this.next(pod, packet);
    this.learn(pod, taken, bytes, start, end, sequence);
    if (packet.protocol === Protocol.UDP) {
      this.takenCount++;
      return;
    }
    // A message of a stream is gone when the next one is read.
    this.watch.reply(pod, packet, bytes, start, end);
    this.keep(taken, performance.now());
    this.forget(taken);
  };

  private learn(pod: GuardedPod, taken: Taken, bytes: Uint8Array, start: number, end: number, sequence: number): void {
    const { context } = this;
    const { learned } = taken;
    context.counters.replies++;
    const nowMs = context.nowMs();
    if (!pod.work.has(nowMs, DEBT_MS)) {
      context.counters.repliesUnlearned++;
      this.limited(pod, "too-much-work", "DNS replies of this pod were not learned: it has had its share of the packet thread");
      return;
    }
    const from = performance.now();
    const share = pod.work.has(nowMs);
    const evictions = pod.guard.names.evictions;
    const outcome = (taken.outcome = learn(bytes, start, end, learned, pod.pod.searches));
    if (pod.guard.book.stripsEch) this.strip(bytes, start, end, sequence);
    if (outcome.kind === "malformed") context.counters.repliesMalformed++;
    if (learned.length > 0 && outcome.qname !== undefined && context.dnsServers.has(outcome.qname))
      for (const { address } of learned) pod.elsewhere.learned(address);
    const now = Math.ceil(nowMs / 1000); // the second that has begun may be nearly over: nothing lasts for less than its TTL
    let count = 0;
    for (const one of learned) {
      const became = pod.learn(one, now, from + preloadMs(share, count));
      if (became === "longer") taken.longer.push(one);
      if (became !== "refused") context.counters.learned++;
      else {
        context.counters.bindingsRefused++;
        this.limited(pod, "too-many-bindings", `an address of ${one.name} was not learned: every binding that could make room is in use`);
      }
      if (++count > LEARNED_ALWAYS && count % LOOK_EVERY === 0 && performance.now() > from + LEARN_MS) {
        context.counters.bindingsRefused += learned.length - count;
        this.limited(
          pod,
          "too-much-work",
          `a DNS reply for ${one.name} was made to cost time: ${learned.length - count} of its addresses were not learned`,
        );
        break;
      }
    }
    if (pod.guard.names.evictions > evictions)
      this.limited(pod, "bindings-evicted", "addresses that no connection uses were forgotten to make room for newer ones");
    pod.work.spend(performance.now() - from);
  }

  private limited(pod: GuardedPod, why: Notice, message: string): void {
    const now = this.context.now();
    if (now - (this.refusedAt.get(pod) ?? 0) < REFUSAL_EVENT_SECONDS) return;
    this.refusedAt.set(pod, now);
    emitFor(this.context, pod, {
      type: "limit",
      verdict: "info",
      mode: pod.guard.book.mode,
      why,
      message,
    });
  }
}
