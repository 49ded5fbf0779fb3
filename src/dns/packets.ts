import { type Endpoint, type Ip, putIp } from "../base/address.ts";
import { checksum, sumPseudoHeader, sumWords } from "../base/checksum.ts";
import { type Packet, Protocol, TcpFlag } from "../model/packet.ts";

/** Whole IP packets for injection: 20 or 40 octets of IP header, no options, no extension headers, checksums filled in. */

const HOP_LIMIT = 64; // RFC 1700 default, what Linux uses
const UDP_HEADER = 8;
const TCP_HEADER = 20;
/** A reply that fits an IPv4 packet with its headers and the length prefix. Refusals have less than 300 octets. */
export const DNS_OCTETS_MAX = 65535 - 20 - TCP_HEADER - 2;
const WINDOW = 0xffff;
const NOTHING: Uint8Array = new Uint8Array(0);

/** The IP header and room for `length` octets behind it. Both addresses are of one family. */
function ipPacket(source: Ip, destination: Ip, protocol: number, hopLimit: number, length: number): Uint8Array {
  const v4 = source.length === 4;
  const headerLength = v4 ? 20 : 40;
  const packet = new Uint8Array(headerLength + length);
  if (v4) {
    const total = headerLength + length;
    packet.set([0x45, 0, total >> 8, total & 255, 0, 0, 0x40, 0, hopLimit, protocol]); // DF, so the id may be 0 (RFC 6864)
    putIp(packet, 12, source);
    putIp(packet, 16, destination);
    putU16(packet, 10, checksum(sumWords(packet, 0, 20)));
  } else {
    packet.set([0x60, 0, 0, 0, length >> 8, length & 255, protocol, hopLimit]);
    putIp(packet, 8, source);
    putIp(packet, 24, destination);
  }
  return packet;
}

function putU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value;
}

function putU32(bytes: Uint8Array, at: number, value: number): void {
  putU16(bytes, at, value >>> 16);
  putU16(bytes, at + 2, value & 0xffff);
}

function transportChecksum(packet: Uint8Array, source: Ip, destination: Ip, protocol: number): number {
  const transport = source.length === 4 ? 20 : 40;
  return checksum(sumWords(packet, transport, packet.length, sumPseudoHeader(source, destination, protocol, packet.length - transport)));
}

export interface Segment {
  source: Ip;
  sourcePort: number;
  destination: Ip;
  destinationPort: number;
  sequence: number;
  acknowledgement: number;
  flags: number;
  hopLimit: number;
}

/** A TCP packet with this payload. */
export function tcpSegment(segment: Segment, payload = NOTHING): Uint8Array {
  const { source, destination } = segment;
  const packet = ipPacket(source, destination, Protocol.TCP, segment.hopLimit, TCP_HEADER + payload.length);
  const at = packet.length - TCP_HEADER - payload.length;
  putU16(packet, at, segment.sourcePort);
  putU16(packet, at + 2, segment.destinationPort);
  putU32(packet, at + 4, segment.sequence >>> 0);
  putU32(packet, at + 8, segment.acknowledgement >>> 0);
  packet[at + 12] = (TCP_HEADER / 4) << 4;
  packet[at + 13] = segment.flags;
  putU16(packet, at + 14, (segment.flags & TcpFlag.RST) !== 0 ? 0 : WINDOW);
  packet.set(payload, at + TCP_HEADER);
  putU16(packet, at + 16, transportChecksum(packet, source, destination, Protocol.TCP));
  return packet;
}

/** The UDP packet that answers `query` with the message `dns`. undefined: `dns` is longer than DNS_OCTETS_MAX. */
export function udpReply(query: Packet, dns: Uint8Array): Uint8Array | undefined {
  if (dns.length > DNS_OCTETS_MAX) return undefined;
  const { source, destination } = query;
  const length = UDP_HEADER + dns.length;
  const packet = ipPacket(destination, source, Protocol.UDP, HOP_LIMIT, length);
  const at = packet.length - length;
  putU16(packet, at, query.destinationPort);
  putU16(packet, at + 2, query.sourcePort);
  putU16(packet, at + 4, length);
  packet.set(dns, at + UDP_HEADER);
  putU16(packet, at + 6, transportChecksum(packet, destination, source, Protocol.UDP) || 0xffff); // 0 would mean: none (RFC 768)
  return packet;
}

/**
 * The segment that answers the held TCP segment `query` with the message `dns` and closes the server's side. It acknowledges
 * all of `query`. undefined: `dns` is longer than DNS_OCTETS_MAX, or `query` is a SYN: there is no connection yet.
 */
export function tcpReply(query: Packet, dns: Uint8Array): Uint8Array | undefined {
  if (dns.length > DNS_OCTETS_MAX || (query.tcpFlags & TcpFlag.SYN) !== 0) return undefined;
  const fin = (query.tcpFlags & TcpFlag.FIN) !== 0 ? 1 : 0;
  const segment: Segment = {
    source: query.destination,
    sourcePort: query.destinationPort,
    destination: query.source,
    destinationPort: query.sourcePort,
    sequence: query.acknowledgement,
    acknowledgement: query.sequence + (query.payloadEnd - query.payloadStart) + fin,
    flags: TcpFlag.PSH | TcpFlag.FIN | TcpFlag.ACK,
    hopLimit: HOP_LIMIT,
  };
  const payload = new Uint8Array(2 + dns.length);
  putU16(payload, 0, dns.length);
  payload.set(dns, 2);
  return tcpSegment(segment, payload);
}

/** The held segment turned into a reset: same direction, same sequence number, no payload. It replaces the held packet. */
export function tcpReset(held: Packet): Uint8Array {
  const ack = held.tcpFlags & TcpFlag.ACK;
  return tcpSegment({
    source: held.source,
    sourcePort: held.sourcePort,
    destination: held.destination,
    destinationPort: held.destinationPort,
    sequence: held.sequence,
    acknowledgement: ack === 0 ? 0 : held.acknowledgement,
    flags: TcpFlag.RST | ack,
    hopLimit: held.hopLimit,
  });
}

/** A reset for the sender of `held`, as if from the other end: it acknowledges all of `held`, so the sender believes it. */
export function tcpResetBack(held: Packet): Uint8Array {
  const control = (held.tcpFlags & (TcpFlag.SYN | TcpFlag.FIN)) !== 0 ? 1 : 0;
  const answersAck = (held.tcpFlags & TcpFlag.ACK) !== 0;
  return tcpSegment({
    source: held.destination,
    sourcePort: held.destinationPort,
    destination: held.source,
    destinationPort: held.sourcePort,
    sequence: answersAck ? held.acknowledgement : 0,
    acknowledgement: held.sequence + (held.payloadEnd - held.payloadStart) + control,
    flags: TcpFlag.RST | TcpFlag.ACK,
    hopLimit: HOP_LIMIT,
  });
}

/** A reset that `from` sends to `to`, with the numbers that its end of the connection would have. */
export function tcpResetOf(from: Endpoint, to: Endpoint, sequence: number, acknowledgement: number): Uint8Array {
  return tcpSegment({
    source: from.address,
    sourcePort: from.port,
    destination: to.address,
    destinationPort: to.port,
    sequence,
    acknowledgement,
    flags: TcpFlag.RST | TcpFlag.ACK,
    hopLimit: HOP_LIMIT,
  });
}

/** The TCP packet without its payload, options and extension headers as they are. It replaces the packet. */
export function withoutPayload(held: Packet): Uint8Array {
  const packet = held.bytes.slice(held.start, held.payloadStart);
  const transport = held.transport - held.start;
  if (held.source.length === 4) {
    putU16(packet, 2, packet.length);
    putU16(packet, 10, 0);
    putU16(packet, 10, checksum(sumWords(packet, 0, transport)));
  } else {
    putU16(packet, 4, packet.length - 40);
  }
  const pseudo = sumPseudoHeader(held.source, held.destination, Protocol.TCP, packet.length - transport);
  putU16(packet, transport + 16, 0);
  putU16(packet, transport + 16, checksum(sumWords(packet, transport, packet.length, pseudo)));
  return packet;
}

/**
 * An acknowledgement with a sequence number that is not the connection's. Linux answers it with a challenge ACK (RFC 5961,
 * RFC 9293 §3.10.7.4) that tells the right numbers and passes our hooks, where the connection can be reset. `server` is the
 * address that the pod sees. Linux answers one such segment in 500 ms (tcp_invalid_ratelimit).
 */
export function tcpProbe(server: Endpoint, pod: Endpoint, sequence = 0): Uint8Array {
  return tcpSegment({
    source: server.address,
    sourcePort: server.port,
    destination: pod.address,
    destinationPort: pod.port,
    sequence,
    acknowledgement: 0,
    flags: TcpFlag.ACK,
    hopLimit: HOP_LIMIT,
  });
}
