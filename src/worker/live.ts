import type { RawSender } from "../base/addon.ts";
import { family, type Ip } from "../base/address.ts";
import { tcpProbe } from "../dns/packets.ts";
import { ConntrackBatch, type ConntrackEntry } from "../firewall/conntrack.ts";
import { Status } from "../firewall/conntrack-entry.ts";
import { Protocol } from "../model/packet.ts";
import type { Verdict } from "../model/verdict.ts";
import { VerdictClass } from "../model/verdict.ts";
import { denied } from "./admission.ts";
import type { Context } from "./context.ts";
import type { GuardedPod } from "./pods.ts";
import { mayBeDns, sayDnsUse } from "./resolvers.ts";

/** A live connection's bindings last this much longer each time it is seen, when less than half of it is left. */
const KEEP_SECONDS = 60;
const TCP_ESTABLISHED = 3; // linux/netfilter/nf_conntrack_tcp.h
/** Above this many changed pods the table is read once for all instead of once for each. */
const PODS_ONE_BY_ONE = 4;

const NOBODY: ReadonlyMap<GuardedPod, boolean> = new Map();
const NOTHING: ReadonlyMap<Ip, GuardedPod> = new Map();
/** Connections of pods that are gone whose rules are looked for, of one reading. */
const LAST_USES_MAX = 1000;

/**
 * Live connections. The control thread reads conntrack when asked (an empty table of 262 144 buckets already takes the
 * kernel 50 ms to walk: never on this thread) and hands the entries over. They keep their bindings alive, and when a
 * policy changes they are judged again: what is no longer allowed gets connmark deny, and a pod that is waiting in
 * silence is poked (a bogus ACK, which Linux answers) so that its answer is met by the reset.
 */
export class Live {
  private readonly context: Context;
  private readonly changes = new ConntrackBatch();
  private readonly sender: RawSender;
  private readonly read: (sources: readonly Ip[] | undefined) => void;
  private readonly probes: Uint8Array[] = [];
  private waiting = new Map<GuardedPod, boolean>();
  /** Addresses of pods that are gone: their connections are forgotten. */
  private waitingOrphans = new Map<Ip, GuardedPod>();
  /** What the reading under way is about. */
  private judged: ReadonlyMap<GuardedPod, boolean> = new Map();
  private orphans: ReadonlyMap<Ip, GuardedPod> = NOTHING;
  private lastUses = 0;
  private busy = false;

  /** `read` asks for all connections, or for those that these pod addresses opened. */
  constructor(context: Context, sender: RawSender, read: (sources: readonly Ip[] | undefined) => void) {
    this.context = context;
    this.sender = sender;
    this.read = read;
  }

  /**
   * Judges the pod's live connections again, soon. `lenient` (the agent has just started): a connection whose name nobody
   * remembers goes on; only what a rule clearly refuses is cut.
   */
  judge(pod: GuardedPod, lenient: boolean): void {
    this.waiting.set(pod, lenient && this.waiting.get(pod) !== false);
  }

  /** The pod is gone: a later pod with its address must not inherit its connections. */
  release(pod: GuardedPod): void {
    this.waiting.delete(pod);
    for (const address of pod.pod.addresses) this.waitingOrphans.set(address, pod);
  }

  /** Starts what is due. */
  tick(): void {
    if (this.busy || this.waiting.size + this.waitingOrphans.size === 0) return;
    this.busy = true;
    this.judged = this.waiting;
    this.orphans = this.waitingOrphans;
    this.waiting = new Map();
    this.waitingOrphans = new Map();
    this.lastUses = 0;
    const few = this.judged.size + this.orphans.size <= PODS_ONE_BY_ONE;
    this.read(few ? [...this.orphans.keys(), ...[...this.judged.keys()].flatMap(({ pod }) => pod.addresses)] : undefined);
  }

  /** Some of the connections. `end` says that these were the last; a `failed` reading is begun again. */
  take(entries: readonly ConntrackEntry[], end: "more" | "done" | "failed"): void {
    for (const entry of entries) this.look(entry, this.judged, this.orphans);
    this.apply();
    if (end === "more" || !this.busy) return;
    if (end === "failed") {
      for (const [pod, lenient] of this.judged) if (!this.waiting.has(pod)) this.waiting.set(pod, lenient);
      for (const [address, pod] of this.orphans) this.waitingOrphans.set(address, pod);
    }
    this.busy = false;
    this.judged = new Map();
    this.orphans = NOTHING;
    if (end === "done") this.tick(); // what came up meanwhile need not wait for the clock
  }

  /** Connections nobody asked about: they keep their bindings. */
  keepAll(entries: readonly ConntrackEntry[]): void {
    for (const entry of entries) this.look(entry, NOBODY, NOTHING);
    this.apply();
  }

  private look(entry: ConntrackEntry, judged: ReadonlyMap<GuardedPod, boolean>, orphans: ReadonlyMap<Ip, GuardedPod>): void {
    const { marks } = this.context.kernel;
    const current = marks.classOf(entry.mark);
    const pod = this.context.pods.of(entry.origSource);
    if (pod === undefined) {
      const gone = orphans.get(entry.origSource);
      if (current === 0 || gone === undefined) return;
      if (current === VerdictClass.pass) this.lastUse(gone, entry);
      this.changes.remove(entry, entry.id);
      return;
    }
    if (
      current === VerdictClass.dns &&
      !this.context.kernel.isResolver(entry.origDestination, (entry.protocol << 16) | entry.origDestinationPort)
    ) {
      // It was trusted when it began: what comes next is a new connection, and its answers teach nothing.
      this.changes.remove(entry, entry.id);
      return;
    }
    const alive = entry.protocol !== Protocol.TCP || entry.tcpState === TCP_ESTABLISHED;
    if (alive && current !== 0 && current !== VerdictClass.deny && current !== VerdictClass.dns) this.keep(pod, entry.origDestination);
    if (current !== 0 && current !== VerdictClass.deny && current !== VerdictClass.dns) this.sayDns(pod, entry);
    // Behind DNAT its packets do not say what they asked for.
    if ((entry.status & Status.destinationNat) !== 0 && current !== VerdictClass.pass) this.remember(pod, entry);
    const lenient = judged.get(pod);
    if (lenient !== undefined && current !== VerdictClass.dns) this.judgeOne(pod, entry, current, lenient);
  }

  /** The pod's elements went before they were read for the last time: its connections tell which rules were used. */
  private lastUse({ guard }: GuardedPod, { protocol, origDestination: address, origDestinationPort: port }: ConntrackEntry): void {
    if (++this.lastUses > LAST_USES_MAX) return;
    const names = guard.seen(address, this.context.now()).map((seen) => ({ ...seen, fresh: true }));
    const { kernel, verdict } = guard.decide(protocol, port, address, names);
    if (kernel === "pass" && verdict.action === "allow") this.context.meter.wasUsed(verdict.policy, verdict.rule);
  }

  /** What the kernel lets go by itself comes to nobody's eyes but here. */
  private sayDns(pod: GuardedPod, entry: ConntrackEntry): void {
    const { origDestination: destination, origDestinationPort: port, protocol } = entry;
    if (!mayBeDns(pod, destination, port, undefined)) return;
    const spoken = { source: entry.origSource, sourcePort: entry.origSourcePort, destination, destinationPort: port, protocol };
    const names = pod.guard.seen(destination, this.context.now());
    const { kernel, verdict, wouldDeny } = pod.guard.decide(protocol, port, destination, names);
    if (kernel === "deny") return; // it is judged again, and spoken of then
    const became = wouldDeny === undefined ? "allow" : "would-deny";
    sayDnsUse(this.context, pod, spoken, became, wouldDeny ?? verdict, names, undefined, 0);
  }

  private remember(pod: GuardedPod, entry: ConntrackEntry): void {
    pod.asked.set(
      entry.protocol,
      entry.origSourcePort,
      { address: entry.replySource, port: entry.replySourcePort },
      { address: entry.origDestination, port: entry.origDestinationPort },
    );
  }

  private keep(pod: GuardedPod, address: Ip): void {
    const now = this.context.now();
    const entry = pod.guard.names.get(address);
    if (entry === undefined) return;
    entry.live = now;
    if (entry.bindings.every(({ expires }) => expires > now + KEEP_SECONDS / 2)) return;
    if (!pod.guard.names.use(address, now, now + KEEP_SECONDS)) return;
    const own = pod.guard.address(family(address));
    if (own !== undefined)
      for (const { slot, name, via, expires } of entry.bindings) this.context.kernel.remember(own, address, slot, name, via, expires - now);
    pod.refresh(address, now);
  }

  private judgeOne(pod: GuardedPod, entry: ConntrackEntry, current: number, lenient: boolean): void {
    const { marks } = this.context.kernel;
    const { protocol, origDestination: address, origDestinationPort: port } = entry;
    // A connection outlives its binding: what was fresh when it began counts.
    const names = pod.guard.seen(address, this.context.now()).map((seen) => ({ ...seen, fresh: true }));
    const { kernel, verdict, wouldDeny } = pod.guard.decide(protocol, port, address, names);
    if (kernel !== "deny") {
      // Evidence of a connection that is under way cannot be had any more; its destination is right.
      if (current === 0 || current === VerdictClass.deny || (kernel === "pass" && current !== VerdictClass.pass))
        this.changes.setMark(entry, marks.value(VerdictClass.pass), marks.mask);
      return;
    }
    if (current === VerdictClass.deny) return;
    const refusal = verdict as Verdict & { action: "deny" };
    if (lenient && names.length === 0 && refusal.why !== "denied-by-rule" && refusal.why !== "wrong-port") {
      if (current === 0) this.changes.setMark(entry, marks.value(VerdictClass.pass), marks.mask);
      return;
    }
    this.changes.end(entry, marks.value(VerdictClass.deny), marks.mask);
    this.remember(pod, entry);
    if (protocol === Protocol.TCP && entry.tcpState > TCP_ESTABLISHED) return; // it is over; only late packets are left
    const said = wouldDeny ?? refusal;
    this.context.counters.revoked++;
    this.context.meter.denied(said.why, said.policy, said.rule, "deny");
    if (protocol === Protocol.TCP && entry.tcpState === TCP_ESTABLISHED) {
      this.probes.push(tcpProbe({ address, port }, { address: entry.origSource, port: entry.origSourcePort }));
    }
    denied(
      this.context,
      pod,
      { source: entry.origSource, sourcePort: entry.origSourcePort, destination: address, destinationPort: port, protocol },
      said,
      "deny",
      names,
      undefined,
    );
  }

  private apply(): void {
    const { kernel } = this.context;
    kernel.commit();
    if (this.changes.count > 0) {
      const { failures } = this.changes.commit(kernel.socket);
      if (failures.length > 0)
        this.context.log("warn", "conntrack entries could not be changed", { count: failures.length, first: failures[0]?.refusal.text });
    }
    for (const probe of this.probes) {
      try {
        this.sender.send(probe, probe.length, kernel.marks.value(VerdictClass.ours));
      } catch {
        // The reset then comes with the pod's next packet.
      }
    }
    this.probes.length = 0;
  }
}
