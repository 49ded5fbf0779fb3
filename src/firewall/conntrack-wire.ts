import type { Ip } from "../base/address.ts";
import type { FlowTuple } from "./conntrack-entry.ts";
import { Protocol } from "../model/packet.ts";
import { AF_INET, AF_INET6, type Writer } from "../base/netlink.ts";

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

export const TUPLE_IP = 1;
export const TUPLE_PROTOCOL = 2;
export const IP4_SOURCE = 1;
export const IP4_DESTINATION = 2;
export const IP6_SOURCE = 3;
export const IP6_DESTINATION = 4;
export const PROTOCOL_NUMBER = 1;
export const SOURCE_PORT = 2;
export const DESTINATION_PORT = 3;
export const ICMP_ID = 4;
export const ICMP_TYPE = 5;
export const ICMP_CODE = 6;
export const ICMPV6_ID = 7;
export const ICMPV6_TYPE = 8;
export const ICMPV6_CODE = 9;
export const INFO_TCP = 1;
export const INFO_TCP_STATE = 1;
const INFO_TCP_FLAGS_REPLY = 5;
/** TCP_CONNTRACK_CLOSE and IP_CT_TCP_FLAG_CLOSE_INIT (linux/netfilter/nf_conntrack_tcp.h). */
const TCP_CLOSE = 8;
const TCP_FLAG_CLOSE_INIT = 4;
const FILTER_ORIGINAL_FLAGS = 1;
const FILTER_REPLY_FLAGS = 2;
/** CTA_FILTER_F_CTA_IP_SRC */
const FILTER_IP_SOURCE = 1;

/** Does the kernel keep ports for it (nf_ct_port_nlattr_tuple_size)? GRE's are the two keys. */
function hasPorts(protocol: number): boolean {
  return (
    protocol === Protocol.TCP ||
    protocol === Protocol.UDP ||
    protocol === Protocol.SCTP ||
    protocol === 33 ||
    protocol === 47 ||
    protocol === 136
  );
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

/** CTA_PROTOINFO and CTA_TIMEOUT: a TCP connection that is over, of which the kernel keeps the entry for `seconds`. */
export function writeClosed(writer: Writer, seconds: number): void {
  const outer = writer.open(Cta.protocolInfo);
  const tcp = writer.open(INFO_TCP);
  writer.attrU8(INFO_TCP_STATE, TCP_CLOSE);
  // Without it a SYN is taken for one of the old connection (struct nf_ct_tcp_flags: flags, mask).
  writer.attrU16(INFO_TCP_FLAGS_REPLY, (TCP_FLAG_CLOSE_INIT << 8) | TCP_FLAG_CLOSE_INIT);
  writer.close(tcp);
  writer.close(outer);
  writer.attrU32(Cta.timeout, seconds);
}

/** CTA_FILTER and CTA_TUPLE_ORIG: only entries of this original IPv4 source (kernel 5.8; older ones ignore it). */
export function writeSourceFilter(writer: Writer, source: Ip): void {
  const outer = writer.open(Cta.original);
  const ip = writer.open(TUPLE_IP);
  writer.attrOctets(IP4_SOURCE, source);
  writer.close(ip);
  writer.close(outer);
  const filter = writer.open(Cta.filter);
  // Host order, unlike the rest.
  writer.attrU32(FILTER_ORIGINAL_FLAGS, FILTER_IP_SOURCE << 24);
  writer.attrU32(FILTER_REPLY_FLAGS, 0);
  writer.close(filter);
}

export function familyNumber(ip: Ip): number {
  return ip.length === 4 ? AF_INET : AF_INET6;
}
