import { type Packet, Protocol, TcpFlag } from "../model/packet.ts";
import type { Flow, Outcome, Waiting } from "./flow.ts";
import type { Desk, Fate, Reason } from "./flow-desk.ts";
import { afterwards, keyOf, waitingOf, windowFull } from "./flow-packet.ts";
import { firstOf, FLOW_LIMITS, type FlowLimits, FlowStore } from "./flow-store.ts";
import { ProxiedFlows } from "./proxied-flows.ts";

/**
 * The connections whose first bytes are read, held and judged; pure: packets and times come in, fates go out. What is held
 * is settled exactly once, through `Desk.settle`; what is in hand, by the result.
 *
 * A TCP connection does not pass when its first bytes are fine, but when the server has acknowledged them: a decoy that only we
 * have seen (low TTL, an option that the server drops) never is, and the bytes that the server does get are other ones.
 */

/** Packets of one connection beyond a gap that are held. */
const BEYOND_GAP_MAX = 32;
const ALL = (): boolean => true;

export class Flows<Owner extends object> {
  readonly #desk: Desk<Owner>;
  readonly #store: FlowStore<Owner>;
  readonly #proxies: ProxiedFlows<Owner>;

  constructor(desk: Desk<Owner>, limits: FlowLimits = FLOW_LIMITS) {
    this.#desk = desk;
    this.#store = new FlowStore(limits);
    this.#proxies = new ProxiedFlows({
      desk,
      store: this.#store,
      fits: (flow, nowMs) => this.#fits(flow, nowMs),
      wait: (flow, own) => this.#wait(flow, own),
      confirm: (flow, nowMs) => this.#confirm(flow, nowMs),
      deny: (flow, outcome, nowMs, inHand) => this.#deny(flow, outcome, nowMs, inHand),
      refuse: (flow, why, message, nowMs, inHand) => this.#refuse(flow, why, message, nowMs, inHand),
    });
  }

  /** Connections, bytes of memory, packets held. */
  get load(): { readonly size: number; readonly octets: number; readonly held: number } {
    return this.#store;
  }
  /** Is anything held, so that a sweep must come soon? */
  get waiting(): boolean {
    return this.#store.stalled.size > 0;
  }

  /** A packet with payload that a pod sent; `id` and `mark` are for `settle`. */
  fromClient(owner: Owner, packet: Packet, id: number, mark: number, watch: boolean, nowMs: number): Fate {
    const tcp = packet.protocol === Protocol.TCP;
    // The server gets the SYN alone, and the client sends its data again (RFC 7413 §4.2): nothing reaches it unread.
    if (tcp && (packet.tcpFlags & TcpFlag.SYN) !== 0) return watch ? "go" : "strip";
    const key = keyOf(packet, true);
    let flow = this.#store.get(key);
    if (flow?.over === true) {
      const fate = afterwards(flow, packet);
      if (fate !== undefined) return fate;
      this.#forget(flow);
      flow = undefined;
    }
    flow ??= this.#open(key, owner, packet, true, watch, nowMs);
    if (flow === undefined) return watch ? "go" : "drop";
    if (flow.destination === undefined) {
      flow.destination = packet.destination;
      flow.destinationPort = packet.destinationPort;
      this.#store.enter(flow, "reading", nowMs);
      if (tcp && !watch) flow.opened(this.#desk.opened?.(flow), packet.sequence);
    } else if (flow.state !== "proxied" && !flow.isTo(packet)) {
      return watch ? "go" : "drop"; // another connection from the same port: one after the other
    }
    const waiting = waitingOf(packet, id, mark, nowMs);
    if (flow.state !== "proxied") return tcp ? this.#segment(flow, packet, waiting) : this.#datagram(flow, packet, waiting);
    const fate = this.#proxies.request(flow, packet, waiting);
    if (fate !== undefined) return fate;
    this.#proxies.giveUp(flow);
    return this.fromClient(owner, packet, id, mark, watch, nowMs);
  }

  /** A TCP packet of a server to a pod. It does not wait for the verdict. */
  fromServer(owner: Owner, packet: Packet, watch: boolean, nowMs: number): Fate {
    const key = keyOf(packet, false);
    let flow = this.#store.get(key);
    if (flow?.over === true) {
      if (flow.state === "denied") return (packet.tcpFlags & TcpFlag.RST) !== 0 ? "go" : "drop";
      return afterwards(flow, packet) ?? "go";
    }
    if (flow === undefined) {
      if (packet.payloadEnd <= packet.payloadStart) return "go";
      flow = this.#open(key, owner, packet, false, watch, nowMs);
      if (flow === undefined) return "go";
    }
    if (flow.state === "proxied") return this.#confirmed(this.#proxies.answer(flow, packet, nowMs), nowMs);
    if (!flow.hasSent(packet)) return "go"; // another connection's
    if ((packet.tcpFlags & TcpFlag.RST) !== 0) {
      this.#forget(flow);
      return "go";
    }
    if ((packet.tcpFlags & TcpFlag.ACK) !== 0) flow.acknowledge(packet.acknowledgement);
    const news = flow.hear(packet);
    if (news) this.#store.account(flow);
    if (news && flow.state === "reading" && flow.destination !== undefined && flow.client.length > 0) {
      const outcome = flow.look("server", this.#desk.judge(flow));
      if (outcome?.kind === "enough") this.#refuse(flow, "incomplete", "read too often without an answer", nowMs, false);
      else if (outcome?.kind === "ruled" && !outcome.ruling.allow) this.#deny(flow, outcome, nowMs, false);
      else if (outcome?.kind === "ruled" && this.#proxies.asks(flow, outcome.evidence)) this.#proxies.follow(flow, undefined, nowMs);
      else if (outcome?.kind === "ruled") this.#allow(flow, outcome, nowMs);
      else if (outcome !== undefined) this.#turn(flow, nowMs);
    }
    return this.#confirmed(flow, nowMs);
  }

  #confirmed(flow: Flow<Owner>, nowMs: number): Fate {
    if (flow.state === "denied") return "drop";
    if (flow.state === "confirming" && flow.acknowledged >= flow.read) {
      this.#desk.count("confirmed");
      return this.#pass(flow, nowMs);
    }
    return flow.state === "passed" ? "pass" : "go";
  }

  /**
   * What time has decided, the oldest first. Call it every `stallMs` / 2 while something is `waiting`, else once a second, and
   * again after other work while it returns true: there is more than one turn may take.
   */
  sweep(nowMs: number): boolean {
    const { lanes, stalled, limits } = this.#store;
    const over = (ms: number) => (flow: Flow<Owner>) => nowMs - flow.sinceMs >= ms;
    const late = (flow: Flow<Owner>) => void this.#refuse(flow, "incomplete", "no verdict within the time limit", nowMs, false);
    const silent = (flow: Flow<Owner>): void => {
      if (flow.state === "reading" && flow.destination !== undefined) late(flow);
      else this.#forget(flow);
    };
    const stall = (flow: Flow<Owner>) => this.#stall(flow, nowMs);
    // Each lane has its own share of the turn: none makes another late.
    const more = [
      firstOf(stalled, (flow) => nowMs - flow.stalledMs >= limits.stallMs, stall),
      firstOf(lanes.reading, over(limits.readingMs), late),
      firstOf(lanes.dialogue, over(limits.dialogueMs), silent),
      firstOf(lanes.idle, over(limits.idleMs), (flow) => this.#proxies.giveUp(flow)),
      firstOf(lanes.over, over(limits.overMs), (flow) => this.#forget(flow)),
    ];
    return more.includes(true);
  }

  /** The pod is gone, or its policies are others now: what is held is dropped, and sent again by TCP. */
  forget(owner: Owner): void {
    for (const flow of this.#store.of(owner)) this.#forget(flow);
  }

  /** The queue has forgotten every packet that it gave us. */
  lost(): void {
    for (const flow of this.#store.stalled) this.#store.take(flow, ALL);
  }

  #segment(flow: Flow<Owner>, packet: Packet, own: Waiting): Fate {
    const { client } = flow;
    const { sequence, payloadStart, payloadEnd } = packet;
    flow.acknowledgement = packet.acknowledgement;
    if (!client.started) client.start(sequence - 1);
    if (!flow.watch && (packet.tcpFlags & TcpFlag.URG) !== 0)
      return this.#refuse(flow, "evasion", "urgent data, which a server reads as another byte stream than we do", own.ms, true);
    const from = client.positionOf(sequence);
    if (flow.state === "confirming") return this.#later(flow, packet, own, from);
    if (from < 0 && (flow.anchored || !flow.begin(sequence))) return flow.watch ? "go" : "drop";
    switch (client.push(sequence, packet.bytes, payloadStart, payloadEnd)) {
      case "overlap-differs":
        return this.#refuse(flow, "evasion", "a segment says other bytes than one before it", own.ms, true);
      case "overflow":
        return this.#refuse(flow, "incomplete", `no verdict within ${client.length} bytes`, own.ms, true);
      case "old": {
        const end = client.positionOf(own.end);
        if (end <= flow.sent) return "go";
        if (flow.waiting.some((one) => client.positionOf(one.sequence) <= from && client.positionOf(one.end) >= end)) return "drop";
        return this.#wait(flow, own);
      }
      case "gap":
        if (!this.#fits(flow, own.ms)) return this.#exhausted(flow, own.ms);
        return this.#wait(flow, own);
      case "in-order":
        break;
    }
    if (!this.#fits(flow, own.ms)) return this.#exhausted(flow, own.ms);
    if ((packet.tcpFlags & TcpFlag.FIN) !== 0 && client.positionOf(own.end) === client.length) flow.clientClosed = true;
    return this.#judged(flow, own);
  }

  #datagram(flow: Flow<Owner>, packet: Packet, own: Waiting): Fate {
    if (!flow.datagrams.push(packet.bytes, packet.payloadStart, packet.payloadEnd, this.#store.limits.segmentOctets * 2))
      return this.#refuse(flow, "incomplete", `no verdict within ${flow.datagrams.ends.length} datagrams`, own.ms, true);
    if (!this.#fits(flow, own.ms)) return this.#exhausted(flow, own.ms);
    return this.#judged(flow, own);
  }

  #judged(flow: Flow<Owner>, own: Waiting): Fate {
    flow.suspect = undefined;
    const outcome = flow.look("client", this.#desk.judge(flow));
    if (outcome === undefined) return this.#wait(flow, own);
    switch (outcome.kind) {
      case "enough":
        return this.#refuse(flow, "incomplete", "read too often without an answer", own.ms, true);
      case "need":
        this.#turn(flow, own.ms);
        return this.#wait(flow, own);
      case "ruled":
        break;
    }
    if (outcome.ruling.allow && this.#proxies.asks(flow, outcome.evidence)) return this.#proxies.follow(flow, own, own.ms);
    if (outcome.ruling.allow) {
      this.#allow(flow, outcome, own.ms);
      flow.letGo(own);
      if (flow.over) return "pass";
      flow.narrow = true;
      return "confirm";
    }
    // Nothing that anybody knows: perhaps the first segment was overtaken, or the next one tells.
    const early = flow.transport === Protocol.TCP && !flow.watch && outcome.evidence.application === undefined;
    if (early && flow.sent === 0 && this.#store.mayHold(flow)) {
      flow.suspect = outcome;
      return this.#hold(flow, own);
    }
    return this.#deny(flow, outcome, own.ms, true);
  }

  /** A segment while the server's acknowledgement is waited for. */
  #later(flow: Flow<Owner>, packet: Packet, own: Waiting, from: number): Fate {
    if (from < 0) {
      flow.expected ??= packet.sequence;
      return this.#refuse(flow, "evasion", "bytes from before the first ones", own.ms, true);
    }
    if (flow.contradicts(packet, from))
      return this.#refuse(flow, "evasion", "a segment says other bytes than those that were read", own.ms, true);
    flow.letGo(own);
    if (!flow.narrow) return "go";
    flow.narrow = false; // the server's acknowledgement came with an answer
    return "reopen";
  }

  /** No verdict yet. */
  #wait(flow: Flow<Owner>, own: Waiting): Fate {
    if (flow.watch) return "go";
    const tcp = flow.transport === Protocol.TCP;
    const inOrder = !tcp || flow.client.positionOf(own.end) <= flow.loose;
    if (flow.released || !this.#store.mayHold(flow) || (tcp && windowFull(flow, own, this.#store.limits))) {
      if (!tcp && !flow.released) return "drop";
      this.#releaseInOrder(flow);
      if (!inOrder) return flow.waiting.length < BEYOND_GAP_MAX && this.#store.mayHold(flow) ? this.#hold(flow, own) : "drop";
      flow.letGo(own);
      return "go";
    }
    return this.#hold(flow, own);
  }

  #hold(flow: Flow<Owner>, own: Waiting): Fate {
    this.#store.hold(flow, own);
    return "hold";
  }

  /** Nothing has come for a while: the client waits for the server, or for what we hold to be acknowledged. */
  #stall(flow: Flow<Owner>, nowMs: number): void {
    const { suspect } = flow;
    if (suspect !== undefined) {
      this.#deny(flow, { kind: "ruled", ...suspect }, nowMs, false);
      return;
    }
    this.#desk.count("stalls");
    if (flow.transport === Protocol.TCP) this.#releaseInOrder(flow);
    for (const one of this.#store.take(flow, ({ ms }) => nowMs - ms >= this.#store.limits.gapMs)) this.#desk.settle(flow, one, "drop");
    this.#store.stalled.delete(flow);
    flow.stalledMs = nowMs;
    if (flow.waiting.length > 0) this.#store.stalled.add(flow);
  }

  #releaseInOrder(flow: Flow<Owner>): void {
    for (const one of this.#store.take(flow, ({ end }) => flow.client.positionOf(end) <= flow.loose)) {
      flow.letGo(one);
      this.#desk.settle(flow, one, "go");
    }
  }

  /** Settles everything that is held, in the order in which it came. */
  #release(flow: Flow<Owner>, fate: "go" | "drop" | "pass"): void {
    for (const one of this.#store.take(flow, ALL)) {
      if (fate !== "drop") flow.letGo(one);
      this.#desk.settle(flow, one, fate);
    }
  }

  /** The evidence is fine. */
  #allow(flow: Flow<Owner>, { ruling, evidence }: Outcome & { kind: "ruled" }, nowMs: number): void {
    this.#desk.ruled(flow, ruling, evidence);
    this.#confirm(flow, nowMs);
  }

  #confirm(flow: Flow<Owner>, nowMs: number): void {
    if (flow.watch || flow.transport !== Protocol.TCP) {
      this.#release(flow, "pass");
      this.#pass(flow, nowMs);
      return;
    }
    flow.read = flow.client.reach;
    flow.state = "confirming";
    this.#release(flow, "go");
    this.#store.enter(flow, "dialogue", nowMs);
  }

  #pass(flow: Flow<Owner>, nowMs: number): Fate {
    this.#end(flow, "passed", true, nowMs);
    return "pass";
  }

  #deny(flow: Flow<Owner>, { ruling, evidence }: Outcome & { kind: "ruled" }, nowMs: number, inHand: boolean): Fate {
    this.#desk.ruled(flow, ruling, evidence);
    return this.#cut(flow, nowMs, inHand, flow.client.sequenceAt(flow.sent));
  }

  #refuse(flow: Flow<Owner>, why: Reason, message: string, nowMs: number, inHand: boolean): Fate {
    this.#desk.refused(flow, why, message);
    const { client, expected, acknowledged, sent } = flow;
    // Of two versions the server has had none, or that which it has acknowledged.
    const sequence = why === "evasion" ? (expected ?? client.sequenceAt(acknowledged)) : client.sequenceAt(sent);
    return this.#cut(flow, nowMs, inHand, sequence);
  }

  /** The bytes that came are within the bounds, now or when the largest owner has made room. */
  #fits(flow: Flow<Owner>, nowMs: number): boolean {
    if (this.#store.account(flow)) return true;
    while (this.#store.crowded && this.#makeRoom(flow.owner, nowMs));
    return this.#store.account(flow);
  }

  #exhausted(flow: Flow<Owner>, nowMs: number): Fate {
    this.#desk.count("limited");
    return this.#refuse(flow, "incomplete", "too many connections without a verdict", nowMs, true);
  }

  /** The end of a denied connection. `inHand`: a packet of the client's is there to be answered; else a held one is. */
  #cut(flow: Flow<Owner>, nowMs: number, inHand: boolean, sequence: number): Fate {
    if (flow.watch) {
      this.#end(flow, "passed", inHand, nowMs);
      return "pass";
    }
    const waiting = this.#store.take(flow, ALL);
    const answered = inHand ? -1 : 0;
    for (const [i, one] of waiting.entries()) this.#desk.settle(flow, one, i === answered ? "deny" : "drop");
    const told = inHand || waiting.length > 0;
    if (flow.transport === Protocol.TCP) {
      if (!told)
        this.#desk.reset(
          flow,
          "client",
          flow.server.started ? flow.server.sequenceAt(flow.server.length) : flow.acknowledgement,
          flow.client.sequenceAt(flow.sent),
        );
      this.#desk.reset(flow, "server", sequence, flow.acknowledgement);
    }
    this.#end(flow, "denied", told, nowMs);
    return "deny";
  }

  #end(flow: Flow<Owner>, state: "passed" | "denied", told: boolean, nowMs: number): void {
    flow.state = state;
    flow.told = told;
    this.#store.end(flow, nowMs);
  }

  #turn(flow: Flow<Owner>, nowMs: number): void {
    const lane = flow.serversTurn ? "dialogue" : "reading";
    if (!this.#store.lanes[lane].has(flow)) this.#store.enter(flow, lane, nowMs);
  }

  #open(key: string, owner: Owner, packet: Packet, fromClient: boolean, watch: boolean, nowMs: number): Flow<Owner> | undefined {
    const { protocol, source, sourcePort, destination, destinationPort } = packet;
    const room = !this.#store.full || this.#makeRoom(owner, nowMs);
    const [pod, port] = fromClient ? ([source, sourcePort] as const) : ([destination, destinationPort] as const);
    const flow = room ? this.#store.open(key, owner, protocol, watch, pod, port) : undefined;
    if (flow === undefined) this.#desk.count("limited");
    else this.#store.enter(flow, fromClient ? "reading" : "dialogue", nowMs);
    return flow;
  }

  /** All together are too large: the owner with the most gives up its oldest. False: that is this one. */
  #makeRoom(owner: Owner, nowMs: number): boolean {
    const largest = this.#store.largest();
    if (largest === undefined || largest === owner) return false;
    for (const flow of this.#store.of(largest)) {
      if (flow.over) continue;
      if (flow.destination !== undefined) this.#refuse(flow, "incomplete", "too many connections without a verdict", nowMs, false);
      this.#forget(flow);
      return true;
    }
    return false;
  }

  #forget(flow: Flow<Owner>): void {
    this.#release(flow, "drop");
    this.#store.remove(flow);
  }
}
