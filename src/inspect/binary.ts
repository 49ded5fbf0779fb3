import { Cursor } from "../base/cursor.ts";
import type { Evidence, FieldName } from "../model/verdict.ts";
import type { Reading, Run } from "./inspector.ts";
import { field, startsLike, startsLikeAnyCase } from "./text.ts";
import { sizeOf } from "./parts.ts";

/** What length-prefixed protocols have in common. */

/** A cursor over the run from `offset` on (which may be behind its end: then it is short). */
export function cursorAt(run: Run, offset: number): Cursor {
  return new Cursor(run.bytes, 0, run.end).reset(run.bytes, run.start + offset, run.end);
}

/** Are the bytes at `offset` those of `expected`, as far as there are any? `undefined` stands for any byte. */
export function bytesLike(run: Run, offset: number, expected: readonly (number | undefined)[]): boolean {
  const count = Math.min(expected.length, sizeOf(run) - offset);
  for (let i = 0; i < count; i++) {
    const byte = expected[i];
    if (byte !== undefined && run.bytes[run.start + offset + i] !== byte) return false;
  }
  return true;
}

/** As far as its bytes go, could the run begin with one of `words` and a blank or an end of line? Letters in any case with `anyCase`. */
export function wordLike(run: Run, words: readonly string[], anyCase = false): boolean {
  return words.some((word) => {
    if (!(anyCase ? startsLikeAnyCase(run, word) : startsLike(run, word))) return false;
    return sizeOf(run) <= word.length || (run.bytes[run.start + word.length] as number) <= 0x20;
  });
}

/** `need` bytes of the client in all, more than there are; where no more will come, `otherwise`. */
export function more(run: Run, need: number, otherwise: Reading): Reading {
  return run.closed ? otherwise : { need, of: "client" };
}

export function u16le(c: Cursor): number {
  const low = c.u8();
  return low | (c.u8() << 8);
}

export function u24le(c: Cursor): number {
  const low = u16le(c);
  return low | (c.u8() << 16);
}

/** 0..2^32-1. */
export function u32le(c: Cursor): number {
  const low = u16le(c);
  return (low | (u16le(c) << 16)) >>> 0;
}

/** The bytes up to the next NUL, which is read over; the cursor is short where there is none. */
export function untilNul(c: Cursor): Uint8Array {
  const at = c.bytes.subarray(c.at, c.end).indexOf(0);
  const found = c.view(at < 0 ? -1 : at);
  c.skip(1);
  return found;
}

/** As `field`, of a view. */
export const viewField = (view: Uint8Array): string => field(view, 0, view.length);

/** UTF-16LE (an even number of bytes) as a field: what is not ASCII as the bytes of its UTF-8. */
export function utf16Field(view: Uint8Array): string {
  const text = Buffer.from(view.buffer, view.byteOffset, view.length).toString("utf16le");
  return viewField(Buffer.from(text, "utf8"));
}

/** What was found; empty and undefined values are left out of the evidence. */
export type Found = Readonly<Partial<Record<FieldName, string | undefined>>>;
export type Certain = Evidence & { readonly application: string };

export function evidenceOf(application: string, found: Found = {}, version?: string): Certain {
  const entries = Object.entries(found).filter((entry): entry is [FieldName, string] => entry[1] !== undefined && entry[1] !== "");
  return {
    application,
    serverName: undefined,
    ...(version === undefined ? {} : { version }),
    ...(entries.length === 0 ? {} : { fields: Object.fromEntries(entries) }),
  };
}
