import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Range } from "./link.ts";

/**
 * Reassembly of IPv4 and IPv6 fragments, for capture files: the live path gets whole packets from conntrack. A datagram
 * whose fragments overlap is dropped as a whole (RFC 5722 §3; for IPv4 as well, an honest sender has no use for it);
 * an exact repetition of a fragment is ignored.
 */

const DATAGRAMS_MAX = 256; // incomplete at a time; the oldest is given up
const FRAGMENTS_MAX = 128; // of one datagram
const PAYLOAD_BYTES_MAX = 65_535; // RFC 791 §3.1
const AGE_MS_MAX = 30_000; // net.ipv4.ipfrag_time
const EXTENSIONS_MAX = 8;
const IPV6_HEADER_BYTES = 40;
const PLAIN_NEXT: readonly number[] = [Protocol.TCP, Protocol.UDP];

interface Piece {
  readonly from: number;
  readonly to: number;
  readonly bytes: Uint8Array;
}

interface Datagram {
  readonly since: number;
  readonly pieces: Piece[];
  /** The bytes before the fragmentable part, of the fragment at offset 0, made into those of a whole packet. */
  head: Uint8Array | undefined;
  /** Length of the payload; -1 until the last fragment has come. */
  total: number;
  dropped: boolean;
}

/** A fragment as its headers describe it. */
interface Fragment {
  key: string;
  /** First byte of the fragment's part of the payload. */
  payload: number;
  offset: number;
  more: boolean;
  /** IPv6: the octet that names the fragment header, and the fragment header itself. */
  nextAt: number;
  fragmentHeader: number;
}

export interface Reassembly {
  /**
   * Takes the IP packet in bytes[start..end). `whole`: it is no fragment. `more`: it was one, and its datagram is not
   * complete (or never will be). `complete`: `packet` and `range` hold the datagram, until the next call.
   */
  add(bytes: Uint8Array, start: number, end: number, timeMs: number): "whole" | "more" | "complete";
  readonly packet: Uint8Array;
  readonly range: Range;
  /** Datagrams given up: too old, too many, overlapping, malformed. */
  readonly dropped: number;
}

export function newReassembly(): Reassembly {
  const waiting = new Map<string, Datagram>();
  let dropped = 0;
  let packet: Uint8Array = new Uint8Array(0);
  const range: Range = { start: 0, end: 0 };

  function give(key: string): void {
    waiting.delete(key);
    dropped++;
  }

  function datagramOf(key: string, timeMs: number): Datagram {
    const found = waiting.get(key);
    if (found !== undefined && timeMs - found.since <= AGE_MS_MAX) return found;
    if (found !== undefined) give(key);
    const oldest = waiting.size < DATAGRAMS_MAX ? undefined : waiting.keys().next().value;
    if (oldest !== undefined) give(oldest);
    const made: Datagram = { since: timeMs, pieces: [], head: undefined, total: -1, dropped: false };
    waiting.set(key, made);
    return made;
  }

  return {
    add(bytes, start, end, timeMs) {
      if (isPlain(bytes, start, end)) return "whole";
      const found = findFragment(bytes, start, end);
      if (found === undefined) return "whole";
      if (typeof found === "string") {
        dropped++;
        return "more";
      }
      const datagram = datagramOf(found.key, timeMs);
      // A dropped datagram stays in the table, so that the rest of its fragments do not start a new one.
      if (!datagram.dropped && !place(datagram, found, bytes, start, Math.min(end, wireEnd(bytes, start, end)))) {
        datagram.dropped = true;
        datagram.pieces.length = 0;
      }
      const whole = datagram.dropped ? undefined : join(datagram);
      if (whole === undefined) return "more";
      waiting.delete(found.key);
      packet = whole;
      range.end = whole.length;
      return "complete";
    },
    get packet() {
      return packet;
    },
    range,
    get dropped() {
      let count = dropped;
      for (const datagram of waiting.values()) if (datagram.dropped) count++;
      return count;
    },
  };
}

/** No fragment, seen at a glance: most packets. */
function isPlain(bytes: Uint8Array, start: number, end: number): boolean {
  const first = bytes[start] as number;
  if (first === 0x45 && end - start >= 20) return ((bytes[start + 6] as number) & 0x3f) === 0 && bytes[start + 7] === 0;
  return first >> 4 === 6 && end - start >= IPV6_HEADER_BYTES && PLAIN_NEXT.includes(bytes[start + 6] as number);
}

/** Where the IP header says the packet ends. */
function wireEnd(bytes: Uint8Array, start: number, end: number): number {
  const c = new Cursor(bytes, start, end);
  const first = c.u8();
  c.skip(first >> 4 === 4 ? 1 : 3);
  const length = c.u16();
  return start + (first >> 4 === 4 ? length : length + 40);
}

/** undefined: not a fragment. A text: a fragment that cannot be read. */
function findFragment(bytes: Uint8Array, start: number, end: number): Fragment | string | undefined {
  const c = new Cursor(bytes, start, end);
  const first = c.u8();
  const text = (from: number, count: number): string => Buffer.from(bytes.buffer, bytes.byteOffset + from, count).toString("latin1");
  if (first >> 4 === 4) {
    c.skip(3);
    const id = c.u16();
    const flags = c.u16();
    c.skip(12 + (first & 15) * 4 - 20);
    if (c.short || (flags & 0x3fff) === 0) return undefined;
    const key = `4${id} ${bytes[start + 9]} ${text(start + 12, 8)}`;
    return wireEnd(bytes, start, end) > end
      ? "cut"
      : { key, payload: c.at, offset: (flags & 0x1fff) * 8, more: (flags & 0x2000) !== 0, nextAt: 0, fragmentHeader: 0 };
  }
  c.skip(5);
  let nextAt = c.at;
  let next = c.u8();
  c.skip(33);
  for (let i = 0; i < EXTENSIONS_MAX && !c.short; i++) {
    const at = c.at;
    if (next === 44) {
      c.skip(2);
      const flags = c.u16();
      const id = c.u32();
      if (c.short || (flags & 0xfff9) === 0) return undefined;
      const key = `6${id} ${text(start + 8, 32)}`;
      return wireEnd(bytes, start, end) > end
        ? "cut"
        : { key, payload: c.at, offset: flags & 0xfff8, more: (flags & 1) !== 0, nextAt, fragmentHeader: at };
    }
    if (next !== 0 && next !== 43 && next !== 60) return undefined;
    nextAt = at;
    next = c.u8();
    c.skip((c.u8() + 1) * 8 - 2);
  }
  return undefined;
}

/** Adds a fragment; false when the datagram must be dropped. */
function place(datagram: Datagram, fragment: Fragment, bytes: Uint8Array, start: number, end: number): boolean {
  const from = fragment.offset;
  const to = from + end - fragment.payload;
  if (to <= from || to > PAYLOAD_BYTES_MAX || (fragment.more && (to - from) % 8 !== 0)) return false;
  if (!fragment.more && datagram.total >= 0 && datagram.total !== to) return false;
  if (datagram.pieces.some((piece) => piece.from === from && piece.to === to)) return true;
  if (datagram.pieces.length === FRAGMENTS_MAX) return false;
  if (datagram.pieces.some((piece) => piece.from < to && from < piece.to)) return false;
  if (!fragment.more) datagram.total = to;
  if (datagram.total >= 0 && (to > datagram.total || datagram.pieces.some((piece) => piece.to > datagram.total))) return false;
  datagram.pieces.push({ from, to, bytes: bytes.slice(fragment.payload, end) });
  if (from === 0) datagram.head = wholeHead(fragment, bytes, start);
  return true;
}

/** The headers in front of the payload, without the marks of a fragment; the length is set later. */
function wholeHead(fragment: Fragment, bytes: Uint8Array, start: number): Uint8Array {
  if (fragment.fragmentHeader === 0) {
    const head = bytes.slice(start, fragment.payload);
    head.fill(0, 6, 8);
    return head;
  }
  const head = bytes.slice(start, fragment.fragmentHeader);
  head[fragment.nextAt - start] = bytes[fragment.fragmentHeader] as number;
  return head;
}

function join(datagram: Datagram): Uint8Array | undefined {
  const { head, total, pieces } = datagram;
  let have = 0;
  for (const piece of pieces) have += piece.to - piece.from;
  if (head === undefined || total < 0 || have !== total) return undefined;
  const whole = new Uint8Array(head.length + total);
  whole.set(head);
  for (const piece of pieces) whole.set(piece.bytes, head.length + piece.from);
  const is4 = (head[0] as number) >> 4 === 4;
  const length = is4 ? whole.length : whole.length - 40;
  if (length > 65_535) {
    datagram.dropped = true;
    return undefined;
  }
  whole[is4 ? 2 : 4] = length >> 8;
  whole[is4 ? 3 : 5] = length & 255;
  return whole;
}
