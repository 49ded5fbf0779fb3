import type { Cursor } from "../base/cursor.ts";
import { u32le, untilNul, viewField } from "./binary.ts";

/**
 * BSON (bsonspec.org 1.1), as far as a MongoDB handshake is made of it. Every length must fit exactly; text values are kept by their
 * path (`client.driver.name`), everything else is only read over.
 */
const DEPTH_MAX = 8;
const ELEMENTS_MAX = 512;
const NAME_CHARS_MAX = 128;

export interface Bson {
  /** The first element, a command's name. */
  readonly first: string;
  /** Strings and binary values (as the bytes they are) by path. */
  readonly texts: ReadonlyMap<string, string>;
  readonly binaries: ReadonlyMap<string, Uint8Array>;
}

interface Draft {
  first: string;
  readonly texts: Map<string, string>;
  readonly binaries: Map<string, Uint8Array>;
  elements: number;
}

/** The document at the cursor, which is left behind it; undefined when it is malformed or over the limits. */
export function readBson(c: Cursor): Bson | undefined {
  const draft: Draft = { first: "", texts: new Map(), binaries: new Map(), elements: 0 };
  return readDocument(c, "", 0, draft) ? draft : undefined;
}

function readDocument(c: Cursor, path: string, depth: number, draft: Draft): boolean {
  const end = c.at + u32le(c);
  if (c.short || end > c.end || end < c.at + 1 || depth > DEPTH_MAX) return false;
  for (;;) {
    const type = c.u8();
    if (type === 0) return !c.short && c.at === end;
    if (++draft.elements > ELEMENTS_MAX) return false;
    const name = untilNul(c);
    if (c.short || c.at >= end || name.length > NAME_CHARS_MAX) return false;
    const key = viewField(name);
    if (draft.elements === 1) draft.first = key;
    if (!readValue(c, type, path === "" ? key : `${path}.${key}`, depth, draft) || c.at >= end) return false;
  }
}

/** Bytes of the values of fixed size, by type. */
const FIXED: Readonly<Record<number, number>> = {
  0x01: 8, // double
  0x06: 0, // undefined
  0x07: 12, // ObjectId
  0x09: 8, // date
  0x0a: 0, // null
  0x10: 4, // int32
  0x11: 8, // timestamp
  0x12: 8, // int64
  0x13: 16, // decimal128
  0x7f: 0, // max key
  0xff: 0, // min key
};

function readValue(c: Cursor, type: number, path: string, depth: number, draft: Draft): boolean {
  const fixed = FIXED[type];
  if (fixed !== undefined) {
    c.skip(fixed);
    return !c.short;
  }
  switch (type) {
    case 0x02: // string
    case 0x0d: // code
    case 0x0e: {
      // symbol
      const bytes = u32le(c);
      const text = c.view(bytes - 1);
      if (c.u8() !== 0 || c.short) return false;
      draft.texts.set(path, viewField(text));
      return true;
    }
    case 0x03: // document
    case 0x04: // array
      return readDocument(c, path, depth + 1, draft);
    case 0x05: {
      const bytes = u32le(c);
      c.skip(1); // subtype
      const value = c.view(bytes);
      if (!c.short) draft.binaries.set(path, value);
      return !c.short;
    }
    case 0x08:
      return c.u8() < 2 && !c.short;
    case 0x0b: // regular expression
      untilNul(c);
      untilNul(c);
      return !c.short;
    default:
      return false;
  }
}
