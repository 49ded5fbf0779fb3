import type { Ip } from "../base/address.ts";
import type { DnsName } from "../base/name.ts";

/** `asked`: the name in the question. `cname`: a name further down the chain of the same reply. */
export type Via = "asked" | "cname";

/** What one DNS reply taught about one name and one address. */
export interface Learned {
  readonly name: DnsName;
  readonly via: Via;
  readonly address: Ip;
  /** Seconds; the least TTL along the chain (RFC 1035 §3.2.1), at most 2^31-1 (RFC 2181 §8). */
  readonly ttl: number;
}

/** A name of this pod for an address, as the evaluator sees it. */
export interface NameSeen {
  readonly name: DnsName;
  readonly via: Via;
  /** false: its TTL and grace are over; it explains, but allows nothing. */
  readonly fresh: boolean;
}
