import { type Ip, ip4At, ip6At } from "../base/address.ts";
import { Attr, Data, FLAG_IFACE_WILDCARD, IPADDR_IPV4, IPADDR_IPV6 } from "./ipset-wire.ts";
import { HEADER_BYTES, MESSAGE_BYTES } from "../base/netlink.ts";
import { Attributes, type Message } from "../base/netlink-read.ts";

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

/** The line number that the kernel wrote over the one of the failed message it sends back (0: no element is to blame). */
export function readFailedLine(message: Message): number {
  // The answer's nlmsghdr and errno, then the request: its two headers, its attributes.
  const start = message.start + HEADER_BYTES + 4 + MESSAGE_BYTES;
  top.reset(message.bytes, start, message.end);
  while (top.next()) if (top.type === Attr.lineNumber) return top.u32();
  return 0;
}
