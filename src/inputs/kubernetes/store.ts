import { isDeepStrictEqual } from "node:util";
import type { RawObject } from "./types.ts";

interface Kept<T> {
  readonly version: string | undefined;
  /** undefined: seen, and not of interest. */
  readonly value: T | undefined;
}

export interface StoreLimits<T> {
  readonly objects: number;
  /** Of one namespace. */
  readonly inNamespace?: number | undefined;
  /** May the same object be shown otherwise next time? */
  readonly provisional?: ((value: T) => boolean) | undefined;
}

/** What a reflector knows of its objects. Only `values` is shown to others, and it changes in place. */
export class ObjectStore<T> {
  /** Projections by key. */
  readonly values = new Map<string, T>();
  /** Objects refused because the store was full, since the last whole list. */
  overflow = 0;
  private kept = new Map<string, Kept<T>>();
  /** How many of them each namespace has. */
  private counts = new Map<string, number>();
  private readonly project: (raw: RawObject) => T | undefined;
  private readonly limits: StoreLimits<T>;

  constructor(project: (raw: RawObject) => T | undefined, limits: StoreLimits<T>) {
    this.project = project;
    this.limits = limits;
  }

  /** Are there objects that another list may show otherwise, though they have not changed? */
  get unsettled(): boolean {
    if (this.overflow > 0) return true;
    const { provisional } = this.limits;
    return provisional !== undefined && [...this.values.values()].some(provisional);
  }

  /** ADDED, MODIFIED. Did `values` change? */
  put(raw: RawObject): boolean {
    const key = keyOf(raw);
    if (!this.kept.has(key) && !this.counted(this.kept.size, this.counts, raw)) {
      this.overflow++;
      return false;
    }
    const next = this.keep(key, raw);
    this.kept.set(key, next);
    return this.show(key, next.value);
  }

  /** DELETED. */
  remove(raw: RawObject): boolean {
    const key = keyOf(raw);
    const { namespace = "" } = raw.metadata;
    if (this.kept.delete(key)) this.counts.set(namespace, (this.counts.get(namespace) ?? 1) - 1);
    if (this.counts.get(namespace) === 0) this.counts.delete(namespace);
    return this.values.delete(key);
  }

  /** A new whole list, collected aside: `commit` makes it what is known, and what it does not have is gone. */
  replacement(): { add(raw: RawObject): void; commit(): boolean } {
    const next = new Map<string, Kept<T>>();
    const counts = new Map<string, number>();
    let overflow = 0;
    return {
      add: (raw) => {
        const key = keyOf(raw);
        if (!next.has(key) && !this.counted(next.size, counts, raw)) overflow++;
        else next.set(key, this.keep(key, raw));
      },
      commit: () => {
        this.kept = next;
        this.counts = counts;
        this.overflow = overflow;
        let changed = false;
        for (const key of this.values.keys()) if (!next.has(key)) changed = this.values.delete(key) || changed;
        for (const [key, { value }] of next) changed = this.show(key, value) || changed;
        return changed;
      },
    };
  }

  /** Counts a new object, where there is room for it. */
  private counted(all: number, counts: Map<string, number>, { metadata: { namespace = "" } }: RawObject): boolean {
    const { objects, inNamespace = objects } = this.limits;
    const own = counts.get(namespace) ?? 0;
    if (all >= objects || own >= inNamespace) return false;
    counts.set(namespace, own + 1);
    return true;
  }

  /** The same version is the same object; another version that says the same keeps the old projection's identity. */
  private keep(key: string, raw: RawObject): Kept<T> {
    const old = this.kept.get(key);
    const version = raw.metadata.resourceVersion;
    const settled = old?.value === undefined || this.limits.provisional?.(old.value) !== true;
    if (old !== undefined && settled && version !== undefined && old.version === version) return old;
    const value = this.project(raw);
    return { version, value: old !== undefined && same(old.value, value) ? old.value : value };
  }

  private show(key: string, value: T | undefined): boolean {
    if (value === undefined) return this.values.delete(key);
    if (this.values.get(key) === value) return false;
    this.values.set(key, value);
    return true;
  }
}

/** A projection that is nested too deep to be compared is another one. */
function same(a: unknown, b: unknown): boolean {
  try {
    return isDeepStrictEqual(a, b);
  } catch {
    return false;
  }
}

function keyOf({ metadata: { namespace, name } }: RawObject): string {
  return namespace === undefined || namespace === "" ? name : `${namespace}/${name}`;
}

/** An object with a name, or undefined: nothing else of it is looked at. */
export function rawObject(value: unknown): RawObject | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { metadata } = value as { metadata?: unknown };
  if (typeof metadata !== "object" || metadata === null) return undefined;
  const { name, namespace, resourceVersion } = metadata as Record<string, unknown>;
  if (typeof name !== "string" || name === "") return undefined;
  const text = (field: unknown): boolean => field === undefined || typeof field === "string";
  return text(namespace) && text(resourceVersion) ? (value as RawObject) : undefined;
}
