import type { Ip } from "../base/address.ts";

/** IP protocol numbers (IANA). */
export const Protocol = { ICMP: 1, TCP: 6, UDP: 17, ICMPv6: 58, SCTP: 132 } as const;

/** TCP flag bits (RFC 9293 §3.1). */
export const TcpFlag = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32 } as const;

/**
 * One decoded IP packet. A single object is filled again and again on the hot path (capture/decode.ts); whoever wants to
 * keep something copies it. Offsets index `bytes`.
 */
export interface Packet {
  bytes: Uint8Array;
  /** Start of the IP header. */
  start: number;
  /** End of the IP packet as its header says, never past the captured bytes. */
  end: number;
  source: Ip;
  destination: Ip;
  /** The upper-layer protocol after IPv6 extension headers. */
  protocol: number;
  hopLimit: number;
  /** A fragment that is not the first (no ports), or a first fragment with more to come. */
  fragment: boolean;
  /** 0 where the protocol has none. For ICMP and ICMPv6: destinationPort is type << 8 | code, as ipset writes it. */
  sourcePort: number;
  destinationPort: number;
  /** Start of the TCP, UDP, ... header. */
  transport: number;
  /** TCP: sequence and acknowledgement numbers, flags (TcpFlag); else 0. */
  sequence: number;
  acknowledgement: number;
  tcpFlags: number;
  /** The bytes after the transport header. */
  payloadStart: number;
  payloadEnd: number;
}

/** `TCP`, `UDP`, ... or the number. */
export function protocolText(protocol: number): string {
  for (const [name, number] of Object.entries(Protocol)) if (number === protocol) return name;
  return String(protocol);
}
