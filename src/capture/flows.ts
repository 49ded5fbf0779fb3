import type { Endpoint } from "../base/address.ts";
import { Protocol, TcpFlag, type Packet } from "../model/packet.ts";
import { decodeIp, newPacket } from "./decode.ts";
import type { CaptureRecord } from "./file.ts";
import { newReassembly } from "./fragments.ts";
import { addSegment, newStream, STREAM_BYTES_MAX, streamBytes, type Stream } from "./stream.ts";

/**
 * The packets of a capture grouped into connections, for commands that judge a recording: TCP, UDP and SCTP 5-tuples in
 * order of first appearance. The handlers are called in the order of the packets, so that what a DNS reply teaches is known before a
 * later connection starts; payloads are complete when `readFlows` returns.
 */

const CONNECTIONS_MAX = 65_536;
const STORED_BYTES_MAX = 512 * 1024 * 1024; // payload buffers of all connections together
const DATAGRAMS_MAX = 16; // kept of one direction, within STREAM_BYTES_MAX
const EPHEMERAL_FROM = 32_768; // net.ipv4.ip_local_port_range of Linux; others start higher
const RESERVED_BELOW = 1024; // RFC 6335 §6: system ports

export interface Connection {
  /** IP protocol number. */
  readonly transport: number;
  /** Who sent the SYN; where the capture has none (or it is not TCP), who sent the first packet seen, unless the ports tell otherwise. */
  readonly client: Endpoint;
  readonly server: Endpoint;
  /** Time of the first packet, ms. */
  readonly start: number;
  readonly fromClient: Payload;
  readonly fromServer: Payload;
}

/** The first payload bytes of one direction. */
export interface Payload {
  /** TCP: bytes in order from the first, at most STREAM_BYTES_MAX, first come wins. Else the first datagram with a payload. */
  readonly bytes: Uint8Array;
  /** UDP and SCTP: the first datagrams with a payload, at most 16 of STREAM_BYTES_MAX bytes together (the last one may be cut). */
  readonly datagrams: readonly Uint8Array[];
  /** TCP: a segment disagreed with bytes that came before it. */
  readonly conflict: boolean;
  /** TCP: the last of the bytes came before a FIN or a RST. */
  readonly closed: boolean;
  /** Packets seen in this direction, with and without payload. */
  readonly packets: number;
}

export interface FlowHandlers {
  /** A connection appears; its payloads are still empty. */
  onStart?(connection: Connection, timeMs: number): void;
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

/** One direction while it is collected. */
class Side implements Payload {
  stream: Stream = newStream();
  readonly datagrams: Uint8Array[] = [];
  packets = 0;
  finished = false;
  /** TCP DNS: where the next message starts in the stream. */
  dnsAt = 0;
  private datagramBytes = 0;

  get bytes(): Uint8Array {
    return this.datagrams[0] ?? streamBytes(this.stream);
  }

  get closed(): boolean {
    return this.finished;
  }

  get conflict(): boolean {
    return this.stream.conflict;
  }

  again(): void {
    this.stream = newStream();
    this.finished = false;
  }

  addDatagram(bytes: Uint8Array): void {
    const kept = Math.min(bytes.length, STREAM_BYTES_MAX - this.datagramBytes);
    if (this.datagrams.length === DATAGRAMS_MAX || kept === 0) return;
    this.datagramBytes += kept;
    this.datagrams.push(bytes.slice(0, kept));
  }
}

interface Tracked extends Connection {
  readonly fromClient: Side;
  readonly fromServer: Side;
  reset: boolean;
}

/** Reads the whole capture. `dnsPorts`: the server ports whose payload goes to `onDns`. */
export function readFlows(capture: Iterable<CaptureRecord>, handlers: FlowHandlers = {}, dnsPorts: readonly number[] = [53]): Flows {
  const connections: Tracked[] = [];
  const table = new Map<string, Tracked>();
  const fragments = newReassembly();
  const packet = newPacket();
  let malformed = 0;
  let others = 0;
  let ignored = 0;
  let stored = 0;

  /** The connection of the packet in hand; undefined when there is no room. */
  function find(timeMs: number): Tracked | undefined {
    const { source, destination, sourcePort, destinationPort, protocol } = packet;
    const forward = String.fromCharCode(protocol, sourcePort, destinationPort) + source + destination;
    const backward = String.fromCharCode(protocol, destinationPort, sourcePort) + destination + source;
    const known = table.get(forward) ?? table.get(backward);
    if (known !== undefined && !startsAnew(known, packet)) return known;
    if (known !== undefined && known.fromClient.bytes.length + known.fromServer.bytes.length === 0) {
      // A refused attempt and its repetition are one connection to a reader.
      known.reset = false;
      known.fromClient.again();
      known.fromServer.again();
      return known;
    }
    if (connections.length === CONNECTIONS_MAX) return undefined;
    const from: Endpoint = { address: source, port: sourcePort };
    const to: Endpoint = { address: destination, port: destinationPort };
    const answer = isAnswer(packet);
    const made: Tracked = {
      transport: protocol,
      client: answer ? to : from,
      server: answer ? from : to,
      start: timeMs,
      fromClient: new Side(),
      fromServer: new Side(),
      reset: false,
    };
    table.delete(backward);
    table.set(answer ? backward : forward, made);
    connections.push(made);
    handlers.onStart?.(made, timeMs);
    return made;
  }

  function addTcp(connection: Tracked, side: Side): void {
    const syn = (packet.tcpFlags & TcpFlag.SYN) !== 0;
    // Data in a SYN starts behind the SYN's own sequence number (RFC 9293 §3.4).
    const sequence = (packet.sequence + (syn ? 1 : 0)) >>> 0;
    if (syn) side.stream.base ??= sequence;
    if (packet.payloadEnd > packet.payloadStart && stored < STORED_BYTES_MAX) {
      stored -= side.stream.bytes.length;
      addSegment(side.stream, sequence, packet.bytes, packet.payloadStart, packet.payloadEnd);
      stored += side.stream.bytes.length;
    }
    if ((packet.tcpFlags & TcpFlag.FIN) !== 0) side.finished = true;
    if ((packet.tcpFlags & TcpFlag.RST) !== 0) connection.reset = true;
  }

  function tellDns(connection: Tracked, side: Side, fromClient: boolean, timeMs: number): void {
    if (handlers.onDns === undefined || !dnsPorts.includes(connection.server.port)) return;
    if (packet.protocol !== Protocol.TCP) {
      handlers.onDns(packet.bytes.subarray(packet.payloadStart, packet.payloadEnd), connection, fromClient, timeMs);
      return;
    }
    const bytes = side.bytes; // two octets of length before each message: RFC 1035 §4.2.2
    while (bytes.length - side.dnsAt >= 2) {
      const from = side.dnsAt + 2;
      const to = from + (((bytes[side.dnsAt] as number) << 8) | (bytes[side.dnsAt + 1] as number));
      if (to > bytes.length) return;
      side.dnsAt = to;
      handlers.onDns(bytes.subarray(from, to), connection, fromClient, timeMs);
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
    if (!decodeIp(bytes, start, end, packet)) {
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
    const fromClient = isFromClient(connection, packet);
    const side = fromClient ? connection.fromClient : connection.fromServer;
    side.packets++;
    if (packet.protocol === Protocol.TCP) addTcp(connection, side);
    else if (packet.payloadEnd > packet.payloadStart && stored < STORED_BYTES_MAX) {
      side.addDatagram(packet.bytes.subarray(packet.payloadStart, packet.payloadEnd));
      stored += packet.payloadEnd - packet.payloadStart;
    }
    handlers.onPacket?.(packet, connection, fromClient, time);
    if (packet.payloadEnd > packet.payloadStart) tellDns(connection, side, fromClient, time);
  }
  return { connections, malformed, others, ignored, fragmentsDropped: fragments.dropped };
}

function isFromClient(connection: Connection, packet: Packet): boolean {
  return connection.client.port === packet.sourcePort && connection.client.address === packet.source;
}

/** Does the first packet seen come from the server? */
function isAnswer(packet: Packet): boolean {
  const { protocol, tcpFlags, sourcePort, destinationPort } = packet;
  if (protocol === Protocol.TCP && (tcpFlags & TcpFlag.SYN) !== 0) return (tcpFlags & TcpFlag.ACK) !== 0;
  // The capture began in the middle, or missed the question.
  return (
    (sourcePort < EPHEMERAL_FROM && destinationPort >= EPHEMERAL_FROM) || (sourcePort < RESERVED_BELOW && destinationPort >= RESERVED_BELOW)
  );
}

/** A new SYN on the 5-tuple of a connection that has ended. */
function startsAnew(known: Tracked, packet: Packet): boolean {
  if (packet.protocol !== Protocol.TCP || (packet.tcpFlags & (TcpFlag.SYN | TcpFlag.ACK)) !== TcpFlag.SYN) return false;
  if (!known.reset && !(known.fromClient.finished && known.fromServer.finished)) return false;
  const base = (isFromClient(known, packet) ? known.fromClient : known.fromServer).stream.base;
  return base !== (packet.sequence + 1) >>> 0;
}
