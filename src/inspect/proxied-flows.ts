import { type Packet, TcpFlag } from "../model/packet.ts";
import type { Evidence } from "../model/verdict.ts";
import type { Flow, Outcome, Waiting } from "./flow.ts";
import type { Desk, Fate, Reason } from "./flow-desk.ts";
import type { FlowStore } from "./flow-store.ts";
import { Proxied, takeSegment } from "./proxied.ts";

/** What these flows have in common with all others (flows.ts). */
export interface Engine<Owner extends object> {
  readonly desk: Desk<Owner>;
  readonly store: FlowStore<Owner>;
  readonly fits: (flow: Flow<Owner>, nowMs: number) => boolean;
  readonly wait: (flow: Flow<Owner>, own: Waiting) => Fate;
  readonly confirm: (flow: Flow<Owner>, nowMs: number) => void;
  readonly deny: (flow: Flow<Owner>, outcome: Outcome & { kind: "ruled" }, nowMs: number, inHand: boolean) => Fate;
  readonly refuse: (flow: Flow<Owner>, why: Reason, message: string, nowMs: number, inHand: boolean) => Fate;
}

/**
 * Connections to a proxy behind their first request (proxied.ts): they never pass, so each packet comes by here. A segment
 * goes on when all requests that it has a part of were judged. There is no limit to their number, nor to the time between them.
 */
export class ProxiedFlows<Owner extends object> {
  readonly #engine: Engine<Owner>;

  constructor(engine: Engine<Owner>) {
    this.#engine = engine;
  }

  /** Is this allowed first message a request to a proxy? */
  asks(flow: Flow<Owner>, { application }: Evidence): boolean {
    return (application === "http1" || application === "websocket") && this.#engine.desk.judge(flow).proxied();
  }

  /** A segment of the client's. undefined: it begins another connection from the same port. */
  request(flow: Flow<Owner>, packet: Packet, own: Waiting): Fate | undefined {
    const { fits, wait, confirm, refuse } = this.#engine;
    if (!flow.isTo(packet)) return undefined;
    if (!flow.watch && (packet.tcpFlags & TcpFlag.URG) !== 0)
      return refuse(flow, "evasion", "urgent data, which a server reads as another byte stream than we do", own.ms, true);
    const taken = takeSegment(flow, flow.proxied as Proxied, packet, !fits(flow, own.ms));
    switch (taken) {
      case "other":
        return undefined;
      case "known":
        return flow.watch ? "go" : "strip";
      case "drop":
        if (!flow.watch) return "drop";
        confirm(flow, own.ms); // beyond what is kept: nothing more is said of it
        return "pass";
      case "differs":
        return refuse(flow, "evasion", "a segment says other bytes than one before it", own.ms, true);
      case "gap":
        return wait(flow, own);
      case "read":
        break;
      default:
        taken satisfies never;
    }
    const { client } = flow;
    const [from, end] = [client.positionOf(own.sequence), client.positionOf(own.end)];
    if (flow.waiting.some((one) => client.positionOf(one.sequence) <= from && client.positionOf(one.end) >= end)) return "drop";
    if ((packet.tcpFlags & TcpFlag.FIN) !== 0 && end === client.reach) flow.clientClosed = true;
    return this.follow(flow, own, own.ms);
  }

  /** A packet of the proxy's. */
  answer(flow: Flow<Owner>, packet: Packet, nowMs: number): Flow<Owner> {
    const proxied = flow.proxied as Proxied;
    if (!proxied.isNear(packet.sequence)) return flow; // another connection's
    if ((packet.tcpFlags & TcpFlag.ACK) !== 0) flow.acknowledge(packet.acknowledgement);
    if ((packet.tcpFlags & (TcpFlag.FIN | TcpFlag.RST)) !== 0) {
      flow.serverClosed = true;
      this.#engine.store.enter(flow, "dialogue", nowMs);
    }
    if (packet.payloadEnd > packet.payloadStart && proxied.answered(flow, packet)) this.follow(flow, undefined, nowMs);
    return flow;
  }

  /** Reads on; `own` is the segment in hand. */
  follow(flow: Flow<Owner>, own: Waiting | undefined, nowMs: number): Fate {
    const { desk, store, wait, deny, refuse, confirm } = this.#engine;
    flow.state = "proxied";
    flow.proxied ??= new Proxied(flow);
    const { proxied, client } = flow;
    const next = proxied.read(flow, desk.judge(flow), (ruling, evidence) => desk.ruled(flow, ruling, evidence));
    const inHand = own !== undefined;
    if (next.kind === "denied") return deny(flow, { ...next, kind: "ruled" }, nowMs, inHand);
    if (next.kind === "bad") return refuse(flow, "evasion", next.why, nowMs, inHand);
    store.account(flow);
    if (next.kind === "through") {
      confirm(flow, nowMs);
      if (own !== undefined) flow.letGo(own);
      if (flow.over) return "pass";
      flow.narrow = inHand;
      return inHand ? "confirm" : "go";
    }
    const lane = next.kind === "part" ? "reading" : flow.serverClosed ? "dialogue" : "idle";
    if (lane === "idle" || !store.lanes[lane].has(flow)) store.enter(flow, lane, nowMs);
    for (const one of store.take(flow, ({ end }) => client.positionOf(end) <= proxied.clear)) {
      flow.letGo(one);
      desk.settle(flow, one, "go");
    }
    if (own === undefined) return "go";
    if (client.positionOf(own.end) > proxied.clear) return wait(flow, own);
    flow.letGo(own);
    return "go";
  }

  /** Its port is another connection's by now, or nothing has been heard of it for long: nobody would know how it goes on. */
  giveUp(flow: Flow<Owner>): void {
    const { desk, store } = this.#engine;
    for (const one of store.take(flow, () => true)) desk.settle(flow, one, "drop");
    if (!flow.watch) desk.reset(flow, "server", flow.expected ?? flow.client.sequenceAt(flow.sent), flow.acknowledgement);
    store.remove(flow);
  }
}
