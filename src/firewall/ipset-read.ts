import { type Family, type Ip, ip4At, ip6At } from "../base/address.ts";
import {
  Attr,
  Data,
  FLAG_IFACE_WILDCARD,
  FLAG_WITH_COMMENT,
  FLAG_WITH_COUNTERS,
  FLAG_WITH_FORCEADD,
  FLAG_WITH_SKBINFO,
  IPADDR_IPV4,
  IPADDR_IPV6,
} from "./ipset-wire.ts";
import { AF_INET6, Attributes } from "./netlink.ts";
import type { Message } from "./netlink-exchange.ts";

/** An element as a dump hands it out: every field is always there. One object is filled again and again. */
export interface DumpedElement {
  address: Ip;
  /** 8 × octets for a host. */
  bits: number;
  /** 0 where the set type has none; the same for port. */
  protocol: number;
  /** ICMP and ICMPv6: type << 8 | code. */
  port: number;
  /** "" where the set type has none. */
  address2: Ip | "";
  bits2: number;
  iface: string;
  wildcard: boolean;
  /** Seconds left, 0 is for ever; -1 in a set without timeout. */
  timeout: number;
  mark: number;
  markMask: number;
  packets: number;
  bytes: number;
  comment: string;
}

export function newDumpedElement(): DumpedElement {
  return {
    address: "" as Ip,
    bits: 0,
    protocol: 0,
    port: 0,
    address2: "",
    bits2: 0,
    iface: "",
    wildcard: false,
    timeout: -1,
    mark: 0,
    markMask: 0,
    packets: 0,
    bytes: 0,
    comment: "",
  };
}

/** A set as LIST describes it. */
export interface SetHeader {
  readonly name: string;
  readonly type: string;
  readonly family: Family;
  readonly revision: number;
  readonly hashSize: number;
  readonly maxElements: number;
  /** The default, seconds; undefined: the set has no timeouts. */
  readonly timeout: number | undefined;
  readonly counters: boolean;
  readonly comment: boolean;
  readonly skbinfo: boolean;
  readonly forceAdd: boolean;
  /** Rules and sets that refer to it. */
  readonly references: number;
  readonly elements: number;
  /** Bytes. */
  readonly memory: number;
}

// Everything here is synchronous and calls nobody, so the walkers can be shared.
const top = new Attributes();
const data = new Attributes();
const nested = new Attributes();

/** The address inside the attribute that `outer` has in hand, or "". */
function readIp(outer: Attributes): Ip | "" {
  nested.into(outer);
  while (nested.next()) {
    if (nested.type === IPADDR_IPV4 && nested.length === 4) return ip4At(nested.bytes, nested.at);
    if (nested.type === IPADDR_IPV6 && nested.length === 16) return ip6At(nested.bytes, nested.at);
  }
  return "";
}

/** Fills `element` from the DATA attribute in hand of `outer`; false when it has no address. */
function readElement(outer: Attributes, element: DumpedElement): boolean {
  let address: Ip | "" = "";
  element.bits = -1;
  element.protocol = 0;
  element.port = 0;
  element.address2 = "";
  element.bits2 = -1;
  element.iface = "";
  element.wildcard = false;
  element.timeout = -1;
  element.mark = 0;
  element.markMask = 0;
  element.packets = 0;
  element.bytes = 0;
  element.comment = "";
  data.into(outer);
  while (data.next()) {
    switch (data.type) {
      case Data.ip:
        address = readIp(data);
        break;
      case Data.cidr:
        element.bits = data.u8();
        break;
      case Data.port:
        element.port = data.u16();
        break;
      case Data.timeout:
        element.timeout = data.u32();
        break;
      case Data.protocol:
        element.protocol = data.u8();
        break;
      case Data.flags:
        element.wildcard = (data.u32() & FLAG_IFACE_WILDCARD) !== 0;
        break;
      case Data.ip2:
        element.address2 = readIp(data);
        break;
      case Data.cidr2:
        element.bits2 = data.u8();
        break;
      case Data.iface:
        element.iface = data.text();
        break;
      case Data.bytes:
        element.bytes = data.u64();
        break;
      case Data.packets:
        element.packets = data.u64();
        break;
      case Data.comment:
        element.comment = data.text();
        break;
      case Data.mark:
        element.mark = data.u32();
        element.markMask = data.u32(4);
        break;
      default: // an attribute of a set type that is not ours
    }
  }
  if (address === "") return false;
  element.address = address;
  const { bits, bits2, address2 } = element;
  if (bits < 0 || bits > address.length * 8) element.bits = address.length * 8;
  if (bits2 < 0 || bits2 > address2.length * 8) element.bits2 = address2.length * 8;
  return true;
}

/** Calls `onElement` for each element in a LIST message. Elements without an address are skipped. Returns how many came. */
export function readElements(message: Message, element: DumpedElement, onElement: (element: DumpedElement) => void): number {
  let count = 0;
  const walk = new Attributes().reset(message.bytes, message.payload, message.end);
  while (walk.next()) {
    if (walk.type !== Attr.adt) continue;
    const each = new Attributes().into(walk);
    while (each.next()) {
      if (each.type !== Attr.data || !readElement(each, element)) continue;
      count++;
      onElement(element);
    }
  }
  return count;
}

/** The set that a LIST message describes; undefined when the message only goes on with the elements of the one before. */
export function readHeader(message: Message): SetHeader | undefined {
  let name = "";
  let type = "";
  let family: Family = 4;
  let revision = 0;
  let described = false;
  let hashSize = 0;
  let maxElements = 0;
  let timeout: number | undefined;
  let flags = 0;
  let references = 0;
  let elements = 0;
  let memory = 0;
  top.reset(message.bytes, message.payload, message.end);
  while (top.next()) {
    if (top.type === Attr.setName) name = top.text();
    else if (top.type === Attr.typeName) type = top.text();
    else if (top.type === Attr.family) family = top.u8() === AF_INET6 ? 6 : 4;
    else if (top.type === Attr.revision) revision = top.u8();
    else if (top.type === Attr.data) {
      described = true;
      data.into(top);
      while (data.next()) {
        if (data.type === Data.hashSize) hashSize = data.u32();
        else if (data.type === Data.maxElements) maxElements = data.u32();
        else if (data.type === Data.timeout) timeout = data.u32();
        else if (data.type === Data.flags) flags = data.u32();
        else if (data.type === Data.references) references = data.u32();
        else if (data.type === Data.elements) elements = data.u32();
        else if (data.type === Data.memory) memory = data.u32();
      }
    }
  }
  if (!described || name === "") return undefined;
  return {
    name,
    type,
    family,
    revision,
    hashSize,
    maxElements,
    timeout,
    counters: (flags & FLAG_WITH_COUNTERS) !== 0,
    comment: (flags & FLAG_WITH_COMMENT) !== 0,
    skbinfo: (flags & FLAG_WITH_SKBINFO) !== 0,
    forceAdd: (flags & FLAG_WITH_FORCEADD) !== 0,
    references,
    elements,
    memory,
  };
}

/** The line number that the kernel wrote over the one of the failed message it sends back (0: no element is to blame). */
export function readFailedLine(message: Message): number {
  // nlmsghdr, errno, then the request: its nlmsghdr and nfgenmsg, its attributes.
  const start = message.start + 16 + 4 + 16 + 4;
  top.reset(message.bytes, start, message.end);
  while (top.next()) if (top.type === Attr.lineNumber) return top.u32();
  return 0;
}

/** The revisions a TYPE answer names. */
export function readRevisions(message: Message): { readonly min: number; readonly max: number } {
  let min = 0;
  let max = 0;
  top.reset(message.bytes, message.payload, message.end);
  while (top.next()) {
    if (top.type === Attr.revision) max = top.u8();
    else if (top.type === Attr.revisionMin) min = top.u8();
  }
  return { min, max };
}

/** The protocol versions a PROTOCOL answer names. */
export function readProtocol(message: Message): { readonly min: number; readonly max: number } {
  let max = 0;
  let min = 0;
  top.reset(message.bytes, message.payload, message.end);
  while (top.next()) {
    if (top.type === Attr.protocol) max = top.u8();
    else if (top.type === Attr.protocolMin) min = top.u8();
  }
  return { min: min === 0 ? max : min, max };
}
