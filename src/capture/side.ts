import { addSegment, newStream, STREAM_BYTES_MAX, type Stream } from "./stream.ts";

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
  /** TCP: a FIN or a RST was seen. */
  readonly closed: boolean;
  /** TCP: a segment disagreed with bytes that came before it. */
  readonly conflict: boolean;
  /** Packets seen in this direction, with and without payload. */
  readonly packets: number;
}

/**
 * One direction while it is collected. Bytes are copied only when there is more to wait for: the first segment of a
 * connection, and the first datagram, are looked at where they stand in the capture.
 */
export class Side implements Payload {
  bytes: Uint8Array = NONE;
  start = 0;
  end = 0;
  ends: number[] = NO_ENDS;
  packets = 0;
  finished = false;
  reset = false;
  /** TCP: sequence number of the first byte, -1 until known. */
  base = -1;
  /** TCP DNS: where the next message starts. */
  dnsAt = 0;
  #stream: Stream | undefined;
  /** The bytes are another's. */
  #borrowed = false;

  get closed(): boolean {
    return this.finished || this.reset;
  }

  get conflict(): boolean {
    return this.#stream?.conflict === true;
  }

  /** Takes a segment; are there more bytes in order than before? Those of the capture stay its own until `keep`. */
  addSegment(sequence: number, bytes: Uint8Array, start: number, end: number): boolean {
    if (this.base < 0) this.base = sequence;
    const from = this.start;
    const length = this.end - from;
    if (this.#stream === undefined && sequence === this.base && end - start <= STREAM_BYTES_MAX) {
      this.#borrow(bytes, start, end);
      return true;
    }
    this.#stream ??= newStream(this.base);
    addSegment(this.#stream, sequence, bytes, start, end);
    this.bytes = this.#stream.bytes;
    this.end = this.#stream.length;
    return this.end > length;
  }

  /** Takes a datagram; false where it is one too many. */
  addDatagram(bytes: Uint8Array, start: number, end: number): boolean {
    const have = this.end - this.start;
    const kept = Math.min(end - start, STREAM_BYTES_MAX - have);
    if (this.ends.length === DATAGRAMS_MAX || kept === 0) return false;
    if (this.ends.length === 0) {
      this.#borrow(bytes, start, start + kept);
      this.ends = [this.end];
      return true;
    }
    if (have + kept > this.bytes.length) {
      const grown = new Uint8Array(Math.min(STREAM_BYTES_MAX, Math.max(have + kept, 2 * have)));
      grown.set(this.bytes.subarray(0, have));
      this.bytes = grown;
    }
    this.bytes.set(bytes.subarray(start, start + kept), have);
    this.end = have + kept;
    this.ends.push(this.end);
    return true;
  }

  #borrow(bytes: Uint8Array, start: number, end: number): void {
    this.bytes = bytes;
    this.start = start;
    this.end = end;
    this.#borrowed = true;
  }

  /** Bytes of memory of its own. */
  get held(): number {
    return this.#borrowed ? 0 : this.bytes.length;
  }

  /** Copies what is still the capture's. */
  keep(): void {
    if (!this.#borrowed) return;
    this.#borrowed = false;
    const { bytes, start, end } = this;
    if (this.ends.length > 0) {
      this.bytes = bytes.slice(start, end);
      this.ends = [end - start];
    } else {
      this.#stream = newStream(this.base);
      addSegment(this.#stream, this.base, bytes, start, end);
      this.bytes = this.#stream.bytes;
    }
    this.end = end - start;
    this.start = 0;
  }

  /** Lets go of all bytes. */
  forget(): void {
    this.bytes = NONE;
    this.start = this.end = 0;
    this.ends = NO_ENDS;
    this.#stream = undefined;
    this.#borrowed = false;
  }

  /** Another attempt of a connection that never spoke. */
  again(): void {
    this.forget();
    this.finished = this.reset = false;
    this.base = -1;
  }
}

const NO_ENDS: number[] = [];
