import { createHash } from "node:crypto";
import { TokenBucket } from "../base/bucket.ts";
import { messageOf } from "../base/fault.ts";
import type { PolicyMap } from "../inputs/kubernetes/objects.ts";
import type { Cluster } from "../inputs/kubernetes/types.ts";
import type { Problem } from "../model/policy.ts";
import type { PolicyState } from "./policies.ts";

/**
 * Events on policy ConfigMaps: PolicyAccepted, or PolicyInvalid with the first problem and the count. Said once in the cluster
 * for each version of a ConfigMap, without election and without agents knowing each other: the Event's name follows from
 * ConfigMap, version and verdict, so whoever creates it second is told that it exists (409). So that not all of 5000 agents ask, each
 * has a lot for each Event, a number of 0 up to 1 drawn by hashing: of N nodes those with a lot below 3/N speak within a second, those
 * below 12/N some seconds later, should the first all be gone, those below 48/N last, and the others never. N is asked for
 * once in a while (one node of the list, and how many remain).
 */

const FIRST = 3;
const RINGS: readonly { readonly below: number; readonly fromMs: number; readonly spreadMs: number }[] = [
  { below: FIRST, fromMs: 0, spreadMs: 1000 },
  { below: 4 * FIRST, fromMs: 10_000, spreadMs: 10_000 },
  { below: 16 * FIRST, fromMs: 30_000, spreadMs: 30_000 },
];
/** Where the number of nodes cannot be had: the lower the lot the sooner, each halving a second. */
const BLIND_SECONDS = 12;
/** Events of one agent: a burst for the start of a cluster, then one every two seconds. */
const PER_SECOND = 0.5;
const BURST = 50;
const WAITING_MAX = 1000;
const NODES_AGAIN_MS = 3_600_000;
const IDS_SHOWN = 10;

/** Milliseconds from now after which this agent speaks; undefined: others do. `nodes`: undefined where nobody knows. */
export function delayOf(lot: number, nodes: number | undefined): number | undefined {
  if (nodes === undefined) return 1000 * Math.max(0, BLIND_SECONDS + Math.log2(Math.max(lot, 2 ** -BLIND_SECONDS)));
  let least = 0;
  for (const { below, fromMs, spreadMs } of RINGS) {
    const rank = lot * nodes;
    if (rank < below) return fromMs + (spreadMs * (rank - least)) / (below - least);
    least = below;
  }
  return undefined;
}

/** 0 up to 1, the same for the same node and Event, and independent between nodes. */
export function lotOf(node: string, event: string): number {
  return createHash("sha256").update(`${node}\n${event}`).digest().readUInt32BE(0) / 2 ** 32;
}

export interface Verdict {
  readonly reason: "PolicyAccepted" | "PolicyInvalid";
  readonly message: string;
}

/** What belongs to one ConfigMap, by `NAMESPACE/NAME`: a file is `configmap/NAMESPACE/NAME:KEY`, or without a key. */
export function byConfigMap<T extends { readonly file: string }>(list: readonly T[]): ReadonlyMap<string, readonly T[]> {
  const found = new Map<string, T[]>();
  for (const one of list) {
    const [place = ""] = one.file.split(":", 1);
    const key = place.slice("configmap/".length);
    const own = found.get(key);
    if (own === undefined) found.set(key, [one]);
    else own.push(one);
  }
  return found;
}

/** What is to be said about one ConfigMap; undefined: it holds no policy, and nothing is wrong with it. `own`, `loose`: of this one. */
export function verdictOf(own: readonly PolicyState[], loose: readonly Problem[]): Verdict | undefined {
  const problems = [...own.flatMap((state) => state.problems), ...loose];
  const first = problems[0];
  if (first !== undefined) {
    const where = `${first.file.slice(first.file.indexOf(":") + 1)}:${first.line}:${first.column}`;
    const kept = own.some(({ valid, policy }) => !valid && policy !== undefined) ? "; the last good version stays in force" : "";
    const hint = first.hint === undefined ? "" : ` (${first.hint})`;
    const what = `${where}: ${first.path === "" ? "" : `${first.path}: `}${first.message}${hint}`;
    return { reason: "PolicyInvalid", message: `${problems.length} problem${problems.length === 1 ? "" : "s"}${kept}. ${what}` };
  }
  if (own.length === 0) return undefined;
  const ids = own.slice(0, IDS_SHOWN).map(({ id, policy }) => `${id} (${policy?.mode ?? "no mode"})`);
  const more = own.length > IDS_SHOWN ? ` and ${own.length - IDS_SHOWN} more` : "";
  return { reason: "PolicyAccepted", message: `accepted: ${ids.join(", ")}${more}` };
}

/** The name of the one Event that says it. */
export function eventName({ name, uid, resourceVersion }: PolicyMap, reason: string): string {
  const digest = createHash("sha256").update(`${uid}\n${resourceVersion}\n${reason}`).digest("hex").slice(0, 16);
  return `${name.slice(0, 230).replace(/[.-]+$/, "")}.${digest}`;
}

export interface FeedbackDeps {
  readonly cluster: Pick<Cluster, "createEvent" | "get">;
  readonly node: string;
  readonly nowMs: () => number;
  readonly log: (detail: object, message: string) => void;
}

export class Feedback {
  private readonly deps: FeedbackDeps;
  private readonly bucket = new TokenBucket(PER_SECOND, BURST);
  /** ConfigMap → the Event last thought of. */
  private readonly said = new Map<string, string>();
  private readonly waiting = new Map<string, NodeJS.Timeout>();
  private nodes: number | undefined;
  private nodesAskedMs = Number.NEGATIVE_INFINITY;
  private closed = false;
  /** Not said, because too much was to be said at once. */
  dropped = 0;

  constructor(deps: FeedbackDeps) {
    this.deps = deps;
  }

  async tell(maps: readonly PolicyMap[], states: readonly PolicyState[], loose: readonly Problem[]): Promise<void> {
    const [ownStates, ownProblems] = [byConfigMap(states), byConfigMap(loose)];
    const news = maps.flatMap((map) => {
      const key = `${map.namespace}/${map.name}`;
      const verdict = verdictOf(ownStates.get(key) ?? [], ownProblems.get(key) ?? []);
      const name = verdict === undefined ? "" : eventName(map, verdict.reason);
      if (this.said.get(key) === name) return [];
      this.said.set(key, name);
      clearTimeout(this.waiting.get(key));
      this.waiting.delete(key);
      return verdict === undefined ? [] : [{ map, verdict, name, key }];
    });
    if (this.said.size > maps.length) {
      const there = new Set(maps.map(({ namespace, name }) => `${namespace}/${name}`));
      for (const key of this.said.keys()) {
        if (there.has(key)) continue;
        this.said.delete(key);
        clearTimeout(this.waiting.get(key));
        this.waiting.delete(key);
      }
    }
    if (news.length === 0) return;
    await this.count();
    for (const one of news) this.plan(one);
  }

  private plan(one: { map: PolicyMap; verdict: Verdict; name: string; key: string }): void {
    const { nowMs, node } = this.deps;
    const delay = delayOf(lotOf(node, one.name), this.nodes);
    if (delay === undefined || this.closed || this.said.get(one.key) !== one.name) return;
    if (this.waiting.size >= WAITING_MAX) {
      this.dropped++;
      return;
    }
    const timer = setTimeout(() => {
      this.waiting.delete(one.key);
      if (this.bucket.take(nowMs())) void this.say(one);
      else this.dropped++;
    }, delay);
    timer.unref();
    this.waiting.set(one.key, timer);
  }

  private async say({ map, verdict, name }: { map: PolicyMap; verdict: Verdict; name: string }): Promise<void> {
    const { cluster, node, nowMs, log } = this.deps;
    const { namespace, uid, resourceVersion } = map;
    const outcome = await cluster.createEvent({
      regarding: { apiVersion: "v1", kind: "ConfigMap", name: map.name, namespace, uid, resourceVersion },
      type: verdict.reason === "PolicyAccepted" ? "Normal" : "Warning",
      ...verdict,
      node,
      at: nowMs(),
      name,
    });
    if (!outcome.ok) log({ error: messageOf(outcome.fault), configMap: `${namespace}/${map.name}` }, "an event could not be written");
  }

  /** How many nodes there are, as far as that can be had. */
  private async count(): Promise<void> {
    const now = this.deps.nowMs();
    if (now - this.nodesAskedMs < NODES_AGAIN_MS) return;
    this.nodesAskedMs = now;
    const answer = await this.deps.cluster.get("/api/v1/nodes?limit=1");
    const list = (answer.ok ? answer.value : undefined) as { items?: unknown; metadata?: { remainingItemCount?: unknown } } | undefined;
    if (!Array.isArray(list?.items)) return;
    const rest = list.metadata?.remainingItemCount;
    this.nodes = Math.max(1, list.items.length + (typeof rest === "number" && rest > 0 ? rest : 0));
  }

  close(): void {
    this.closed = true;
    for (const timer of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
  }
}
