import { NfVerdict, type PacketQueue } from "../base/addon.ts";
import { learn } from "../dns/reply.ts";
import type { Learned } from "../model/binding.ts";
import { Protocol } from "../model/packet.ts";
import { NAME_LIMITS } from "../names/table.ts";
import { type Context, eachPacket, emitFor, type Held } from "./context.ts";
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

/**
 * DNS replies to guarded pods, held on their way to the pod. Whatever a reply says, it goes through unharmed; but only after the
 * kernel has acknowledged what it taught, so that the pod's first packet finds its answer there.
 */
export class Replies {
  private readonly context: Context;
  private readonly learned: Learned[] = [];
  private readonly refusedAt = new WeakMap<GuardedPod, number>();
  /** The pod whose packet is in hand. */
  private pod: GuardedPod | undefined;

  constructor(context: Context) {
    this.context = context;
  }

  hold(queue: PacketQueue, count: number): void {
    eachPacket(this.context, queue, count, NfVerdict.accept, (held, answer) => {
      answer.verdict = NfVerdict.accept;
      this.read(held);
    });
    this.context.kernel.commit();
  }

  private read({ packet }: Held): void {
    const { counters, pods } = this.context;
    const pod = pods.of(packet.destination);
    if (pod === undefined) {
      counters.repliesUnlearned++;
      return;
    }
    this.pod = pod;
    if (packet.protocol === Protocol.UDP) this.message(packet.bytes, packet.payloadStart, packet.payloadEnd);
    else if (packet.protocol === Protocol.TCP) pod.replyStreams.feed(packet, this.context.nowMs(), this.message);
  }

  private readonly message = (bytes: Uint8Array, start: number, end: number): void => {
    const { context, learned } = this;
    const pod = this.pod as GuardedPod;
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
    const outcome = learn(bytes, start, end, learned, pod.pod.searches);
    if (outcome.kind === "malformed") context.counters.repliesMalformed++;
    const now = Math.ceil(nowMs / 1000); // the second that has begun may be nearly over: nothing lasts for less than its TTL
    let count = 0;
    for (const one of learned) {
      const preloadMs = !share ? 0 : count < PRELOAD_FEW ? PRELOAD_FEW_MS : PRELOAD_MS;
      if (pod.learn(one, now, from + preloadMs)) context.counters.learned++;
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
  };

  private limited(pod: GuardedPod, why: string, message: string): void {
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
