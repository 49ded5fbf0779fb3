import type { Path } from "./yaml.ts";

/** Takes one problem of a document. */
export type Report = (path: Path, message: string, hint?: string, which?: "key" | "value") => void;

export type Fields = Readonly<Record<string, unknown>>;

// A document may be of any shape while its meaning is checked: what has the wrong type is the schema's to report, and is passed over.
export const fieldsOf = (value: unknown): Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {};
export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
export const has = (fields: Fields, key: string): boolean => fields[key] !== undefined;
