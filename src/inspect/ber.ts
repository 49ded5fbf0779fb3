import type { Cursor } from "../base/cursor.ts";

/** The basic encoding rules of ASN.1 (X.690 §8.1), as far as LDAP, SNMP and Kerberos use them: one-octet tags, definite lengths. */
export const Tag = {
  boolean: 0x01,
  integer: 0x02,
  octets: 0x04,
  oid: 0x06,
  enumerated: 0x0a,
  generalString: 0x1b,
  sequence: 0x30,
} as const;

/** Where an element's contents stand in the cursor's bytes. */
export interface Element {
  readonly tag: number;
  readonly start: number;
  readonly end: number;
}

/** Tag and length, however the length is written (short, or long with up to 4 octets); `short` is set where they are not there. */
export function elementHead(c: Cursor): { readonly tag: number; readonly length: number } | undefined {
  const tag = c.u8();
  const first = c.u8();
  if ((tag & 0x1f) === 0x1f || first === 0x80 || first > 0x84) return undefined;
  let length = first & 0x7f;
  if (first > 0x80) {
    length = 0;
    for (let i = first & 0x7f; i > 0; i--) length = length * 256 + c.u8();
  }
  return { tag, length };
}

/** The next element, whole; undefined where it is not. The cursor stands behind it. */
export function element(c: Cursor, tag?: number): Element | undefined {
  const head = elementHead(c);
  if (head === undefined || c.short || head.length > c.left || (tag !== undefined && head.tag !== tag)) return undefined;
  const start = c.at;
  c.skip(head.length);
  return { tag: head.tag, start, end: c.at };
}

/** The next element is a small number that is not negative (INTEGER or `tag`). */
export function smallNumber(c: Cursor, tag: number = Tag.integer): number | undefined {
  const found = element(c, tag);
  if (found === undefined || found.end === found.start || found.end - found.start > 5) return undefined;
  let value = 0;
  for (let i = found.start; i < found.end; i++) value = value * 256 + (c.bytes[i] as number);
  return (c.bytes[found.start] as number) > 127 ? undefined : value;
}
