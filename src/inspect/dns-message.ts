import { Cursor } from "../base/cursor.ts";

/** A DNS message (RFC 1035 §4.1) as far as inspection wants it: is it one, all of it, and what does it ask? */
export interface DnsMessage {
  readonly id: number;
  readonly response: boolean;
  readonly opcode: number;
  readonly recursion: boolean;
  /** The first question's name (of a message without questions: the first record's), as it was written, without the last dot. */
  readonly name: string;
  readonly type: number;
  readonly questions: number;
  readonly answers: number;
}

export const DNS_HEADER_BYTES = 12;
const NAME_OCTETS_MAX = 255;
const QUESTIONS_MAX = 32; // unicast has one; mDNS asks for several
const RECORDS_MAX = 512;
const CLASSES = [1, 3, 4, 254, 255]; // IN, CH, HS, NONE, ANY
const UNICAST_RESPONSE = 0x8000; // RFC 6762 §5.4: the highest bit of a class
const OPT = 41;

/** Flags that no message has: a reserved bit, an unassigned opcode or response code. */
export function badFlags(flags: number): boolean {
  const opcode = (flags >> 11) & 15;
  if ((flags & 0x0040) !== 0 || (flags & 15) > 11 || opcode > 6 || opcode === 3 || opcode === 1) return true;
  // A query has no response code, is not truncated, and does not say that recursion is available.
  return flags < 0x8000 && (flags & 0x028f) !== 0;
}

/** bytes[start..end) is a DNS message, whole; `lenient`: records may break off or be malformed behind a good question. */
export function readDnsMessage(bytes: Uint8Array, start: number, end: number, lenient = false): DnsMessage | undefined {
  const c = new Cursor(bytes, start, end);
  const id = c.u16();
  const flags = c.u16();
  const questions = c.u16();
  const answers = c.u16();
  const records = answers + c.u16() + c.u16();
  if (c.short || badFlags(flags) || questions > QUESTIONS_MAX || records > RECORDS_MAX || questions + records === 0) return undefined;
  let first: { name: string; type: number } | undefined;
  for (let i = 0; i < questions; i++) {
    const name = readName(c, start);
    const type = c.u16();
    const classOf = c.u16() & ~UNICAST_RESPONSE;
    if (name === undefined || c.short || !isType(type) || !CLASSES.includes(classOf)) return undefined;
    first ??= { name, type };
  }
  for (let i = 0; i < records; i++) {
    const name = readName(c, start);
    const type = c.u16();
    const classOf = c.u16();
    c.skip(4);
    c.skip(c.u16());
    const wrong = name === undefined || c.short || (type !== OPT && !CLASSES.includes(classOf & ~UNICAST_RESPONSE));
    if (wrong && (!lenient || first === undefined)) return undefined;
    if (wrong) break;
    first ??= { name: name ?? "", type };
  }
  if (first === undefined || (!lenient && c.left > 0)) return undefined;
  return { id, response: flags >= 0x8000, opcode: (flags >> 11) & 15, recursion: (flags & 0x0100) !== 0, questions, answers, ...first };
}

/** Types that are assigned or for private use (IANA, Resource Record TYPEs). */
function isType(type: number): boolean {
  return (type > 0 && type < 130) || (type >= 249 && type <= 264) || type === 32768 || type === 32769 || type >= 65280;
}

/**
 * A name, printable; a pointer (§4.1.4) ends it, and only the labels before it are given unless it leads back to a whole
 * name. Undefined when it is none.
 */
function readName(c: Cursor, message: number): string | undefined {
  const labels: string[] = [];
  const octets = readLabels(c, labels);
  if (octets === undefined) return undefined;
  if (octets < 0) {
    const target = message - octets - 1;
    const earlier = new Cursor(c.bytes, target, c.end);
    if (target >= c.at - 2 || target < message + DNS_HEADER_BYTES || readLabels(earlier, labels) === undefined) return undefined;
  }
  const name = labels.join(".");
  return name.length > NAME_OCTETS_MAX ? undefined : name;
}

/** Labels up to the root (0 is given), or up to a pointer (its offset is given as -1 - offset). */
function readLabels(c: Cursor, labels: string[]): number | undefined {
  for (let octets = 0; octets <= NAME_OCTETS_MAX; ) {
    const length = c.u8();
    if (c.short) return undefined;
    if (length === 0) return 0;
    if (length >= 0xc0) {
      const offset = ((length & 63) << 8) | c.u8();
      return c.short ? undefined : -1 - offset;
    }
    if (length > 63) return undefined;
    const label = c.view(length);
    let text = "";
    for (const octet of label) {
      if (octet <= 0x20 || octet > 0x7e) return undefined;
      text += String.fromCharCode(octet);
    }
    if (c.short) return undefined;
    labels.push(text);
    octets += length + 1;
  }
  return undefined;
}
