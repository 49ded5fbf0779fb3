import { ip4At, ip6At, type Ip } from "../base/address.ts";
import { Cursor } from "../base/cursor.ts";
import { Protocol, type Packet } from "../model/packet.ts";

/**
 * Reading one IPv4 or IPv6 packet into a reused Packet. The kernel has already checked what it forwards; this reader
 * trusts nothing of that, because the same code reads capture files. It allocates the two address strings and nothing else;
 * who does not want them for every packet calls decodeHeaders, and readAddresses where he does.
 */

const EXTENSIONS_MAX = 8; // IPv6 extension headers in one packet; RFC 8504 §5.3 allows a node to set such a limit
const IPV4_HEADER_BYTES = 20; // RFC 791 §3.1, without options
const IPV6_HEADER_BYTES = 40; // RFC 8200 §3
const TCP_HEADER_BYTES = 20; // RFC 9293 §3.1, without options
/** IPv6 extension headers (RFC 8200 §4; the authentication header, RFC 4302). */
const Extension = { hopByHop: 0, routing: 43, fragment: 44, authentication: 51, destination: 60 } as const;

/** A Packet to fill again and again. */
export function newPacket(): Packet {
  return {
    bytes: new Uint8Array(0),
    start: 0,
    end: 0,
    source: "" as Ip,
    destination: "" as Ip,
    protocol: 0,
    hopLimit: 0,
    fragment: false,
    sourcePort: 0,
    destinationPort: 0,
    transport: 0,
    sequence: 0,
    acknowledgement: 0,
    tcpFlags: 0,
    payloadStart: 0,
    payloadEnd: 0,
  };
}

const cursor = new Cursor(new Uint8Array(0));

/**
 * Fills `into` from the IP packet in bytes[start..end); `bytes` is kept, not copied. A packet whose length field says more
 * than was captured is read as far as it goes (`payloadEnd` is what is there), but its headers must be whole. A length
 * field of 0 is a packet too big for it (GSO, RFC 2675): it ends where the bytes end. false: malformed, and `into` says
 * nothing. A fragment that is not the first has no ports and its payload starts at `transport`. Never throws.
 */
export function decodeIp(bytes: Uint8Array, start: number, end: number, into: Packet): boolean {
  if (!decodeHeaders(bytes, start, end, into)) return false;
  readAddresses(into);
  return true;
}

/** Source and destination of a packet that decodeHeaders has filled. */
export function readAddresses(into: Packet): void {
  const { bytes, start } = into;
  if ((bytes[start] as number) >> 4 === 4) {
    into.source = ip4At(bytes, start + 12);
    into.destination = ip4At(bytes, start + 16);
  } else {
    into.source = ip6At(bytes, start + 8);
    into.destination = ip6At(bytes, start + 24);
  }
}

/** decodeIp without the addresses: those of the packet before stay. */
export function decodeHeaders(bytes: Uint8Array, start: number, end: number, into: Packet): boolean {
  into.bytes = bytes;
  into.start = start;
  into.fragment = false;
  into.sourcePort = 0;
  into.destinationPort = 0;
  into.sequence = 0;
  into.acknowledgement = 0;
  into.tcpFlags = 0;
  if (start < 0 || start >= end || end > bytes.length) return false;
  const version = (bytes[start] as number) >> 4;
  if (version === 4) return decode4(bytes, start, end, into);
  if (version === 6) return decode6(cursor.reset(bytes, start, end), into);
  return false;
}

/** Both bytes are there. */
const u16 = (b: Uint8Array, at: number): number => ((b[at] as number) << 8) | (b[at + 1] as number);
/** All four bytes are there. */
const u32 = (b: Uint8Array, at: number): number => ((u16(b, at) << 16) | u16(b, at + 2)) >>> 0;

/** RFC 791 §3.1. Every packet comes by here: its length is looked at once, then it is read in place. */
function decode4(bytes: Uint8Array, start: number, end: number, into: Packet): boolean {
  const headerBytes = ((bytes[start] as number) & 15) * 4;
  if (headerBytes < IPV4_HEADER_BYTES || end - start < headerBytes) return false;
  const total = u16(bytes, start + 2);
  const fragment = u16(bytes, start + 6);
  into.hopLimit = bytes[start + 8] as number;
  into.protocol = bytes[start + 9] as number;
  if (total !== 0 && total < headerBytes) return false;
  const wireEnd = total === 0 ? end : start + total;
  const later = (fragment & 0x1fff) !== 0;
  into.fragment = later || (fragment & 0x2000) !== 0;
  return decodeTransport(bytes, start + headerBytes, end, into, wireEnd, later);
}

/** RFC 8200 §3 and §4. */
function decode6(c: Cursor, into: Packet): boolean {
  c.skip(4);
  const length = c.u16();
  let next = c.u8();
  into.hopLimit = c.u8();
  c.skip(32);
  if (c.short) return false;
  const wireEnd = length === 0 ? c.end : into.start + IPV6_HEADER_BYTES + length;
  if (wireEnd < c.end) c.end = wireEnd;
  let later = false;
  for (let count = 0; !later; count++) {
    const extension: number = next;
    if (extension === Extension.hopByHop ? count > 0 : !isExtension(extension)) break;
    if (count === EXTENSIONS_MAX) return false;
    next = c.u8();
    if (extension === Extension.fragment) {
      c.skip(1);
      const offsetAndMore = c.u16();
      c.skip(4); // identification
      later = offsetAndMore >> 3 !== 0;
      into.fragment ||= later || (offsetAndMore & 1) !== 0;
    } else if (extension === Extension.authentication) {
      c.skip((c.u8() + 2) * 4 - 2); // RFC 4302 §2.2: words, minus 2
    } else {
      c.skip((c.u8() + 1) * 8 - 2);
    }
    if (c.short) return false;
  }
  // Hop-by-hop options are legal only right behind the IPv6 header (RFC 8200 §4.1).
  if (!later && next === Extension.hopByHop) return false;
  into.protocol = next;
  return decodeTransport(c.bytes, c.at, c.end, into, wireEnd, later);
}

function isExtension(next: number): boolean {
  return next === Extension.routing || next === Extension.fragment || next === Extension.authentication || next === Extension.destination;
}

/** `wireEnd`: where the IP header says the packet ends, which may lie behind the captured bytes. `later`: not the first fragment. */
function decodeTransport(bytes: Uint8Array, at: number, captured: number, into: Packet, wireEnd: number, later: boolean): boolean {
  const end = Math.min(wireEnd, captured);
  const left = end - at;
  into.end = end;
  into.transport = at;
  into.payloadStart = at;
  into.payloadEnd = end;
  if (later) return true;
  switch (into.protocol) {
    case Protocol.TCP: {
      if (left < TCP_HEADER_BYTES) return false;
      const headerBytes = ((bytes[at + 12] as number) >> 4) * 4;
      if (headerBytes < TCP_HEADER_BYTES || left < headerBytes) return false;
      into.sourcePort = u16(bytes, at);
      into.destinationPort = u16(bytes, at + 2);
      into.sequence = u32(bytes, at + 4);
      into.acknowledgement = u32(bytes, at + 8);
      into.tcpFlags = (bytes[at + 13] as number) & 63;
      into.payloadStart = at + headerBytes;
      return true;
    }
    case Protocol.UDP: {
      if (left < 8) return false;
      into.sourcePort = u16(bytes, at);
      into.destinationPort = u16(bytes, at + 2);
      const length = u16(bytes, at + 4); // header included; 0 is a jumbogram (RFC 2675 §4)
      if (length !== 0 && length < 8) return false;
      const udpEnd = length === 0 ? wireEnd : at + length;
      if (udpEnd > wireEnd && !into.fragment) return false;
      if (udpEnd < end) into.payloadEnd = udpEnd;
      into.payloadStart = at + 8;
      return true;
    }
    case Protocol.SCTP:
      if (left < 12) return false;
      into.sourcePort = u16(bytes, at);
      into.destinationPort = u16(bytes, at + 2);
      into.payloadStart = at + 12;
      return true;
    case Protocol.ICMP:
    case Protocol.ICMPv6:
      if (left < 8) return false;
      into.destinationPort = u16(bytes, at); // type << 8 | code
      into.payloadStart = at + 8;
      return true;
    default: // a protocol without ports: everything behind IP is payload
      return true;
  }
}
