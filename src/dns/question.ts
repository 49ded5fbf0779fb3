import { domainStart } from "../base/domain.ts";
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
