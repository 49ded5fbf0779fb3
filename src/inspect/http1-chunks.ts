import type { Bad } from "../base/cursor.ts";

/**
 * Skips a chunked body (RFC 9112 §7.1) that comes in pieces. Strict: lines end with CR LF, sizes are hexadecimal digits
 * and nothing before them, because chunks that two servers end at different places are how a request is hidden in a body.
 */

const SIZE_DIGITS_MAX = 12; // 2^48 bytes
const LINE_BYTES_MAX = 1024; // a size with its extensions
const TRAILER_BYTES_MAX = 16_384;

type State = "size" | "extension" | "size-lf" | "data" | "data-cr" | "data-lf" | "trailer" | "trailer-lf" | "done";

export class Chunks {
  private state: State = "size";
  private digits = 0;
  private size = 0;
  /** Of the size line, or of all trailer lines. */
  private lineBytes = 0;
  /** Of the trailer line in hand. */
  private column = 0;

  get done(): boolean {
    return this.state === "done";
  }

  /** The offset behind what belongs to the body; `end` while it goes on. */
  skip(bytes: Uint8Array, start: number, end: number): number | Bad {
    let at = start;
    while (at < end && this.state !== "done") {
      if (this.state === "data") {
        const there = Math.min(this.size, end - at);
        at += there;
        this.size -= there;
        if (this.size === 0) this.state = "data-cr";
        continue;
      }
      const wrong = this.octet(bytes[at++] as number);
      if (wrong !== undefined) return { bad: wrong };
    }
    return at;
  }

  /** One octet of the framing; says what is wrong with it. */
  private octet(c: number): string | undefined {
    switch (this.state) {
      case "size":
        return this.sizeOctet(c);
      case "extension":
        if (c === CR) this.state = "size-lf";
        else if (isControl(c) || ++this.lineBytes > LINE_BYTES_MAX) return "a chunk size with a strange extension";
        return undefined;
      case "size-lf":
        if (c !== LF) return "a chunk size without its line's end";
        this.state = this.size > 0 ? "data" : "trailer";
        this.lineBytes = this.column = 0;
        return undefined;
      case "data-cr":
        this.state = "data-lf";
        return c === CR ? undefined : "a chunk that is longer than its size";
      case "data-lf":
        this.state = "size";
        this.digits = this.size = this.lineBytes = 0;
        return c === LF ? undefined : "a chunk that is longer than its size";
      case "trailer":
        if (c === CR) this.state = "trailer-lf";
        else if (isControl(c) || ++this.lineBytes > TRAILER_BYTES_MAX) return "a strange trailer";
        else this.column++;
        return undefined;
      case "trailer-lf":
        if (c !== LF) return "a strange trailer";
        this.state = this.column === 0 ? "done" : "trailer";
        this.column = 0;
        return undefined;
      case "data":
      case "done":
        return undefined;
      default:
        return this.state satisfies never;
    }
  }

  private sizeOctet(c: number): string | undefined {
    const digit = hexDigit(c);
    if (digit >= 0) {
      if (++this.digits > SIZE_DIGITS_MAX) return "a chunk size of too many digits";
      this.size = this.size * 16 + digit;
      return undefined;
    }
    if (this.digits === 0) return "not a chunk size";
    // Some senders fill up with blanks.
    if (c === CR) this.state = "size-lf";
    else if (c === 0x3b || c === 0x20 || c === 0x09) this.state = "extension";
    else return "not a chunk size";
    return undefined;
  }
}

const CR = 0x0d;
const LF = 0x0a;

function isControl(c: number): boolean {
  return (c < 0x20 && c !== 0x09) || c === 0x7f;
}

function hexDigit(c: number): number {
  if (c >= 0x30 && c <= 0x39) return c - 0x30;
  const letter = c | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}
