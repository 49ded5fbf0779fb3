import { NfVerdict, type PacketQueue, type RawSender } from "../base/addon.ts";
import { ipText } from "../base/address.ts";
import { tcpReply, tcpReset, tcpResetBack, udpReply } from "../dns/packets.ts";
import { readQuery, refused } from "../dns/query.ts";
import { type Packet, Protocol } from "../model/packet.ts";
import { VerdictClass } from "../model/verdict.ts";
import { limited } from "./admission.ts";
import { type Context, eachPacket, emitFor, type Held, type Settlement } from "./context.ts";
import type { NameWatch } from "./name-watch.ts";
import type { GuardedPod } from "./pods.ts";

/**
 * DNS queries of pods whose policy restricts names, queued in raw PREROUTING (before conntrack). A name that no rule has
 * is answered with REFUSED, at once, and never reaches a resolver: silence would cost the application its time-outs, and
 * a forwarded query is a tunnel.
 */
export class Queries {
  private readonly context: Context;
  private readonly sender: RawSender;
  private pod: GuardedPod | undefined;
  private held: Held | undefined;
  private denied: Uint8Array | undefined;

  private readonly watch: NameWatch;

  constructor(context: Context, sender: RawSender, watch: NameWatch) {
    this.context = context;
    this.watch = watch;
    this.sender = sender;
  }

  judge(queue: PacketQueue, count: number): void {
    const { marks } = this.context.kernel;
    eachPacket(this.context, queue, count, NfVerdict.drop, (held, answer) => {
      const { packet } = held;
      this.pod = this.context.pods.of(packet.source);
      this.held = held;
      this.denied = undefined;
      const nowMs = this.context.nowMs();
      if (this.pod?.work.has(nowMs) === false)
        return limited(this.context, this.pod, held, "deny", "more DNS queries than this pod's share of the packet thread: dropped");
      const from = performance.now();
      if (this.pod !== undefined) {
        if (packet.protocol === Protocol.UDP) this.message(packet.bytes, packet.payloadStart, packet.payloadEnd);
        else if (packet.protocol === Protocol.TCP && !this.stream(this.pod, held, answer))
          return this.pod.work.spend(performance.now() - from);
      }
      if (this.denied !== undefined) this.refuse(queue, held, answer, this.denied);
      else {
        // Once more through the chain, which lets what we have seen go on to the rules behind ours.
        answer.verdict = NfVerdict.repeat;
        answer.mark = marks.put(held.mark, VerdictClass.ours);
      }
      this.pod?.work.spend(performance.now() - from);
    });
  }

  /** May this query go on, of a packet that waited for its pod to be known? (What may not is asked again, and refused then.) */
  mayGo(pod: GuardedPod, packet: Packet): boolean {
    if (!pod.guard.book.restrictsQueries) return true;
    if (packet.payloadEnd <= packet.payloadStart) return true;
    if (packet.protocol !== Protocol.UDP) return false;
    const query = readQuery(packet.bytes, packet.payloadStart, packet.payloadEnd);
    if ("bad" in query) return false;
    const allowed = query.qname === undefined ? !pod.guard.book.restrictsNames : pod.guard.query(query.qname).action === "allow";
    return allowed && this.watch.query(pod, packet, packet.bytes, packet.payloadStart, packet.payloadEnd);
  }

  /** False: the segment is not let through. */
  private stream(pod: GuardedPod, held: Held, answer: Settlement): boolean {
    const fed = pod.queryStreams.feed(held.packet, this.context.nowMs(), this.message);
    switch (fed) {
      case "complete":
      case "partial":
      case "empty":
      case "old":
      case "refused":
        return true;
      case "gap":
        answer.verdict = NfVerdict.drop; // the missing bytes first: TCP sends this one again
        return false;
      case "overlap-differs":
      case "overflow":
      case "unknown":
      case "restarted":
        // A stream that cannot be followed (ours was restarted, or somebody plays tricks): the pod connects anew.
        answer.verdict = NfVerdict.drop;
        this.inject(tcpResetBack(held.packet));
        return false;
      default:
        fed satisfies never;
        return false;
    }
  }

  /** False: refused, and nothing of this stream goes on. */
  private readonly message = (bytes: Uint8Array, start: number, end: number): boolean => {
    const { context } = this;
    const pod = this.pod as GuardedPod;
    context.counters.queries++;
    const query = readQuery(bytes, start, end);
    const name = "bad" in query ? undefined : query.qname;
    const verdict = name === undefined ? undefined : pod.guard.query(name);
    const { packet } = this.held as Held;
    // What names carry can be judged of a name that is no host name, too; of a message that nobody can read it cannot.
    const allowed = verdict?.action === "allow" || (name === undefined && !("bad" in query) && !pod.guard.book.restrictsNames);
    const light = allowed && this.watch.query(pod, packet, bytes, start, end);
    if (light) return true;
    if (this.denied !== undefined) return false;
    this.denied = refused(bytes, start, end) ?? new Uint8Array(0);
    context.counters.queriesRefused++;
    if (allowed) return false; // said already
    context.meter.denied(verdict?.why ?? "malformed", verdict?.policy, verdict?.rule, "deny");
    const refusal = verdict?.action === "refuse" ? verdict : undefined;
    emitFor(context, pod, {
      type: "dns",
      verdict: "deny",
      mode: "Enforce",
      why: refusal?.why ?? "malformed",
      policy: refusal?.policy ?? null,
      rule: refusal?.rule ?? null,
      nearest: refusal?.nearest ?? null,
      destination: {
        address: ipText(packet.destination),
        port: packet.destinationPort,
        protocol: packet.protocol === Protocol.TCP ? "TCP" : "UDP",
        names: name === undefined ? [] : [name],
      },
      source: { address: ipText(packet.source), port: packet.sourcePort, interface: pod.attachment.interface },
      message: name === undefined ? "a DNS query that cannot be read was refused" : `the query for ${name} was answered with REFUSED`,
    });
    return false;
  };

  private refuse(queue: PacketQueue, held: Held, answer: Settlement, dns: Uint8Array): void {
    const { packet } = held;
    answer.verdict = NfVerdict.drop;
    if (packet.protocol === Protocol.TCP) {
      // The resolver sees a reset where the query would have been; the pod sees the refusal, and the end.
      queue.replace(held.index, tcpReset(packet));
      const { marks } = this.context.kernel;
      answer.verdict = NfVerdict.repeat;
      answer.mark = marks.put(held.mark, VerdictClass.ours);
    }
    if (dns.length === 0) return;
    const reply = packet.protocol === Protocol.TCP ? tcpReply(packet, dns) : udpReply(packet, dns);
    if (reply !== undefined) this.inject(reply);
  }

  private inject(packet: Uint8Array): void {
    this.sender.send(packet, packet.length, this.context.kernel.marks.value(VerdictClass.ours));
  }
}
