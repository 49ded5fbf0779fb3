import type { Ip } from "../base/address.ts";
import type { DnsName } from "../base/name.ts";
import type { NameSeen, Via } from "../model/binding.ts";

/**
 * What one pod was told by DNS: address → names. Bounded; eviction takes the address used longest ago, never one that a
 * live connection uses, and so only narrows what the pod may reach. Times are whole seconds since the epoch, the unit of
 * TTLs and of kernel timeouts (and a small integer to V8).
 *
 * An expired binding stays for a while: it allows nothing, but it explains a denial (`stale-dns`) and keeps a live
 * connection's reason when a policy change has it judged again.
 */
export interface Binding {
  readonly name: DnsName;
  via: Via;
  /** Second from which it allows nothing. */
  expires: number;
  /** Which of the address's kernel elements remembers it, 1..SLOTS; 0: none does. */
  slot: number;
  /** The address's next one. */
  next: Binding | undefined;
}

/** A decision that the kernel has for one address: the pod's connections to this port are of this class, until then. */
export interface Told {
  /** protocol << 16 | port. */
  readonly portKey: number;
  readonly kernelClass: number;
  /** Second from which the kernel does not have it any more. */
  readonly expires: number;
  /** What its element had counted when it was read last. */
  packets: number;
}

const NOTHING = -1;

/** One of a chain. */
class Decision implements Told {
  portKey = NOTHING;
  kernelClass = 0;
  expires = 0;
  packets = 0;
  more: Decision | undefined = undefined;

  /** Takes over the values of `told`. */
  become({ portKey, kernelClass, expires, packets }: Told): void {
    this.portKey = portKey;
    this.kernelClass = kernelClass;
    this.expires = expires;
    this.packets = packets;
  }
}

/**
 * One address of one pod. Its bindings are a chain: nearly always there is one, and a list of one takes as much memory again. So are
 * the kernel's decisions, and the first of these is in the object itself.
 */
export class AddressNames extends Decision {
  first: Binding | undefined;
  /** Last second in which a connection to it was seen alive. */
  live = 0;

  constructor(first: Binding) {
    super();
    this.first = first;
  }

  /** What the kernel was told of it. */
  get told(): Told[] {
    const list: Told[] = [];
    for (let one = this.firstTold; one !== undefined; one = one.more) list.push(one);
    return list;
  }

  /** The chain of the same. */
  get firstTold(): Decision | undefined {
    return this.portKey === NOTHING ? undefined : this;
  }

  toldOf(portKey: number): Told | undefined {
    let one = this.firstTold;
    while (one !== undefined && one.portKey !== portKey) one = one.more;
    return one;
  }

  /** The kernel has these now, in place of those before. */
  tell(list: readonly Told[]): void {
    this.portKey = NOTHING;
    this.more = undefined;
    let last: Decision | undefined;
    for (const told of list) {
      const one: Decision = last === undefined ? this : (last.more = new Decision());
      one.become(told);
      last = one;
    }
  }

  /** In the order in which they were heard, a list of its own. */
  get bindings(): Binding[] {
    const list: Binding[] = [];
    for (let one = this.first; one !== undefined; one = one.next) list.push(one);
    return list;
  }

  find(name: DnsName): Binding | undefined {
    let one = this.first;
    while (one !== undefined && one.name !== name) one = one.next;
    return one;
  }

  add(binding: Binding): void {
    let last = this.first;
    while (last?.next !== undefined) last = last.next;
    if (last === undefined) this.first = binding;
    else last.next = binding;
  }

  remove(binding: Binding): void {
    if (this.first === binding) this.first = binding.next;
    else for (let one = this.first; one !== undefined; one = one.next) if (one.next === binding) one.next = binding.next;
  }
}

export interface NameLimits {
  /** Addresses of one pod. */
  readonly addressesPerPod: number;
  /** Addresses of one name of one pod (PEERS: names with many or churning addresses). */
  readonly addressesPerName: number;
  /** Names of one address of one pod. */
  readonly namesPerAddress: number;
  /** Seconds that an expired binding is kept for. */
  readonly staleSeconds: number;
}

export const NAME_LIMITS: NameLimits = { addressesPerPod: 20_000, addressesPerName: 1000, namesPerAddress: 64, staleSeconds: 600 };

/** Entries looked at for one eviction. */
const EVICTION_SCAN = 32;
/** A name with this many addresses has a list of them, so that its oldest is found without a walk over all others. */
const LISTED_FROM = 64;
/** A connection seen alive this many seconds ago still counts. */
const LIVE_SECONDS = 60;
const NO_NAMES: readonly NameSeen[] = [];

export type Bound =
  | { readonly kind: "new" | "extended" | "unchanged"; readonly entry: AddressNames; readonly binding: Binding }
  /** Refused: every candidate for eviction is in use. */
  | { readonly kind: "full"; readonly which: "pod" | "name" | "node" };

/** Told that an address lost these names (all it had, or one of them), so that its kernel elements go too. */
export type Evicted = (address: Ip, entry: AddressNames, why: "limit" | "expired", lost: readonly Binding[]) => void;

export class PodNames {
  /** In order of last use, the oldest first. */
  private readonly addresses = new Map<Ip, AddressNames>();
  /**
   * How many addresses a name has; from LISTED_FROM on which, the oldest first. It costs 35 bytes a name,
   * and no name can reach its limit in a pod with fewer addresses than that: most pods never have one.
   */
  private perName: Map<DnsName, number | Set<Ip>> | undefined;
  private readonly limits: NameLimits;
  private readonly evicted: Evicted;
  private readonly room: (now: number) => boolean;
  bindings = 0;
  evictions = 0;
  refusals = 0;
  /** Until this second nothing can have been stale for long enough: bindings are only prolonged, and new ones begin fresh. */
  private quietUntil = 0;

  /** `room` is asked before a binding is added: has the node as a whole room for it? */
  constructor(evicted: Evicted, limits: NameLimits = NAME_LIMITS, room: (now: number) => boolean = () => true) {
    this.evicted = evicted;
    this.room = room;
    this.limits = limits;
  }

  get size(): number {
    return this.addresses.size;
  }

  get(address: Ip): AddressNames | undefined {
    return this.addresses.get(address);
  }

  entries(): IterableIterator<[Ip, AddressNames]> {
    return this.addresses.entries();
  }

  /** Binds `name` to `address` until second `expires`; never shortens (a second resolver may give a smaller TTL). */
  bind(name: DnsName, via: Via, address: Ip, expires: number, now: number): Bound {
    let entry = this.addresses.get(address);
    const old = entry?.find(name);
    if (entry !== undefined && old !== undefined) {
      this.touch(address, entry);
      this.touchList(name, address);
      const asked = via === "asked" && old.via !== "asked";
      if (asked) old.via = "asked";
      if (expires <= old.expires && !asked) return { kind: "unchanged", entry, binding: old };
      const fresh = old.expires > now;
      old.expires = Math.max(expires, old.expires);
      return { kind: fresh && !asked ? "extended" : "new", entry, binding: old };
    }
    if (!this.room(now)) return this.full("node");
    if (this.count(name) >= this.limits.addressesPerName && !this.evict(now, name)) return this.full("name");
    entry = this.addresses.get(address); // making room may have taken it
    const binding: Binding = { name, via, expires, slot: 1, next: undefined };
    if (entry === undefined) {
      if (this.addresses.size >= this.limits.addressesPerPod && !this.evict(now, undefined)) return this.full("pod");
      entry = new AddressNames(binding);
      this.addresses.set(address, entry);
    } else {
      if (entry.bindings.length >= this.limits.namesPerAddress) this.forget(address, entry);
      this.touch(address, entry);
      binding.slot = this.slot(entry);
      entry.add(binding);
    }
    this.list(name, address);
    this.bindings++;
    return { kind: "new", entry, binding };
  }

  private full(which: "pod" | "name" | "node"): Bound {
    this.refusals++;
    return { kind: "full", which };
  }

  private touch(address: Ip, entry: AddressNames): void {
    this.addresses.delete(address);
    this.addresses.set(address, entry);
  }

  private touchList(name: DnsName, address: Ip): void {
    const list = this.perName?.get(name);
    if (typeof list === "object" && list.delete(address)) list.add(address);
  }

  private slot(entry: AddressNames): number {
    const { bindings } = entry;
    for (let slot = 1; ; slot++) if (!bindings.some((binding) => binding.slot === slot)) return slot;
  }

  /** Makes room at an address: the name that runs out first goes, of several the one heard first. Its slot is free then. */
  private forget(address: Ip, entry: AddressNames): void {
    let soonest = entry.first as Binding;
    for (let one = soonest.next; one !== undefined; one = one.next) if (one.expires < soonest.expires) soonest = one;
    this.evictions++;
    entry.remove(soonest);
    this.unlist(soonest.name, address);
  }

  private count(name: DnsName): number {
    const held = this.perName?.get(name) ?? 0;
    return typeof held === "number" ? held : held.size;
  }

  /** `address` has `name` now. */
  private list(name: DnsName, address: Ip): void {
    if (this.perName !== undefined) this.listIn(this.perName, name, address);
    else if (this.addresses.size >= this.limits.addressesPerName) {
      this.perName = new Map();
      for (const [one, { bindings }] of this.addresses) for (const binding of bindings) this.listIn(this.perName, binding.name, one);
    }
  }

  private listIn(perName: Map<DnsName, number | Set<Ip>>, name: DnsName, address: Ip): void {
    const held = perName.get(name) ?? 0;
    if (typeof held === "object") held.add(address);
    else if (held + 1 < Math.min(LISTED_FROM, this.limits.addressesPerName)) perName.set(name, held + 1);
    else {
      const list = new Set<Ip>();
      for (const [one, entry] of this.addresses) if (entry.find(name) !== undefined) list.add(one);
      perName.set(name, list);
    }
  }

  /** A binding of `name` to `address` is gone. */
  private unlist(name: DnsName, address: Ip): void {
    this.bindings--;
    const held = this.perName?.get(name);
    if (this.perName === undefined || held === undefined) return;
    if (typeof held === "object") held.delete(address);
    else this.perName.set(name, held - 1);
    if (this.count(name) <= 0) this.perName.delete(name);
  }

  /** Drops the least recently used address (of `name`, if given: only that name of it) that no live connection uses. */
  private evict(now: number, name: DnsName | undefined): boolean {
    const list = name === undefined ? undefined : this.perName?.get(name);
    const some = typeof list === "object" ? list : undefined;
    let scanned = 0;
    for (const address of some ?? this.addresses.keys()) {
      if (++scanned > EVICTION_SCAN) return false;
      const entry = this.addresses.get(address) as AddressNames;
      if (entry.live + LIVE_SECONDS > now) {
        // In use: it must not stand before the others for ever.
        if (some === undefined) this.touch(address, entry);
        else if (some.delete(address)) some.add(address);
        continue;
      }
      this.evictions++;
      const lost = name === undefined ? undefined : entry.find(name);
      if (lost === undefined || entry.first?.next === undefined) this.drop(address, entry, "limit");
      else {
        entry.remove(lost);
        this.unlist(lost.name, address);
        this.evicted(address, entry, "limit", [lost]);
      }
      return true;
    }
    return false;
  }

  private drop(address: Ip, entry: AddressNames, why: "limit" | "expired"): void {
    this.addresses.delete(address);
    const { bindings } = entry;
    for (const binding of bindings) this.unlist(binding.name, address);
    // Well below, so that it is not built anew with every other address.
    if (this.addresses.size < this.limits.addressesPerName / 2) this.perName = undefined;
    this.evicted(address, entry, why, bindings);
  }

  /** Drops this pod's least recently used address that is not in use: the node as a whole is full. */
  makeRoom(now: number): boolean {
    return this.evict(now, undefined);
  }

  /**
   * A connection to `address` is alive: its bindings, expired ones too, last until second `until` at least. Returns
   * whether any was prolonged.
   */
  use(address: Ip, now: number, until: number): boolean {
    const entry = this.addresses.get(address);
    if (entry === undefined) return false;
    entry.live = now;
    let prolonged = false;
    for (let one = entry.first; one !== undefined; one = one.next) {
      if (one.expires >= until) continue;
      one.expires = until;
      prolonged = true;
    }
    return prolonged;
  }

  /** A connection to `address` begins: it is the one used last. Whether it lives on is for `use` to say. */
  begins(address: Ip): void {
    const entry = this.addresses.get(address);
    if (entry === undefined) return;
    this.touch(address, entry);
    for (let one = entry.first; one !== undefined; one = one.next) this.touchList(one.name, address);
  }

  /** The names of this pod for `address`, expired ones marked. */
  seen(address: Ip, now: number): readonly NameSeen[] {
    const entry = this.addresses.get(address);
    if (entry === undefined) return NO_NAMES;
    const seen: NameSeen[] = [];
    for (let one = entry.first; one !== undefined; one = one.next) seen.push({ name: one.name, via: one.via, fresh: one.expires > now });
    return seen;
  }

  /** The addresses that `name` has here, the one used last first, `max` at most. A walk over the table. */
  addressesOf(name: DnsName, max: number): Ip[] {
    const found: Ip[] = [];
    for (const [address, { bindings }] of this.addresses) if (bindings.some((binding) => binding.name === name)) found.push(address);
    return found.reverse().slice(0, max);
  }

  /** Drops what has been stale for long enough. Returns how many addresses it looked at: none, or the whole table. */
  sweep(now: number): number {
    if (now < this.quietUntil) return 0;
    const looked = this.addresses.size;
    const { staleSeconds } = this.limits;
    let quietUntil = now + staleSeconds;
    for (const [address, entry] of this.addresses) {
      let gone = entry.live + LIVE_SECONDS;
      for (let one = entry.first; one !== undefined; one = one.next) gone = Math.max(gone, one.expires + staleSeconds);
      if (gone <= now) this.drop(address, entry, "expired");
      else quietUntil = Math.min(quietUntil, gone);
    }
    this.quietUntil = quietUntil;
    return looked;
  }
}
