import { type Ip, ip4At, ip6At, unmapped } from "../base/address.ts";
import type { DnsName } from "../base/name.ts";
import type { Learned, Via } from "../model/binding.ts";
import { Chain, HOPS_MAX } from "./chain.ts";
import { CLASS_IN, Flag, Message, Rcode, Type } from "./message.ts";
import { isSearchedName } from "./search.ts";
import { readService, type Service } from "./svcb.ts";

export { withoutSearch } from "./search.ts";

/** Addresses taken from one reply; what is over is counted. A full 64 KiB reply could name 4000. */
export const ADDRESSES_MAX = 1000;
/** Pairs of name and address taken from one reply: a long CNAME chain with many addresses is made to cost time. */
export const PAIRS_MAX = 2000;

/**
 * `learned`: there are addresses. `negative`: NXDOMAIN, or NOERROR without any address record. `nothing`: a good reply
 * without use for us (another type, or only records of other owners). `truncated`: TC was set; the addresses that came
 * whole are learned all the same. `malformed` and `ignored`: nothing is learned, `reason` says why.
 */
export type ReplyKind = "learned" | "nothing" | "negative" | "truncated" | "malformed" | "ignored";
export type ReplyReason =
  | "header" // shorter than 12 octets, or longer than 65535
  | "question" // cut off, or its name malformed
  | "answer" // a record cut off, or a name on the way malformed
  | "work" // made to cost time
  | "not-a-reply"
  | "opcode"
  | "question-count" // not exactly one
  | "class" // not IN
  | "name" // the asked name is the root, or has octets that no host name has
  | "rcode"; // SERVFAIL, REFUSED, ...

export interface ReplyOutcome {
  kind: ReplyKind;
  reason: ReplyReason | undefined;
  id: number;
  /** The asked name, lower case, as far as it could be read. */
  qname: DnsName | undefined;
  qtype: number;
  rcode: number;
  tc: boolean;
  /** An HTTPS or SVCB record of the chain carries Encrypted Client Hello keys (RFC 9848). */
  ech: boolean;
  /** Records in the answer section, as the header says. */
  answers: number;
  /** Addresses learned, hints included. */
  addresses: number;
  /** Address, CNAME and service records whose owner is not on the chain. */
  foreign: number;
  /** Records of the chain with a wrong RDLENGTH, a malformed parameter list, or a CNAME that leads nowhere new. */
  unusable: number;
  /** Addresses beyond ADDRESSES_MAX or PAIRS_MAX. */
  excess: number;
}

const message = new Message();
const chain = new Chain();
const service: Service = { priority: 0, ipv4: 0, ipv4End: 0, ipv6: 0, ipv6End: 0, ech: false };
const NO_SEARCHES: readonly string[] = [];

/**
 * What the DNS message bytes[start..end) teaches, put into `out` (emptied first). Whatever the outcome, the caller lets
 * the reply go on unharmed. Records after the answer section teach nothing and are not read. `searches`: the pod's.
 */
export function learn(
  bytes: Uint8Array,
  start: number,
  end: number,
  out: Learned[],
  searches: readonly string[] = NO_SEARCHES,
): ReplyOutcome {
  out.length = 0;
  const outcome: ReplyOutcome = {
    kind: "malformed",
    reason: "header",
    id: 0,
    qname: undefined,
    qtype: 0,
    rcode: 0,
    tc: false,
    ech: false,
    answers: 0,
    addresses: 0,
    foreign: 0,
    unusable: 0,
    excess: 0,
  };
  if (!message.open(bytes, start, end)) return outcome;
  const { flags } = message;
  outcome.id = message.id;
  outcome.rcode = flags & Flag.RCODE;
  outcome.tc = (flags & Flag.TC) !== 0;
  outcome.answers = message.answers;
  if ((flags & Flag.QR) === 0) return ended(outcome, "ignored", "not-a-reply");
  if ((flags & Flag.OPCODE) !== 0) return ended(outcome, "ignored", "opcode");
  if (message.questions !== 1) return ended(outcome, "ignored", "question-count");
  if (!message.question() || !message.walk(message.owner)) return ended(outcome, "malformed", "question");
  outcome.qtype = message.type;
  outcome.qname = message.name();
  if (message.class !== CLASS_IN) return ended(outcome, "ignored", "class");
  if (outcome.rcode === Rcode.NXDOMAIN) return ended(outcome, "negative", undefined);
  if (outcome.rcode !== Rcode.NOERROR) return ended(outcome, "ignored", "rcode");
  if (outcome.qname === undefined) return ended(outcome, "ignored", "name");
  if (!teaches(message.type)) return ended(outcome, outcome.tc ? "truncated" : "nothing", undefined);
  chain.begin();
  chain.add(message, message.owner, 0x7fffffff);
  const records = message.at;
  if (!followChain(outcome, records) || !takeAddresses(outcome, records, out, searches)) {
    out.length = 0;
    outcome.addresses = 0;
    return ended(outcome, "malformed", message.work < 0 ? "work" : "answer");
  }
  if (outcome.tc) return ended(outcome, "truncated", undefined);
  if (out.length > 0) return ended(outcome, "learned", undefined);
  return ended(outcome, outcome.foreign + outcome.unusable > 0 ? "nothing" : "negative", undefined);
}

/** A record that is not there whole ends a truncated reply, and spoils any other. */
function mayEndHere(outcome: ReplyOutcome): boolean {
  return outcome.tc && message.work >= 0;
}

function ended(outcome: ReplyOutcome, kind: ReplyKind, reason: ReplyReason | undefined): ReplyOutcome {
  outcome.kind = kind;
  outcome.reason = reason;
  return outcome;
}

function teaches(qtype: number): boolean {
  return qtype === Type.A || qtype === Type.AAAA || qtype === Type.HTTPS || qtype === Type.SVCB || qtype === Type.ANY;
}

/** Extends the chain by the CNAMEs, read again as long as one that came too early may fit now. False: malformed. */
function followChain(outcome: ReplyOutcome, records: number): boolean {
  for (let pass = 0; pass <= HOPS_MAX; pass++) {
    const before = chain.length;
    let left = 0;
    outcome.unusable = 0;
    outcome.foreign = 0;
    message.at = records;
    for (let i = 0; i < message.answers; i++) {
      if (!message.record()) return mayEndHere(outcome);
      if (message.type !== Type.CNAME || message.class !== CLASS_IN) continue;
      const owner = chain.indexOf(message, message.owner);
      if (owner === -2) return false;
      if (owner < 0) {
        left++;
      } else if (owner === chain.length - 1) {
        if (!message.walk(message.data)) return false;
        if (message.nameEnd !== message.dataEnd || !chain.add(message, message.data, message.ttl)) outcome.unusable++;
      }
    }
    outcome.foreign = left;
    if (left === 0 || chain.length === before) return true;
  }
  return true;
}

/** Takes the addresses and hints of the chain's names. False: malformed. */
function takeAddresses(outcome: ReplyOutcome, records: number, out: Learned[], searches: readonly string[]): boolean {
  message.at = records;
  for (let i = 0; i < message.answers; i++) {
    if (!message.record()) return mayEndHere(outcome);
    const { type } = message;
    if (message.class !== CLASS_IN || !(type === Type.A || type === Type.AAAA || type === Type.HTTPS || type === Type.SVCB)) continue;
    const owner = chain.indexOf(message, message.owner);
    if (owner === -2) return false;
    if (owner < 0) {
      outcome.foreign++;
      continue;
    }
    const { bytes, data, dataEnd } = message;
    const ttl = Math.min(message.ttl, chain.ttls[owner] as number);
    if (type === Type.A) {
      if (dataEnd - data !== 4) outcome.unusable++;
      else take(outcome, ip4At(bytes, data), owner, ttl, out, searches);
    } else if (type === Type.AAAA) {
      if (dataEnd - data !== 16) outcome.unusable++;
      else take(outcome, unmapped(ip6At(bytes, data)), owner, ttl, out, searches);
    } else if (!readService(bytes, data, dataEnd, service)) {
      outcome.unusable++;
    } else if (service.priority !== 0) {
      if (service.ech) outcome.ech = true;
      for (let at = service.ipv4; at < service.ipv4End; at += 4) take(outcome, ip4At(bytes, at), 0, ttl, out, searches);
      for (let at = service.ipv6; at < service.ipv6End; at += 16) take(outcome, unmapped(ip6At(bytes, at)), 0, ttl, out, searches);
    }
  }
  return true;
}

/** One address for the asked name and for every CNAME target that leads to it, up to chain index `owner`. */
function take(outcome: ReplyOutcome, address: Ip, owner: number, ttl: number, out: Learned[], searches: readonly string[]): void {
  if (outcome.addresses >= ADDRESSES_MAX || out.length > PAIRS_MAX - HOPS_MAX - 1) {
    outcome.excess++;
    return;
  }
  outcome.addresses++;
  const asked = outcome.qname as DnsName;
  for (let i = 0; i <= owner; i++) {
    const name = i === 0 ? asked : chain.name(i);
    if (name === undefined) continue;
    const via: Via = i === 0 || (i === 1 && searches.length > 0 && isSearchedName(asked, name, searches)) ? "asked" : "cname";
    out.push({ name, via, address, ttl });
  }
}
