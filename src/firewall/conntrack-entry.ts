import type { Ip } from "../base/address.ts";

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
