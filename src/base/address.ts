import type { Brand } from "./brand.ts";

/**
 * An IP address as a string of raw octets, one char (0..255) an octet: 4 chars are IPv4, 16 are IPv6. The length is the
 * family. It is cheap to read from a packet, works as a map key, and compares by prefix. Never an IPv4-mapped IPv6
 * address: the doors below turn ::ffff:a.b.c.d into IPv4.
 */
export type Ip = Brand<string, "Ip">;

/** A network: the first `bits` bits of `ip` count, the others are zero. */
export interface Cidr {
  readonly ip: Ip;
  readonly bits: number;
}

/** An address and a port (host byte order). */
export interface Endpoint {
  readonly address: Ip;
  readonly port: number;
}

export type Family = 4 | 6;

export function family(ip: Ip): Family {
  return ip.length === 4 ? 4 : 6;
}

/** Reads an IPv4 address at `offset`; the caller has checked that 4 bytes are there. */
export function ip4At(bytes: Uint8Array, offset: number): Ip {
  return String.fromCharCode(
    bytes[offset] as number,
    bytes[offset + 1] as number,
    bytes[offset + 2] as number,
    bytes[offset + 3] as number,
  ) as Ip;
}

/** Reads an IPv6 address at `offset`; the caller has checked that 16 bytes are there. Not unmapped: the wire says what it says. */
export function ip6At(bytes: Uint8Array, offset: number): Ip {
  const b = bytes;
  const o = offset;
  return String.fromCharCode(
    b[o] as number,
    b[o + 1] as number,
    b[o + 2] as number,
    b[o + 3] as number,
    b[o + 4] as number,
    b[o + 5] as number,
    b[o + 6] as number,
    b[o + 7] as number,
    b[o + 8] as number,
    b[o + 9] as number,
    b[o + 10] as number,
    b[o + 11] as number,
    b[o + 12] as number,
    b[o + 13] as number,
    b[o + 14] as number,
    b[o + 15] as number,
  ) as Ip;
}

/** Writes the octets of `ip` at `offset` and returns how many (4 or 16). */
export function putIp(bytes: Uint8Array, offset: number, ip: Ip): number {
  for (let i = 0; i < ip.length; i++) bytes[offset + i] = ip.charCodeAt(i);
  return ip.length;
}

function parse4(text: string): number[] | undefined {
  const parts = text.split(".", 5);
  if (parts.length !== 4) return undefined;
  const octets: number[] = [];
  for (const part of parts) {
    if (part.length === 0 || part.length > 3 || (part.length > 1 && part[0] === "0")) return undefined;
    let value = 0;
    for (let i = 0; i < part.length; i++) {
      const digit = part.charCodeAt(i) - 48;
      if (digit < 0 || digit > 9) return undefined;
      value = value * 10 + digit;
    }
    if (value > 255) return undefined;
    octets.push(value);
  }
  return octets;
}

function parseGroups(text: string): number[] | undefined {
  if (text === "") return [];
  const octets: number[] = [];
  const groups = text.split(":", 9);
  if (groups.length > 8) return undefined;
  for (const [i, group] of groups.entries()) {
    if (group.includes(".")) {
      const tail = i === groups.length - 1 ? parse4(group) : undefined;
      if (tail === undefined) return undefined;
      octets.push(...tail);
      continue;
    }
    if (group.length === 0 || group.length > 4) return undefined;
    let value = 0;
    for (let k = 0; k < group.length; k++) {
      const digit = Number.parseInt(group[k] as string, 16);
      if (Number.isNaN(digit)) return undefined;
      value = value * 16 + digit;
    }
    octets.push(value >> 8, value & 255);
  }
  return octets;
}

/** The textual form of RFC 4291 §2.2 or a dotted quad without leading zeros; anything else is undefined. */
export function parseIp(text: string): Ip | undefined {
  if (text.length > 45) return undefined;
  if (!text.includes(":")) {
    const octets = parse4(text);
    return octets === undefined ? undefined : (String.fromCharCode(...octets) as Ip);
  }
  const gap = text.indexOf("::");
  let octets: number[] | undefined;
  if (gap < 0) {
    octets = parseGroups(text);
  } else {
    const head = parseGroups(text.slice(0, gap));
    const tail = parseGroups(text.slice(gap + 2));
    if (head === undefined || tail === undefined || head.length + tail.length > 14) return undefined;
    octets = [...head, ...new Array<number>(16 - head.length - tail.length).fill(0), ...tail];
  }
  if (octets?.length !== 16) return undefined;
  return unmapped(String.fromCharCode(...octets) as Ip);
}

const MAPPED = "\0\0\0\0\0\0\0\0\0\0\xff\xff";

/** ::ffff:a.b.c.d becomes a.b.c.d; every other address stays as it is. */
export function unmapped(ip: Ip): Ip {
  return ip.length === 16 && ip.startsWith(MAPPED) ? (ip.slice(12) as Ip) : ip;
}

/** The canonical text: dotted quad, or RFC 5952. */
export function ipText(ip: Ip): string {
  if (ip.length === 4) return `${ip.charCodeAt(0)}.${ip.charCodeAt(1)}.${ip.charCodeAt(2)}.${ip.charCodeAt(3)}`;
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((ip.charCodeAt(i) << 8) | ip.charCodeAt(i + 1));
  let best = -1;
  let bestLength = 1;
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > bestLength) {
      best = i;
      bestLength = length;
    }
  }
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((g) => g.toString(16))
      .join(":");
  return best < 0 ? hex(0, 8) : `${hex(0, best)}::${hex(best + bestLength, 8)}`;
}

/** `a.b.c.d:port` or `[v6]:port`. */
export function endpointText(address: Ip, port: number): string {
  return address.length === 4 ? `${ipText(address)}:${port}` : `[${ipText(address)}]:${port}`;
}

/** The first `bits` bits of `ip`, the rest zero. `bits` is 0..8 × length. */
export function prefix(ip: Ip, bits: number): Ip {
  const whole = bits >> 3;
  const rest = bits & 7;
  let text: string = ip.slice(0, whole);
  if (rest > 0) text += String.fromCharCode(ip.charCodeAt(whole) & (0xff00 >> rest) & 0xff);
  return text.padEnd(ip.length, "\0") as Ip;
}

/** `address/bits`, or an address alone (a host). Host bits beyond `bits` are cleared. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf("/");
  const ip = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (ip === undefined) return undefined;
  if (slash < 0) return { ip, bits: ip.length * 8 };
  const digits = text.slice(slash + 1);
  if (digits.length === 0 || digits.length > 3) return undefined;
  for (let i = 0; i < digits.length; i++) if (digits.charCodeAt(i) < 48 || digits.charCodeAt(i) > 57) return undefined;
  const bits = Number(digits);
  if (bits > ip.length * 8) return undefined;
  return { ip: prefix(ip, bits), bits };
}

export function cidrText(cidr: Cidr): string {
  return `${ipText(cidr.ip)}/${cidr.bits}`;
}

/** Is `ip` inside `cidr`? Another family never is. */
export function inCidr(ip: Ip, cidr: Cidr): boolean {
  if (ip.length !== cidr.ip.length) return false;
  const whole = cidr.bits >> 3;
  for (let i = 0; i < whole; i++) if (ip.charCodeAt(i) !== cidr.ip.charCodeAt(i)) return false;
  const rest = cidr.bits & 7;
  return rest === 0 || ((ip.charCodeAt(whole) ^ cidr.ip.charCodeAt(whole)) & (0xff00 >> rest) & 0xff) === 0;
}

const DNS_PORT = 53;

/** `10.96.0.10:53`, `[fd00::a]:53`, or an address alone (port 53). */
export function parseEndpoint(text: string): Endpoint | undefined {
  const plain = parseIp(text);
  if (plain !== undefined) return { address: plain, port: DNS_PORT };
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const address = parseIp(match?.[1] ?? match?.[2] ?? "");
  const port = Number(match?.[3]);
  return address === undefined || port < 1 || port > 65535 ? undefined : { address, port };
}
