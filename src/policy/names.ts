import type { DnsName, NamePattern } from "../base/name.ts";

/** Patterns as two sets: exact names, and what `*.` stands before. */
export interface NameSet {
  readonly exact: ReadonlySet<string>;
  readonly below: ReadonlySet<string>;
}

export function nameSet(patterns: readonly NamePattern[]): NameSet {
  const exact = new Set<string>();
  const below = new Set<string>();
  for (const pattern of patterns) {
    if (pattern.startsWith("*.")) below.add(pattern.slice(2));
    else exact.add(pattern);
  }
  return { exact, below };
}

/** At most one lookup a label, however many patterns there are. */
export function hasName(set: NameSet, name: DnsName): boolean {
  if (set.exact.has(name)) return true;
  if (set.below.size === 0) return false;
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
    if (set.below.has(name.slice(dot + 1))) return true;
  }
  return false;
}

/** From names to the things that have a pattern for them. */
export interface NameIndex<T> {
  readonly exact: ReadonlyMap<string, readonly T[]>;
  readonly below: ReadonlyMap<string, readonly T[]>;
}

export function nameIndex<T>(entries: Iterable<readonly [patterns: readonly NamePattern[], value: T]>): NameIndex<T> {
  const exact = new Map<string, T[]>();
  const below = new Map<string, T[]>();
  for (const [patterns, value] of entries) {
    for (const pattern of patterns) {
      const wild = pattern.startsWith("*.");
      const map = wild ? below : exact;
      const key = wild ? pattern.slice(2) : pattern;
      const list = map.get(key);
      if (list === undefined) map.set(key, [value]);
      else if (list[list.length - 1] !== value) list.push(value);
    }
  }
  return { exact, below };
}

/** Adds to `found` every value with a pattern that matches `name`. */
export function findByName<T>(index: NameIndex<T>, name: DnsName, found: Set<T>): void {
  for (const value of index.exact.get(name) ?? []) found.add(value);
  if (index.below.size === 0) return;
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
    for (const value of index.below.get(name.slice(dot + 1)) ?? []) found.add(value);
  }
}
