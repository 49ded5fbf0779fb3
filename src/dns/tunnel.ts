import type { DnsLimits } from "../model/policy.ts";
import type { Asked } from "./question.ts";

/**
 * Signs that names carry data. What is counted is below one domain, in one minute: how many different names, and what they could
 * carry. Names themselves are not kept: each is a bit of a bitmap, and how many bits are set tells how many names there were (linear
 * counting: Whang et al., ACM TODS 15(2), 1990). Memory is bounded per pod and in all; where it is full the domain with the fewest
 * names goes, so whoever asks below ever new domains hides only what is small.
 */

export const WINDOW_MS = 60_000;
/** Bits of one bitmap: within 5 % for 1000 names, within 10 % for 10 000. */
const BITS = 4096;
/** Domains of one pod, and of all: 4096 bitmaps are 2 MiB. */
export const POD_DOMAINS_MAX = 64;
export const DOMAINS_MAX = 4096;
/** Fewer octets say nothing about their entropy. */
export const ENTROPY_OCTETS = 64;

/** What was asked below one domain since `startedMs`. */
export class DomainCount {
  startedMs: number;
  queries = 0;
  /** What was last said about it, when, and how often it could have been said since. */
  said: "allow" | "would-deny" | "deny" | undefined;
  saidMs = 0;
  unsaid = 0;
  /** Different names, and octets that they could carry. Names whose bit was set already are taken to be as the others. */
  names = 0;
  data = 0;
  private readonly bitmap = new Uint32Array(BITS / 32);
  private bits = 0;
  private information = 0;

  constructor(nowMs: number) {
    this.startedMs = nowMs;
  }

  /** Bits that are set: grows with the names. */
  get size(): number {
    return this.bits;
  }

  add(hash: number, { name, domainAt }: Asked, nowMs: number): void {
    if (nowMs - this.startedMs >= WINDOW_MS || nowMs < this.startedMs) this.begin(nowMs);
    this.queries++;
    const bit = hash & (BITS - 1);
    const mask = 1 << (bit & 31);
    const word = this.bitmap[bit >>> 5] as number;
    if ((word & mask) !== 0) return;
    this.bitmap[bit >>> 5] = word | mask;
    this.bits++;
    this.information += informationOf(name, domainAt);
    const names = this.bits === BITS ? BITS * Math.log(BITS) : -BITS * Math.log1p(-this.bits / BITS);
    this.names = Math.round(names);
    this.data = Math.round((this.information * names) / this.bits / 8);
  }

  private begin(nowMs: number): void {
    this.startedMs = nowMs;
    this.queries = 0;
    this.bitmap.fill(0);
    this.bits = 0;
    this.information = 0;
    this.names = 0;
    this.data = 0;
  }
}

/** The domains of one pod. */
class PodDomains {
  readonly domains = new Map<string, DomainCount>();

  /** Makes room: what is over, or else the domain with the fewest names, the oldest of these. */
  evict(nowMs: number): void {
    let victim: string | undefined;
    let least = Infinity;
    for (const [domain, count] of this.domains) {
      const size = nowMs - count.startedMs >= WINDOW_MS ? -1 : count.size;
      if (size >= least) continue;
      [victim, least] = [domain, size];
      if (size < 0) break;
    }
    if (victim !== undefined) this.domains.delete(victim);
  }
}

/** Of all pods. `P` is only a key. */
export class Questions<P> {
  private readonly pods = new Map<P, PodDomains>();
  private readonly seed: number;
  private total = 0;

  /** `seed`: 32 bits that nobody outside knows, so that nobody can choose names that share a bit. */
  constructor(seed: number) {
    this.seed = seed >>> 0;
  }

  get size(): number {
    return this.total;
  }

  /** Counts one question; the count of its domain, which is of this minute. */
  count(pod: P, asked: Asked, nowMs: number): DomainCount {
    let own = this.pods.get(pod);
    if (own === undefined) this.pods.set(pod, (own = new PodDomains()));
    const domain = asked.name.slice(asked.domainAt);
    let count = own.domains.get(domain);
    if (count === undefined) {
      if (own.domains.size >= POD_DOMAINS_MAX) this.evict(own, nowMs);
      else if (this.total >= DOMAINS_MAX) this.evict(this.largest(), nowMs);
      own.domains.set(domain, (count = new DomainCount(nowMs)));
      this.total++;
    }
    count.add(hashOf(asked.name, this.seed), asked, nowMs);
    return count;
  }

  private evict(pod: PodDomains, nowMs: number): void {
    this.total -= pod.domains.size;
    pod.evict(nowMs);
    this.total += pod.domains.size;
  }

  private largest(): PodDomains {
    return [...this.pods.values()].reduce((a, b) => (b.domains.size > a.domains.size ? b : a));
  }

  /** Forgets what is over: in a quiet minute nothing is kept. */
  sweep(nowMs: number): void {
    for (const [pod, { domains }] of this.pods) {
      for (const [domain, { startedMs }] of domains) {
        if (nowMs - startedMs < WINDOW_MS) continue;
        domains.delete(domain);
        this.total--;
      }
      if (domains.size === 0) this.pods.delete(pod);
    }
  }
}

/** FNV-1a from a seed, and the last steps of MurmurHash3, so that the low bits depend on every octet. */
function hashOf(name: string, seed: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

const counts = new Uint16Array(256);
/** c × log2(c). */
const WEIGHTS = Float64Array.from({ length: 256 }, (_, c) => (c < 2 ? 0 : c * Math.log2(c)));

/** Bits that name[0..end) could carry, dots not counted: its length times the entropy of its octets. */
export function informationOf(name: string, end: number): number {
  let octets = 0;
  for (let i = 0; i < end; i++) {
    const octet = name.charCodeAt(i) & 255;
    if (octet === 46) continue;
    counts[octet] = (counts[octet] as number) + 1;
    octets++;
  }
  if (octets === 0) return 0;
  let repeated = 0;
  for (let i = 0; i < end; i++) {
    const octet = name.charCodeAt(i) & 255;
    repeated += WEIGHTS[counts[octet] as number] as number;
    counts[octet] = 0;
  }
  return Math.max(0, octets * Math.log2(octets) - repeated);
}

/** Octets of name[0..end) without dots. */
function octetsOf(name: string, end: number): number {
  let octets = 0;
  for (let i = 0; i < end; i++) if (name.charCodeAt(i) !== 46) octets++;
  return octets;
}

/** Limits, put together from those of policies. */
export type Limits = Omit<DnsLimits, "action" | "types"> & { readonly types: { has(type: number): boolean } };

export interface Excess {
  readonly limit: Exclude<keyof DnsLimits, "action">;
  readonly most: number;
  /** Of `types`: the number of the type. */
  readonly found: number;
}

/** The first limit that this question is beyond, or that its domain is since this minute began; undefined: none. */
export function exceeds(limits: Limits, asked: Asked, domain: DomainCount): Excess | undefined {
  const { name, type, labelLength, domainAt } = asked;
  if (limits.types.has(type)) return { limit: "types", most: 0, found: type };
  if (labelLength > limits.labelLength) return { limit: "labelLength", most: limits.labelLength, found: labelLength };
  if (name.length > limits.nameLength) return { limit: "nameLength", most: limits.nameLength, found: name.length };
  const octets = domainAt < ENTROPY_OCTETS ? 0 : octetsOf(name, domainAt);
  if (octets >= ENTROPY_OCTETS) {
    const entropy = informationOf(name, domainAt) / octets;
    if (entropy > limits.entropy) return { limit: "entropy", most: limits.entropy, found: Math.round(entropy * 100) / 100 };
  }
  if (domain.names > limits.names) return { limit: "names", most: limits.names, found: domain.names };
  if (domain.data > limits.data) return { limit: "data", most: limits.data, found: domain.data };
  if (limits.queries !== undefined && domain.queries > limits.queries)
    return { limit: "queries", most: limits.queries, found: domain.queries };
  return undefined;
}
