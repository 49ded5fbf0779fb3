import { HOLD, NfVerdict, type PacketQueue, type RawSender } from "../base/addon.ts";
import type { Endpoint, Ip } from "../base/address.ts";
import { tcpResetOf, withoutPayload } from "../dns/packets.ts";
import type { Flow, Judge, Ruling, Waiting } from "../inspect/flow.ts";
import type { Desk, Fate, Opened, Reason } from "../inspect/flow-desk.ts";
import { Flows } from "../inspect/flows.ts";
import type { Reading } from "../inspect/inspector.ts";
import { applications } from "../inspect/registry.ts";
import type { NameSeen } from "../model/binding.ts";
import type { Evidence, Verdict } from "../model/verdict.ts";
import { TcpFlag } from "../model/packet.ts";
import { VerdictClass } from "../model/verdict.ts";
import type { Question } from "../policy/evaluate.ts";
import { allowed, denied, limited } from "./admission.ts";
import { type Context, eachPacket, type Held, keep, type Kept, keptPacket, PREROUTING, type Settlement } from "./context.ts";
import type { Decision, Guard } from "./guard.ts";
import type { GuardedPod } from "./pods.ts";
import { Turns } from "./turns.ts";

const APPLICATIONS = applications();
/** Milliseconds between two looks at what is held. */
const SWEEP_MS = 20;
const TOO_MANY = "more packets of connections without a verdict than this pod's share of the packet thread can read";

/**
 * First payload bytes of connections whose rule wants evidence: from the queues to the flow engine (inspect/flows.ts) and
 * back. `watch` is Monitor's side: it only speaks.
 */
export class Inspection implements Desk<GuardedPod> {
  readonly flows: Flows<GuardedPod>;
  private readonly context: Context;
  private readonly sender: RawSender;
  private readonly turns: Turns<GuardedPod, Kept>;
  private queue: PacketQueue | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(context: Context, sender: RawSender) {
    this.context = context;
    this.sender = sender;
    this.flows = new Flows<GuardedPod>(this);
    this.turns = new Turns((kept) => this.readLater(kept));
  }

  read(queue: PacketQueue, count: number, watch: boolean): void {
    if (!watch) this.queue = queue;
    this.turns.begin();
    eachPacket(this.context, queue, count, watch ? NfVerdict.accept : NfVerdict.drop, (held, answer) => {
      if (this.begins(held)) {
        answer.verdict = NfVerdict.repeat;
        return;
      }
      const owner = this.ownerOf(held);
      // Data in a SYN is only taken off: that costs next to nothing.
      const now = owner === undefined || (held.packet.tcpFlags & TcpFlag.SYN) !== 0 || this.turns.now(owner);
      if (now) this.readOne(owner, held, answer, watch, queue);
      else this.defer(owner, held, answer, watch, queue);
    });
    this.rest();
  }

  private defer(owner: GuardedPod, held: Held, answer: Settlement, watch: boolean, queue: PacketQueue): void {
    if (this.turns.hasRoom(owner)) {
      this.turns.wait(owner, keep(queue, watch, held));
      answer.verdict = HOLD;
      return;
    }
    this.count("limited");
    limited(this.context, owner, held, watch ? "info" : "deny", TOO_MANY);
    this.settlement(watch ? "go" : "drop", held.mark, answer);
  }

  private readonly readLater = (kept: Kept): void => {
    const { watch } = kept;
    keptPacket(this.context, kept, watch ? NfVerdict.accept : NfVerdict.drop, (held, answer) =>
      this.readOne(this.ownerOf(held), held, answer, watch, undefined),
    );
    this.rest();
  };

  /** `queue`: whose batch it is in; without, it cannot be replaced. */
  private readOne(owner: GuardedPod | undefined, held: Held, answer: Settlement, watch: boolean, queue: PacketQueue | undefined): void {
    const { packet } = held;
    const { destination, destinationPort } = packet;
    let fate: Fate = watch ? "go" : "drop";
    if (owner !== undefined) fate = this.look(owner, held, watch);
    // As it is on the wire.
    packet.destination = destination;
    packet.destinationPort = destinationPort;
    if (fate === "strip") {
      if (queue === undefined) fate = "drop";
      else queue.replace(held.index, withoutPayload(packet));
    }
    this.settlement(fate, held.mark, answer);
  }

  private rest(): void {
    if (this.flows.waiting) this.timer ??= setTimeout(this.tick, SWEEP_MS);
  }

  /** Once a second, and while packets are held more often. What is too much for one turn goes on in the next. */
  sweep(): void {
    if (this.sweeping || !this.flows.sweep(this.context.nowMs())) return;
    this.sweeping = true;
    setImmediate(this.sweepOn);
  }
  private sweeping = false;
  private readonly sweepOn = (): void => {
    this.sweeping = false;
    this.sweep();
  };

  private readonly tick = (): void => {
    this.timer = undefined;
    this.sweep();
    this.rest();
  };

  /** The first packet of a connection that we shall see behind DNAT only (NG-BEGIN); it goes on with its class. */
  private begins({ packet, hook, mark }: Held): boolean {
    const { kernel, pods } = this.context;
    const of = kernel.marks.classOf(mark);
    if (hook !== PREROUTING || (of !== VerdictClass.inspect && of !== VerdictClass.watch)) return false;
    const pod = pods.of(packet.source);
    if (pod?.work.has(this.context.nowMs()) === true) pod.asked.begin(packet);
    return true;
  }

  private look(owner: GuardedPod, held: Held, watch: boolean): Fate {
    const { context, flows } = this;
    const { packet } = held;
    const nowMs = context.nowMs();
    if (this.isAnswer(held)) return flows.fromServer(owner, packet, watch, nowMs);
    if (held.hook === PREROUTING) owner.asked.starting(packet);
    else owner.asked.restore(packet);
    if (packet.payloadEnd <= packet.payloadStart) return "go"; // nothing to see yet, and nothing decided
    if (!owner.work.has(nowMs)) {
      limited(context, owner, held, watch ? "info" : "deny", TOO_MANY);
      return watch ? "go" : "drop";
    }
    const from = performance.now();
    context.counters.inspected++;
    const fate = flows.fromClient(owner, packet, held.id, held.mark, watch, nowMs);
    const tookMs = performance.now() - from;
    owner.work.spend(tookMs);
    context.meter.histograms.inspection.observe(tookMs);
    return fate;
  }

  /** NG-ANSWERED marks what the server sends; both ends may be guarded pods. */
  private isAnswer({ mark }: Held): boolean {
    return this.context.kernel.marks.classOf(mark) === VerdictClass.ours;
  }

  private ownerOf(held: Held): GuardedPod | undefined {
    return this.context.pods.of(this.isAnswer(held) ? held.packet.destination : held.packet.source);
  }

  private settlement(fate: Fate, mark: number, answer: Settlement): void {
    const { marks } = this.context.kernel;
    answer.verdict = NfVerdict.repeat;
    switch (fate) {
      case "go":
      case "strip":
        answer.mark = marks.put(mark, VerdictClass.ours);
        return;
      case "confirm":
      case "reopen":
        answer.mark = marks.put(mark, fate === "confirm" ? VerdictClass.confirm : VerdictClass.inspect);
        return;
      case "pass":
        answer.mark = marks.put(mark, VerdictClass.pass);
        return;
      case "deny":
        answer.mark = marks.put(mark, VerdictClass.deny);
        return;
      case "ask":
        answer.mark = marks.put(mark, 0);
        return;
      case "hold":
        answer.verdict = HOLD;
        return;
      case "drop":
        answer.verdict = NfVerdict.drop;
        return;
      default:
        fate satisfies never;
    }
  }

  judge(flow: Flow<GuardedPod>): Judge {
    this.judged = flow;
    return this.judging;
  }
  private judged: Flow<GuardedPod> | undefined;
  private readonly judging: Judge = {
    rule: (evidence) => {
      const flow = this.judged as Flow<GuardedPod>;
      const detail = this.decide(flow, evidence);
      return { allow: denialOf(detail, flow.watch) === undefined, detail };
    },
    applications: () => {
      const flow = this.judged as Flow<GuardedPod>;
      return flow.owner.guard.mayTake(this.question(flow), APPLICATIONS, flow.watch);
    },
    proxied: () => {
      const flow = this.judged as Flow<GuardedPod>;
      return flow.owner.guard.isProxy(this.question(flow), flow.watch);
    },
  };

  private decide(flow: Flow<GuardedPod>, evidence: Evidence | undefined): Decision {
    return flow.owner.guard.decide(flow.transport, flow.destinationPort, flow.destination as Ip, this.names(flow), evidence);
  }

  private question(flow: Flow<GuardedPod>): Question {
    return { protocol: flow.transport, port: flow.destinationPort, address: flow.destination as Ip, names: this.names(flow) };
  }

  private names(flow: Flow<GuardedPod>): readonly NameSeen[] {
    return flow.owner.guard.seen(flow.destination as Ip, this.context.now());
  }

  opened(flow: Flow<GuardedPod>): Opened | undefined {
    const begins = flow.owner.asked.startOf(flow.podPort, flow.destination as Ip, flow.destinationPort);
    return this.context.kernel.hellos?.opened(flow) ?? (begins === undefined ? undefined : { begins, replaced: false });
  }

  settle(_flow: Flow<GuardedPod>, packet: Waiting, fate: Fate): void {
    this.settlement(fate, packet.mark, settled);
    this.queue?.settle(packet.id, settled.verdict, settled.mark);
  }

  ruled(flow: Flow<GuardedPod>, { detail }: Ruling, evidence: Evidence): void {
    this.context.kernel.hellos?.learn(flow, detail as Decision, evidence);
    if (denialOf(detail as Decision, flow.watch) === undefined || !flow.replaced)
      return this.report(flow, detail as Decision, evidence, evidence.evasion);
    // The kernel has seen the decoy, we have seen what was to come in its place.
    const replaced: Evidence = { ...evidence, evasion: "other bytes than those of a hello that has gone before" };
    this.report(flow, this.decide(flow, replaced), replaced, replaced.evasion);
  }

  refused(flow: Flow<GuardedPod>, why: Reason, message: string): void {
    const { counters } = this.context;
    if (why === "evasion") counters.inspectEvasions++;
    else counters.inspectIncomplete++;
    const evidence: Evidence = { application: flow.application, serverName: undefined };
    this.report(flow, refusal(why, this.decide(flow, evidence), flow.watch), evidence, message);
  }

  reset(flow: Flow<GuardedPod>, end: "server" | "client", sequence: number, acknowledgement: number): void {
    const pod: Endpoint = { address: flow.pod, port: flow.podPort };
    const server: Endpoint = { address: flow.destination as Ip, port: flow.destinationPort };
    const packet =
      end === "server" ? tcpResetOf(pod, server, sequence, acknowledgement) : tcpResetOf(server, pod, sequence, acknowledgement);
    // To the server it goes as a packet of the connection, so that conntrack turns the address and is told of the end.
    const mark = end === "server" ? 0 : this.context.kernel.marks.value(VerdictClass.ours);
    try {
      this.sender.send(packet, packet.length, mark);
    } catch {
      // No route any more: then nobody hears from that connection.
    }
  }

  count(what: "stalls" | "confirmed" | "limited"): void {
    const { counters } = this.context;
    if (what === "stalls") counters.inspectStalls++;
    else if (what === "confirmed") counters.inspectConfirmed++;
    else counters.inspectLimited++;
  }

  /** The queue has forgotten what it gave us. */
  lost(): void {
    this.turns.forget(({ queue }) => queue === this.queue);
    this.flows.lost();
  }

  private report(flow: Flow<GuardedPod>, decision: Decision, evidence: Evidence, detail: string | undefined): void {
    const { owner, destination, destinationPort: port, transport: protocol } = flow;
    const names = this.names(flow);
    const said = decision.wouldDeny ?? decision.verdict;
    if (said.action !== "deny") return allowed(this.context, owner, decision, destination as Ip, port, protocol, names, evidence, 1);
    this.context.meter.decided(decision);
    if (decision.wouldDeny === undefined) this.context.counters.inspectedDenied++;
    else this.context.counters.wouldDeny++;
    const packet = { source: flow.pod, sourcePort: flow.podPort, destination: destination as Ip, destinationPort: port, protocol };
    const seen = (): string =>
      `${seenText(evidence)}${detail === undefined ? "" : ` (${detail})`}; ${wantedText(this.decide(flow, undefined).verdict)}`;
    denied(this.context, owner, packet, said, decision.wouldDeny === undefined ? "deny" : "would-deny", names, evidence, seen);
  }
}

const settled: Settlement = { verdict: 0, mark: 0 };

/** The denial that counts: what Monitor would have denied is one only where nothing is. */
function denialOf({ kernel, verdict, wouldDeny }: Decision, watch: boolean): (Verdict & { readonly action: "deny" }) | undefined {
  if (watch) return wouldDeny;
  return kernel === "deny" && verdict.action === "deny" ? verdict : undefined;
}

function seenText({ application, serverName, upgrade, fields }: Evidence): string {
  const asked = fields?.target === undefined ? "" : `, asked for ${fields.target}`;
  const name = serverName ?? fields?.host;
  const what =
    application === undefined ? "no protocol that is known" : upgrade === undefined ? application : `${application}, then ${upgrade}`;
  return name === undefined ? `saw ${what}${asked}` : `saw ${what} for ${name}${asked}`;
}

function wantedText(verdict: Verdict): string {
  return verdict.action === "inspect" ? `${verdict.policy}/${verdict.rule} wants ${verdict.application}` : "no rule wants it";
}

/** The decision once the first payload bytes were read. Bytes that do not tell yet are `incomplete`: no more are waited for. */
export function decideByReading(
  guard: Guard,
  { protocol, port, address, names }: Question,
  reading: Reading,
  watch: boolean,
): { readonly decision: Decision; readonly evidence: Evidence } {
  const evidence: Evidence = "need" in reading || "bad" in reading ? { application: undefined, serverName: undefined } : reading;
  const decision = guard.decide(protocol, port, address, names, evidence);
  return { decision: "need" in reading ? refusal("incomplete", decision, watch) : decision, evidence };
}

function refusal(why: Reason, decision: Decision, watch: boolean): Decision {
  const verdict: Verdict & { action: "deny" } = {
    action: "deny",
    why,
    policy: undefined,
    rule: undefined,
    nearest: "nearest" in decision.verdict ? decision.verdict.nearest : undefined,
  };
  return watch
    ? { ...decision, kernel: "pass", wouldDeny: verdict }
    : { kernel: "deny", verdict, mode: "Enforce", wouldDeny: undefined, shadow: undefined };
}
