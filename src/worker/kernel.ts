import type { NetlinkSocket } from "../base/addon.ts";
import { type Family, family, type Ip } from "../base/address.ts";
import { Fault } from "../base/fault.ts";
import { type BatchResult, type DumpedElement, type Element, Ipset, IpsetBatch, type SetSpec } from "../firewall/ipset.ts";
import type { Marks } from "../firewall/marks.ts";
import { setName } from "../firewall/rules.ts";
import { Protocol } from "../model/packet.ts";
import type { Via } from "../model/binding.ts";
import type { DnsName } from "../base/name.ts";
import type { KnownHellos } from "./hellos.ts";

const FAMILIES = [4, 6] as const;

/** Elements of the sets that grow with traffic. The kernel says "full" beyond; then the answer is an upcall. */
const LEARNED_MAX = 524_288;
const DENIALS_MAX = 65_536;
/**
 * Buckets (8 bytes each) of the sets that grow with traffic: enough for 100 000 elements. A set that grows beyond its own
 * waits for all processors (synchronize_rcu in ip_set_hash_gen.h: 20 ms and more) while this thread and every packet wait for it.
 */
export const BUCKETS = 65_536;
const DENY_PAUSE_MS = 1000;
const RESOLVER_PROTOCOLS = [Protocol.TCP, Protocol.UDP];
/** Elements that are sent before more are collected: far below what a batch holds, so that no withdrawal is lost. */
const COMMIT_AT = 4096;

function specs(of: Family): SetSpec[] {
  const name = (role: Parameters<typeof setName>[0]): string => setName(role, of);
  const grows = { type: "hash:ip,port,ip", family: of, timeout: 0, hashSize: BUCKETS } as const;
  return [
    { name: name("src"), type: "hash:net,iface", family: of, skbinfo: true },
    { name: name("resolver"), type: "hash:ip,port", family: of },
    { name: name("guard"), type: "hash:ip", family: of, skbinfo: true },
    { name: name("enforce"), type: "hash:ip", family: of },
    { name: name("query"), type: "hash:ip", family: of },
    { ...grows, name: name("allow"), counters: true, skbinfo: true, maxElements: LEARNED_MAX },
    { name: name("net"), type: "hash:ip,port,net", family: of, counters: true, skbinfo: true, maxElements: LEARNED_MAX },
    { ...grows, name: name("deny"), maxElements: DENIALS_MAX },
    { ...grows, name: name("name"), comment: true, maxElements: LEARNED_MAX },
  ];
}

export const SET_NAMES: readonly string[] = FAMILIES.flatMap((of) => specs(of).map(({ name }) => name));

/** The sets whose every element is wanted as such, with no time of its own. The others are caches. */
export const FIXED_ROLES = ["src", "resolver", "guard", "enforce", "query", "net"] as const;
export type FixedRole = (typeof FIXED_ROLES)[number];

/** What tells elements of one fixed set apart. */
export function elementKey(e: Element | DumpedElement): string {
  const bits = e.bits ?? e.address.length * 8;
  const bits2 = e.address2 === undefined || e.address2 === "" ? 0 : (e.bits2 ?? e.address2.length * 8);
  return `${e.address}/${bits}|${e.protocol ?? 0}|${e.port ?? 0}|${e.address2 ?? ""}/${bits2}|${e.iface ?? ""}|${e.wildcard === true}`;
}

/**
 * Writes our sets. Nothing is sent before `commit`, which returns when the kernel has acknowledged everything: what was
 * put is true from then on. One memory element per binding (`ng-name`, never looked up by a packet), and one decision
 * element per (address, port, pod) in `ng-allow`.
 */
export class Kernel {
  readonly socket: NetlinkSocket;
  readonly marks: Marks;
  private readonly ipset: Ipset;
  private readonly batch = new IpsetBatch();
  /** What the fixed sets are to hold: set name → element key → element. */
  readonly fixed = new Map<string, Map<string, Element>>();
  /** Changes of what the fixed sets are to hold. */
  fixedChanges = 0;
  /** Until what an earlier agent left has been read: its elements keep their counters. */
  takingOver = false;
  /** The hellos that the kernel knows, where it can. */
  hellos: KnownHellos | undefined;
  private readonly resolvers = new Map<Ip, Set<number>>();
  private denyAgainMs = 0;
  /** Elements refused because a set was full. */
  full = 0;
  failures = 0;
  lastFailure = "";
  /** Writes so far: a comparison that saw this change was disturbed. */
  writes = 0;

  constructor(socket: NetlinkSocket, marks: Marks) {
    this.socket = socket;
    this.marks = marks;
    this.ipset = new Ipset(socket);
    for (const of of FAMILIES) for (const role of FIXED_ROLES) this.fixed.set(setName(role, of), new Map());
  }

  /** Makes the sets that are not there. One left behind with other parameters is replaced; a Fault says what is lacking. */
  ensureSets(): void {
    const version = this.ipset.protocol();
    if ("code" in version)
      throw new Fault(
        "ipset",
        `the kernel does not answer ipset requests: ${version.text}`,
        version.code === "permission" ? "run as root, or with CAP_NET_ADMIN" : "load the module ip_set (CONFIG_IP_SET)",
      );
    for (const spec of FAMILIES.flatMap(specs)) {
      let refusal = this.ipset.create(spec);
      if (refusal?.code === "set-exists") {
        const spare = `${spec.name}.new`;
        this.ipset.destroy(spare);
        refusal = this.ipset.create({ ...spec, name: spare }) ?? this.ipset.swap(spare, spec.name);
        this.ipset.destroy(spare);
      }
      if (refusal !== undefined) {
        throw new Fault(
          "ipset",
          `the set ${spec.name} (${spec.type}) cannot be made: ${refusal.text}`,
          refusal.code === "type"
            ? `this kernel lacks ${spec.type}: CONFIG_IP_SET_${spec.type.toUpperCase().replace(":", "_").replaceAll(",", "")}`
            : "run `namegate doctor`, or `namegate uninstall` to start afresh",
        );
      }
    }
  }

  /** Removes every set of ours that nothing refers to any more. Returns those that stayed, with the reason. */
  destroySets(): string[] {
    const kept: string[] = [];
    for (const name of SET_NAMES) {
      const refusal = this.ipset.destroy(name);
      if (refusal !== undefined && refusal.code !== "no-set") kept.push(`${name}: ${refusal.text}`);
    }
    return kept;
  }

  /** Elements of each set of ours, as the kernel counts them. */
  sizes(): Record<string, number> {
    const sizes: Record<string, number> = {};
    const list = this.ipset.list();
    if (Array.isArray(list)) for (const header of list) if (header.name.startsWith("ng-")) sizes[header.name] = header.elements;
    return sizes;
  }

  /** Connections to a resolver are the resolver's alone: `ng-allow` is looked up first, and never holds one (NG-NEW). */
  isResolver(address: Ip, portKey: number): boolean {
    return this.resolvers.get(address)?.has(portKey) ?? false;
  }

  /** The resolvers' addresses and ports, in place of those before. */
  setResolvers(resolvers: readonly { readonly address: Ip; readonly port: number }[]): void {
    const elements = resolvers.flatMap(({ address, port }) => RESOLVER_PROTOCOLS.map((protocol) => ({ address, protocol, port })));
    const wanted = new Set(elements.map(elementKey));
    for (const of of FAMILIES) {
      for (const element of (this.fixed.get(setName("resolver", of)) as Map<string, Element>).values())
        if (!wanted.has(elementKey(element))) this.removeFixed("resolver", of, element);
    }
    this.resolvers.clear();
    for (const element of elements) {
      const ports = this.resolvers.get(element.address) ?? new Set();
      this.resolvers.set(element.address, ports.add((element.protocol << 16) | element.port));
      this.putFixed("resolver", family(element.address), element);
    }
  }

  /** Adds or changes an element of a fixed set. */
  putFixed(role: FixedRole, of: Family, element: Element): void {
    this.fixedChanges++;
    const set = setName(role, of);
    const mark = element.mark === undefined ? element : { ...element, mark: this.marks.value(element.mark), markMask: this.marks.mask };
    const elements = this.fixed.get(set) as Map<string, Element>;
    const key = elementKey(element);
    const zero = role === "net" && !this.takingOver && !elements.has(key);
    elements.set(key, mark);
    this.batch.add(set, zero ? { ...mark, zero } : mark);
  }

  removeFixed(role: FixedRole, of: Family, element: Element): void {
    this.fixedChanges++;
    const set = setName(role, of);
    (this.fixed.get(set) as Map<string, Element>).delete(elementKey(element));
    this.batch.del(set, element);
  }

  /** What this element has counted has been taken in: the counter starts again at zero, so that the next agent knows what is new. */
  zero(set: string, key: string): void {
    const element = this.fixed.get(set)?.get(key);
    if (element !== undefined) this.batch.add(set, { ...element, zero: true });
  }

  /** Adds again what is wanted but missing; removes what is there but not wanted. */
  repairFixed(set: string, missing: readonly Element[], extra: readonly Element[]): void {
    for (const element of extra) this.batch.del(set, element);
    for (const element of missing) this.batch.add(set, element);
  }

  /**
   * The decision `kernelClass` (a VerdictClass) for connections of `pod` to `address` and port, for `seconds`. `fresh`: the kernel
   * did not have it, so it has counted nothing.
   */
  allow(pod: Ip, address: Ip, portKey: number, kernelClass: number, seconds: number, fresh: boolean): void {
    this.makeRoom();
    this.batch.addIpPortIp(
      setName("allow", family(address)),
      address,
      portKey >>> 16,
      portKey & 0xffff,
      pod,
      seconds,
      this.marks.value(kernelClass),
      this.marks.mask,
      "",
      fresh && !this.takingOver,
    );
  }

  unallow(pod: Ip, address: Ip, portKey: number): void {
    this.makeRoom();
    this.batch.delIpPortIp(setName("allow", family(address)), address, portKey >>> 16, portKey & 0xffff, pod);
  }

  deny(pod: Ip, address: Ip, portKey: number, seconds: number): void {
    if (performance.now() < this.denyAgainMs) return;
    this.makeRoom();
    this.batch.addIpPortIp(setName("deny", family(address)), address, portKey >>> 16, portKey & 0xffff, pod, seconds, 0, 0, "");
  }

  undeny(pod: Ip, address: Ip, portKey: number): void {
    this.makeRoom();
    this.batch.delIpPortIp(setName("deny", family(address)), address, portKey >>> 16, portKey & 0xffff, pod);
  }

  /** Remembers a binding in the kernel, for the next agent: the slot is the element's port, the name its comment. */
  remember(pod: Ip, address: Ip, slot: number, name: DnsName, via: Via, seconds: number): void {
    this.makeRoom();
    this.batch.addIpPortIp(
      setName("name", family(address)),
      address,
      Protocol.TCP,
      slot,
      pod,
      seconds,
      0,
      0,
      via === "cname" ? `~${name}` : name,
    );
  }

  forget(pod: Ip, address: Ip, slot: number): void {
    this.makeRoom();
    this.batch.delIpPortIp(setName("name", family(address)), address, Protocol.TCP, slot, pod);
  }

  private makeRoom(): void {
    if (this.batch.count >= COMMIT_AT) this.commit();
  }

  get pending(): number {
    return this.batch.count;
  }

  /** Everything put since the last commit, acknowledged. Failures are counted; a failed add means an upcall later. */
  commit(): BatchResult | undefined {
    if (this.batch.count === 0) return undefined;
    this.writes += this.batch.count;
    const result = this.batch.commit(this.socket);
    for (const { set, command, refusal } of result.failures) {
      if (refusal.code === "full") {
        this.full++;
        // Each further attempt costs ten times a good one, and a denial that is not cached is only asked for again.
        if (set.startsWith("ng-deny")) this.denyAgainMs = performance.now() + DENY_PAUSE_MS;
      } else this.failures++;
      this.lastFailure = `${command} ${set}: ${refusal.text}`;
    }
    return result;
  }
}
