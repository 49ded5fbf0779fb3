import { type Ip, ip4At, ip6At } from "../base/address.ts";
import type { ConntrackEntry } from "./conntrack-entry.ts";
import {
  Cta,
  DESTINATION_PORT,
  ICMPV6_CODE,
  ICMPV6_ID,
  ICMPV6_TYPE,
  ICMP_CODE,
  ICMP_ID,
  ICMP_TYPE,
  INFO_TCP,
  INFO_TCP_STATE,
  IP4_DESTINATION,
  IP4_SOURCE,
  IP6_DESTINATION,
  IP6_SOURCE,
  PROTOCOL_NUMBER,
  SOURCE_PORT,
  TUPLE_IP,
  TUPLE_PROTOCOL,
} from "./conntrack-wire.ts";
import { Attributes, type Message } from "../base/netlink-read.ts";

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
