import { LRUCache } from "lru-cache";
import { type Endpoint, type Ip, ipText } from "../base/address.ts";
import { decodeIp, newPacket } from "../capture/decode.ts";
import { openPassive, type Passive, type Seen } from "../capture/passive.ts";
import { learn } from "../dns/reply.ts";
import { TcpMessages } from "../dns/tcp.ts";
import type { Learned } from "../model/binding.ts";
import type { EventDraft } from "../model/event.ts";
import { type Packet, Protocol, protocolText, TcpFlag } from "../model/packet.ts";
import type { Policy } from "../model/policy.ts";
import type { Pod } from "../model/snapshot.ts";
import type { Verdict } from "../model/verdict.ts";
import { Guard, rulebook } from "../worker/guard.ts";
import { describe, evidenceOf } from "../worker/context.ts";

/** Connections that were spoken of are not spoken of again for this long. */
const AGAIN_MS = 60_000;
const SPOKEN_MAX = 10_000;
const DNS_PORT = 53;

/** A pod that Discover policies select, and nothing stricter. */
export interface Discovered {
  readonly pod: Pod;
  readonly policies: readonly Policy[];
}

/**
 * Discover: a passive capture in the control thread that touches no rule and no packet, and says what the policies would
 * decide. It hears replies after the fact, so a first connection may be judged before its name is known; it is then
 * spoken of when it is next seen.
 */
export class Discovery {
  private readonly emit: (draft: EventDraft) => void;
  private readonly log: (level: "info" | "warn", message: string) => void;
  private readonly nowMs: () => number;
  private readonly open: typeof openPassive;
  private capture: Passive | undefined;
  private filter = "";
  private guards = new Map<string, Guard>();
  private readonly byAddress = new Map<string, Guard>();
  private resolvers: ReadonlySet<string> = new Set();
  private readonly packet: Packet = newPacket();
  private readonly learned: Learned[] = [];
  private readonly streams = new TcpMessages("resolver");
  private readonly spoken = new LRUCache<string, true>({ max: SPOKEN_MAX, ttl: AGAIN_MS });

  private readonly used: (verdict: Verdict) => void;

  constructor(
    emit: (draft: EventDraft) => void,
    log: (level: "info" | "warn", message: string) => void,
    nowMs: () => number,
    used: (verdict: Verdict) => void,
    open: typeof openPassive = openPassive,
  ) {
    this.used = used;
    this.emit = emit;
    this.log = log;
    this.nowMs = nowMs;
    this.open = open;
  }

  /** `resolvers`: those that are trusted. Others teach nothing, and what goes to them is a connection, as when it is enforced. */
  set(pods: readonly Discovered[], resolvers: readonly Endpoint[]): void {
    const guards = new Map<string, Guard>();
    this.byAddress.clear();
    for (const { pod, policies } of pods) {
      const book = rulebook(policies, true);
      if (book === undefined) continue;
      const old = this.guards.get(pod.key);
      const guard = old?.pod.uid === pod.uid ? old : new Guard(pod, book);
      guard.pod = pod;
      guard.adopt(book, Math.floor(this.nowMs() / 1000), () => undefined);
      guards.set(pod.key, guard);
      for (const address of pod.addresses) this.byAddress.set(address, guard);
    }
    this.guards = guards;
    this.resolvers = new Set(resolvers.map(({ address, port }) => placeOf(address, port)));
    const hosts =
      [...this.byAddress.values()].length === 0
        ? ""
        : [...new Set(pods.flatMap(({ pod }) => pod.addresses.map(ipText)))].map((ip) => `host ${ip}`).join(" or ");
    const ports = [...new Set([DNS_PORT, ...resolvers.map(({ port }) => port)])].map((port) => `port ${port}`).join(" or ");
    // New connections and datagrams of these pods, and DNS answers to them.
    const filter = hosts === "" ? "" : `(${hosts}) and (udp or ${ports} or (ip6 and tcp) or tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn)`;
    if (filter === this.filter) return;
    this.filter = filter;
    this.capture?.close();
    this.capture = undefined;
    if (filter === "") return;
    this.capture = this.open({
      filter,
      onPacket: (bytes, start, end, timeMs, seen) => this.see(bytes, start, end, timeMs, seen),
      onState: (text) => this.log("info", `passive capture: ${text}`),
    });
  }

  private see(bytes: Uint8Array, start: number, end: number, timeMs: number, seen: Seen): void {
    const { packet } = this;
    if (!decodeIp(bytes, start, end, packet)) return;
    const asked = this.byAddress.get(packet.destination);
    if (asked !== undefined && this.resolvers.has(placeOf(packet.source, packet.sourcePort))) {
      const message = (from: Uint8Array, at: number, to: number): void => {
        learn(from, at, to, this.learned, asked.pod.searches);
        for (const one of this.learned) asked.learn(one, Math.floor(timeMs / 1000));
      };
      if (packet.protocol === Protocol.UDP) message(bytes, packet.payloadStart, packet.payloadEnd);
      else if (packet.protocol === Protocol.TCP) this.streams.feed(packet, timeMs, message);
      return;
    }
    const guard = this.byAddress.get(packet.source);
    if (guard === undefined || this.resolvers.has(placeOf(packet.destination, packet.destinationPort))) return;
    // On its way out DNAT has changed it: the pod has asked for what came in.
    if (seen === "out") return;
    if (packet.protocol === Protocol.TCP && (packet.tcpFlags & (TcpFlag.SYN | TcpFlag.ACK)) !== TcpFlag.SYN) return;
    // An answer to a datagram from outside is not a connection of this pod's.
    if (packet.protocol === Protocol.UDP && packet.sourcePort < packet.destinationPort && packet.sourcePort < 1024) return;
    this.judge(guard, timeMs);
  }

  private judge(guard: Guard, timeMs: number): void {
    const { packet, spoken } = this;
    const { protocol, destination, destinationPort: port } = packet;
    const names = guard.seen(destination, Math.floor(timeMs / 1000));
    const { verdict } = guard.decide(protocol, port, destination, names);
    const key = `${guard.pod.key}|${destination}|${port}|${protocol}|${verdict.action}|${names.length}`;
    if (spoken.has(key)) return;
    spoken.set(key, true);
    this.used(verdict);
    const { pod } = guard;
    const decided = verdict.action === "deny" ? undefined : verdict;
    this.emit({
      type: "connection",
      verdict: decided === undefined ? "would-deny" : "allow",
      mode: "Discover",
      why: verdict.action === "deny" ? verdict.why : null,
      pod: { namespace: pod.namespace, name: pod.name, labels: pod.labels, serviceAccountName: pod.serviceAccountName },
      policies: guard.book.policies.map(({ id }) => id),
      policy: verdict.policy ?? null,
      rule: verdict.rule ?? null,
      nearest: verdict.action === "deny" ? (verdict.nearest ?? null) : null,
      destination: { address: ipText(destination), port, protocol: protocolText(protocol), names: names.map(({ name }) => name) },
      source: { address: ipText(packet.source), port: packet.sourcePort, interface: pod.interface },
      evidence: evidenceOf(names, undefined),
      message: `${describe(destination, port, protocol, names)}: ${verdict.action === "deny" ? verdict.why : "a rule has it"}`,
    });
  }

  close(): void {
    this.capture?.close();
  }
}

const placeOf = (address: Ip, port: number): string => `${port} ${address}`;
