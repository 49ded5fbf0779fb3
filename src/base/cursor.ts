/**
 * A bounded reader. Every read checks the bound; a read past the end returns 0 (or an empty view) and sets `short` for
 * good, so a parser reads a whole structure and looks at `short` once. Never throws. Holds a view, copies nothing.
 */
export class Cursor {
  bytes: Uint8Array;
  at: number;
  end: number;
  short = false;

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = start;
    this.end = Math.min(end, bytes.length);
  }

  /** Starts again on other bytes, so that one cursor serves a whole hot path. */
  reset(bytes: Uint8Array, start: number, end: number): this {
    this.bytes = bytes;
    this.at = start;
    this.end = Math.min(end, bytes.length);
    this.short = start > this.end;
    return this;
  }

  get left(): number {
    return this.end - this.at;
  }

  private take(count: number): number {
    if (count < 0 || this.short || this.end - this.at < count) {
      this.short = true;
      return -1;
    }
    const at = this.at;
    this.at += count;
    return at;
  }

  u8(): number {
    const at = this.take(1);
    return at < 0 ? 0 : (this.bytes[at] as number);
  }

  u16(): number {
    const at = this.take(2);
    return at < 0 ? 0 : ((this.bytes[at] as number) << 8) | (this.bytes[at + 1] as number);
  }

  u24(): number {
    const at = this.take(3);
    return at < 0 ? 0 : ((this.bytes[at] as number) << 16) | ((this.bytes[at + 1] as number) << 8) | (this.bytes[at + 2] as number);
  }

  /** 0..2^32-1. */
  u32(): number {
    const at = this.take(4);
    return at < 0
      ? 0
      : (((this.bytes[at] as number) << 24) |
          ((this.bytes[at + 1] as number) << 16) |
          ((this.bytes[at + 2] as number) << 8) |
          (this.bytes[at + 3] as number)) >>>
          0;
  }

  skip(count: number): void {
    this.take(count);
  }

  /** A view (not a copy) of the next `count` bytes; empty and `short` when they are not there. */
  view(count: number): Uint8Array {
    const at = this.take(count);
    return at < 0 ? this.bytes.subarray(0, 0) : this.bytes.subarray(at, at + count);
  }
}

/** A parser's answer when it has too little: total bytes wanted, from the start of the input; more than it was given. */
export interface Need {
  readonly need: number;
}
/** A parser's answer when more bytes can never help: why. */
export interface Bad {
  readonly bad: string;
}
