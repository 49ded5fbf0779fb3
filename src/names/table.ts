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
}

/** One address of one pod. */
export interface AddressNames {
  readonly bindings: Binding[];
  /** Kernel decisions for this address: [protocol << 16 | port, class, expires] one behind the other. */
  elements: number[];
  /** Last second in which a connection to it was seen alive. */
  live: number;
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

/** Entries looked at for one eviction: of any name, and of one name. */
const EVICTION_SCAN = 32;
const NAME_EVICTION_SCAN = 2048;
/** A connection seen alive this many seconds ago still counts. */
const LIVE_SECONDS = 60;
const NO_NAMES: readonly NameSeen[] = [];

export type Bound =
  | { readonly kind: "new" | "extended" | "unchanged"; readonly entry: AddressNames; readonly binding: Binding }
  /** Refused: every candidate for eviction is in use, or one address has too many names. */
  | { readonly kind: "full"; readonly which: "pod" | "name" | "address" | "node" };

/** Told about an address that was dropped from the table, so that its kernel elements go too. */
export type Evicted = (address: Ip, entry: AddressNames, why: "limit" | "expired") => void;

export class PodNames {
  /** In order of last use, the oldest first. */
  private readonly addresses = new Map<Ip, AddressNames>();
  /** Addresses a name has; only names with more than one are worth an entry, but counting all is simpler. */
  private readonly perName = new Map<DnsName, number>();
  private readonly limits: NameLimits;
  private readonly evicted: Evicted;
  private readonly room: (now: number) => boolean;
  bindings = 0;
  evictions = 0;
  refusals = 0;

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
    const old = entry?.bindings.find((binding) => binding.name === name);
    if (entry !== undefined && old !== undefined) {
      this.touch(address, entry);
      const asked = via === "asked" && old.via !== "asked";
      if (asked) old.via = "asked";
      if (expires <= old.expires && !asked) return { kind: "unchanged", entry, binding: old };
      const fresh = old.expires > now;
      old.expires = Math.max(expires, old.expires);
      return { kind: fresh && !asked ? "extended" : "new", entry, binding: old };
    }
    if (!this.room(now)) return this.full("node");
    entry = this.addresses.get(address); // making room may have taken it
    const count = this.perName.get(name) ?? 0;
    if (count >= this.limits.addressesPerName && !this.evict(now, name)) return this.full("name");
    const binding: Binding = { name, via, expires, slot: 1 };
    if (entry === undefined) {
      if (this.addresses.size >= this.limits.addressesPerPod && !this.evict(now, undefined)) return this.full("pod");
      // Not pushed: a push into an empty array makes room for 17.
      entry = { bindings: [binding], elements: [], live: 0 };
      this.addresses.set(address, entry);
    } else {
      if (entry.bindings.length >= this.limits.namesPerAddress && !this.forget(entry, now)) return this.full("address");
      this.touch(address, entry);
      binding.slot = this.slot(entry);
      entry.bindings.push(binding);
    }
    this.perName.set(name, (this.perName.get(name) ?? 0) + 1);
    this.bindings++;
    return { kind: "new", entry, binding };
  }

  private full(which: "pod" | "name" | "address" | "node"): Bound {
    this.refusals++;
    return { kind: "full", which };
  }

  private touch(address: Ip, entry: AddressNames): void {
    this.addresses.delete(address);
    this.addresses.set(address, entry);
  }

  private slot(entry: AddressNames): number {
    for (let slot = 1; ; slot++) if (!entry.bindings.some((binding) => binding.slot === slot)) return slot;
  }

  /** Makes room at an address by dropping its stalest expired name; false when all are fresh. */
  private forget(entry: AddressNames, now: number): boolean {
    let at = -1;
    for (const [i, binding] of entry.bindings.entries()) {
      if (binding.expires <= now && (at < 0 || binding.expires < (entry.bindings[at] as Binding).expires)) at = i;
    }
    if (at < 0) return false;
    this.uncount((entry.bindings.splice(at, 1)[0] as Binding).name);
    return true;
  }

  private uncount(name: DnsName): void {
    this.bindings--;
    const left = (this.perName.get(name) ?? 1) - 1;
    if (left > 0) this.perName.set(name, left);
    else this.perName.delete(name);
  }

  /** Drops the least recently used address (of `name`, if given) that no live connection uses. Bounded scan. */
  private evict(now: number, name: DnsName | undefined): boolean {
    let scanned = 0;
    for (const [address, entry] of this.addresses) {
      if (name === undefined ? ++scanned > EVICTION_SCAN : ++scanned > NAME_EVICTION_SCAN) return false;
      if (entry.live + LIVE_SECONDS > now) {
        if (name === undefined) this.touch(address, entry); // in use: it must not stand before the others for ever
        continue;
      }
      if (name !== undefined && !entry.bindings.some((binding) => binding.name === name)) continue;
      this.evictions++;
      this.drop(address, entry, "limit");
      return true;
    }
    return false;
  }

  private drop(address: Ip, entry: AddressNames, why: "limit" | "expired"): void {
    this.addresses.delete(address);
    for (const binding of entry.bindings) this.uncount(binding.name);
    this.evicted(address, entry, why);
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
    for (const binding of entry.bindings) {
      if (binding.expires >= until) continue;
      binding.expires = until;
      prolonged = true;
    }
    return prolonged;
  }

  /** The names of this pod for `address`, expired ones marked. */
  seen(address: Ip, now: number): readonly NameSeen[] {
    const entry = this.addresses.get(address);
    if (entry === undefined || entry.bindings.length === 0) return NO_NAMES;
    return entry.bindings.map(({ name, via, expires }) => ({ name, via, fresh: expires > now }));
  }

  /** Drops what has been stale for long enough. Returns how many addresses it looked at (the whole table). */
  sweep(now: number): number {
    const looked = this.addresses.size;
    for (const [address, entry] of this.addresses) {
      if (entry.live + LIVE_SECONDS > now) continue;
      if (entry.bindings.every((binding) => binding.expires + this.limits.staleSeconds <= now)) this.drop(address, entry, "expired");
    }
    return looked;
  }

  /** Forgets everything, telling `evicted` about each address: the pod is gone. */
  clear(): void {
    for (const [address, entry] of this.addresses) this.drop(address, entry, "expired");
  }
}
