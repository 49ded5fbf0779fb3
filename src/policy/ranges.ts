import type { Cidr, Ip } from "../base/address.ts";
import type { Network, PortMatch } from "../model/policy.ts";

/**
 * A set as sorted, disjoint, half-open intervals: value i is in [starts[i], ends[i]). A lookup is one binary search
 * (17 comparisons for 50 000 networks) and allocates nothing. Octet strings compare as the addresses do.
 */
export interface Ranges<T extends string | number> {
  readonly starts: readonly T[];
  readonly ends: readonly T[];
}

/** Addresses of the two families, which never compare with each other. */
export interface AddressRanges {
  readonly v4: Ranges<string>;
  readonly v6: Ranges<string>;
}

/** Greater than every address: an octet that cannot be. */
const BEYOND = "\u0100";

/** The first address after `cidr`. */
export function endOf(cidr: Cidr): string {
  if (cidr.bits === 0) return BEYOND;
  const octets = Array.from(cidr.ip, (char) => char.charCodeAt(0));
  let at = (cidr.bits - 1) >> 3;
  let add = 1 << (7 - ((cidr.bits - 1) & 7));
  for (; at >= 0 && add > 0; at--) {
    const sum = (octets[at] as number) + add;
    octets[at] = sum & 255;
    add = sum >> 8;
  }
  return add > 0 ? BEYOND : String.fromCharCode(...octets);
}

type Interval<T> = readonly [start: T, end: T];

function union<T extends string | number>(intervals: Interval<T>[]): Ranges<T> {
  intervals.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
  const starts: T[] = [];
  const ends: T[] = [];
  for (const [start, end] of intervals) {
    const last = ends.length - 1;
    if (last >= 0 && start <= (ends[last] as T)) {
      if (end > (ends[last] as T)) ends[last] = end;
    } else {
      starts.push(start);
      ends.push(end);
    }
  }
  return { starts, ends };
}

/** What is left of one network after its exceptions. */
function* withoutExcept(network: Network): Generator<Interval<string>> {
  const holes = network.except.filter((cidr) => cidr.ip.length === network.cidr.ip.length);
  holes.sort((a, b) => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : 0));
  const end = endOf(network.cidr);
  let at: string = network.cidr.ip;
  for (const hole of holes) {
    if (hole.ip > at) yield [at, hole.ip < end ? hole.ip : end];
    const after = endOf(hole);
    if (after > at) at = after;
    if (at >= end) return;
  }
  yield [at, end];
}

export function addressRanges(networks: readonly Network[]): AddressRanges {
  const v4: Interval<string>[] = [];
  const v6: Interval<string>[] = [];
  for (const network of networks) {
    const into = network.cidr.ip.length === 4 ? v4 : v6;
    for (const interval of withoutExcept(network)) into.push(interval);
  }
  return { v4: union(v4), v6: union(v6) };
}

/** A protocol and a port in one number, protocol << 16 | port. */
export function packPort(protocol: number, port: number): number {
  return (protocol << 16) | port;
}

export function portRanges(ports: readonly PortMatch[]): Ranges<number> {
  return union(ports.map((match) => [packPort(match.protocol, match.first), packPort(match.protocol, match.last) + 1] as const));
}

/** The index of the first interval that ends after `value`. */
function search<T extends string | number>(ranges: Ranges<T>, value: T): number {
  let low = 0;
  let high = ranges.ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ranges.ends[middle] as T) > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

export function inRanges<T extends string | number>(ranges: Ranges<T>, value: T): boolean {
  const at = search(ranges, value);
  return at < ranges.starts.length && (ranges.starts[at] as T) <= value;
}

export function hasAddress(ranges: AddressRanges, ip: Ip): boolean {
  return inRanges(ip.length === 4 ? ranges.v4 : ranges.v6, ip as string);
}

/** Do the ranges and `cidr` have an address in common? */
export function overlaps(ranges: AddressRanges, cidr: Cidr): boolean {
  const side = cidr.ip.length === 4 ? ranges.v4 : ranges.v6;
  const at = search(side, cidr.ip as string);
  return at < side.starts.length && (side.starts[at] as string) < endOf(cidr);
}
