/** Doors for what the API server sends: nothing in an object is believed to have the type that it should have. */

export type Fields = Readonly<Record<string, unknown>>;

const NOTHING: Fields = Object.freeze(Object.create(null)) as Fields;

/** The fields of an object; of anything else none. */
export function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : NOTHING;
}

/** Own fields only: `constructor` is none. */
export function field(of: Fields, name: string): unknown {
  return Object.hasOwn(of, name) ? of[name] : undefined;
}

/** Text of at most `most` characters. */
export function textOf(value: unknown, most: number): string | undefined {
  return typeof value === "string" && value.length <= most ? value : undefined;
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as readonly unknown[]) : [];
}

/**
 * A mapping of text to text, sorted by key (so that the same labels are the same JSON). Nothing is cut: a pod must not lose
 * the label that a policy selects because it has many; the API server bounds an object at 1.5 MiB (etcd).
 */
export function stringsOf(value: unknown): Record<string, string> {
  const found = Object.create(null) as Record<string, string>;
  for (const [key, text] of Object.entries(fieldsOf(value)).sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (typeof text === "string") found[key] = text;
  }
  return found;
}

/** RFC 3339 → milliseconds since 1970; 0 where it is none. */
export function timeOf(value: unknown): number {
  const ms = typeof value === "string" && value.length <= 64 ? Date.parse(value) : Number.NaN;
  return Number.isFinite(ms) ? ms : 0;
}
