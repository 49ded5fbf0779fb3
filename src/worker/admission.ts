import { NfVerdict, type PacketQueue, type RawSender } from "../base/addon.ts";
import { family, type Ip, ipText } from "../base/address.ts";
import { TokenBucket } from "../base/bucket.ts";
import { interfaceOf } from "./interfaces.ts";
import { tcpResetBack } from "../dns/packets.ts";
import type { NameSeen } from "../model/binding.ts";
import { Protocol, protocolText, TcpFlag } from "../model/packet.ts";
import type { Evidence, Verdict } from "../model/verdict.ts";
import { SourceClass, VerdictClass } from "../model/verdict.ts";
import { isCanary } from "./canary.ts";
import {
  type Context,
  describe,
  destinationOf,
  eachPacket,
  emitFor,
  emitNow,
  evidenceOf,
  podOf,
  policiesOf,
  type Held,
  mayEmit,
  PREROUTING,
  type Settlement,
} from "./context.ts";
import type { Decision, NetworkDecision } from "./guard.ts";
import { mayBeDns, sayDnsUse } from "./resolvers.ts";
import type { UnknownPods } from "./unknown.ts";
import { DECISION_SECONDS, DENIAL_SECONDS, type GuardedPod } from "./pods.ts";

/** Protocols that a hash:ip,port,ip element can name with their port (net/netfilter/ipset/ip_set_getport.c). */
const ELEMENT_PROTOCOLS: ReadonlySet<number> = new Set([Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.ICMP, Protocol.ICMPv6]);

/**
 * The first packets of connections that the kernel does not know: decided, remembered, released. Monitor stops nothing:
 * there, what cannot be judged goes on.
 */
export function admit(
  context: Context,
  queue: PacketQueue,
  count: number,
  monitor: boolean,
  sender: RawSender,
  unknown: UnknownPods,
): void {
  eachPacket(context, queue, count, monitor ? NfVerdict.accept : NfVerdict.drop, (held, answer) => {
    // Source classes come here, and one verdict: a refusal that is to be answered (NG-REFUSE). An unguarded source never does.
    if (context.kernel.marks.classOf(held.mark) === VerdictClass.deny) reset(context, held, sender);
    else admitOne(context, queue, held, answer, monitor, sender, unknown);
  });
  context.kernel.commit();
}

function admitOne(
  context: Context,
  queue: PacketQueue,
  held: Held,
  answer: Settlement,
  monitor: boolean,
  sender: RawSender,
  unknown: UnknownPods,
): void {
  if (isCanary(context, held, answer)) return;
  const { kernel, counters, pods } = context;
  const { packet } = held;
  const pod = pods.of(packet.source);
  const source = kernel.marks.classOf(held.mark);
  if (source === SourceClass.spoof) return spoofed(context, held);
  if (source === SourceClass.picked) return midStream(context, held, sender);
  if (source === SourceClass.unknown || source === SourceClass.starting || pod === undefined) {
    if (pod === undefined || !arrivedFrom(pod, held)) {
      const sender = monitor ? undefined : pods.behind(held.physindev || held.indev);
      if (sender !== undefined) {
        if (pod !== undefined || sender.guard.book.enforce !== undefined) return spoofed(context, held);
        // A further address of a pod that is only watched: nothing of it is stopped.
        answer.verdict = NfVerdict.accept;
        answer.mark = kernel.marks.put(held.mark, 0);
        return;
      }
      counters.unknownPod++;
      if (!monitor) unknown.take(queue, held, answer);
      return;
    }
    if (kernel.isResolver(packet.destination, (packet.protocol << 16) | packet.destinationPort)) return unknown.again(pod, held, answer);
  }
  counters.upcalls++;
  const nowMs = context.nowMs();
  if (!pod.upcalls.take(nowMs) || !pod.work.has(nowMs)) {
    return limited(
      context,
      pod,
      held,
      monitor ? "info" : "deny",
      `more new connections than ${context.limits.upcallsPerSecond} a second, or than this pod's share of the packet thread: ${monitor ? "not judged" : "dropped"}`,
    );
  }
  const from = performance.now();
  const now = Math.floor(nowMs / 1000);
  const { protocol, destinationPort: port, destination } = packet;
  const names = pod.guard.seen(destination, now);
  const decision = pod.guard.decide(protocol, port, destination, names);
  answer.verdict = NfVerdict.repeat;
  answer.mark = kernel.marks.put(held.mark, VerdictClass[decision.kernel]);
  const cacheable = ELEMENT_PROTOCOLS.has(protocol);
  const portKey = (protocol << 16) | port;
  if (decision.kernel === "deny") {
    counters.upcallsDenied++;
    if (cacheable) pod.rememberDenial(destination, portKey, now);
    if (protocol !== Protocol.TCP && !pod.unreachables.take(nowMs)) answer.verdict = NfVerdict.drop;
  } else {
    counters.upcallsAllowed++;
    if (decision.kernel === "inspect" || decision.kernel === "watch") pod.asked.begin(packet);
    if (cacheable) {
      let expires = now + (decision.wouldDeny === undefined ? DECISION_SECONDS : DENIAL_SECONDS);
      const entry = pod.guard.names.get(destination);
      if (entry !== undefined) {
        pod.guard.names.begins(destination);
        for (const binding of entry.bindings) if (binding.expires > now) expires = Math.min(expires, binding.expires);
      }
      pod.remember(destination, portKey, decision.kernel, expires, now);
    }
  }
  report(context, pod, held, decision, names, undefined);
  const tookMs = performance.now() - from;
  pod.work.spend(tookMs);
  context.meter.histograms.upcall.observe(tookMs);
}

/** The packet is dropped; its sender sees the connection refused by the address that it asked for. */
function reset(context: Context, { packet, hook }: Held, sender: RawSender): void {
  const pod = context.pods.of(packet.source);
  if (packet.protocol !== Protocol.TCP || (packet.tcpFlags & TcpFlag.RST) !== 0 || pod?.upcalls.take(context.nowMs()) !== true) return;
  const known = hook === PREROUTING || pod.asked.restore(packet);
  const answer = tcpResetBack(packet);
  // Where nobody knows what DNAT has made of which address, conntrack may: it must take the reset for the connection's.
  sender.send(answer, answer.length, known ? context.kernel.marks.value(VerdictClass.ours) : 0);
}

/** On its way to a pod, dropped (firewall/picked-rules.ts): its sender sees the connection reset. */
function midStream(context: Context, { packet }: Held, sender: RawSender): void {
  const pod = context.pods.of(packet.destination);
  if (packet.protocol !== Protocol.TCP || pod === undefined) return;
  const { source: destination, sourcePort: destinationPort, destination: source, destinationPort: sourcePort, protocol } = packet;
  const said = { action: "deny", why: "mid-stream", policy: undefined, rule: undefined, nearest: undefined } as const;
  context.meter.denied(said.why, undefined, undefined, "deny");
  const names = pod.guard.seen(destination, context.now());
  denied(context, pod, { source, sourcePort, destination, destinationPort, protocol }, said, "deny", names, undefined, MID_STREAM);
  const answer = tcpResetBack(packet);
  sender.send(answer, answer.length, context.kernel.marks.value(VerdictClass.ours));
}

const MID_STREAM = (): string =>
  "the other end sent a packet of a connection that this node did not see begin, so nobody knows whose it is, and what the pod says in it would go unread; " +
  "it was reset. The node forgets idle connections (net.netfilter.nf_conntrack_tcp_timeout_established), and all with `conntrack -F`; " +
  "else the pod has made it forget this one, or what the pod sends goes past netfilter";

function arrivedFrom(pod: GuardedPod, held: Held): boolean {
  return pod.attachment.kind !== "missing" && (pod.attachment.index === held.indev || pod.attachment.index === held.physindev);
}

/** Spoofed packets from interfaces of no guarded pod that are looked into, per second: the sender chooses how often. */
const strangers = new TokenBucket(20, 20);

function spoofed(context: Context, held: Held): void {
  context.counters.spoofed++;
  const { packet } = held;
  const index = held.physindev || held.indev;
  const pod = context.pods.behind(index);
  if (pod === undefined && !strangers.take(context.nowMs())) return;
  const iface = pod === undefined ? interfaceOf(index) : pod.attachment.interface;
  const draft = {
    type: "spoofed" as const,
    verdict: "deny" as const,
    mode: "Enforce" as const,
    why: "spoofed-source" as const,
    destination: destinationOf(packet.destination, packet.destinationPort, packet.protocol, []),
    source: { address: ipText(packet.source), port: packet.sourcePort, interface: iface },
    message: `a packet left ${iface ?? "an interface"} with a source address that is not its pod's`,
  };
  if (pod === undefined) context.emit(draft);
  else emitFor(context, pod, draft);
}

/** Seconds between two events about a pod's limit. */
const LIMIT_EVENT_SECONDS = 10;

/** The pod has had its share: said once in a while, and never held back for the noise that it makes. */
export function limited(context: Context, pod: GuardedPod, { packet }: Held, verdict: "deny" | "info", message: string): void {
  context.counters.upcallsLimited++;
  pod.limited++;
  if (context.now() - pod.limitSaid < LIMIT_EVENT_SECONDS) return;
  pod.limitSaid = context.now();
  const count = pod.limited;
  pod.limited = 0;
  context.emit({
    pod: podOf(pod),
    policies: policiesOf(pod),
    count,
    type: "limit",
    verdict,
    mode: pod.guard.book.mode,
    why: "upcall-limit",
    destination: destinationOf(packet.destination, packet.destinationPort, packet.protocol, []),
    message,
  });
}

/** Turns a decision into events: a denial and a would-be denial always, an admission when it is the first use of a rule. */
export function report(
  context: Context,
  pod: GuardedPod,
  held: Held,
  decision: Decision,
  names: readonly NameSeen[],
  evidence: Evidence | undefined,
): void {
  const { packet } = held;
  const { verdict, wouldDeny } = decision;
  const said = wouldDeny ?? verdict;
  if (said.action === "inspect") return;
  if (said.action === "allow") {
    allowed(context, pod, decision, packet.destination, packet.destinationPort, packet.protocol, names, evidence, 1);
    return;
  }
  context.meter.decided(decision);
  if (wouldDeny !== undefined) context.counters.wouldDeny++;
  denied(context, pod, packet, said, wouldDeny === undefined ? "deny" : "would-deny", names, evidence);
}

export function denied(
  context: Context,
  pod: GuardedPod,
  packet: {
    readonly source: Held["packet"]["source"];
    readonly sourcePort: number;
    readonly destination: Held["packet"]["destination"];
    readonly destinationPort: number;
    readonly protocol: number;
  },
  said: Verdict & { readonly action: "deny" },
  verdict: "deny" | "would-deny",
  names: readonly NameSeen[],
  evidence: Evidence | undefined,
  detail?: () => string,
): void {
  sayDnsUse(context, pod, packet, verdict, said, names, evidence, 1);
  if (!mayEmit(context, pod)) return;
  emitNow(context, pod, {
    type: "connection",
    verdict,
    mode: verdict === "deny" ? "Enforce" : "Monitor",
    why: said.why,
    policy: said.policy ?? null,
    rule: said.rule ?? null,
    nearest: said.nearest ?? null,
    destination: destinationOf(packet.destination, packet.destinationPort, packet.protocol, names),
    source: { address: ipText(packet.source), port: packet.sourcePort, interface: pod.attachment.interface },
    evidence: evidenceOf(names, evidence),
    message: `${describe(packet.destination, packet.destinationPort, packet.protocol, names)}: ${said.why}${detail === undefined ? "" : `: ${detail()}`}`,
  });
}

/** The pod's address of the same family. */
const ownOf = ({ guard }: GuardedPod, address: Ip): Ip => guard.address(family(address)) ?? address;

/** Counts uses of a rule; the first one by this pod is an event. */
export function allowed(
  context: Context,
  pod: GuardedPod,
  decision: Decision,
  address: Held["packet"]["destination"],
  port: number,
  protocol: number,
  names: readonly NameSeen[],
  evidence: Evidence | undefined,
  count: number,
): void {
  const { verdict, mode } = decision;
  context.meter.decided(decision, count);
  if (verdict.action === "deny") return;
  if (mayBeDns(pod, address, port, evidence)) {
    const spoken = { source: ownOf(pod, address), sourcePort: 0, destination: address, destinationPort: port, protocol };
    sayDnsUse(context, pod, spoken, "allow", verdict, names, evidence, count);
  }
  if (!pod.firstUse(`${verdict.policy}/${verdict.rule}`, count)) return;
  emitFor(context, pod, {
    type: "connection",
    verdict: "allow",
    mode,
    policy: verdict.policy,
    rule: verdict.rule,
    destination: destinationOf(address, port, protocol, names),
    source: { address: ipText(ownOf(pod, address)), port: 0, interface: pod.attachment.interface },
    evidence: evidenceOf(names, evidence),
    message: `${describe(address, port, protocol, names)}: first use of ${verdict.policy}/${verdict.rule}`,
    count,
  });
}

/** The same for connections into a network that the kernel lets through alone; where to in it, nobody has seen. */
export function allowedInto(context: Context, pod: GuardedPod, use: NetworkDecision, count: number): void {
  const { allow, shadow, cidr, protocol, port } = use;
  const mode = pod.guard.book.enforce === undefined ? "Monitor" : "Enforce";
  context.meter.decided({ kernel: "pass", verdict: allow, mode, wouldDeny: undefined, shadow }, count);
  if (allow.action !== "allow" || !pod.firstUse(`${allow.policy}/${allow.rule}`, count)) return;
  emitFor(context, pod, {
    type: "connection",
    verdict: "allow",
    mode,
    policy: allow.policy,
    rule: allow.rule,
    destination: { address: null, port, protocol: protocolText(protocol), names: [] },
    source: { address: ipText(ownOf(pod, cidr.ip)), port: 0, interface: pod.attachment.interface },
    message: `${ipText(cidr.ip)}/${cidr.bits} port ${port}/${protocolText(protocol)}: first use of ${allow.policy}/${allow.rule}`,
    count,
  });
}
