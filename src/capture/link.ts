import { Cursor } from "../base/cursor.ts";

/** Finding the IP packet inside a captured link-layer frame. Pure, bounded, never throws. */

/** LINKTYPE_ numbers of the pcap formats. */
export const LinkType = {
  null: 0,
  ethernet: 1,
  rawBsd: 12,
  rawOpenBsd: 14,
  raw: 101,
  loop: 108,
  linuxSll: 113,
  ipv4: 228,
  ipv6: 229,
  linuxSll2: 276,
} as const;

/** The packet type of a Linux cooked header (LINUX_SLL, LINUX_SLL2). */
export const SllType = { host: 0, broadcast: 1, multicast: 2, otherHost: 3, outgoing: 4 } as const;
export const SLL_BYTES = 16;

const EtherType = {
  ipv4: 0x0800,
  ipv6: 0x86dd,
  vlan: 0x8100,
  qinq: 0x88a8,
  qinqOld: 0x9100,
  mpls: 0x8847,
  mplsMulticast: 0x8848,
  pppoe: 0x8864,
} as const;
const TAGS_MAX = 8; // VLAN tags, MPLS labels and PPPoE headers in one frame

/** A part of a buffer. */
export interface Range {
  start: number;
  end: number;
}

const cursor = new Cursor(new Uint8Array(0));

/** Narrows `into` to the IP packet of the frame in bytes[start..end), padding included; false where there is none. */
export function ipInFrame(linkType: number, bytes: Uint8Array, start: number, end: number, into: Range): boolean {
  const c = cursor.reset(bytes, start, end);
  const found = afterLink(linkType, c);
  into.start = c.at;
  into.end = c.end;
  if (!found || c.short || c.left === 0) return false;
  const version = (bytes[c.at] as number) >> 4;
  return version === 4 || version === 6;
}

function afterLink(linkType: number, c: Cursor): boolean {
  switch (linkType) {
    case LinkType.ethernet:
      c.skip(12);
      return afterEtherType(c.u16(), c);
    case LinkType.raw:
    case LinkType.rawBsd:
    case LinkType.rawOpenBsd:
    case LinkType.ipv4:
    case LinkType.ipv6:
      return true;
    case LinkType.null: // an address family in the byte order and numbering of whoever captured: the version nibble says enough
    case LinkType.loop:
      c.skip(4);
      return true;
    case LinkType.linuxSll:
      c.skip(14);
      return afterEtherType(c.u16(), c);
    case LinkType.linuxSll2: {
      const type = c.u16();
      c.skip(18);
      return afterEtherType(type, c);
    }
    default:
      return false;
  }
}

function afterEtherType(first: number, c: Cursor): boolean {
  let type = first;
  for (let i = 0; i <= TAGS_MAX && !c.short; i++) {
    switch (type) {
      case EtherType.ipv4:
      case EtherType.ipv6:
        return true;
      case EtherType.vlan:
      case EtherType.qinq:
      case EtherType.qinqOld:
        c.skip(2);
        type = c.u16();
        break;
      case EtherType.mpls:
      case EtherType.mplsMulticast: {
        const label = c.u32();
        if ((label & 0x100) !== 0) return true; // bottom of stack (RFC 3032 §2.1); what follows shows its version
        break;
      }
      case EtherType.pppoe: {
        c.skip(6); // RFC 2516 §4
        const protocol = c.u16();
        return protocol === 0x0021 || protocol === 0x0057; // IPv4, IPv6 (RFC 1332, RFC 5072)
      }
      default:
        return false;
    }
  }
  return false;
}
