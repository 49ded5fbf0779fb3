import type { Ip } from "../base/address.ts";
import { NLA_F_NET_BYTEORDER, type Writer } from "../base/netlink.ts";

/** ipset's numbers (linux/netfilter/ipset/ip_set.h, protocol 7), and one element as attributes. */
export const IPSET_PROTOCOL = 7;
const SUBSYSTEM = 6 << 8;

export const Command = {
  protocol: SUBSYSTEM | 1,
  create: SUBSYSTEM | 2,
  destroy: SUBSYSTEM | 3,
  flush: SUBSYSTEM | 4,
  rename: SUBSYSTEM | 5,
  swap: SUBSYSTEM | 6,
  list: SUBSYSTEM | 7,
  add: SUBSYSTEM | 9,
  del: SUBSYSTEM | 10,
  type: SUBSYSTEM | 13,
} as const;

export const Attr = {
  protocol: 1,
  setName: 2,
  typeName: 3,
  setName2: 3,
  revision: 4,
  family: 5,
  flags: 6,
  data: 7,
  adt: 8,
  lineNumber: 9,
  protocolMin: 10,
  revisionMin: 10,
} as const;

/** Inside DATA. */
export const Data = {
  ip: 1,
  cidr: 3,
  port: 4,
  timeout: 6,
  protocol: 7,
  flags: 8,
  lineNumber: 9,
  hashSize: 18,
  maxElements: 19,
  elements: 24,
  references: 25,
  memory: 26,
  ip2: 20,
  cidr2: 21,
  iface: 23,
  bytes: 24,
  packets: 25,
  comment: 26,
  mark: 27,
} as const;

export const IPADDR_IPV4 = 1;
export const IPADDR_IPV6 = 2;
export const NET = NLA_F_NET_BYTEORDER;

export const FLAG_LIST_HEADER = 4;
export const FLAG_WITH_COUNTERS = 1 << 3;
export const FLAG_WITH_COMMENT = 1 << 4;
export const FLAG_WITH_FORCEADD = 1 << 5;
export const FLAG_WITH_SKBINFO = 1 << 6;
export const FLAG_IFACE_WILDCARD = 1 << 7;

const IFACE_OCTETS_MAX = 15; // IFNAMSIZ less the NUL
/** IPSET_MAX_COMMENT_SIZE. */
export const COMMENT_OCTETS_MAX = 255;
/** Seconds: IPSET_MAX_TIMEOUT, UINT_MAX / 2 / MSEC_PER_SEC. */
export const TIMEOUT_SECONDS_MAX = 2_147_483;

/**
 * One element of any of our set types; which fields count depends on the type. `port` of ICMP and ICMPv6 is
 * type << 8 | code. A second network of a hash:ip,port,net cannot have 0 bits (the kernel wants two halves).
 */
export interface Element {
  readonly address: Ip;
  /** Absent: a host. */
  readonly bits?: number | undefined;
  readonly protocol?: number | undefined;
  readonly port?: number | undefined;
  readonly address2?: Ip | undefined;
  readonly bits2?: number | undefined;
  readonly iface?: string | undefined;
  /** `iface` is a prefix. */
  readonly wildcard?: boolean | undefined;
  /** Seconds, 0 is for ever, more than TIMEOUT_SECONDS_MAX is cut to it; absent: the set's default. */
  readonly timeout?: number | undefined;
  readonly mark?: number | undefined;
  /** 0 or absent: no skbmark is written (for a set without skbinfo). */
  readonly markMask?: number | undefined;
  /** At most COMMENT_OCTETS_MAX octets of UTF-8, no control characters, no double quote (`ipset restore` has no escape for it). */
  readonly comment?: string | undefined;
  /** Its packet counter starts at zero (for a set with counters). Without it the kernel may go on with what another element counted. */
  readonly zero?: boolean | undefined;
}

function octetsOf(text: string): number {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 127) return Buffer.byteLength(text);
  return text.length;
}

export function validComment(comment: string): boolean {
  if (comment.length > COMMENT_OCTETS_MAX || octetsOf(comment) > COMMENT_OCTETS_MAX) return false;
  for (let i = 0; i < comment.length; i++) {
    const c = comment.charCodeAt(i);
    if (c < 32 || c === 127 || c === 34) return false;
  }
  return true;
}

/** An interface name or prefix as the kernel takes it (dev_valid_name), and as `ipset save` can print it. */
function validIface(iface: string): boolean {
  if (iface.length === 0 || octetsOf(iface) > IFACE_OCTETS_MAX) return false;
  for (let i = 0; i < iface.length; i++) {
    const c = iface.charCodeAt(i);
    if (c <= 32 || c === 127 || c === 44 || c === 47 || c === 58) return false;
  }
  return true;
}

/** IPSET_MAXNAMELEN less the NUL, and what no tool has to quote. */
export function validSetName(name: string): boolean {
  return /^[A-Za-z0-9_.:-]{1,31}$/.test(name);
}

function writeIp(writer: Writer, type: number, ip: Ip): void {
  const start = writer.open(type);
  writer.attrOctets((ip.length === 4 ? IPADDR_IPV4 : IPADDR_IPV6) | NET, ip);
  writer.close(start);
}

/**
 * The attributes of one element, in the order the ipset tool writes them. Flat arguments, so that the hot path makes no
 * object: bits and bits2 -1, protocol -1, address2 "", iface "", timeout -1, markMask 0 and comment "" mean absent.
 */
export function writeElement(
  writer: Writer,
  lineNumber: number,
  address: Ip,
  bits: number,
  protocol: number,
  port: number,
  address2: Ip | "",
  bits2: number,
  iface: string,
  wildcard: boolean,
  timeout: number,
  mark: number,
  markMask: number,
  comment: string,
  zero: boolean,
): void {
  const start = writer.open(Attr.data);
  writeIp(writer, Data.ip, address);
  if (bits >= 0) writer.attrU8(Data.cidr, bits);
  if (protocol >= 0) writer.attrU16(Data.port | NET, port);
  if (timeout >= 0) writer.attrU32(Data.timeout | NET, timeout > TIMEOUT_SECONDS_MAX ? TIMEOUT_SECONDS_MAX : timeout);
  if (protocol >= 0) writer.attrU8(Data.protocol, protocol);
  if (wildcard) writer.attrU32(Data.flags | NET, FLAG_IFACE_WILDCARD);
  if (address2 !== "") writeIp(writer, Data.ip2, address2);
  if (bits2 >= 0) writer.attrU8(Data.cidr2, bits2);
  if (iface !== "") writer.attrText(Data.iface, iface);
  if (comment !== "") writer.attrText(Data.comment, comment);
  if (zero) writer.attrU64(Data.packets | NET, 0, 0);
  if (markMask !== 0) writer.attrU64(Data.mark | NET, mark, markMask);
  writer.attrU32(Data.lineNumber | NET, lineNumber);
  writer.close(start);
}

/** Can it be written so that the kernel reads what was meant? What a set type wants of it is the kernel's to say. */
export function encodable(element: Element): boolean {
  const { address, bits, protocol, port, address2, bits2, iface, comment } = element;
  const width = address.length * 8;
  if (width !== 32 && width !== 128) return false;
  if (address2 !== undefined && address2.length !== address.length) return false;
  if (bits !== undefined && !(bits >= 0 && bits <= width)) return false;
  if (bits2 !== undefined && !(address2 !== undefined && bits2 >= 0 && bits2 <= width)) return false;
  if (protocol !== undefined && !(protocol >= 0 && protocol <= 255)) return false;
  if (port !== undefined && !(protocol !== undefined && port >= 0 && port <= 65_535)) return false;
  if (iface !== undefined && !validIface(iface)) return false;
  return comment === undefined || comment === "" || validComment(comment);
}
