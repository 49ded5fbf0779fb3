import { giveBack, take } from "./spare.ts";

/**
 * What became of a segment. `in-order`: the readable bytes grew. `gap`: kept for later, or a place that was never seen
 * (before the first byte, or so long ago that nothing is left to compare). `old`: all of it was there, in order, and is the same.
 * `overlap-differs`: it says other bytes where some were; the first ones stay. `overflow`: beyond the limit; nothing was taken.
 */
export type Pushed = "in-order" | "gap" | "old" | "overlap-differs" | "overflow";

/** Consumed bytes that are kept by default, to be compared with retransmissions. */
const KEEP_OCTETS = 16 * 1024;
/** Separate pieces beyond a gap. A sender that opens more is not losing packets, it is costing memory. */
const PIECES_MAX = 64;
const FIRST_OCTETS = 256;
const NONE: number[] = []; // never written to
const NOTHING = new Uint8Array(0);

/**
 * One direction of a TCP connection put in order, within `limit` unread bytes and `keep` read ones. First bytes win.
 * Sequence numbers are modulo 2^32 (RFC 9293 §3.4). Positions inside count from the first byte of the stream.
 */
export class ByteStream {
  readonly #limit: number;
  readonly #keep: number;
  #buffer: Uint8Array = NOTHING;
  /** Position of buffer[0], of the next unread byte, of the first byte that is missing. first <= read <= ready. */
  #first = 0;
  #read = 0;
  #ready = 0;
  /** The sequence number of #ready; undefined before the first segment. */
  #next: number | undefined;
  /** Pieces beyond the gap: from, to, from, to, ... ascending, apart from each other. */
  #pieces: number[] = NONE;

  constructor(limit: number, keep = KEEP_OCTETS) {
    this.#limit = limit;
    this.#keep = keep;
  }

  /** A SYN: the stream begins with the byte after it (so payload in the SYN is pushed at `synSequence` + 1). Forgets everything. */
  start(synSequence: number): void {
    this.#next = (synSequence + 1) >>> 0;
    this.#first = this.#read = this.#ready = 0;
    this.#pieces = NONE;
  }

  /** Lets go of all bytes; where they began is still known. No view may be in use. */
  shed(): void {
    if (this.#next !== undefined) this.#next = this.sequenceAt(this.position);
    this.#first = this.#read = this.#ready = 0;
    this.#pieces = NONE;
    giveBack(this.#buffer);
    this.#buffer = NOTHING;
  }

  /** Has a SYN or a first segment been seen? */
  get started(): boolean {
    return this.#next !== undefined;
  }

  /** Does the stream begin right after a SYN with this sequence number? */
  isFrom(synSequence: number): boolean {
    return this.#next !== undefined && (this.#next - this.#ready) >>> 0 === (synSequence + 1) >>> 0;
  }

  /** Where `sequence` stands, counted from the first byte of the stream; before the first segment nothing stands anywhere. */
  positionOf(sequence: number): number {
    return this.#next === undefined ? 0 : this.#ready + ((sequence - this.#next) | 0);
  }

  /** The sequence number at a position. */
  sequenceAt(position: number): number {
    return ((this.#next ?? 0) + position - this.#ready) >>> 0;
  }

  /**
   * The stream begins at `sequence` after all, before what was taken for its first byte; nothing may have been consumed. What
   * is there now lies beyond a gap. False: too far away, or too many pieces.
   */
  beginAt(sequence: number): boolean {
    const shift = -this.positionOf(sequence);
    const held = Math.max(this.#ready, this.#pieces.at(-1) ?? 0);
    if (shift <= 0 || this.#read > 0 || held + shift > this.#limit || this.#pieces.length >= 2 * PIECES_MAX) return false;
    const buffer = new Uint8Array(held + shift);
    buffer.set(this.#buffer.subarray(0, held), shift);
    this.#buffer = buffer;
    this.#pieces = [...(this.#ready > 0 ? [0, this.#ready] : []), ...this.#pieces].map((position) => position + shift);
    this.#ready = 0;
    this.#next = sequence >>> 0;
    return true;
  }

  /** Position of the next unread byte. */
  get position(): number {
    return this.#read;
  }

  /** Position behind the last byte in order. */
  get reach(): number {
    return this.#ready;
  }

  /** Unread bytes in order. */
  get length(): number {
    return this.#ready - this.#read;
  }

  /** Are there bytes beyond a gap? */
  get hasGap(): boolean {
    return this.#pieces.length > 0;
  }

  /** Bytes of memory held. */
  get octets(): number {
    return this.#buffer.length;
  }

  /** The sequence number of the first unread byte. */
  get readSequence(): number {
    return ((this.#next ?? 0) - this.length) >>> 0;
  }

  /** A view of the unread bytes in order; good until the next push, start or consume. */
  view(): Uint8Array {
    return this.#buffer.subarray(this.#read - this.#first, this.#ready - this.#first);
  }

  /** Marks the first `count` unread bytes as read (all of them when there are fewer). */
  consume(count: number): void {
    this.#read = Math.min(this.#ready, this.#read + Math.max(0, count));
  }

  /** Read bytes before `position` will not be compared any more; their memory goes when that is most of it. */
  trim(position: number): void {
    const gone = Math.min(position, this.#read) - this.#first;
    if (gone <= 0 || 2 * gone < this.#buffer.length) return;
    const held = Math.max(this.#ready, this.#pieces.at(-1) ?? 0) - this.#first;
    this.#buffer = this.#buffer.slice(gone, held);
    this.#first += gone;
  }

  /** Takes bytes[start..end) that stand at `sequence`. The first segment of a stream without `start` sets its begin. */
  push(sequence: number, bytes: Uint8Array, start: number, end: number): Pushed {
    if (end <= start) return "old";
    this.#next ??= sequence >>> 0;
    const from = this.#ready + ((sequence - this.#next) | 0);
    const to = from + (end - start);
    if (from < this.#first) return "gap";
    if (to > this.#read + this.#limit) return "overflow";
    if (this.#pieces.length >= 2 * PIECES_MAX && from > this.#ready) return "overflow";
    const shift = start - from; // position + shift = index in bytes
    const differs = from < this.#ready && !this.#agrees(bytes, from + shift, from, Math.min(to, this.#ready));
    const before = this.#ready;
    this.#makeRoom(to);
    const overlap = this.#place(bytes, shift, from, to);
    if (this.#ready > before) this.#next = (this.#next + (this.#ready - before)) >>> 0;
    if (differs || overlap === "differs") return "overlap-differs";
    if (this.#ready > before) return "in-order";
    return to > this.#ready ? "gap" : "old";
  }

  /** Are bytes[index...] those that stand at positions from..to? */
  #agrees(bytes: Uint8Array, index: number, from: number, to: number): boolean {
    const at = from - this.#first;
    for (let i = 0; i < to - from; i++) if (this.#buffer[at + i] !== bytes[index + i]) return false;
    return true;
  }

  #copy(bytes: Uint8Array, shift: number, from: number, to: number): void {
    const buffer = this.#buffer;
    const at = -this.#first;
    for (let position = from; position < to; position++) buffer[at + position] = bytes[position + shift] as number;
  }

  /** Fills what is missing of from..to, merges the pieces it touches, and moves #ready over the first when it fits. */
  #place(bytes: Uint8Array, shift: number, from: number, to: number): "new" | "same" | "differs" {
    let missing = Math.max(from, this.#ready);
    if (missing >= to) return "same";
    if (this.#pieces.length === 0 && missing === this.#ready) {
      this.#copy(bytes, shift, missing, to);
      this.#ready = to;
      return "new";
    }
    let result: "new" | "same" | "differs" = "same";
    const merged: number[] = [];
    let begin = missing;
    let finish = to;
    for (let i = 0; i < this.#pieces.length; i += 2) {
      const a = this.#pieces[i] as number;
      const b = this.#pieces[i + 1] as number;
      if (b < begin || a > finish) {
        merged.push(a, b);
        continue;
      }
      if (missing < Math.min(a, to)) {
        this.#copy(bytes, shift, missing, Math.min(a, to));
        if (result === "same") result = "new";
      }
      const common = Math.max(missing, a);
      const commonEnd = Math.min(b, to);
      if (common < commonEnd && !this.#agrees(bytes, common + shift, common, commonEnd)) result = "differs";
      missing = Math.max(missing, Math.min(b, to));
      begin = Math.min(begin, a);
      finish = Math.max(finish, b);
    }
    if (missing < to) {
      this.#copy(bytes, shift, missing, to);
      if (result === "same") result = "new";
    }
    let at = 0;
    while (at < merged.length && (merged[at] as number) < begin) at += 2;
    merged.splice(at, 0, begin, finish);
    if (begin === this.#ready) {
      this.#ready = finish;
      merged.splice(0, 2);
    }
    this.#pieces = merged;
    return result;
  }

  /** Makes the buffer reach position `to`, letting go of read bytes beyond `keep` when it would have to grow. */
  #makeRoom(to: number): void {
    if (to - this.#first <= this.#buffer.length) return;
    const first = Math.max(this.#first, this.#read - this.#keep);
    const held = this.#buffer.subarray(first - this.#first);
    let size = Math.max(this.#buffer.length, FIRST_OCTETS);
    while (size < to - first) size *= 2;
    if (size === this.#buffer.length) this.#buffer.copyWithin(0, first - this.#first);
    else {
      const buffer = take(Math.min(size, this.#limit + this.#keep));
      if (held.length > 0) buffer.set(held.length > buffer.length ? held.subarray(0, buffer.length) : held);
      giveBack(this.#buffer);
      this.#buffer = buffer;
    }
    this.#first = first;
  }
}
