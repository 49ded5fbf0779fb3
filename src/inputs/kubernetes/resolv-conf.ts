import { type Ip, parseIp } from "../../base/address.ts";
import { namesOf } from "./objects.ts";

/** resolv.conf(5), the parts that tell whom a pod with `dnsPolicy: Default` asks. */
export interface ResolvConf {
  readonly servers: readonly Ip[];
  readonly searches: readonly string[];
}

const SERVERS_MAX = 16; // resolvers read three
const SEARCHES_MAX = 32;
const CHARS_MAX = 64 * 1024;

/** The last `search` (or `domain`) line counts. Addresses of the loopback are left out: in a pod they are the pod. */
export function readResolvConf(text: string): ResolvConf {
  const servers: Ip[] = [];
  let searches: string[] = [];
  for (const line of text.slice(0, CHARS_MAX).split("\n")) {
    const [word, ...rest] = line
      .replace(/[#;].*$/, "")
      .trim()
      .split(/\s+/);
    if (word === "search" || word === "domain") searches = namesOf(rest, SEARCHES_MAX);
    if (word !== "nameserver" || servers.length >= SERVERS_MAX) continue;
    const address = parseIp(rest[0] ?? "");
    if (address !== undefined && !isLoopback(address)) servers.push(address);
  }
  return { servers, searches };
}

function isLoopback(address: Ip): boolean {
  return address.length === 4 ? address.charCodeAt(0) === 127 : /^\0{15}\x01$/.test(address);
}
