import { NfVerdict, type PacketQueue } from "../base/addon.ts";
import { learn } from "../dns/reply.ts";
import { TcpMessages } from "../dns/tcp.ts";
import type { Learned } from "../model/binding.ts";
import { Protocol } from "../model/packet.ts";
import { type Context, eachPacket, emitFor, type Held } from "./context.ts";
import type { GuardedPod } from "./pods.ts";

const REFUSAL_EVENT_SECONDS = 60;

/**
 * DNS replies to guarded pods, held in POSTROUTING. Whatever a reply says, it goes through unharmed; but only after the
 * kernel has acknowledged what it taught, so that the pod's first packet finds its answer there.
 */
export class Replies {
  private readonly context: Context;
  private readonly streams = new TcpMessages("resolver");
  private readonly learned: Learned[] = [];
  private readonly refusedAt = new WeakMap<GuardedPod, number>();
  /** The pod whose packet is in hand. */
  private pod: GuardedPod | undefined;
  /** Bindings of all pods, counted once a batch. */
  private total = 0;

  constructor(context: Context) {
    this.context = context;
  }

  hold(queue: PacketQueue, count: number): void {
    this.total = this.context.pods.bindings();
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
    else if (packet.protocol === Protocol.TCP) this.streams.feed(packet, this.context.nowMs(), this.message);
  }

  private readonly message = (bytes: Uint8Array, start: number, end: number): void => {
    const { context, learned } = this;
    const pod = this.pod as GuardedPod;
    context.counters.replies++;
    const outcome = learn(bytes, start, end, learned, pod.pod.searches);
    if (outcome.kind === "malformed") context.counters.repliesMalformed++;
    const now = context.now();
    for (const one of learned) {
      const full = this.total >= context.limits.bindings && !pod.guard.names.makeRoom(now);
      this.total++;
      if (!full && pod.learn(one, now)) context.counters.learned++;
      else this.refused(pod, one, now);
    }
  };

  private refused(pod: GuardedPod, { name }: Learned, now: number): void {
    this.context.counters.bindingsRefused++;
    if (now - (this.refusedAt.get(pod) ?? 0) < REFUSAL_EVENT_SECONDS) return;
    this.refusedAt.set(pod, now);
    emitFor(this.context, pod, {
      type: "limit",
      verdict: "info",
      mode: pod.guard.book.mode,
      why: "too-many-bindings",
      message: `an address of ${name} was not learned: every binding that could make room is in use`,
    });
  }
}
