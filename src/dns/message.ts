import { Cursor } from "../base/cursor.ts";
import type { DnsName } from "../base/name.ts";

/**
 * A strict reader of DNS messages (RFC 1035 §4). One object is opened on message after message; it copies nothing but
 * the name it has just walked, allocates nothing but the strings asked for, and never throws.
 *
 * Names: compression pointers lead strictly backwards, out of the run of labels that holds them, never into the header;
 * 255 octets and so 128 labels (RFC 1035 §2.3.4). All walking over names is paid from one budget a message, so that a
 * hostile 64 KiB message costs no more than WORK_PER_OCTET steps an octet, whatever its pointers do.
 */

export const HEADER_OCTETS = 12; // RFC 1035 §4.1.1
export const MESSAGE_OCTETS_MAX = 65535; // RFC 1035 §4.2.2
export const NAME_WIRE_MAX = 255; // RFC 1035 §2.3.4
/** Pointers one name may go through. Real encoders need one or two. */
const HOPS_MAX = 128;
/** An uncompressed honest message needs about 2, a compressed one less than 1. */
const WORK_PER_OCTET = 8;
const WORK_LEAST = 4096;

/** Record types (IANA). */
export const Type = { A: 1, CNAME: 5, AAAA: 28, OPT: 41, SVCB: 64, HTTPS: 65, ANY: 255 } as const;
export const CLASS_IN = 1;
export const Rcode = { NOERROR: 0, FORMERR: 1, NXDOMAIN: 3, REFUSED: 5 } as const;
/** Bits of the second header word. */
export const Flag = {
  QR: 0x8000,
  OPCODE: 0x7800,
  AA: 0x0400,
  TC: 0x0200,
  RD: 0x0100,
  RA: 0x0080,
  AD: 0x0020,
  CD: 0x0010,
  RCODE: 0x000f,
} as const;

/** Octet to lower case (ASCII only, RFC 4343). */
const FOLD = Uint8Array.from({ length: 256 }, (_, c) => (c >= 65 && c <= 90 ? c + 32 : c));
/** 1 for the octets of a DnsName's labels, after FOLD. */
const HOST = Uint8Array.from({ length: 256 }, (_, c) => ((c >= 97 && c <= 122) || (c >= 48 && c <= 57) || c === 45 || c === 95 ? 1 : 0));
const NOTHING = new Uint8Array(0);
const text = Buffer.alloc(256);

/**
 * The DnsName of a folded wire name (labels with their lengths, root included) at wire[at..at+length), or undefined for
 * the root and for a name with a dot, NUL or any other octet inside that no host name has. The wire's door to DnsName.
 */
export function nameOfWire(wire: Uint8Array, at: number, length: number): DnsName | undefined {
  if (length < 3 || length > NAME_WIRE_MAX) return undefined;
  let label = wire[at] as number;
  for (let i = 1; i < length - 1; i++) {
    const octet = wire[at + i] as number;
    if (label === 0) {
      label = octet;
      text[i - 1] = 46;
      continue;
    }
    if (HOST[octet] === 0) return undefined;
    text[i - 1] = octet;
    label--;
  }
  return text.toString("latin1", 0, length - 2) as DnsName;
}

export class Message {
  bytes: Uint8Array = NOTHING;
  /** Compression pointers count from here. */
  start = 0;
  end = 0;
  id = 0;
  flags = 0;
  questions = 0;
  answers = 0;
  authorities = 0;
  additionals = 0;

  /** The question or record in hand: its owner's offset, its type and class; for records also TTL (seconds) and data. */
  owner = 0;
  type = 0;
  class = 0;
  ttl = 0;
  data = 0;
  dataEnd = 0;

  /** The name walked last: folded, uncompressed, root included, in wire[0..wireLength); its hash; where it ended in place. */
  readonly wire = new Uint8Array(256);
  wireLength = 0;
  hash = 0;
  nameEnd = 0;

  /** Steps left for this message; below 0: it was made to cost time, and is refused. */
  work = 0;
  readonly #cursor = new Cursor(NOTHING);

  /** False when there is no whole header, or more than a message can be. */
  open(bytes: Uint8Array, start: number, end: number): boolean {
    const cursor = this.#cursor.reset(bytes, start, end);
    this.bytes = bytes;
    this.start = start;
    this.end = cursor.end;
    this.id = cursor.u16();
    this.flags = cursor.u16();
    this.questions = cursor.u16();
    this.answers = cursor.u16();
    this.authorities = cursor.u16();
    this.additionals = cursor.u16();
    this.work = WORK_LEAST + WORK_PER_OCTET * (this.end - start);
    return !cursor.short && this.end - start <= MESSAGE_OCTETS_MAX;
  }

  /** Where the next question or record is read; a way back for a second pass. */
  get at(): number {
    return this.#cursor.at;
  }
  set at(offset: number) {
    this.#cursor.reset(this.bytes, offset, this.end);
  }

  /** Reads the next question; false: malformed. */
  question(): boolean {
    if (!this.#skipName()) return false;
    this.type = this.#cursor.u16();
    this.class = this.#cursor.u16();
    return !this.#cursor.short;
  }

  /** Reads the next resource record, whole; its owner is passed over, not judged: `walk` does that. False: malformed. */
  record(): boolean {
    if (--this.work < 0 || !this.#skipName()) return false;
    const cursor = this.#cursor;
    this.type = cursor.u16();
    this.class = cursor.u16();
    const ttl = cursor.u32();
    this.ttl = ttl > 0x7fffffff ? 0 : ttl; // RFC 2181 §8
    const length = cursor.u16();
    this.data = cursor.at;
    cursor.skip(length);
    this.dataEnd = cursor.at;
    return !cursor.short;
  }

  #skipName(): boolean {
    const cursor = this.#cursor;
    this.owner = cursor.at;
    for (;;) {
      const length = cursor.u8();
      if (length === 0) return !cursor.short;
      if (length >= 0xc0) {
        cursor.skip(1);
        return !cursor.short;
      }
      if (length > 63) return false; // RFC 1035 §4.1.4: 01 and 10 are reserved
      cursor.skip(length);
    }
  }

  /** Where the labels of the name at `at` begin once leading pointers are followed; equal places are equal names. -1: malformed. */
  lead(at: number): number {
    for (let hops = 0; hops <= HOPS_MAX && at < this.end; hops++) {
      if ((this.bytes[at] as number) < 0xc0) return at;
      const target = this.#target(at);
      if (--this.work < 0 || target < 0 || target >= at) return -1;
      at = target;
    }
    return -1;
  }

  #target(at: number): number {
    if (at + 1 >= this.end) return -1;
    const offset = (((this.bytes[at] as number) & 0x3f) << 8) | (this.bytes[at + 1] as number);
    return offset < HEADER_OCTETS ? -1 : this.start + offset;
  }

  /** Reads the name at `at` into `wire`, `hash` and `nameEnd`. False: malformed, or the work is used up (`work` < 0). */
  walk(at: number): boolean {
    const { bytes, end, wire } = this;
    let run = at; // a pointer must lead before the run of labels that it ends
    let hops = 0;
    let out = 0;
    let hash = 0x811c9dc5; // FNV-1a
    this.nameEnd = -1;
    while (at < end) {
      const length = bytes[at] as number;
      this.work -= length < 64 ? length + 1 : 1;
      if (this.work < 0) return false;
      if (length >= 0xc0) {
        if (this.nameEnd < 0) this.nameEnd = at + 2;
        const target = this.#target(at);
        if (target < 0 || target >= run || ++hops > HOPS_MAX) return false;
        run = at = target;
        continue;
      }
      const next = at + 1 + length;
      if (length > 63 || next > end || out + length + 1 > NAME_WIRE_MAX) return false;
      wire[out++] = length;
      hash = Math.imul(hash ^ length, 0x01000193);
      for (at++; at < next; at++) {
        const octet = FOLD[bytes[at] as number] as number;
        wire[out++] = octet;
        hash = Math.imul(hash ^ octet, 0x01000193);
      }
      if (length > 0) continue;
      if (this.nameEnd < 0) this.nameEnd = at;
      this.hash = hash;
      this.wireLength = out;
      return true;
    }
    return false;
  }

  /** The name walked last. */
  name(): DnsName | undefined {
    return nameOfWire(this.wire, 0, this.wireLength);
  }
}
