import { type Family, parseIp } from "../base/address.ts";
import type { Ip } from "../base/address.ts";

/**
 * The packet that shows whether a pod's packets come to our rules: sent by the control thread, recognised by the packet
 * thread where a new connection is judged, and dropped there.
 */

/** A veth pair of our own; frames that are put into `feeds` come out of `pod`, as out of a pod's. */
export const CANARY_LINKS = { pod: "ngcanary0", feeds: "ngcanary1" } as const;

/** "Use for experimentation and testing" (RFC 3692): no port, so no element of ng-allow, ng-net or ng-deny can match it. */
export const CANARY_PROTOCOL = 253;

/** Octets of payload: a number that is used once. */
export const CANARY_NONCE_OCTETS = 16;

/** The pod that is not there: of the networks for benchmarks (RFC 2544, RFC 5180), which no cluster uses. */
export const CANARY_POD: Readonly<Record<Family, Ip>> = { 4: ip("198.19.255.254"), 6: ip("2001:2:0:ffff::fe") };

/** A destination that routing throws away without a word (RFC 1122 §3.2.1.3) or that is there for it (RFC 6666). */
export const CANARY_DESTINATION: Readonly<Record<Family, Ip>> = { 4: ip("0.0.0.253"), 6: ip("100::fd") };

function ip(text: string): Ip {
  const parsed = parseIp(text);
  if (parsed === undefined) throw new Error(`${text} is no address`);
  return parsed;
}
