import type { Ip } from "../base/address.ts";
import type { DnsName } from "../base/name.ts";
import { Rcode } from "../dns/message.ts";
import type { ReplyOutcome } from "../dns/reply.ts";
import type { Learned } from "../model/binding.ts";

/** Names of one pod whose last replies are remembered. */
const NAMES_MAX = 32;
/** Pairs of a reply that are looked at for its chain. */
const PAIRS_LOOKED_MAX = 64;
const NO_CHAIN: readonly DnsName[] = [];

/** The last reply about a name that had addresses. Times are seconds since the epoch. */
export interface Answered {
  readonly at: number;
  /** Who answered: behind a Service the resolver itself, not the Service's address. */
  readonly resolver: Ip;
  /** The first address, and its TTL in seconds. */
  readonly address: Ip;
  readonly ttl: number;
  /** Where the name leads: the targets of its CNAMEs, in order. */
  readonly chain: readonly DnsName[];
}

export interface Heard {
  answered: Answered | undefined;
  /** The last reply without addresses. */
  empty: { readonly at: number; readonly resolver: Ip; readonly rcode: number } | undefined;
}

/**
 * What one pod was last told about its names: for explanations only, nothing is decided by it. The names asked for last are
 * kept, and of those that a resolver library makes with search suffixes only the ones that have addresses.
 */
export class HeardReplies {
  private readonly names = new Map<DnsName, Heard>();

  take(outcome: ReplyOutcome, learned: readonly Learned[], resolver: Ip, at: number, searches: readonly string[]): void {
    const { qname, kind } = outcome;
    if (qname === undefined || kind === "malformed") return;
    const [first] = learned;
    if (first === undefined && searches.some((suffix) => qname.endsWith(`.${suffix}`))) return;
    const of = this.names.get(qname) ?? { answered: undefined, empty: undefined };
    this.names.delete(qname);
    this.names.set(qname, of);
    if (first !== undefined) of.answered = { at, resolver, address: first.address, ttl: first.ttl, chain: chainOf(qname, learned) };
    else if (kind === "negative" || outcome.rcode !== Rcode.NOERROR) of.empty = { at, resolver, rcode: outcome.rcode };
    if (this.names.size <= NAMES_MAX) return;
    for (const oldest of this.names.keys()) {
      this.names.delete(oldest);
      return;
    }
  }

  get(name: DnsName): Heard | undefined {
    return this.names.get(name);
  }

  /** Names whose chains have `name`, the one asked for last first. */
  leadingTo(name: DnsName): DnsName[] {
    return [...this.names].flatMap(([asked, { answered }]) => (answered?.chain.includes(name) === true ? [asked] : [])).reverse();
  }
}

function chainOf(asked: DnsName, learned: readonly Learned[]): readonly DnsName[] {
  let chain: DnsName[] | undefined;
  for (let i = 0; i < learned.length && i < PAIRS_LOOKED_MAX; i++) {
    const { name } = learned[i] as Learned;
    if (name === asked || chain?.includes(name) === true) continue;
    (chain ??= []).push(name);
  }
  return chain ?? NO_CHAIN;
}
