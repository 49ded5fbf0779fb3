import { addSegment, endStream, newStream, STREAM_BYTES_MAX, type Stream } from "./stream.ts";

const DATAGRAMS_MAX = 16; // kept of one direction, within STREAM_BYTES_MAX
const NONE = new Uint8Array(0);

/** The first payload bytes of one direction: bytes[start..end). */
export interface Payload {
  /** TCP: in order from the first, first come wins. UDP and SCTP: the first 16 datagrams, one behind the other. */
  readonly bytes: Uint8Array;
  readonly start: number;
  /** At most STREAM_BYTES_MAX behind `start`; the last datagram may be cut. */
  readonly end: number;
  /** UDP and SCTP: where each datagram ends, as an offset into `bytes`. */
  readonly ends: readonly number[];
  /** TCP: a segment disagreed with bytes that came before it. */
  readonly conflict: boolean;
}

const NO_ENDS: readonly number[] = [];

/** Nothing was said, or nothing was kept of it. */
export const NOTHING: Payload = { bytes: NONE, start: 0, end: 0, ends: NO_ENDS, conflict: false };

/** A payload that is looked at where it stands in the capture: the first segment in order, the first datagram. */
export class View implements Payload {
  bytes: Uint8Array = NONE;
  start = 0;
  end = 0;
  ends: readonly number[] = NO_ENDS;
  readonly conflict = false;

  set(bytes: Uint8Array, start: number, end: number, datagram: boolean): this {
    this.bytes = bytes;
    this.start = start;
    this.end = Math.min(end, start + STREAM_BYTES_MAX);
    this.ends = datagram ? [this.end] : NO_ENDS;
    return this;
  }
}

/** The bytes of one direction that are kept because there is more to wait for. */
export class Side implements Payload {
  readonly start = 0;
  #bytes = NONE;
  #end = 0;
  readonly ends: number[] = [];
  #stream: Stream | undefined;

  get bytes(): Uint8Array {
    return this.#stream?.bytes ?? this.#bytes;
  }

  get end(): number {
    return this.#stream?.length ?? this.#end;
  }

  get conflict(): boolean {
    return this.#stream?.conflict === true;
  }

  /** Takes a segment of a stream that begins at `base`; are there more bytes in order than before? */
  addSegment(base: number, sequence: number, bytes: Uint8Array, start: number, end: number): boolean {
    this.#stream ??= newStream(base);
    const before = this.#stream.length;
    addSegment(this.#stream, sequence, bytes, start, end);
    return this.#stream.length > before;
  }

  /** Lets go of all bytes. No view may be in use. */
  shed(): void {
    if (this.#stream !== undefined) endStream(this.#stream);
  }

  /** Takes a datagram; false where it is one too many. */
  addDatagram(bytes: Uint8Array, start: number, end: number): boolean {
    const have = this.#end;
    const kept = Math.min(end - start, STREAM_BYTES_MAX - have);
    if (this.ends.length === DATAGRAMS_MAX || kept === 0) return false;
    if (have + kept > this.#bytes.length) {
      const grown = new Uint8Array(Math.min(STREAM_BYTES_MAX, Math.max(have + kept, 2 * have)));
      grown.set(this.#bytes.subarray(0, have));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes.subarray(start, start + kept), have);
    this.#end = have + kept;
    this.ends.push(this.#end);
    return true;
  }
}
