import type { NamePattern } from "../base/name.ts";
import type { Notice } from "../model/event.ts";
import { Protocol } from "../model/packet.ts";
import type { Evidence } from "../model/verdict.ts";

/** DNS with others than the trusted resolvers: recognised by what a connection shows of itself, never by asking anybody. */

export type DnsUse = Extract<Notice, "untrusted-resolver" | "dns-over-tls" | "dns-over-https">;

const DNS_PORT = 53; // RFC 1035 §4.2
const DNS_OVER_TLS_PORT = 853; // RFC 7858 §3.1, RFC 9250 §4.1.1
const HTTPS_PORT = 443;
const DNS_QUERY_PATH = "/dns-query"; // RFC 8484 §4.1.1 leaves the path open; this one is what servers have

/** Names of public DNS-over-HTTPS servers that clients bring along. Whoever wants to hide uses another: the list is no bar. */
export const HTTPS_SERVERS = [
  "dns.google",
  "dns64.dns.google",
  "one.one.one.one",
  "cloudflare-dns.com",
  "*.cloudflare-dns.com",
  "*.cloudflare-gateway.com",
  "dns.quad9.net",
  "dns9.quad9.net",
  "dns10.quad9.net",
  "dns11.quad9.net",
  "dns.opendns.com",
  "doh.opendns.com",
  "doh.familyshield.opendns.com",
  "dns.nextdns.io",
  "*.dns.nextdns.io",
  "dns.controld.com",
  "freedns.controld.com",
  "dns.adguard-dns.com",
  "family.adguard-dns.com",
  "unfiltered.adguard-dns.com",
  "dns.mullvad.net",
  "doh.cleanbrowsing.org",
  "doh.dns.sb",
  "dns.alidns.com",
  "doh.pub",
] as readonly string[] as readonly NamePattern[];

/** Matches names (lower case) against patterns, without walking them all. */
export class NameList {
  private readonly exact = new Set<string>();
  private readonly below = new Set<string>();

  constructor(patterns: readonly NamePattern[]) {
    for (const pattern of patterns) {
      if (pattern.startsWith("*.")) this.below.add(pattern.slice(2));
      else this.exact.add(pattern);
    }
  }

  has(name: string): boolean {
    if (this.exact.has(name)) return true;
    if (this.below.size === 0) return false;
    for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) if (this.below.has(name.slice(dot + 1))) return true;
    return false;
  }
}

/** May a connection to this port be DNS with somebody else? So that most are not looked at further. `known`: it is to a server of the list. */
export function maybeDns(port: number, known: boolean): boolean {
  return port === DNS_PORT || port === DNS_OVER_TLS_PORT || (port === HTTPS_PORT && known);
}

/**
 * What DNS this connection is, to an address that is no trusted resolver's; undefined: none that shows. `known`: the pod resolved
 * the name of a server of `servers` to the address. Evidence, where there is any, has the last word about port 443.
 */
export function dnsUse(
  protocol: number,
  port: number,
  known: boolean,
  evidence: Evidence | undefined,
  servers: NameList,
): DnsUse | undefined {
  if (protocol !== Protocol.TCP && protocol !== Protocol.UDP) return undefined;
  const { application, alpn, fields, serverName } = evidence ?? {};
  if (alpn?.some((name) => name === "dot" || name === "doq") === true) return "dns-over-tls"; // RFC 7858, RFC 9250 §4.1
  if (application === "dns") return "untrusted-resolver";
  const name = (serverName ?? fields?.host)?.toLowerCase();
  if (fields?.path?.startsWith(DNS_QUERY_PATH) === true || (port !== DNS_OVER_TLS_PORT && name !== undefined && servers.has(name)))
    return "dns-over-https";
  if (port === DNS_OVER_TLS_PORT) return "dns-over-tls";
  if (port === DNS_PORT) return application === undefined ? "untrusted-resolver" : undefined;
  return port === HTTPS_PORT && known && name === undefined ? "dns-over-https" : undefined;
}
