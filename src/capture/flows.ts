import { Cursor } from "../base/cursor.ts";
import { Protocol, TcpFlag, type Packet } from "../model/packet.ts";
import { type Connection, Mark, Tracked } from "./connection.ts";
import { decodeHeaders, newPacket, readAddresses } from "./decode.ts";
import type { CaptureRecord } from "./file.ts";
import { newReassembly } from "./fragments.ts";
import { NOTHING, type Payload, Side, View } from "./side.ts";
import { FlowTable } from "./table.ts";

/**
 * The packets of a capture grouped into connections, for commands that judge a recording: TCP, UDP and SCTP 5-tuples in
 * order of first appearance. The handlers are called in the order of the packets, so that what a DNS reply teaches is known before a
 * later connection starts; payloads are complete when `readFlows` returns, but for connections of which `onBytes` had enough.
 */

const CONNECTIONS_MAX = 1_048_576;
const STORED_BYTES_MAX = 512 * 1024 * 1024; // payload buffers of all connections together
const EPHEMERAL_FROM = 32_768; // net.ipv4.ip_local_port_range of Linux; others start higher
/** Servers of peer networks that live above it: WireGuard, as its tools suggest. */
const SERVERS_ABOVE: readonly number[] = [51_820];
const RESERVED_BELOW = 1024; // RFC 6335 §6: system ports

export interface FlowHandlers {
  /** A connection appears; its payloads are still empty. */
  onStart?(connection: Connection, timeMs: number): void;
  /** There are more payload bytes (in order, over TCP) than before. true: enough, nothing more of this connection is kept. */
  onBytes?(connection: Connection): boolean;
  /** Every packet of a connection, `connection` as it is after this packet. The packet is reused. */
  onPacket?(packet: Packet, connection: Connection, fromClient: boolean, timeMs: number): void;
  /** A whole DNS message over UDP or TCP (without its length prefix). `message` is valid during the call only. */
  onDns?(message: Uint8Array, connection: Connection, fromClient: boolean, timeMs: number): void;
}

export interface Flows {
  readonly connections: readonly Connection[];
  /** Packets that could not be read. */
  readonly malformed: number;
  /** Packets of other protocols (ICMP, ...). */
  readonly others: number;
  /** Packets of connections beyond CONNECTIONS_MAX. */
  readonly ignored: number;
  /** Fragmented datagrams that were not put together. */
  readonly fragmentsDropped: number;
}

/** Reads the whole capture. `dnsPorts`: the server ports whose payload goes to `onDns`. */
export function readFlows(capture: Iterable<CaptureRecord>, handlers: FlowHandlers = {}, dnsPorts: readonly number[] = [53]): Flows {
  const connections: Tracked[] = [];
  const table = new FlowTable<Tracked>();
  const fragments = newReassembly();
  const packet = newPacket();
  const view = new View();
  /** Where the next DNS message of a TCP connection to a resolver starts. */
  const dnsAt = new Map<Payload, number>();
  let malformed = 0;
  let others = 0;
  let ignored = 0;
  let stored = 0;

  /** The connection of the packet in hand; undefined when there is no room. */
  function find(timeMs: number): Tracked | undefined {
    const known = table.find(packet);
    if (known !== undefined && !startsAnew(known, packet, table.swapped)) return known;
    if (known !== undefined && !known.has(Mark.spoke)) {
      // A refused attempt and its repetition are one connection to a reader.
      known.flags &= ~(Mark.clientEnded | Mark.serverEnded);
      known.clientBase = known.serverBase = undefined;
      return known;
    }
    if (connections.length === CONNECTIONS_MAX) return undefined;
    const made = new Tracked(connections.length, packet.protocol, table.swapped !== isAnswer(packet), table);
    if (!made.enter()) return undefined;
    connections.push(made);
    handlers.onStart?.(made, timeMs);
    return made;
  }

  /** Keeps the payload of the packet in hand, if there is one and somebody still wants it. */
  function add(connection: Tracked, fromClient: boolean): void {
    const { payloadStart, payloadEnd, tcpFlags } = packet;
    if (packet.protocol === Protocol.TCP) addFlags(connection, fromClient, tcpFlags);
    if (payloadEnd <= payloadStart) return;
    connection.flags |= Mark.spoke;
    if (connection.has(Mark.settled) || stored >= STORED_BYTES_MAX) return;
    const payload = fromClient ? connection.fromClient : connection.fromServer;
    if (payload !== NOTHING) {
      const side = payload as Side;
      const before = side.bytes.length;
      const more = keep(side, connection, fromClient);
      stored += side.bytes.length - before;
      if (more && handlers.onBytes?.(connection) === true) settle(connection);
    } else if (!enoughInPlace(connection, fromClient)) {
      const side = new Side();
      keep(side, connection, fromClient);
      stored += side.bytes.length;
      put(connection, fromClient, side);
    } else settle(connection);
  }

  function addFlags(connection: Tracked, fromClient: boolean, flags: number): void {
    // Data in a SYN starts behind the SYN's own sequence number (RFC 9293 §3.4).
    const base = (packet.sequence + (flags & TcpFlag.SYN) / TcpFlag.SYN) | 0;
    if ((flags & TcpFlag.SYN) !== 0) connection.flags |= Mark.begun;
    if ((flags & TcpFlag.SYN) !== 0 || packet.payloadEnd > packet.payloadStart) {
      if (fromClient) connection.clientBase ??= base;
      else connection.serverBase ??= base;
    }
    if ((flags & TcpFlag.RST) !== 0) connection.flags |= Mark.clientEnded | Mark.serverEnded;
    else if ((flags & TcpFlag.FIN) !== 0) connection.flags |= fromClient ? Mark.clientEnded : Mark.serverEnded;
  }

  /** Shows the first payload of a direction where it stands, before anything is copied. */
  function enoughInPlace(connection: Tracked, fromClient: boolean): boolean {
    const { bytes, payloadStart, payloadEnd, protocol } = packet;
    if (handlers.onBytes === undefined) return false;
    if (protocol === Protocol.TCP && (fromClient ? connection.clientBase : connection.serverBase) !== sequence()) return false;
    put(connection, fromClient, view.set(bytes, payloadStart, payloadEnd, protocol !== Protocol.TCP));
    return handlers.onBytes(connection);
  }

  const sequence = (): number => (packet.sequence + ((packet.tcpFlags & TcpFlag.SYN) !== 0 ? 1 : 0)) | 0;

  function keep(side: Side, connection: Tracked, fromClient: boolean): boolean {
    const { bytes, payloadStart, payloadEnd, protocol } = packet;
    if (protocol !== Protocol.TCP) return side.addDatagram(bytes, payloadStart, payloadEnd);
    const base = fromClient ? connection.clientBase : connection.serverBase;
    return side.addSegment(base ?? 0, sequence(), bytes, payloadStart, payloadEnd);
  }

  function put(connection: Tracked, fromClient: boolean, payload: Payload): void {
    if (fromClient) connection.fromClient = payload;
    else connection.fromServer = payload;
  }

  function settle(connection: Tracked): void {
    connection.flags |= Mark.settled;
    shed(connection.fromClient);
    shed(connection.fromServer);
    connection.fromClient = connection.fromServer = NOTHING;
  }

  function shed(payload: Payload): void {
    if (payload === view || payload === NOTHING) return;
    stored -= payload.bytes.length;
    (payload as Side).shed();
  }

  function tellDns(connection: Tracked, fromClient: boolean, timeMs: number): void {
    if (handlers.onDns === undefined || !dnsPorts.includes(connection.serverPort)) return;
    if (packet.protocol !== Protocol.TCP) {
      handlers.onDns(packet.bytes.subarray(packet.payloadStart, packet.payloadEnd), connection, fromClient, timeMs);
      return;
    }
    const side = fromClient ? connection.fromClient : connection.fromServer;
    const c = new Cursor(side.bytes, dnsAt.get(side) ?? 0, side.end);
    while (c.left >= 2) {
      const message = c.view(c.u16()); // two octets of length before each message: RFC 1035 §4.2.2
      if (c.short) return;
      dnsAt.set(side, c.at);
      handlers.onDns(message, connection, fromClient, timeMs);
    }
  }

  for (const record of capture) {
    let { bytes, start, end } = record;
    const { time } = record;
    const fragment = fragments.add(bytes, start, end, time);
    if (fragment === "more") continue;
    if (fragment === "complete") {
      bytes = fragments.packet;
      ({ start, end } = fragments.range);
    }
    if (!decodeHeaders(bytes, start, end, packet)) {
      malformed++;
      continue;
    }
    if (packet.protocol !== Protocol.TCP && packet.protocol !== Protocol.UDP && packet.protocol !== Protocol.SCTP) {
      others++;
      continue;
    }
    const connection = find(time);
    if (connection === undefined) {
      ignored++;
      continue;
    }
    const fromClient = connection.has(Mark.clientSecond) === table.swapped;
    if (fromClient) connection.flags |= Mark.clientSeen;
    add(connection, fromClient);
    if (handlers.onPacket !== undefined) {
      readAddresses(packet);
      handlers.onPacket(packet, connection, fromClient, time);
    }
    if (packet.payloadEnd > packet.payloadStart) tellDns(connection, fromClient, time);
  }
  return { connections, malformed, others, ignored, fragmentsDropped: fragments.dropped };
}

/** Does the first packet seen come from the server? */
function isAnswer(packet: Packet): boolean {
  const { protocol, tcpFlags, sourcePort, destinationPort } = packet;
  if (protocol === Protocol.TCP && (tcpFlags & TcpFlag.SYN) !== 0) return (tcpFlags & TcpFlag.ACK) !== 0;
  // The capture began in the middle, or missed the question.
  if (sourcePort < RESERVED_BELOW) return destinationPort >= RESERVED_BELOW;
  if (SERVERS_ABOVE.includes(sourcePort)) return !SERVERS_ABOVE.includes(destinationPort);
  // Media and peers choose any port over UDP.
  return protocol === Protocol.TCP && sourcePort < EPHEMERAL_FROM && destinationPort >= EPHEMERAL_FROM;
}

/** A new SYN on the 5-tuple of a connection that has ended. */
function startsAnew(known: Tracked, packet: Packet, swapped: boolean): boolean {
  if (packet.protocol !== Protocol.TCP || (packet.tcpFlags & (TcpFlag.SYN | TcpFlag.ACK)) !== TcpFlag.SYN) return false;
  if (!known.clientEnded || !known.serverEnded) return false;
  return (known.has(Mark.clientSecond) === swapped ? known.clientBase : known.serverBase) !== ((packet.sequence + 1) | 0);
}
