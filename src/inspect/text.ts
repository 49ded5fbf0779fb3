import { FIELD_CHARS_MAX, octetText } from "../model/verdict.ts";
import type { Run } from "./inspector.ts";

/** Bytes as text, for protocols that are lines. */

/** Does the run begin with `text` (ASCII), as far as its bytes go? True for an empty run. */
export function startsLike(run: Run, text: string): boolean {
  const count = Math.min(run.end - run.start, text.length);
  for (let i = 0; i < count; i++) if (run.bytes[run.start + i] !== text.charCodeAt(i)) return false;
  return true;
}

/** As startsLike, letters in any case. */
export function startsLikeAnyCase(run: Run, text: string): boolean {
  const count = Math.min(run.end - run.start, text.length);
  for (let i = 0; i < count; i++) if (lower(run.bytes[run.start + i] as number) !== lower(text.charCodeAt(i))) return false;
  return true;
}

export function lower(c: number): number {
  return c >= 0x41 && c <= 0x5a ? c | 0x20 : c;
}

/** Where `byte` first stands in the run's first `limit` bytes (an index into `bytes`), or -1. */
export function findByte(run: Run, byte: number, limit: number): number {
  const end = Math.min(run.end, run.start + limit);
  const at = run.bytes.subarray(run.start, end).indexOf(byte);
  return at < 0 ? -1 : run.start + at;
}

/** bytes[start..end) as an evidence field: printable ASCII as it is, all else `\xHH`; cut at 255 characters. */
export function field(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let i = start; i < end && text.length < FIELD_CHARS_MAX; i++) text += octetText(bytes[i] as number);
  return text.slice(0, FIELD_CHARS_MAX);
}
