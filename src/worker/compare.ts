import type { NetlinkSocket } from "../base/addon.ts";
import { type Family, family, type Ip } from "../base/address.ts";
import { dnsName } from "../base/name.ts";
import { type DumpedElement, type Element, IpsetDump } from "../firewall/ipset.ts";
import { setName } from "../firewall/rules.ts";
import { VerdictClass } from "../model/verdict.ts";
import { allowed, allowedInto } from "./admission.ts";
import type { Context } from "./context.ts";
import { elementKey, FIXED_ROLES } from "./kernel.ts";
import type { GuardedPod } from "./pods.ts";

const FAMILIES = [4, 6] as const;
const INTERVAL_MS = 1000;
/**
 * A comparison may take one six-hundredth of the time. An element costs 5 to 10 µs; counted and not timed, because time
 * that passes on a busy machine is not only ours.
 */
const MS_AN_ELEMENT = 6;
/** However many there are, it is done this often. */
const INTERVAL_MS_MAX = 300_000;
/** Elements this close to their end are neither missed nor restored, seconds. */
const NEAR_END = 3;

/** Elements of ours in the sets that grow with traffic always end: no time left to tell is somebody else's, for ever. */
const FOR_EVER = 0;

/** Wanted for a name; a cached decision of its own; or nobody's. */
type Kind = "named" | "decided" | "stranger";

/**
 * Compares what we believe with what the kernel holds, a piece at a time between the packets, and repairs the difference:
 * nothing is ever "learned but not in the datapath" for longer than one round. The counters of `ng-allow`, read on the
 * way, say which rules were used by connections that userspace never saw.
 */
export class Comparison {
  private readonly context: Context;
  private readonly dump: IpsetDump;
  private busy = false;
  private nextMs = 0;
  /** Read in this round. */
  private elements = 0;
  /** Keys seen, only while looking for what a first count showed to be missing. */
  private seen: Set<string> | undefined;

  constructor(context: Context, socket: NetlinkSocket) {
    this.context = context;
    this.dump = new IpsetDump(socket);
  }

  tick(nowMs: number): void {
    if (this.busy || nowMs < this.nextMs) return;
    this.busy = true;
    this.elements = 0;
    const passes = this.passes();
    const step = (): void => {
      const { done } = passes.next();
      this.context.kernel.commit();
      if (done === true) {
        this.busy = false;
        this.nextMs = this.context.nowMs() + Math.min(INTERVAL_MS_MAX, Math.max(INTERVAL_MS, this.elements * MS_AN_ELEMENT));
      } else setImmediate(step);
    };
    setImmediate(step);
  }

  /** One whole round, now (at the start, before any packet). */
  runNow(): void {
    for (const _ of this.passes()) this.context.kernel.commit();
    this.context.kernel.commit();
  }

  /** Reads back what an earlier agent learned: every binding that a pod of ours still has a use for. Returns how many. */
  restore(): number {
    const { pods, kernel } = this.context;
    const now = this.context.now();
    let restored = 0;
    for (const of of FAMILIES) {
      this.read(setName("name", of), (element) => {
        const pod = pods.of(element.address2 as Ip);
        const via = element.comment.startsWith("~") ? "cname" : "asked";
        const name = dnsName(via === "cname" ? element.comment.slice(1) : element.comment);
        if (pod === undefined || name === undefined || !pod.guard.mentions(name, via)) {
          kernel.forget(element.address2 as Ip, element.address, element.port);
          return;
        }
        const bound = pod.guard.names.bind(name, via, element.address, now + element.timeout, now);
        if (bound.kind === "full") return;
        bound.binding.slot = element.port;
        restored++;
      });
      kernel.commit();
    }
    for (const pod of pods.byKey.values()) for (const [address] of pod.guard.names.entries()) pod.refresh(address, now);
    kernel.commit();
    return restored;
  }

  private read(set: string, onElement: (element: DumpedElement) => void): void {
    if (!this.dump.start(set)) return;
    while (this.dump.next(onElement) === "more");
    if (this.dump.refusal !== undefined) this.context.log("warn", `reading ${set} failed`, { reason: this.dump.refusal.text });
  }

  private *passes(): Generator<void> {
    for (const of of FAMILIES) for (const role of FIXED_ROLES) yield* this.fixed(setName(role, of));
    for (const of of FAMILIES) {
      yield* this.learned(setName("allow", of), of, this.allowed, (family, seen) => this.missingAllowed(family, seen));
      yield* this.learned(setName("name", of), of, this.named, (family, seen) => this.missingNamed(family, seen));
    }
  }

  private *fixed(set: string): Generator<void> {
    const { kernel } = this.context;
    const wanted = kernel.fixed.get(set) as ReadonlyMap<string, Element>;
    const right = new Set<Element>();
    const extra = new Map<string, Element>();
    const changes = kernel.fixedChanges;
    const networks = set.startsWith("ng-net");
    if (!this.dump.start(set)) return;
    let state: string;
    do {
      state = this.dump.next((e) => {
        this.elements++;
        const key = elementKey(e);
        if (e.packets > 0 && networks) this.network(set, key, e);
        const element = wanted.get(key);
        if (element === undefined) extra.set(key, strange(e));
        else if (element.markMask === undefined || e.mark === (element.mark ?? 0)) right.add(element);
      });
      yield;
    } while (state === "more");
    // What came or went meanwhile was perhaps not seen: the next round will tell.
    if (state === "failed" || kernel.fixedChanges !== changes) return;
    if (right.size === wanted.size && extra.size === 0) return;
    const missing = [...wanted.values()].filter((element) => !right.has(element));
    kernel.repairFixed(set, missing, [...extra.values()]);
    this.repaired(set, missing.length, extra.size);
  }

  private repaired(set: string, missing: number, extra: number): void {
    this.context.counters.repaired += missing + extra;
    this.context.emit({
      type: "rules",
      verdict: "info",
      why: "set-repaired",
      message: `${set} differed from what it should hold: ${missing} elements were missing, ${extra} were not ours; repaired`,
    });
  }

  /** One set that grows with traffic: strangers out, then what is missing back in. */
  private *learned(
    set: string,
    of: Family,
    known: (e: DumpedElement) => Kind,
    missing: (of: Family, seen: ReadonlySet<string> | undefined) => number,
  ): Generator<void> {
    const { kernel } = this.context;
    for (let round = 0; round < 2; round++) {
      let found = 0;
      let extra = 0;
      const before = kernel.writes;
      this.seen = round === 1 ? new Set() : undefined;
      if (!this.dump.start(set)) return;
      let state: string;
      do {
        state = this.dump.next((element) => {
          this.elements++;
          const kind = known(element);
          if (kind !== "stranger") {
            // The kernel's clock may be a second ahead of ours.
            if (kind === "named" && element.timeout > NEAR_END - 2) found++;
            this.seen?.add(elementKey(element));
            return;
          }
          extra++;
          if (set.startsWith("ng-allow")) kernel.unallow(element.address2 as Ip, element.address, (element.protocol << 16) | element.port);
          else kernel.forget(element.address2 as Ip, element.address, element.port);
        });
        yield;
      } while (state === "more");
      if (state === "failed") return;
      if (extra > 0) this.repaired(set, 0, extra);
      // What was learned while we read may stand behind the place where we were.
      const short = missing(of, this.seen) - (kernel.writes - before);
      if (round === 1) {
        if (short > 0) this.repaired(set, short, 0);
        this.seen = undefined;
      } else if (short <= found) return;
    }
  }

  private readonly allowed = (e: DumpedElement): Kind => {
    const pod = this.context.pods.of(e.address2 as Ip);
    if (pod === undefined || e.timeout === FOR_EVER) return "stranger";
    const now = this.context.now();
    const portKey = (e.protocol << 16) | e.port;
    const told = pod.guard.names.get(e.address)?.toldOf(portKey);
    if (told === undefined) {
      if (!pod.decided(e.address, portKey, now)) return e.timeout <= 1 ? "decided" : "stranger";
      if (e.packets > 0) this.passed(pod, e, pod.countDecided(e.address, portKey, e.packets), now);
      return "decided";
    }
    if (this.context.kernel.marks.classOf(e.mark) !== told.kernelClass) return "stranger";
    const { packets } = told;
    // One count for all addresses of a pod: that of the first.
    if (e.packets !== packets && pod.guard.address(family(e.address)) === e.address2) {
      told.packets = e.packets;
      this.passed(pod, e, e.packets - packets, now);
    }
    return "named";
  };

  /** The kernel let `count` more connections of the pod through by this element, and asked nobody. */
  private passed(pod: GuardedPod, e: DumpedElement, count: number, now: number): void {
    if (count <= 0 || this.context.kernel.marks.classOf(e.mark) !== VerdictClass.pass) return;
    const names = pod.guard.seen(e.address, now);
    const decision = pod.guard.decide(e.protocol, e.port, e.address, names);
    if (decision.kernel !== "pass") return;
    if (decision.verdict.action === "allow") allowed(this.context, pod, decision, e.address, e.port, e.protocol, names, undefined, count);
    else this.context.meter.decided(decision, count);
  }

  /** The same for a network that a rule has. */
  private network(set: string, key: string, e: DumpedElement): void {
    const { context } = this;
    const pod = context.pods.of(e.address);
    const use = pod?.network(`net${set.slice(-1)}${key}`);
    if (pod === undefined || use?.kernel !== "pass") return;
    allowedInto(context, pod, use, e.packets);
    context.kernel.zero(set, key);
  }

  private readonly named = (e: DumpedElement): Kind => {
    const pod = this.context.pods.of(e.address2 as Ip);
    let binding = pod?.guard.names.get(e.address)?.first;
    while (binding !== undefined && binding.slot !== e.port) binding = binding.next;
    return binding !== undefined && e.timeout !== FOR_EVER && (binding.via === "cname" ? `~${binding.name}` : binding.name) === e.comment
      ? "named"
      : "stranger";
  };

  /** Without `seen`: how many elements of a family there should be. With it: how many were missing, and are put back. */
  private missingAllowed(of: Family, seen: ReadonlySet<string> | undefined): number {
    const now = this.context.now();
    let count = 0;
    for (const pod of this.context.pods.byKey.values()) {
      for (const [address, entry] of pod.guard.names.entries()) {
        if (family(address) !== of) continue;
        for (let told = entry.firstTold; told !== undefined; told = told.more) {
          const { portKey, kernelClass, expires } = told;
          if (expires <= now + NEAR_END) continue;
          for (const own of pod.pod.addresses) {
            if (
              family(own) !== of ||
              (seen?.has(elementKey({ address, protocol: portKey >>> 16, port: portKey & 0xffff, address2: own })) ?? false)
            )
              continue;
            count++;
            if (seen === undefined) continue;
            told.packets = 0;
            this.context.kernel.allow(own, address, portKey, kernelClass, expires - now, true);
          }
        }
      }
    }
    return count;
  }

  private missingNamed(of: Family, seen: ReadonlySet<string> | undefined): number {
    const now = this.context.now();
    let count = 0;
    for (const pod of this.context.pods.byKey.values()) {
      const own = pod.guard.address(of);
      if (own === undefined) continue;
      for (const [address, { first }] of pod.guard.names.entries()) {
        if (family(address) !== of) continue;
        for (let one = first; one !== undefined; one = one.next) {
          const { name, via, expires, slot } = one;
          if (expires <= now + NEAR_END || (seen?.has(elementKey({ address, protocol: 6, port: slot, address2: own })) ?? false)) continue;
          count++;
          if (seen !== undefined) this.context.kernel.remember(own, address, slot, name, via, expires - now);
        }
      }
    }
    return count;
  }
}

/** An element that nobody wants, as it is taken out. */
function strange({ address, bits, protocol, port, address2, bits2, iface, wildcard }: DumpedElement): Element {
  return {
    address,
    bits,
    protocol,
    port,
    address2: address2 === "" ? undefined : address2,
    bits2,
    iface: iface === "" ? undefined : iface,
    wildcard,
  };
}
