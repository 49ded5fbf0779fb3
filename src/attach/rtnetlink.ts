/**
 * rtnetlink in bytes: requests, and what we read of the answers. Nothing here calls the kernel. Numbers and layouts:
 * linux/rtnetlink.h, if_link.h, net_namespace.h, neighbour.h.
 */
import { type Ip, ip4At, ip6At, unmapped } from "../base/address.ts";
import { AF_INET, AF_INET6, AF_UNSPEC, HEADER_BYTES, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, type Writer } from "../base/netlink.ts";
import { Attributes, type Message } from "../base/netlink-read.ts";
import type { Link } from "./link.ts";

export const RTM_NEWLINK = 16;
const RTM_GETLINK = 18;
const RTM_SETLINK = 19;
export const RTM_NEWROUTE = 24;
const RTM_GETROUTE = 26;
export const RTM_NEWNEIGH = 28;
const RTM_GETNEIGH = 30;
export const RTM_NEWNSID = 88;
const RTM_GETNSID = 90;

const IFLA_IFNAME = 3;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const IFLA_GROUP = 27;
const IFLA_EXT_MASK = 29;
const IFLA_LINK_NETNSID = 37;
const IFLA_TARGET_NETNSID = 46;
const RTEXT_FILTER_SKIP_STATS = 8;
const ARPHRD_LOOPBACK = 772;

const NETNSA_NSID = 1;
const NETNSA_PID = 2;
/** The namespace has no number here: nothing of ours leads there. As a request: choose one. */
const NSID_NONE = -1;

const RTA_DST = 1;
const RTA_OIF = 4;
const RTN_UNICAST = 1;

const NDA_DST = 1;
const NDA_LLADDR = 2;
/** The neighbour has answered at some time: reachable, stale, delay, probe, noarp or permanent. */
const NUD_KNOWN = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;

/** ifinfomsg, rtmsg and ndmsg, less the 4 bytes that Writer.begin writes. */
const LINK_REST = 12;
const ROUTE_REST = 8;
const NEIGHBOUR_REST = 8;

/** All links, of this namespace or of the one with this number. */
export function askLinks(out: Writer, seq: number, space: number | undefined): void {
  const start = out.begin(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, seq, AF_UNSPEC);
  out.zeros(LINK_REST);
  if (space !== undefined) out.attrU32le(IFLA_TARGET_NETNSID, space);
  out.attrU32le(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  out.end(start);
}

/** Puts the interface of this name into a group. */
export function writeGroup(out: Writer, seq: number, name: string, group: number): void {
  const start = out.begin(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, seq, AF_UNSPEC);
  out.zeros(LINK_REST);
  out.attrText(IFLA_IFNAME, name);
  out.attrU32le(IFLA_GROUP, group);
  out.end(start);
}

/** How this node numbers the network namespace of a process. */
export function askSpace(out: Writer, seq: number, pid: number): void {
  const start = out.begin(RTM_GETNSID, NLM_F_REQUEST | NLM_F_ACK, seq, AF_UNSPEC);
  out.attrU32le(NETNSA_PID, pid);
  out.end(start);
}

/** Let this node give the network namespace of a process a number. EEXIST where it has one. */
export function numberSpace(out: Writer, seq: number, pid: number): void {
  const start = out.begin(RTM_NEWNSID, NLM_F_REQUEST | NLM_F_ACK, seq, AF_UNSPEC);
  out.attrU32le(NETNSA_PID, pid);
  out.attrU32le(NETNSA_NSID, NSID_NONE);
  out.end(start);
}

/** Which way a packet to this address would go. */
export function askRoute(out: Writer, seq: number, to: Ip): void {
  const start = out.begin(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_ACK, seq, to.length === 4 ? AF_INET : AF_INET6);
  out.bytes[start + HEADER_BYTES + 1] = to.length * 8;
  out.zeros(ROUTE_REST);
  out.attrOctets(RTA_DST, to);
  out.end(start);
}

export function askNeighbours(out: Writer, seq: number): void {
  const start = out.begin(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, seq, AF_UNSPEC);
  out.zeros(NEIGHBOUR_REST);
  out.end(start);
}

const attributes = new Attributes();
const nested = new Attributes();

/** undefined: no link, or one without index or name. */
export function readLink(message: Message): Link | undefined {
  const { bytes, start, end } = message;
  const at = start + HEADER_BYTES;
  if (message.type !== RTM_NEWLINK || at + 16 > end) return undefined;
  let name = "";
  let kind = "";
  let master = 0;
  let peer = 0;
  let group = 0;
  let space: number | undefined;
  for (attributes.reset(bytes, at + 16, end); attributes.next(); ) {
    if (attributes.type === IFLA_IFNAME) name = attributes.text();
    else if (attributes.type === IFLA_LINK) peer = attributes.s32le();
    else if (attributes.type === IFLA_MASTER) master = attributes.s32le();
    else if (attributes.type === IFLA_GROUP) group = attributes.s32le();
    else if (attributes.type === IFLA_LINK_NETNSID) space = attributes.s32le();
    else if (attributes.type === IFLA_LINKINFO) {
      for (nested.into(attributes); nested.next(); ) if (nested.type === IFLA_INFO_KIND) kind = nested.text();
    }
  }
  const index = bytes.readInt32LE(at + 4);
  if (index <= 0 || name === "") return undefined;
  return { index, name, kind, loopback: bytes.readUInt16LE(at + 2) === ARPHRD_LOOPBACK, master, peer, space, group };
}

/** The namespace's number; undefined when it has none. */
export function readSpace(message: Message): number | undefined {
  if (message.type !== RTM_NEWNSID) return undefined;
  for (attributes.reset(message.bytes, message.start + HEADER_BYTES + 4, message.end); attributes.next(); ) {
    if (attributes.type === NETNSA_NSID) {
      const space = attributes.s32le();
      return space >= 0 ? space : undefined;
    }
  }
  return undefined;
}

/** The index of the interface that a unicast route leaves by. */
export function readRoute(message: Message): number | undefined {
  const at = message.start + HEADER_BYTES;
  if (message.type !== RTM_NEWROUTE || at + 12 > message.end || message.bytes[at + 7] !== RTN_UNICAST) return undefined;
  for (attributes.reset(message.bytes, at + 12, message.end); attributes.next(); ) {
    if (attributes.type === RTA_OIF) return attributes.s32le();
  }
  return undefined;
}

export interface Neighbour {
  /** The interface on which it was seen. */
  readonly index: number;
  readonly ip: Ip;
  /** Twelve hexadecimal digits. */
  readonly mac: string;
}

export function readNeighbour(message: Message): Neighbour | undefined {
  const { bytes, start, end } = message;
  const at = start + HEADER_BYTES;
  if (message.type !== RTM_NEWNEIGH || at + 12 > end || (bytes.readUInt16LE(at + 8) & NUD_KNOWN) === 0) return undefined;
  let ip: Ip | undefined;
  let mac: string | undefined;
  for (attributes.reset(bytes, at + 12, end); attributes.next(); ) {
    if (attributes.type === NDA_DST && attributes.length === 4) ip = ip4At(bytes, attributes.at);
    else if (attributes.type === NDA_DST && attributes.length === 16) ip = unmapped(ip6At(bytes, attributes.at));
    else if (attributes.type === NDA_LLADDR && attributes.length === 6) mac = bytes.toString("hex", attributes.at, attributes.at + 6);
  }
  return ip === undefined || mac === undefined ? undefined : { index: bytes.readInt32LE(at + 4), ip, mac };
}
