import { TokenBucket } from "../base/bucket.ts";
import type { PolicyMap } from "../inputs/kubernetes/objects.ts";
import { CLUSTER_CHARS_MAX, NAMESPACE_CHARS_MAX } from "../inputs/kubernetes/text-budget.ts";
import type { PolicyOrigin } from "../model/event.ts";
import { mergeDocuments, readConfigMap, type ReadResult } from "../policy/read.ts";
import { digestOf } from "./digest.ts";

/**
 * Milliseconds of the control thread that the ConfigMaps of one namespace may have of each second, and at once: a tenant who
 * writes a megabyte of YAML again and again makes nobody else wait.
 */
const READ_PER_SECOND_MS = 50;
const READ_BURST_MS = 3000;

interface Known {
  readonly uid: string;
  readonly resourceVersion: string;
  readonly refused: boolean;
  readonly result: ReadResult;
}

/** Policy ConfigMaps → policies. A ConfigMap is parsed when its resourceVersion is another one, and not before. */
export class PolicyMaps {
  private readonly clusterNamespace: string;
  /** Milliseconds, of any clock. */
  private readonly clock: () => number;
  private known = new Map<string, Known>();
  private readonly budgets = new Map<string, TokenBucket>();
  private merged: ReadResult = { policies: [], problems: [], documents: [] };
  /** Some ConfigMap has not been read: call again a little later. */
  deferred = false;

  constructor(clusterNamespace: string, clock: () => number) {
    this.clusterNamespace = clusterNamespace;
    this.clock = clock;
  }

  read(maps: Iterable<PolicyMap>): ReadResult {
    // Of two that name the same policy the older one has it, so that a new one cannot take it away.
    const sorted = [...maps].sort((a, b) => a.created - b.created || compare(a.namespace, b.namespace) || compare(a.name, b.name));
    const next = new Map<string, Known>();
    let changed = sorted.length !== this.known.size;
    this.deferred = false;
    const unread: string[] = [];
    for (const map of sorted) {
      const key = `${map.namespace}/${map.name}`;
      const old = this.known.get(key);
      const current =
        old !== undefined && old.uid === map.uid && old.resourceVersion === map.resourceVersion && old.refused === map.refused;
      const now = current ? old : this.readOne(map, old);
      if (now !== old) changed = true;
      if (now === undefined) unread.push(placeOf(map));
      else next.set(key, now);
    }
    changed ||= [...next.keys()].join() !== [...this.known.keys()].join();
    this.known = next;
    const namespaces = new Set(sorted.map(({ namespace }) => namespace));
    for (const namespace of this.budgets.keys()) if (!namespaces.has(namespace)) this.budgets.delete(namespace);
    if (changed) this.merged = { ...mergeDocuments([...next.values()].map(({ result }) => result)), unread };
    return this.merged;
  }

  private readOne(map: PolicyMap, old: Known | undefined): Known | undefined {
    let budget = this.budgets.get(map.namespace);
    if (budget === undefined) this.budgets.set(map.namespace, (budget = new TokenBucket(READ_PER_SECOND_MS, READ_BURST_MS)));
    const from = this.clock();
    // Whoever writes in the agent's own namespace makes the cluster's policies: nobody is protected from him.
    if (map.namespace !== this.clusterNamespace && !budget.has(from)) {
      this.deferred = true;
      return old;
    }
    const { namespace, name, data, refused } = map;
    const result = readConfigMap({ metadata: { namespace, name }, data }, { clusterNamespace: this.clusterNamespace });
    if (refused)
      result.problems.push({
        file: placeOf(map),
        line: 1,
        column: 1,
        path: "",
        message: `the policies of the namespace have more than ${NAMESPACE_CHARS_MAX} characters, or those of the cluster more than ${CLUSTER_CHARS_MAX}; these are not read`,
        hint: "remove some, or make them shorter",
      });
    budget.spend(this.clock() - from);
    return { uid: map.uid, resourceVersion: map.resourceVersion, refused, result };
  }
}

/** Of `configmap/NAMESPACE/NAME:KEY`; a ConfigMap that is gone says nothing any more. */
export function originOf(file: string, maps: ReadonlyMap<string, PolicyMap>): PolicyOrigin {
  const end = file.indexOf(":");
  const map = maps.get(file.slice("configmap/".length, end));
  const key = file.slice(end + 1);
  const text = map !== undefined && Object.hasOwn(map.data, key) ? map.data[key] : undefined;
  return {
    source: file,
    digest: text === undefined ? null : digestOf(text),
    version: map?.resourceVersion ?? null,
    by: map?.writer?.by ?? null,
    at: map?.writer?.at ?? null,
  };
}

const placeOf = ({ namespace, name }: PolicyMap): string => `configmap/${namespace}/${name}`;

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
