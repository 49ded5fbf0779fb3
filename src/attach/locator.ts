import type { Ip } from "../base/address.ts";
import { BridgeTables } from "./bridge.ts";
import { type CgroupUid, cgroupUid } from "./cgroup-path.ts";
import { CgroupTree } from "./cgroups.ts";
import { bridgeNetfilter } from "./interface.ts";
import { type Judgement, judge, nameOf } from "./judge.ts";
import type { Link, LinkTable } from "./link.ts";
import type { Network } from "./network.ts";
import { cgroupsOf, type Finding, type Located, type PodPlace } from "./place.ts";
import { Processes } from "./processes.ts";
import { hear, type Testimony } from "./witness.ts";

/** Pods of a node: the kubelet takes 110 by default, large nodes 500; beyond this they are said to be unknown. */
const PODS_MAX = 4096;
/**
 * After this time a pod is looked at again though nothing seems to have changed: one that is apart, one that nobody asks about, and
 * the other witnesses of one whose processes have spoken. A pod that is not found yet is looked for each time.
 */
const LOOK_AGAIN_MS = 5000;
/** Pods whose other witnesses are heard again in one refresh; the rest is for the next ones. */
const AGAIN_MAX = 16;
/** A scan of /proc costs some 10 µs a process. */
const SCAN_AGAIN_MS = 1000;
const NOTHING: Testimony = { kind: "nothing", why: "no process of it runs on this node" };

export interface LocatorOptions {
  readonly network: Network;
  /** /proc and /sys of the node, as this process sees them. */
  readonly proc?: string;
  readonly sys?: string;
  /** The node's cgroup tree: /sys/fs/cgroup, or where it is mounted in the agent's container. */
  readonly cgroup?: string;
}

/** A testimony, and when it was heard. */
interface Heard {
  readonly testimony: Testimony;
  readonly atMs: number;
}

/** A judgement, and what it was made of. */
interface Judged extends Judgement {
  readonly heard: Heard | undefined;
  readonly addresses: string;
  readonly atMs: number;
}

/**
 * Pod → host-side interface. `refresh` looks at the node, once for all pods; `find` says what it saw. Whose interface one is
 * stays known by its index for as long as it is there, so a new pod of the same name or address does not inherit it.
 */
export class Locator {
  private readonly network: Network;
  private readonly proc: string;
  private readonly sys: string;
  private readonly tree: CgroupTree;
  private readonly processes: Processes;
  private readonly heard = new Map<CgroupUid, Heard>();
  /** Interface index → whose it is, where no process says so: the pod's UID and name. */
  private readonly held = new Map<number, { readonly uid: string; readonly name: string }>();
  private judged = new Map<string, Judged>();
  private scanned: { readonly pids: ReadonlyMap<CgroupUid, readonly number[]>; readonly atMs: number } | undefined;
  private trouble: string | undefined;

  constructor({ network, proc = "/proc", sys = "/sys", cgroup = "/sys/fs/cgroup" }: LocatorOptions) {
    this.network = network;
    this.proc = proc;
    this.sys = sys;
    this.tree = new CgroupTree(cgroup);
    this.processes = new Processes(proc);
  }

  /**
   * Looks where the interfaces of these pods are: all pods of this node that run, terminated ones left out. Synchronous; see
   * ARCHITECTURE.md for what it costs. `nowMs` is any clock that only goes forward. Returns why the node could not be looked
   * at; what was found before then stays.
   */
  refresh(pods: readonly PodPlace[], nowMs: number): string | undefined {
    const links = this.network.links();
    if ("bad" in links) {
      this.trouble = `the interfaces of this node cannot be read: ${links.bad}`;
      return this.trouble;
    }
    this.trouble = undefined;
    const known = pods.slice(0, PODS_MAX);
    this.hearAll(known, links, nowMs);
    this.judgeAll(known, links, nowMs);
    return undefined;
  }

  /** What the last refresh found. */
  find(pod: PodPlace): Located {
    const judgement = this.judged.get(pod.uid);
    return judgement?.located ?? { kind: "later", why: this.trouble ?? "it has not been looked for yet" };
  }

  /** What an operator should know about the pods of the last refresh. */
  findings(): readonly Finding[] {
    return [...this.judged.values()].flatMap(({ findings }) => findings);
  }

  private hearAll(pods: readonly PodPlace[], links: LinkTable, nowMs: number): void {
    const wanted = new Set(pods.flatMap((pod) => (pod.hostNetwork ? [] : cgroupsOf(pod))));
    const hostNetwork = new Set(pods.map((pod) => (pod.hostNetwork ? cgroupUid(pod.uid) : undefined)));
    const there = this.pidsByPod(nowMs, wanted.size > 0);
    for (const uid of this.heard.keys()) if (!there.has(uid)) this.heard.delete(uid);
    for (const [uid, pids] of there) {
      if (hostNetwork.has(uid)) continue;
      const before = this.heard.get(uid);
      if (before !== undefined && stands(before, links, wanted.has(uid), nowMs)) continue;
      this.heard.set(uid, { testimony: hear(uid, pids(), links, this.network, this.processes), atMs: nowMs });
    }
  }

  /**
   * Every pod that has a cgroup, also those that the API does not name (yet, or any more): theirs are interfaces that nobody
   * else can have.
   */
  private pidsByPod(nowMs: number, wanted: boolean): ReadonlyMap<CgroupUid, () => readonly number[]> {
    const folders = this.tree.pods(nowMs);
    if (folders.size > 0 || !wanted) return new Map([...folders].map(([uid, own]) => [uid, () => this.tree.pids(own)]));
    // The agent itself is in a pod: no pod at all means that the node's tree is not to be seen.
    if (this.scanned === undefined || nowMs - this.scanned.atMs >= SCAN_AGAIN_MS)
      this.scanned = { pids: this.processes.scan(), atMs: nowMs };
    return new Map([...this.scanned.pids].map(([uid, pids]) => [uid, () => pids]));
  }

  private judgeAll(pods: readonly PodPlace[], links: LinkTable, nowMs: number): void {
    for (const index of this.held.keys()) if (!links.byIndex.has(index)) this.held.delete(index);
    const names = new Map(pods.flatMap((pod) => cgroupsOf(pod).map((uid) => [uid, nameOf(pod)] as const)));
    const owners = this.owners(links, (uid) => names.get(uid) ?? `another pod (UID ${uid})`);
    let bridges: BridgeTables | undefined;
    const port = (address: Ip): Link | undefined => {
      if (bridges === undefined) {
        const neighbours = this.network.neighbours();
        bridges = new BridgeTables(this.sys, links, "bad" in neighbours ? [] : neighbours);
      }
      return bridges.portOf(address);
    };
    const judged = new Map<string, Judged>();
    let again = AGAIN_MAX;
    for (const pod of pods) {
      const uid = cgroupsOf(pod).find((one) => this.heard.has(one));
      const heard = uid === undefined ? undefined : this.heard.get(uid);
      const addresses = pod.addresses.join();
      const before = this.judged.get(pod.uid);
      if (
        before !== undefined &&
        before.heard === heard &&
        before.addresses === addresses &&
        holds(before, links) &&
        (nowMs - before.atMs < LOOK_AGAIN_MS || --again < 0)
      ) {
        judged.set(pod.uid, before);
        continue;
      }
      const owner = (link: Link): { name: string; sure: boolean } | undefined => {
        const sure = owners.get(link.index);
        if (sure !== undefined) return sure.uid === uid ? undefined : { name: sure.name, sure: true };
        const held = this.held.get(link.index);
        return held === undefined || held.uid === pod.uid ? undefined : { name: held.name, sure: false };
      };
      const testimony = heard === undefined ? NOTHING : current(heard.testimony, links);
      const { located, findings } = judge(pod, { testimony, links, route: (address) => this.network.routeTo(address), port, owner });
      if (located.kind === "found") this.held.set(located.index, { uid: pod.uid, name: nameOf(pod) });
      judged.set(pod.uid, { located, findings: [...findings, ...this.unseen(pod, located, links)], heard, addresses, atMs: nowMs });
    }
    this.judged = judged;
  }

  /** Interfaces that processes speak for. Of two pods that claim one, the one whose process is older has it. */
  private owners(links: LinkTable, name: (uid: CgroupUid) => string): Map<number, { uid: CgroupUid; name: string; start: number }> {
    const owners = new Map<number, { uid: CgroupUid; name: string; start: number }>();
    for (const [uid, { testimony }] of this.heard) {
      if (testimony.kind !== "linked") continue;
      for (const { index } of links.into(testimony.space)) {
        const other = owners.get(index);
        if (other === undefined || testimony.start < other.start) owners.set(index, { uid, name: name(uid), start: testimony.start });
      }
    }
    return owners;
  }

  /** A port of a bridge, and the kernel does not show bridged packets to iptables. */
  private unseen(pod: PodPlace, located: Located, links: LinkTable): Finding[] {
    const link = located.kind === "found" ? links.byIndex.get(located.index) : undefined;
    const bridge = link === undefined ? undefined : links.masterOf(link);
    if (bridge?.kind !== "bridge") return [];
    return ([4, 6] as const)
      .filter(
        (family) => pod.addresses.some((address) => address.length === (family === 4 ? 4 : 16)) && !bridgeNetfilter(family, this.proc),
      )
      .map((family) => ({
        uid: pod.uid,
        what: "bridge-netfilter" as const,
        why: `it is behind ${bridge.name}, and net.bridge.bridge-nf-call-${family === 4 ? "iptables" : "ip6tables"} is not 1 (modprobe br_netfilter): its packets to other pods on the bridge are not seen`,
      }));
  }
}

/** The interfaces as they are now; a name or a bridge may have changed since. */
function current(testimony: Testimony, links: LinkTable): Testimony {
  return testimony.kind === "linked" ? { ...testimony, links: links.into(testimony.space) } : testimony;
}

/** What a process has said, and the interface still has its name. */
function holds({ located }: Judged, links: LinkTable): boolean {
  return located.kind === "found" && located.how === "process" && links.byIndex.get(located.index)?.name === located.interface;
}

/** Is what was heard still so? An interface that is there under its index and leads to the same namespace is the same one. */
function stands({ testimony, atMs }: Heard, links: LinkTable, wanted: boolean, nowMs: number): boolean {
  switch (testimony.kind) {
    case "linked":
      return (
        testimony.links.every((link) => links.byIndex.get(link.index)?.space === testimony.space) &&
        links.into(testimony.space).length === testimony.links.length
      );
    case "apart":
      return nowMs - atMs < LOOK_AGAIN_MS;
    case "nothing":
      return !wanted && nowMs - atMs < LOOK_AGAIN_MS;
    default:
      return testimony satisfies never;
  }
}
