import { type Packet, Protocol } from "../model/packet.ts";
import type { Flow, Waiting } from "./flow.ts";
import type { Fate } from "./flow-desk.ts";
import type { FlowLimits } from "./flow-store.ts";

/** Which flow a packet belongs to, and what becomes of it when that flow is over. */

/**
 * A segment this near to where a denied stream began belongs to it: what a stream without a verdict may have, and a window. The
 * next connection from the same port begins further away: 250 KB for each 16 ms, on Linux (RFC 6528).
 */
const WINDOW_OCTETS = 128 * 1024;
/** Packets of a passed connection that the kernel is asked about again. */
const ASKED_MAX = 64;

/** A pod's port speaks to one server at a time (TCP, where an answer must be found by it), or to several (UDP). */
export function keyOf(packet: Packet, fromClient: boolean): string {
  const { protocol, source, sourcePort, destination, destinationPort } = packet;
  if (!fromClient) return String.fromCharCode(protocol, destinationPort) + destination;
  const own = String.fromCharCode(protocol, sourcePort) + source;
  return protocol === Protocol.TCP ? own : own + String.fromCharCode(destinationPort) + destination;
}

export function waitingOf({ sequence, payloadStart, payloadEnd }: Packet, id: number, mark: number, ms: number): Waiting {
  return { id, mark, sequence, end: (sequence + payloadEnd - payloadStart) >>> 0, ms };
}

/** Would a sender's first window be held by us? */
export function windowFull<Owner>({ waiting, client }: Flow<Owner>, own: Waiting, limits: FlowLimits): boolean {
  if (waiting.length >= limits.segments) return true;
  const first = waiting[0];
  return first !== undefined && client.positionOf(own.end) - client.positionOf(first.sequence) > limits.segmentOctets;
}

/** A packet that was queued before the kernel knew the verdict. undefined: it belongs to another connection. */
export function afterwards<Owner>(flow: Flow<Owner>, packet: Packet): Fate | undefined {
  const fromClient = packet.source === flow.pod && packet.sourcePort === flow.podPort;
  if (fromClient && (packet.destination !== flow.destination || packet.destinationPort !== flow.destinationPort)) return undefined;
  if (flow.state === "denied") {
    if (flow.transport === Protocol.TCP && Math.abs(flow.client.positionOf(packet.sequence)) > WINDOW_OCTETS) return undefined;
    if (flow.told) return "drop";
    flow.told = true;
    return "deny";
  }
  if (!flow.told) {
    flow.told = true;
    return "pass";
  }
  // Nobody is let through for what a connection with the same ports has shown: the connection itself has the pass, or not.
  const seen = `${packet.sequence} ${packet.acknowledgement} ${packet.tcpFlags} ${packet.payloadEnd - packet.payloadStart}`;
  if (seen === flow.lastAsked || flow.asked >= ASKED_MAX) return undefined;
  flow.asked++;
  flow.lastAsked = seen;
  return "ask";
}
