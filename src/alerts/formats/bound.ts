import type { Brand } from "../../base/brand.ts";
import type { Event } from "../../model/event.ts";

/** Of any text in an event, UTF-16 units: names have 253, messages a few hundred. */
export const TEXT_MAX = 1024;
/** Entries of any list, and fields of any mapping. */
const ITEMS_MAX = 64;
/** An event has five levels. */
const DEPTH_MAX = 8;

/** An event of which every text and every list is bounded: what formats and the spool take. */
export type BoundedEvent = Brand<Event, "BoundedEvent">;

/** The first `max` UTF-16 units, no half of a surrogate pair at the end; what was cut ends in `…`. */
export function cut(text: string, max: number): string {
  if (text.length <= max) return text;
  const end = max - 1;
  const last = text.charCodeAt(end - 1);
  return `${text.slice(0, last >= 0xd800 && last < 0xdc00 ? end - 1 : end)}…`;
}

/** What line-based receivers would take for an end or an escape sequence: C0, DEL, C1, line and paragraph separators, BiDi controls. */
const UNSAFE = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** On one line, without control characters, at most `max` units. */
export function plainLine(text: string, max: number): string {
  return cut(cut(text, max * 2).replace(UNSAFE, " "), max);
}

/** The one door. An event that is within its bounds already is not copied. */
export function bound(event: Event): BoundedEvent {
  return (within(event, 0) ? event : copy(event, 0)) as BoundedEvent;
}

function within(value: unknown, depth: number): boolean {
  if (typeof value === "string") return value.length <= TEXT_MAX;
  if (typeof value !== "object" || value === null) return true;
  if (depth >= DEPTH_MAX) return false;
  let count = 0;
  for (const key in value) {
    if (++count > ITEMS_MAX || key.length > TEXT_MAX || !within((value as Record<string, unknown>)[key], depth + 1)) return false;
  }
  return true;
}

function copy(value: unknown, depth: number): unknown {
  if (typeof value === "string") return cut(value, TEXT_MAX);
  if (typeof value !== "object" || value === null) return value;
  if (depth >= DEPTH_MAX) return null;
  if (Array.isArray(value)) return value.slice(0, ITEMS_MAX).map((one) => copy(one, depth + 1));
  const found = Object.entries(value).slice(0, ITEMS_MAX);
  return Object.fromEntries(found.map(([key, one]) => [cut(key, TEXT_MAX), copy(one, depth + 1)]));
}
