import { type Family, family, type Ip, parseIp } from "../base/address.ts";
import type { Attachment } from "../model/attachment.ts";
import type { Learned } from "../model/binding.ts";
import type { Element } from "../firewall/ipset.ts";
import type { Pod } from "../model/snapshot.ts";
import { SourceClass, VerdictClass } from "../model/verdict.ts";
import type { AddressNames, Binding, Told } from "../names/table.ts";
import { Guard, type KernelClass, type NetworkDecision, type Rulebook } from "./guard.ts";
import { Asked } from "./asked.ts";
import { Decisions } from "./decisions.ts";
import { HeardReplies } from "./heard.ts";
import { Owed } from "./owed.ts";
import { elementKey, type FixedRole, type Kernel } from "./kernel.ts";
import { TokenBucket } from "../base/bucket.ts";
import { TCP_LIMITS, type TcpLimits, TcpMessages } from "../dns/tcp.ts";
import { Patches } from "../dns/rewrite.ts";
import { Elsewhere } from "./resolvers.ts";
import type { Limits } from "./protocol.ts";

/** Decisions and denials of one pod that the kernel is told beside its names. More are simply asked for again. */
const DECISIONS_MAX = 4096;
const DENIALS_MAX = 8192;
/** Decisions that the kernel holds for the names of one pod: a sixteenth of the set. More are asked for. */
const PRELOADED_MAX = 32_768;
/** Canaries by one pod's interface that the control thread is told of, per second and at once: a round has three for each address. */
const CANARIES_PER_SECOND = 10;
const CANARIES_BURST = 50;
/** Milliseconds of the packet thread that one pod may have of each second, and at once; other pods need the rest. */
const WORK_PER_SECOND_MS = 700;
const WORK_BURST_MS = 50;
/** A policy change: longest that one address is preloaded for, and addresses between two turns of the packets. */
const REFRESH_MS = 4;
const REFRESHES = 32;
/** DNS over TCP of one pod, each way: a pod that opens many connections loses its own. */
const STREAM_LIMITS: TcpLimits = { ...TCP_LIMITS, connections: 512, octets: 512 * 1024 };
/** Seconds that a decision without a name lasts, and a denial. */
export const DECISION_SECONDS = 60;
export const DENIAL_SECONDS = 5;

/**
 * Denied connections answered by ICMP; further ones are dropped. Linux answers 6 at once and then one a second to an address
 * (`net.ipv4.icmp_ratelimit`; RFC 1812 4.3.2.8, RFC 4443 2.4 f), but finds that out only when it has routed the packet: a
 * quarter of what a flood costs this thread.
 */
const UNREACHABLES_PER_SECOND = 100;
const UNREACHABLES_BURST = 100;

/** Seconds that the kernel's decisions for an address must still last for, so that a reply need not wait for longer ones. */
const OUTLAST_SECONDS = 2;

/** Has the kernel its decisions for this address for a while? The second that has begun may be nearly over. */
function outlasts({ firstTold }: AddressNames, now: number): boolean {
  for (let one = firstTold; one !== undefined; one = one.more) if (one.expires - now < OUTLAST_SECONDS) return false;
  return firstTold !== undefined;
}

interface Fixed {
  readonly role: FixedRole;
  readonly family: Family;
  readonly element: Element;
  /** Of `ng-net`: what connections that the kernel lets through by it are uses of. */
  readonly use: NetworkDecision | undefined;
}

/** A guarded pod and everything the kernel holds for it. */
export class GuardedPod {
  readonly guard: Guard;
  attachment: Attachment;
  private fixed = new Map<string, Fixed>();
  private readonly decisions = new Decisions(DECISIONS_MAX);
  private readonly denials = new Decisions(DENIALS_MAX);
  readonly upcalls: TokenBucket;
  readonly events: TokenBucket;
  /** Denied connections whose sender is told so by ICMP. */
  readonly unreachables = new TokenBucket(UNREACHABLES_PER_SECOND, UNREACHABLES_BURST);
  readonly canaries = new TokenBucket(CANARIES_PER_SECOND, CANARIES_BURST);
  /** What is left of the pod's share of the packet thread, in milliseconds. */
  readonly work = new TokenBucket(WORK_PER_SECOND_MS, WORK_BURST_MS);
  readonly queryStreams = new TcpMessages("pod", STREAM_LIMITS);
  readonly replyStreams = new TcpMessages("resolver", STREAM_LIMITS);
  /** Replies over TCP that were changed on their way. */
  readonly replyPatches = new Patches();
  /** What its connections asked for, where they are seen behind DNAT only. */
  readonly asked = new Asked();
  /** What resolvers said last, for `namegate explain`. */
  readonly heard = new HeardReplies();
  /** Addresses that there was no time to tell the kernel of. */
  readonly owed = new Owed();
  /** Its DNS with servers that are not trusted. */
  readonly elsewhere = new Elsewhere();
  /** `policy/rule` → connections seen. */
  readonly ruleHits = new Map<string, number>();
  /** Events held back since the last one that went out. */
  heldBack = 0;
  /** Packets beyond its limits since that was last said, and when it was. */
  limited = 0;
  limitSaid = 0;
  /** Kernel decisions for names. */
  private preloaded = 0;
  private readonly kernel: Kernel;
  /** Interface groups tell whose veth a packet came from; else ng-src has to (for 64 pods at most). */
  private readonly groups: boolean;

  /** `room`: see PodNames. */
  constructor(
    pod: Pod,
    book: Rulebook,
    attachment: Attachment,
    kernel: Kernel,
    limits: Limits,
    room?: (now: number) => boolean,
    groups = true,
  ) {
    this.kernel = kernel;
    this.groups = groups;
    this.attachment = attachment;
    this.guard = new Guard(pod, book, (address, entry, why, lost) => this.evicted(address, entry, why, lost), room);
    this.upcalls = new TokenBucket(limits.upcallsPerSecond, limits.upcallsPerSecond * 2);
    this.events = new TokenBucket(limits.eventsPerSecond, limits.eventsPerSecond * 4);
  }

  get pod(): Pod {
    return this.guard.pod;
  }

  /** What is left of the address's names is asked for. */
  private evicted(address: Ip, entry: AddressNames, why: "limit" | "expired", lost: readonly Binding[]): void {
    if (why === "expired") {
      this.preloaded -= entry.told.length;
      return; // the kernel's own timeout was there first
    }
    const own = this.guard.address(family(address));
    if (own !== undefined) for (const { slot } of lost) this.kernel.forget(own, address, slot);
    this.dropElements(address, entry);
    this.decisions.forget(address, this.unallow);
    this.kernel.hellos?.forget(this, address);
  }

  private *own(of: Family): Generator<Ip> {
    for (const address of this.pod.addresses) if (family(address) === of) yield address;
  }

  private dropElements(address: Ip, entry: AddressNames): void {
    const { told } = entry;
    for (const { portKey } of told) for (const own of this.own(family(address))) this.kernel.unallow(own, address, portKey);
    this.preloaded -= told.length;
    entry.tell([]);
  }

  /** What the fixed sets hold for this pod: who it is, and the networks that need no name. */
  writeFixed(covered: (iface: string) => boolean): void {
    const wanted = new Map<string, Fixed>();
    const want = (role: FixedRole, of: Family, element: Element, use?: NetworkDecision): void => {
      wanted.set(`${role}${of}${elementKey(element)}`, { role, family: of, element, use });
    };
    const { book, pod } = this.guard;
    const attachment = this.attachment;
    if (attachment.kind !== "missing") {
      const enforcing = book.enforce !== undefined;
      const mark = enforcing ? SourceClass.enforce : SourceClass.monitor;
      const iface = attachment.kind === "bridged" ? attachment.bridge : attachment.interface;
      const networks = this.guard.networks();
      for (const address of pod.addresses) {
        const of = family(address);
        want("src", of, { address, bits: address.length * 8, iface, mark });
        want("guard", of, { address, mark: enforcing ? SourceClass.spoof : 0 });
        if (enforcing) want("enforce", of, { address });
        if (book.restrictsQueries) want("query", of, { address });
        for (const use of networks) {
          const { cidr, protocol, port, kernel } = use;
          if (cidr.ip.length !== address.length) continue;
          // The kernel has no /0 here: two halves.
          const halves = cidr.bits > 0 ? [cidr] : [cidr, { ip: (String.fromCharCode(128) + cidr.ip.slice(1)) as Ip, bits: 1 }];
          for (const half of halves)
            want("net", of, { address, protocol, port, address2: half.ip, bits2: Math.max(half.bits, 1), mark: VerdictClass[kernel] }, use);
        }
      }
      // Without interface groups: whatever else comes out of this veth has a stolen address. (A bridge port: NG-BRIDGE says it.)
      if (attachment.kind === "routed" && !this.groups && !covered(iface)) {
        for (const any of ["0.0.0.0", "::"]) {
          const address = parseIp(any) as Ip;
          want("src", family(address), { address, bits: 0, iface, mark: enforcing ? SourceClass.spoof : SourceClass.monitor });
        }
      }
    }
    for (const [key, { role, family: of, element }] of this.fixed) if (!wanted.has(key)) this.kernel.removeFixed(role, of, element);
    for (const [key, { role, family: of, element }] of wanted) {
      if (this.fixed.get(key)?.element.mark !== element.mark || !this.fixed.has(key)) this.kernel.putFixed(role, of, element);
    }
    this.fixed = wanted;
  }

  /**
   * Takes in what one reply taught; the kernel knows when `commit` returns. `refused`: a bound stands against it. `longer`: it
   * is known, and the kernel has it for long enough that `prolong` need not come before the reply is released. What is not
   * preloaded by `until` (of performance.now()) is asked for at the first packet, until `settle` has been there.
   */
  learn(learned: Learned, now: number, until = Infinity): "known" | "longer" | "refused" {
    const own = this.guard.address(family(learned.address));
    if (own === undefined) return "known"; // the pod has no address of that family and cannot go there
    const bound = this.guard.learn(learned, now);
    if (bound === undefined || bound.kind === "unchanged") return "known";
    if (bound.kind === "full") return "refused";
    if (bound.kind === "extended" && outlasts(bound.entry, now)) return "longer";
    // What was decided without this name may be decided otherwise with it.
    if (bound.kind === "new") {
      this.decisions.forget(learned.address, this.unallow);
      this.denials.forget(learned.address, this.undeny);
      this.kernel.hellos?.forget(this, learned.address);
    }
    this.tell(own, learned.address, bound.binding, now, until);
    return "known";
  }

  /** The kernel is told for how long a binding lasts that it has: see `learn`. */
  prolong({ name, address }: Learned, now: number, until = Infinity): void {
    const own = this.guard.address(family(address));
    const binding = this.guard.names.get(address)?.find(name);
    if (own !== undefined && binding !== undefined) this.tell(own, address, binding, now, until);
  }

  private tell(own: Ip, address: Ip, { slot, name, via, expires }: Binding, now: number, until: number): void {
    this.kernel.remember(own, address, slot, name, via, expires - now);
    this.refresh(address, now, until);
  }

  /** Brings the kernel's decisions for one address in line with its names and the policies. */
  refresh(address: Ip, now: number, until = Infinity): void {
    const entry = this.guard.names.get(address);
    if (entry === undefined) return;
    const old = entry.told;
    const others = this.preloaded - old.length;
    const elements = others < PRELOADED_MAX ? this.guard.elements(address, now, until) : [];
    if (elements === undefined) this.owed.add(address);
    const found = elements ?? [];
    const wanted = others + found.length > PRELOADED_MAX ? [] : found.filter(({ portKey }) => !this.kernel.isResolver(address, portKey));
    this.preloaded = others + wanted.length;
    for (const one of old) {
      if (wanted.some(({ portKey }) => portKey === one.portKey)) continue;
      for (const own of this.own(family(address))) this.kernel.unallow(own, address, one.portKey);
    }
    const next = wanted.map(({ portKey, kernel, expires }): Told => {
      const kernelClass = VerdictClass[kernel];
      const before = entry.toldOf(portKey);
      if (before?.kernelClass !== kernelClass || before.expires !== expires)
        for (const own of this.own(family(address)))
          this.kernel.allow(own, address, portKey, kernelClass, expires - now, before === undefined);
      return { portKey, kernelClass, expires, packets: before?.packets ?? 0 };
    });
    entry.tell(next);
  }

  /** The decisions for an address that there was no time for; what was asked for meanwhile has a shorter life than a name. */
  settle(address: Ip, now: number, until: number): void {
    this.decisions.forget(address, this.unallow);
    this.refresh(address, now, until);
  }

  /** What the kernel was told about an address is decided anew. */
  forget(address: Ip, now: number): void {
    this.decisions.forget(address, this.unallow);
    this.refresh(address, now);
  }

  private readonly unallow = (address: Ip, portKey: number): void => {
    for (const own of this.own(family(address))) this.kernel.unallow(own, address, portKey);
  };

  private readonly undeny = (address: Ip, portKey: number): void => {
    for (const own of this.own(family(address))) this.kernel.undeny(own, address, portKey);
  };

  /** The kernel may repeat this decision for a while. */
  remember(address: Ip, portKey: number, kernelClass: KernelClass, expires: number, now: number): void {
    if (expires <= now || this.kernel.isResolver(address, portKey)) return;
    const fresh = !this.decisions.has(address, portKey, 0);
    if (!this.decisions.put(address, portKey, expires)) return;
    for (const own of this.own(family(address))) this.kernel.allow(own, address, portKey, VerdictClass[kernelClass], expires - now, fresh);
  }

  rememberDenial(address: Ip, portKey: number, now: number): void {
    if (!this.denials.put(address, portKey, now + DENIAL_SECONDS)) return;
    for (const own of this.own(family(address))) this.kernel.deny(own, address, portKey, DENIAL_SECONDS);
  }

  /** Is this decision (one without a name of its own) one that we gave? */
  decided(address: Ip, portKey: number, now: number): boolean {
    return this.decisions.has(address, portKey, now);
  }

  /** Counts uses of a rule (`policy/rule`). Are they the first? */
  firstUse(rule: string, count: number): boolean {
    const before = this.ruleHits.get(rule) ?? 0;
    this.ruleHits.set(rule, before + count);
    return before === 0;
  }

  /** Packets that the kernel's element of such a decision has counted: how many are new? */
  countDecided(address: Ip, portKey: number, packets: number): number {
    return this.decisions.count(address, portKey, packets);
  }

  /** The rules behind an element of `ng-net`. */
  network(key: string): NetworkDecision | undefined {
    return this.fixed.get(key)?.use;
  }

  /** Forgets what has run out. */
  sweep(now: number): void {
    this.decisions.sweep(now);
    this.denials.sweep(now);
    this.guard.names.sweep(now);
    this.queryStreams.expire(now * 1000);
    this.replyStreams.expire(now * 1000);
  }

  /** Takes back every cached decision and denial: the policies have changed. */
  flush(): void {
    this.decisions.clear(this.unallow);
    this.denials.clear(this.undeny);
    this.kernel.hellos?.forget(this);
  }

  /** New policies, or another attachment. Names are kept, and judged anew; packets get a turn at each `yield`. */
  *update(book: Rulebook, attachment: Attachment, covered: (iface: string) => boolean, now: number, pod: Pod): Generator<void> {
    const changed = this.guard.book !== book;
    this.guard.pod = pod;
    this.attachment = attachment;
    if (changed) {
      this.guard.adopt(book, now, (learned, expires, slot) => {
        const own = this.guard.address(family(learned.address));
        if (own !== undefined) this.kernel.remember(own, learned.address, slot, learned.name, learned.via, expires - now);
      });
      this.flush();
      this.ruleHits.clear();
    }
    this.writeFixed(covered);
    if (!changed) return;
    // A reply may touch the table between two steps, so the walk has a list of its own.
    const addresses = [...this.guard.names.entries()].map(([address]) => address);
    for (const [i, address] of addresses.entries()) {
      this.refresh(address, now, performance.now() + REFRESH_MS);
      if (i % REFRESHES === REFRESHES - 1) yield;
    }
  }

  /** The pod is gone, or no longer guarded: the kernel forgets it. Its names explain its last connections (worker/live.ts). */
  remove(): void {
    for (const { role, family: of, element } of this.fixed.values()) this.kernel.removeFixed(role, of, element);
    this.fixed.clear();
    this.flush();
    for (const [address, entry] of this.guard.names.entries()) {
      const own = this.guard.address(family(address));
      if (own !== undefined) for (const { slot } of entry.bindings) this.kernel.forget(own, address, slot);
      this.dropElements(address, entry);
    }
  }
}
