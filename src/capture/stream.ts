import { giveBack, take } from "../base/spare.ts";

/**
 * The first bytes of one direction of a TCP connection, put in order. Segments may come in any order and repeatedly;
 * the bytes that came first stay (`conflict` tells of a later segment that said something else).
 */

/** A ClientHello of 64 KiB in a thousand records, behind a STARTTLS and what came before it. */
export const STREAM_BYTES_MAX = 81_920;
const FIRST_BYTES = 256;
const RUNS_MAX = 64; // separate runs of bytes, with gaps between them

export interface Stream {
  /** Sequence number of byte 0; undefined until known. */
  base: number | undefined;
  /** Bytes 0..length are in order; views of it are valid until the next `addSegment`. */
  bytes: Uint8Array;
  length: number;
  conflict: boolean;
  /** Bytes came that were not kept, for STREAM_BYTES_MAX or RUNS_MAX. */
  cut: boolean;
  /** Runs of bytes present, in order and apart from each other: [from, to, from, to, ...]. */
  runs: number[];
}

const NO_BYTES = new Uint8Array(0);

export function newStream(base?: number): Stream {
  return { base, bytes: NO_BYTES, length: 0, conflict: false, cut: false, runs: [] };
}

/** The bytes in order from the start of the stream. */
export function streamBytes(stream: Stream): Uint8Array {
  return stream.bytes.subarray(0, stream.length);
}

/** Nobody looks at it any more: its memory is for another. */
export function endStream(stream: Stream): void {
  giveBack(stream.bytes);
  stream.bytes = NO_BYTES;
  stream.length = 0;
  stream.runs = [];
}

/** Adds bytes[start..end), whose first byte has the TCP sequence number `sequence`. A stream without a base starts there. */
export function addSegment(stream: Stream, sequence: number, bytes: Uint8Array, start: number, end: number): void {
  stream.base ??= sequence;
  let from = (sequence - stream.base) | 0; // modulo 2^32, signed: RFC 9293 §3.4
  let at = start;
  if (from < 0) {
    at -= from;
    from = 0;
  }
  let to = from + end - at;
  if (to <= from) return;
  if (to > STREAM_BYTES_MAX) {
    stream.cut = true;
    to = STREAM_BYTES_MAX;
    if (to <= from) return;
  }
  if (to > stream.bytes.length) {
    let size = Math.max(FIRST_BYTES, stream.bytes.length);
    while (size < to) size *= 2;
    const grown = take(Math.min(STREAM_BYTES_MAX, size));
    grown.set(stream.bytes);
    giveBack(stream.bytes);
    stream.bytes = grown;
  }
  const shift = at - from;
  if (from === stream.length && stream.runs.length <= 2 && (from > 0 || stream.runs.length === 0)) {
    copy(stream.bytes, from, to, bytes, shift); // in order, as nearly always
    if (from > 0) stream.runs[1] = to;
    else stream.runs.push(0, to);
    stream.length = to;
    return;
  }
  const before: number[] = [];
  const after: number[] = [];
  let runFrom = from;
  let runTo = to;
  let free = from; // what lies before it is settled
  for (let i = 0; i < stream.runs.length; i += 2) {
    const f = stream.runs[i] as number;
    const t = stream.runs[i + 1] as number;
    if (t < from) before.push(f, t);
    else if (f > to) after.push(f, t);
    else {
      copy(stream.bytes, free, Math.min(f, to), bytes, shift);
      for (let k = Math.max(f, from); k < Math.min(t, to); k++) if (stream.bytes[k] !== bytes[shift + k]) stream.conflict = true;
      free = Math.max(free, t);
      runFrom = Math.min(runFrom, f);
      runTo = Math.max(runTo, t);
    }
  }
  if (before.length + after.length >= RUNS_MAX * 2) {
    stream.cut = true;
    return;
  }
  copy(stream.bytes, free, to, bytes, shift);
  stream.runs = [...before, runFrom, runTo, ...after];
  stream.length = stream.runs[0] === 0 ? (stream.runs[1] as number) : 0;
}

/** into[from..to) = bytes[shift + from..shift + to) */
function copy(into: Uint8Array, from: number, to: number, bytes: Uint8Array, shift: number): void {
  // A Buffer's subarray would cost more than the copy.
  if (to > from) into.set(new Uint8Array(bytes.buffer, bytes.byteOffset + shift + from, to - from), from);
}
