import type { Event } from "../model/event.ts";
import { workloadOf } from "./workload.ts";

/** Of one workload, and of all. */
const EACH_MAX = 64;
const ALL_MAX = 1000;
const WORKLOADS_MAX = 512;
const PORTS_MAX = 8;
const TEXT_CHARS_MAX = 255;

/** From a workload to a name (or to an address that no name was known for). */
export interface Edge {
  readonly to: string;
  /** `443/TCP`, the first PORTS_MAX of them. */
  readonly ports: string[];
  allow: number;
  deny: number;
  wouldDeny: number;
  readonly firstMs: number;
  lastMs: number;
  /** The last one. */
  verdict: Exclude<Event["verdict"], "info">;
  /** Of the last denial. */
  why: string | null;
}

interface Workload {
  readonly namespace: string;
  readonly name: string;
  /** By `to`; the one that was seen longest ago first. */
  readonly edges: Map<string, Edge>;
  /** Edges that gave way to newer ones. */
  dropped: number;
}

/** What is kept on disk, and what the page asks for. */
export interface DestinationList {
  /** Since when first times are known. */
  readonly sinceMs: number;
  readonly workloads: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly dropped: number;
    readonly edges: readonly Edge[];
  }[];
}

/**
 * Who went where, from events: counts, first and last time. Bounded for each workload and in all: where there is no room, what was only ever denied and was
 * seen longest ago goes first, so a workload that tries many destinations displaces its own tries and nothing else.
 */
export class Destinations {
  private readonly workloads = new Map<string, Workload>();
  private size = 0;
  private sinceMs: number;
  /** Goes up with every change. */
  version = 0;
  /** Edges that are not on disk yet. */
  fresh = 0;

  constructor(sinceMs: number, kept?: DestinationList) {
    this.sinceMs = kept?.sinceMs ?? sinceMs;
    for (const { namespace, name, dropped, edges } of kept?.workloads ?? []) {
      const workload = this.workload(namespace, name);
      workload.dropped = dropped;
      for (const edge of edges) if (!workload.edges.has(edge.to)) this.add(workload, edge);
    }
    this.fresh = 0;
  }

  push(event: Event, nowMs: number): void {
    const { pod, destination, verdict, why } = event;
    if (pod === null || destination === null || verdict === "info" || (event.type !== "connection" && event.type !== "dns")) return;
    const to = destinationOf(event).slice(0, TEXT_CHARS_MAX);
    if (to === "") return;
    this.version++;
    const workload = this.workload(pod.namespace, workloadOf(pod));
    let edge = workload.edges.get(to);
    if (edge === undefined) {
      edge = { to, ports: [], allow: 0, deny: 0, wouldDeny: 0, firstMs: nowMs, lastMs: nowMs, verdict, why: null };
      this.add(workload, edge);
    } else {
      workload.edges.delete(to);
      workload.edges.set(to, edge);
    }
    edge.lastMs = nowMs;
    edge.verdict = verdict;
    if (verdict === "allow") edge.allow += event.count;
    else if (verdict === "deny") edge.deny += event.count;
    else edge.wouldDeny += event.count;
    if (verdict !== "allow") edge.why = why;
    const port = event.type === "dns" ? "query" : `${destination.port ?? 0}/${destination.protocol ?? "?"}`;
    if (edge.ports.length < PORTS_MAX && !edge.ports.includes(port)) edge.ports.push(port);
  }

  private workload(namespace: string, name: string): Workload {
    const key = `${namespace}/${name}`;
    let found = this.workloads.get(key);
    if (found === undefined) {
      if (this.workloads.size >= WORKLOADS_MAX) this.forget();
      found = { namespace, name, edges: new Map(), dropped: 0 };
    } else this.workloads.delete(key);
    this.workloads.set(key, found);
    return found;
  }

  private add(workload: Workload, edge: Edge): void {
    if (workload.edges.size >= EACH_MAX) this.drop(workload);
    else if (this.size >= ALL_MAX) {
      this.drop([...this.workloads.values()].reduce((a, b) => (b.edges.size > a.edges.size ? b : a)));
    }
    workload.edges.set(edge.to, edge);
    this.size++;
    this.fresh++;
  }

  private drop(workload: Workload): void {
    const edges = [...workload.edges.values()];
    const victim = edges.find(({ allow }) => allow === 0) ?? edges[0];
    if (victim === undefined) return;
    workload.edges.delete(victim.to);
    workload.dropped++;
    this.size--;
  }

  /** The workload that was silent longest. */
  private forget(): void {
    const oldest = this.workloads.entries().next().value;
    if (oldest === undefined) return;
    this.workloads.delete(oldest[0]);
    this.size -= oldest[1].edges.size;
  }

  list(): DestinationList {
    const workloads = [...this.workloads.values()].map(({ edges, ...rest }) => ({ ...rest, edges: [...edges.values()] }));
    return { sinceMs: this.sinceMs, workloads };
  }
}

/** Where it really wanted to go: where the server name is what was wrong, that one. */
function destinationOf({ destination, evidence, why }: Event): string {
  const serverName = evidence?.serverName ?? undefined;
  const name = destination?.names[0];
  const first = why === "wrong-server-name" || why === "names-disagree" ? (serverName ?? name) : (name ?? serverName);
  return first ?? destination?.address ?? "";
}
