import type { PolicyMap } from "./objects.ts";

/** Characters of policy that one namespace may have: four whole ConfigMaps. Every agent of the cluster keeps them in memory. */
export const NAMESPACE_CHARS_MAX = 4 * 1024 * 1024;
/** And all together, but for those that have little: a character costs five bytes once it is parsed, and the packet thread has a copy. */
export const CLUSTER_CHARS_MAX = 16 * 1024 * 1024;
const LITTLE_CHARS = 128 * 1024;

export interface TextLimits {
  readonly namespace: number;
  readonly cluster: number;
  /** What a namespace may have though the cluster's share is used up. */
  readonly little: number;
}

/** What each namespace's policy ConfigMaps take; one that is too much loses its text. */
export class TextBudget {
  private readonly sizes = new Map<string, Map<string, number>>();
  private total = 0;
  private readonly limits: TextLimits;

  constructor(limits: TextLimits = { namespace: NAMESPACE_CHARS_MAX, cluster: CLUSTER_CHARS_MAX, little: LITTLE_CHARS }) {
    this.limits = limits;
  }

  admit(map: PolicyMap): PolicyMap {
    const { namespace, name, data } = map;
    const own = this.sizes.get(namespace) ?? new Map<string, number>();
    this.sizes.set(namespace, own);
    this.forget(own, name);
    let size = 0;
    for (const [key, text] of Object.entries(data)) size += key.length + text.length;
    let all = size;
    for (const other of own.values()) all += other;
    const { namespace: most, cluster, little } = this.limits;
    if (all > most || (all > little && this.total + size > cluster)) return { ...map, data: {}, refused: true };
    own.set(name, size);
    this.total += size;
    return map;
  }

  private forget(own: Map<string, number>, name: string): void {
    this.total -= own.get(name) ?? 0;
    own.delete(name);
  }

  /** Forgets those that are gone. `there`: `namespace/name`. */
  keep(there: { has(key: string): boolean }): void {
    for (const [namespace, own] of this.sizes) {
      for (const name of own.keys()) if (!there.has(`${namespace}/${name}`)) this.forget(own, name);
      if (own.size === 0) this.sizes.delete(namespace);
    }
  }
}
