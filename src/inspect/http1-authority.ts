import { ipText, parseIp } from "../base/address.ts";
import { dnsName, type DnsName } from "../base/name.ts";

/** Host and port as HTTP writes them: `name`, `name:port`, `192.0.2.1:port`, `[2001:db8::1]:port` (RFC 9110 §4.2, §7.2). */
export interface Authority {
  /** Undefined for an address. */
  readonly name: DnsName | undefined;
  /** The name, or the address as text (IPv6 in brackets): two authorities of the same host have the same. */
  readonly host: string;
  readonly port: number | undefined;
}

const AUTHORITY_CHARS_MAX = 300; // 253 of a name, a dot, a colon, a port
const PORT_DIGITS_MAX = 5;

/**
 * Undefined when it is no authority that two readers would understand alike: no user information (RFC 9110 §4.2.4), no
 * percent encoding, no zone, no octet that a DnsName cannot have. An empty port (`name:`) is none (RFC 3986 §3.2.3).
 */
export function readAuthority(text: string): Authority | undefined {
  if (text.length === 0 || text.length > AUTHORITY_CHARS_MAX) return undefined;
  const bracket = text.charCodeAt(0) === 0x5b ? text.indexOf("]") : 0;
  if (bracket < 0) return undefined;
  const colon = text.indexOf(":", bracket);
  const hostEnd = colon < 0 ? text.length : colon;
  const port = colon < 0 ? undefined : portOf(text, colon + 1);
  if (port === "bad") return undefined;
  if (bracket > 0) {
    const ip = hostEnd === bracket + 1 ? parseIp(text.slice(1, bracket)) : undefined;
    if (ip === undefined || !text.slice(1, bracket).includes(":")) return undefined;
    const host = ipText(ip);
    return { name: undefined, host: ip.length === 4 ? host : `[${host}]`, port };
  }
  const host = text.slice(0, hostEnd);
  if (parseIp(host) !== undefined) return { name: undefined, host, port };
  const name = dnsName(host);
  return name === undefined ? undefined : { name, host: name, port };
}

function portOf(text: string, at: number): number | undefined | "bad" {
  if (at === text.length) return undefined;
  if (text.length - at > PORT_DIGITS_MAX) return "bad";
  let port = 0;
  for (let i = at; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return "bad";
    port = port * 10 + digit;
  }
  return port > 0 && port <= 65_535 ? port : "bad";
}

/** Do both mean the same host? A port counts where both have one. */
export function sameAuthority(a: Authority, b: Authority): boolean {
  return a.host === b.host && (a.port === undefined || b.port === undefined || a.port === b.port);
}
