import type { DnsName } from "../base/name.ts";
import { Message } from "./message.ts";
import { withoutSearch } from "./search.ts";

/** What a DNS message asks for, as far as it may carry data: any octets, and no resource record is read. */
export interface Asked {
  /** Lower case, without the pod's search suffix; octets as Latin-1, those of no host name among them. */
  name: string;
  /** Is it a DnsName? */
  host: boolean;
  type: number;
  /** Of the longest label, octets. */
  labelLength: number;
  /** `name` from here on is the domain; before are the labels that its owner is free to choose, and a dot. */
  domainAt: number;
}

const message = new Message();
const text = Buffer.alloc(256);
const asked: Asked = { name: "", host: false, type: 0, labelLength: 0, domainAt: 0 };

/** Reads the one question of a query or a reply; undefined: there is none, or it is malformed. The same object each time. */
export function readAsked(bytes: Uint8Array, start: number, end: number, searches: readonly string[]): Asked | undefined {
  if (!message.open(bytes, start, end) || message.questions !== 1 || !message.question() || !message.walk(message.owner)) return undefined;
  const { wire, wireLength } = message;
  const host = message.name();
  asked.labelLength = 0;
  for (let at = 0; at < wireLength - 1; ) {
    const length = wire[at] as number;
    if (length > asked.labelLength) asked.labelLength = length;
    for (let i = at + 1; i <= at + length; i++) text[i] = wire[i] as number;
    at += 1 + length;
    text[at] = 46;
  }
  const whole = host ?? text.toString("latin1", 1, Math.max(1, wireLength - 1));
  asked.name = withoutSearch(whole as DnsName, searches);
  asked.host = host !== undefined;
  asked.type = message.type;
  asked.domainAt = domainStart(asked.name);
  return asked;
}

/** Second-level domains below which registries of countries register (`co.uk`). */
const REGISTRIES: ReadonlySet<string> = new Set(
  "ac co com edu go gob gouv gov gub ltd me mil ne net nom or org plc sch school web".split(" "),
);
/** Labels of reverse names that stay together: a /16 of IPv4, a /32 of IPv6. */
const REVERSE_LABELS = { "in-addr.arpa": 2, "ip6.arpa": 8 } as const;

/**
 * Where in `name` the part begins that somebody may have registered: two labels, three below a registry of a country, a network of
 * reverse names. A guess: the list that is exact (publicsuffix.org) changes weekly, and a wrong guess only moves what is counted together.
 */
export function domainStart(name: string): number {
  const last = name.lastIndexOf(".");
  if (last <= 0) return 0;
  let dot = name.lastIndexOf(".", last - 1);
  if (dot <= 0) return 0;
  const labels = name.endsWith(".in-addr.arpa")
    ? REVERSE_LABELS["in-addr.arpa"]
    : name.endsWith(".ip6.arpa")
      ? REVERSE_LABELS["ip6.arpa"]
      : name.length - last === 3 && REGISTRIES.has(name.slice(dot + 1, last))
        ? 1
        : 0;
  for (let i = 0; i < labels && dot > 0; i++) dot = name.lastIndexOf(".", dot - 1);
  return dot <= 0 ? 0 : dot + 1;
}
