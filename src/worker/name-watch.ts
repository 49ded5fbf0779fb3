import { ipText } from "../base/address.ts";
import { recordTypeText } from "../base/record-type.ts";
import { type Asked, readAsked } from "../dns/question.ts";
import { type DomainCount, type Excess, exceeds, Questions, WINDOW_MS } from "../dns/tunnel.ts";
import type { EventVerdict } from "../model/event.ts";
import { type Packet, protocolText } from "../model/packet.ts";
import { octetText } from "../model/verdict.ts";
import { type Context, emitFor } from "./context.ts";
import type { PolicyLimits } from "./name-limits.ts";
import type { GuardedPod } from "./pods.ts";

/** Characters of a name in a message. */
const SHOWN_MAX = 120;

/**
 * Looks for data in the names that guarded pods ask for. Replies tell, since each carries its question: no query has to wait for
 * that. Only where a policy wants such queries refused are they looked at on their way out, and then there alone.
 */
export class NameWatch {
  private readonly context: Context;
  private readonly questions: Questions<GuardedPod>;

  /** `seed`: see Questions. */
  constructor(context: Context, seed: number) {
    this.context = context;
    this.questions = new Questions(seed);
  }

  /** A reply on its way to the pod. */
  reply(pod: GuardedPod, packet: Packet, bytes: Uint8Array, start: number, end: number): void {
    if (pod.guard.book.refusesData) return;
    this.judge(pod, packet, false, bytes, start, end);
  }

  /** A query on its way out. False: a policy wants it refused. */
  query(pod: GuardedPod, packet: Packet, bytes: Uint8Array, start: number, end: number): boolean {
    return !pod.guard.book.refusesData || this.judge(pod, packet, true, bytes, start, end);
  }

  sweep(nowMs: number): void {
    this.questions.sweep(nowMs);
  }

  private judge(pod: GuardedPod, packet: Packet, query: boolean, bytes: Uint8Array, start: number, end: number): boolean {
    const asked = readAsked(bytes, start, end, pod.pod.searches);
    if (asked === undefined) return true;
    const domain = this.questions.count(pod, asked, this.context.nowMs());
    for (const limits of pod.guard.book.limits) {
      const excess = exceeds(limits, asked, domain);
      if (excess === undefined) continue;
      this.context.counters.dnsTunnelSigns++;
      this.say(pod, packet, query, asked, domain, limits, excess);
      return limits.becomes !== "deny";
    }
    return true;
  }

  /** Once a minute for each domain, and when it becomes worse. */
  private say(
    pod: GuardedPod,
    packet: Packet,
    query: boolean,
    asked: Asked,
    domain: DomainCount,
    limits: PolicyLimits,
    excess: Excess,
  ): void {
    const nowMs = this.context.nowMs();
    domain.unsaid++;
    const said = domain.said === undefined ? -1 : WORSE[domain.said];
    if (WORSE[limits.becomes] <= said && nowMs - domain.saidMs < WINDOW_MS) return;
    const count = domain.unsaid;
    domain.unsaid = 0;
    domain.said = limits.becomes;
    domain.saidMs = nowMs;
    const [server, port] = query ? [packet.destination, packet.destinationPort] : [packet.source, packet.sourcePort];
    const [own, ownPort] = query ? [packet.source, packet.sourcePort] : [packet.destination, packet.destinationPort];
    const below = shown(asked.name.slice(asked.domainAt));
    emitFor(this.context, pod, {
      type: "dns",
      verdict: limits.becomes,
      mode: limits.becomes === "deny" ? "Enforce" : limits.becomes === "would-deny" ? "Monitor" : pod.guard.book.mode,
      why: "dns-tunnel",
      policy: limits.by(excess.limit, asked.type) ?? null,
      destination: { address: ipText(server), port, protocol: protocolText(packet.protocol), names: asked.host ? [asked.name] : [] },
      source: { address: ipText(own), port: ownPort, interface: pod.attachment.interface },
      exceeded: { ...excess, domain: below },
      count,
      message: `names below ${below} may carry data: ${words(excess, asked)}${OUTCOME[limits.becomes]}`,
    });
  }
}

const WORSE: Readonly<Record<PolicyLimits["becomes"], number>> = { allow: 0, "would-deny": 1, deny: 2 };
const OUTCOME: Readonly<Record<EventVerdict, string>> = {
  deny: "; answered with REFUSED",
  "would-deny": "; Enforce would refuse",
  allow: "",
  info: "",
};

function words({ limit, most, found }: Excess, { name }: Asked): string {
  const allowed = `(at most ${most})`;
  switch (limit) {
    case "types":
      return `a query of type ${recordTypeText(found)} for ${shown(name)}`;
    case "labelLength":
      return `a label of ${found} octets ${allowed} in ${shown(name)}`;
    case "nameLength":
      return `a name of ${found} octets ${allowed}: ${shown(name)}`;
    case "entropy":
      return `${found} bits an octet ${allowed} in ${shown(name)}`;
    case "names":
      return `${found} different ones in a minute ${allowed}, as ${shown(name)}`;
    case "data":
      return `${found} octets in a minute ${allowed}, as ${shown(name)}`;
    case "queries":
      return `${found} queries in a minute ${allowed}, as ${shown(name)}`;
    default:
      return limit satisfies never;
  }
}

/** Octets of no host name are written \\xHH: a pod chooses them. */
function shown(name: string): string {
  let text = "";
  for (let i = 0; i < name.length && text.length < SHOWN_MAX; i++) text += octetText(name.charCodeAt(i));
  return text.length < SHOWN_MAX ? text : `${text.slice(0, SHOWN_MAX - 1)}…`;
}
