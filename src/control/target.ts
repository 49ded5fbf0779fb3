import { type Ip, ipText, parseIp } from "../base/address.ts";
import { dnsName, type DnsName } from "../base/name.ts";
import { Protocol } from "../model/packet.ts";

/** Where a connection would go. One of `name` and `address` is there. */
export interface Target {
  readonly name: DnsName | undefined;
  readonly address: Ip | undefined;
  /** As in a Question: of ICMP type << 8 | code. */
  readonly port: number;
  /** IP protocol number. */
  readonly protocol: number;
}

export const TARGET_FORMS = "HOST:PORT, HOST:PORT/udp (or sctp), [IPv6]:PORT, HOST/icmp or HOST:TYPE.CODE/icmp";

const PROTOCOLS: Readonly<Record<string, number>> = {
  tcp: Protocol.TCP,
  udp: Protocol.UDP,
  sctp: Protocol.SCTP,
  icmp: Protocol.ICMP,
  icmpv6: Protocol.ICMPv6,
};
const ECHO_REQUEST: Readonly<Record<number, number>> = { [Protocol.ICMP]: 8, [Protocol.ICMPv6]: 128 };
const TEXT_MAX = 300;

/** Reads a target; text: what is wrong with it. */
export function parseTarget(text: string): Target | string {
  if (text.length > TEXT_MAX) return "it is too long";
  const slash = text.lastIndexOf("/");
  const word = slash < 0 ? "tcp" : text.slice(slash + 1).toLowerCase();
  const protocol = Object.hasOwn(PROTOCOLS, word) ? (PROTOCOLS[word] as number) : undefined;
  if (protocol === undefined) return `/${word} is none of /${Object.keys(PROTOCOLS).join(", /")}`;
  const place = slash < 0 ? text : text.slice(0, slash);
  const close = place.startsWith("[") ? place.indexOf("]") : -1;
  const colon = close >= 0 ? (place[close + 1] === ":" ? close + 1 : -1) : place.lastIndexOf(":");
  const host = close >= 0 ? place.slice(1, close) : colon < 0 ? place : place.slice(0, colon);
  if (close < 0 && host.includes(":")) return "an IPv6 address stands in brackets: [2001:db8::1]:443";
  if (close >= 0 && colon < 0 && close !== place.length - 1) return "behind the bracket comes :PORT";
  const port = portOf(colon < 0 ? undefined : place.slice(colon + 1), protocol);
  if (typeof port === "string") return port;
  const address = parseIp(host);
  if (address !== undefined) return { name: undefined, address, port, protocol };
  const name = close >= 0 || isNumber(host.slice(host.lastIndexOf(".") + 1)) ? undefined : dnsName(host);
  return name === undefined ? "the host is neither a name nor an address" : { name, address: undefined, port, protocol };
}

function portOf(text: string | undefined, protocol: number): number | string {
  const echo = ECHO_REQUEST[protocol];
  if (text === undefined) return echo === undefined ? "the port is missing" : echo << 8;
  if (echo === undefined) {
    const port = isNumber(text) ? Number(text) : 0;
    return port < 1 || port > 65_535 ? "the port is no number from 1 to 65535" : port;
  }
  const [type = "", code = "0", ...more] = text.split(".", 3);
  if (more.length > 0 || !isNumber(type) || !isNumber(code) || Number(type) > 255 || Number(code) > 255)
    return "of ICMP TYPE.CODE is wanted, two numbers up to 255";
  return (Number(type) << 8) | Number(code);
}

function isNumber(text: string): boolean {
  if (text.length === 0 || text.length > 5) return false;
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) < 48 || text.charCodeAt(i) > 57) return false;
  return true;
}

export const hostText = ({ name, address }: Target): string => name ?? ipText(address as Ip);
