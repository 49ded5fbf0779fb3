import type { PolicyMap } from "./objects.ts";

/** Characters of policy that one namespace may have: four whole ConfigMaps. Every agent of the cluster keeps them in memory. */
export const NAMESPACE_CHARS_MAX = 4 * 1024 * 1024;

/** What each namespace's policy ConfigMaps take; one that is too much loses it. */
export class TextBudget {
  private readonly sizes = new Map<string, Map<string, number>>();
  private readonly most: number;

  constructor(most = NAMESPACE_CHARS_MAX) {
    this.most = most;
  }

  admit(map: PolicyMap): PolicyMap {
    const { namespace, name, data } = map;
    const own = this.sizes.get(namespace) ?? new Map<string, number>();
    this.sizes.set(namespace, own);
    own.delete(name);
    let size = 0;
    for (const [key, text] of Object.entries(data)) size += key.length + text.length;
    let others = 0;
    for (const other of own.values()) others += other;
    if (size + others > this.most) return { ...map, data: {}, refused: true };
    own.set(name, size);
    return map;
  }

  /** Forgets those that are gone. `there`: `namespace/name`. */
  keep(there: { has(key: string): boolean }): void {
    for (const [namespace, own] of this.sizes) {
      for (const name of own.keys()) if (!there.has(`${namespace}/${name}`)) own.delete(name);
      if (own.size === 0) this.sizes.delete(namespace);
    }
  }
}
