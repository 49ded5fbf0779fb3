import { type Ip, ip4At, ip6At } from "../base/address.ts";
import { Protocol } from "../model/packet.ts";
import { AF_INET, AF_INET6, Attributes, type Writer } from "./netlink.ts";
import type { Message } from "./netlink-exchange.ts";

/** ctnetlink's numbers (linux/netfilter/nfnetlink_conntrack.h), and one entry as attributes. */
const SUBSYSTEM = 1 << 8;
export const Command = { set: SUBSYSTEM | 0, get: SUBSYSTEM | 1, delete: SUBSYSTEM | 2 } as const;

export const Cta = {
  original: 1,
  reply: 2,
  status: 3,
  protocolInfo: 4,
  timeout: 7,
  mark: 8,
  id: 12,
  zone: 18,
  markMask: 21,
  filter: 25,
} as const;

const TUPLE_IP = 1;
const TUPLE_PROTOCOL = 2;
const TUPLE_ZONE = 3;
const IP4_SOURCE = 1;
const IP4_DESTINATION = 2;
const IP6_SOURCE = 3;
const IP6_DESTINATION = 4;
const PROTOCOL_NUMBER = 1;
const SOURCE_PORT = 2;
const DESTINATION_PORT = 3;
const ICMP_ID = 4;
const ICMP_TYPE = 5;
const ICMP_CODE = 6;
const ICMPV6_ID = 7;
const ICMPV6_TYPE = 8;
const ICMPV6_CODE = 9;
const INFO_TCP = 1;
const INFO_TCP_STATE = 1;
export const FILTER_ORIGINAL_FLAGS = 1;
export const FILTER_REPLY_FLAGS = 2;
/** CTA_FILTER_F_CTA_IP_SRC */
export const FILTER_IP_SOURCE = 1;

/** nf_conntrack_common.h enum ip_conntrack_status. */
export const Status = { seenReply: 2, assured: 4, confirmed: 8, sourceNat: 16, destinationNat: 32, dying: 512 } as const;

/** The direction that opened the connection: it names an entry. ICMP and ICMPv6: the source port is the echo identifier, the destination port type << 8 | code. */
export interface FlowTuple {
  readonly protocol: number;
  readonly origSource: Ip;
  readonly origDestination: Ip;
  readonly origSourcePort: number;
  readonly origDestinationPort: number;
  /** 0 or absent: the default zone. */
  readonly zone?: number;
}

/** One conntrack entry. A dump fills a single object again and again. */
export interface ConntrackEntry extends FlowTuple {
  family: 4 | 6;
  protocol: number;
  origSource: Ip;
  origDestination: Ip;
  origSourcePort: number;
  origDestinationPort: number;
  replySource: Ip;
  replyDestination: Ip;
  replySourcePort: number;
  replyDestinationPort: number;
  zone: number;
  mark: number;
  /** Status bits. */
  status: number;
  /** nf_conntrack_tcp.h enum tcp_conntrack (3 is ESTABLISHED); 0 for other protocols. */
  tcpState: number;
  /** Tells this entry from a later one of the same tuple. */
  id: number;
  /** Seconds left; 0 where the kernel does not say. */
  timeout: number;
}

export function newEntry(): ConntrackEntry {
  const none = "" as Ip;
  return {
    family: 4,
    protocol: 0,
    origSource: none,
    origDestination: none,
    origSourcePort: 0,
    origDestinationPort: 0,
    replySource: none,
    replyDestination: none,
    replySourcePort: 0,
    replyDestinationPort: 0,
    zone: 0,
    mark: 0,
    status: 0,
    tcpState: 0,
    id: 0,
    timeout: 0,
  };
}

/** Does the kernel keep ports for it (nf_ct_port_nlattr_tuple_size)? GRE's are the two keys. */
function hasPorts(protocol: number): boolean {
  return protocol === Protocol.TCP || protocol === Protocol.UDP || protocol === Protocol.SCTP || protocol === 33 || protocol === 47 || protocol === 136;
}

/** CTA_TUPLE_ORIG, and CTA_ZONE where there is one. */
export function writeTuple(writer: Writer, tuple: FlowTuple): void {
  const outer = writer.open(Cta.original);
  const four = tuple.origSource.length === 4;
  const ip = writer.open(TUPLE_IP);
  writer.attrOctets(four ? IP4_SOURCE : IP6_SOURCE, tuple.origSource);
  writer.attrOctets(four ? IP4_DESTINATION : IP6_DESTINATION, tuple.origDestination);
  writer.close(ip);
  const { protocol, origSourcePort: source, origDestinationPort: destination } = tuple;
  const proto = writer.open(TUPLE_PROTOCOL);
  writer.attrU8(PROTOCOL_NUMBER, protocol);
  if (protocol === Protocol.ICMP || protocol === Protocol.ICMPv6) {
    const six = protocol === Protocol.ICMPv6;
    writer.attrU16(six ? ICMPV6_ID : ICMP_ID, source);
    writer.attrU8(six ? ICMPV6_TYPE : ICMP_TYPE, destination >> 8);
    writer.attrU8(six ? ICMPV6_CODE : ICMP_CODE, destination & 255);
  } else if (hasPorts(protocol)) {
    writer.attrU16(SOURCE_PORT, source);
    writer.attrU16(DESTINATION_PORT, destination);
  }
  writer.close(proto);
  writer.close(outer);
  if (tuple.zone !== undefined && tuple.zone !== 0) writer.attrU16(Cta.zone, tuple.zone);
}

/** CTA_FILTER and CTA_TUPLE_ORIG: only entries of this original source (kernel 5.8; older ones ignore it). */
export function writeSourceFilter(writer: Writer, source: Ip): void {
  const outer = writer.open(Cta.original);
  const ip = writer.open(TUPLE_IP);
  writer.attrOctets(source.length === 4 ? IP4_SOURCE : IP6_SOURCE, source);
  writer.close(ip);
  writer.close(outer);
  const filter = writer.open(Cta.filter);
  // Host order, unlike the rest.
  writer.attrU32(FILTER_ORIGINAL_FLAGS, FILTER_IP_SOURCE << 24);
  writer.attrU32(FILTER_REPLY_FLAGS, 0);
  writer.close(filter);
}

// Reading is synchronous and calls nobody, so the walkers can be shared.
const top = new Attributes();
const second = new Attributes();
const third = new Attributes();

interface Half {
  source: Ip;
  destination: Ip;
  protocol: number;
  sourcePort: number;
  destinationPort: number;
}
const half: Half = { source: "" as Ip, destination: "" as Ip, protocol: 0, sourcePort: 0, destinationPort: 0 };

/** Reads the tuple that `top` has in hand into `half`. */
function readHalf(): void {
  half.source = half.destination = "" as Ip;
  half.protocol = half.sourcePort = half.destinationPort = 0;
  second.into(top);
  while (second.next()) {
    if (second.type === TUPLE_IP) {
      third.into(second);
      while (third.next()) {
        const { type, length, bytes, at } = third;
        if (type === IP4_SOURCE && length === 4) half.source = ip4At(bytes, at);
        else if (type === IP4_DESTINATION && length === 4) half.destination = ip4At(bytes, at);
        else if (type === IP6_SOURCE && length === 16) half.source = ip6At(bytes, at);
        else if (type === IP6_DESTINATION && length === 16) half.destination = ip6At(bytes, at);
      }
    } else if (second.type === TUPLE_PROTOCOL) {
      third.into(second);
      while (third.next()) {
        const { type } = third;
        if (type === PROTOCOL_NUMBER) half.protocol = third.u8();
        else if (type === SOURCE_PORT || type === ICMP_ID || type === ICMPV6_ID) half.sourcePort = third.u16();
        else if (type === DESTINATION_PORT) half.destinationPort = third.u16();
        else if (type === ICMP_TYPE || type === ICMPV6_TYPE) half.destinationPort |= third.u8() << 8;
        else if (type === ICMP_CODE || type === ICMPV6_CODE) half.destinationPort |= third.u8();
      }
    } else if (second.type === TUPLE_ZONE) {
      // A zone of one direction only (CT --zone-orig): the entry's own zone says enough for us.
    }
  }
}

/** Fills `entry` from a CT message; false when it has no original tuple with two addresses of one family. */
export function readEntry(message: Message, entry: ConntrackEntry): boolean {
  entry.replySource = entry.replyDestination = "" as Ip;
  entry.replySourcePort = entry.replyDestinationPort = 0;
  entry.zone = entry.mark = entry.status = entry.tcpState = entry.id = entry.timeout = 0;
  let original = false;
  top.reset(message.bytes, message.payload, message.end);
  while (top.next()) {
    switch (top.type) {
      case Cta.original:
        readHalf();
        entry.protocol = half.protocol;
        entry.origSource = half.source;
        entry.origDestination = half.destination;
        entry.origSourcePort = half.sourcePort;
        entry.origDestinationPort = half.destinationPort;
        original = half.source !== "" && half.source.length === half.destination.length;
        break;
      case Cta.reply:
        readHalf();
        entry.replySource = half.source;
        entry.replyDestination = half.destination;
        entry.replySourcePort = half.sourcePort;
        entry.replyDestinationPort = half.destinationPort;
        break;
      case Cta.status:
        entry.status = top.u32();
        break;
      case Cta.protocolInfo:
        entry.tcpState = readTcpState();
        break;
      case Cta.timeout:
        entry.timeout = top.u32();
        break;
      case Cta.mark:
        entry.mark = top.u32();
        break;
      case Cta.id:
        entry.id = top.u32();
        break;
      case Cta.zone:
        entry.zone = top.u16();
        break;
      default: // counters, labels, NAT, ...
    }
  }
  if (original) entry.family = entry.origSource.length === 4 ? 4 : 6;
  return original;
}

function readTcpState(): number {
  second.into(top);
  while (second.next()) {
    if (second.type !== INFO_TCP) continue;
    third.into(second);
    while (third.next()) if (third.type === INFO_TCP_STATE) return third.u8();
  }
  return 0;
}

export function familyNumber(ip: Ip): number {
  return ip.length === 4 ? AF_INET : AF_INET6;
}
