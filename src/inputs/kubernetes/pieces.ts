/** A line or an object beyond its limit. */
export const TOO_LARGE = Symbol("too large");

const LINE_FEED = 10;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** Text that arrives in pieces, up to `max` bytes. */
class Rope {
  private pieces: Buffer[] = [];
  private bytes = 0;
  private readonly max: number;

  constructor(max: number) {
    this.max = max;
  }

  /** False when it is full. */
  add(piece: Buffer): boolean {
    this.bytes += piece.length;
    if (this.bytes > this.max) return false;
    if (piece.length > 0) this.pieces.push(piece);
    return true;
  }

  /** All of it; empty afterwards. */
  take(): string {
    const text = this.pieces.length === 1 ? (this.pieces[0] as Buffer).toString("utf8") : Buffer.concat(this.pieces).toString("utf8");
    this.pieces = [];
    this.bytes = 0;
    return text;
  }
}

/** Cuts a stream of lines, as a watch is. */
export class LineCutter {
  private readonly rest: Rope;

  constructor(bytesMax: number) {
    this.rest = new Rope(bytesMax);
  }

  /** Gives each line that is now whole to `take`, until that answers something, which is the answer. Empty lines are nothing. */
  push<E>(piece: Buffer, take: (line: string) => E | undefined): E | typeof TOO_LARGE | undefined {
    let from = 0;
    for (;;) {
      const end = piece.indexOf(LINE_FEED, from);
      if (!this.rest.add(piece.subarray(from, end < 0 ? undefined : end))) return TOO_LARGE;
      if (end < 0) return undefined;
      from = end + 1;
      const line = this.rest.take();
      const answer = line === "" ? undefined : take(line);
      if (answer !== undefined) return answer;
    }
  }
}

/**
 * Cuts the objects out of a JSON list, `{"kind":…,"metadata":{…},"items":[{…},{…}]}`, as it arrives: neither the list's text
 * nor all its objects are ever in memory at once, and no piece keeps the event loop for long. Only looks for strings and brackets;
 * whether it is JSON is for JSON.parse to say, of each object and of what is left.
 */
export class ItemCutter {
  private readonly item: Rope;
  private readonly frame: Rope;
  private depth = 0;
  private inItems = false;
  private inItem = false;
  private inString = false;
  private escaped = false;

  constructor(itemBytesMax: number, frameBytesMax: number) {
    this.item = new Rope(itemBytesMax);
    this.frame = new Rope(frameBytesMax);
  }

  /** Gives the text of each object that is now whole to `take`, until that answers something. */
  push<E>(piece: Buffer, take: (text: string) => E | undefined): E | typeof TOO_LARGE | undefined {
    let from = 0;
    for (let at = 0; at < piece.length; at++) {
      const byte = piece[at] as number;
      if (this.inString) {
        if (this.escaped) this.escaped = false;
        else if (byte === BACKSLASH) this.escaped = true;
        else if (byte === QUOTE) this.inString = false;
      } else if (byte === QUOTE) {
        this.inString = true;
      } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        if (byte === OPEN_BRACKET && this.depth === 1) this.inItems = true;
        if (byte === OPEN_BRACE && this.depth === 2 && this.inItems) {
          if (!this.frame.add(piece.subarray(from, at))) return TOO_LARGE;
          from = at;
          this.inItem = true;
        }
        this.depth++;
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        this.depth--;
        if (this.depth === 1) this.inItems = false;
        if (this.depth === 2 && this.inItem) {
          if (!this.item.add(piece.subarray(from, at + 1))) return TOO_LARGE;
          from = at + 1;
          this.inItem = false;
          const answer = take(this.item.take());
          if (answer !== undefined) return answer;
        }
      } else if (byte === COMMA && this.depth === 2 && this.inItems) {
        if (!this.frame.add(piece.subarray(from, at))) return TOO_LARGE;
        from = at + 1; // between objects
      }
    }
    return (this.inItem ? this.item : this.frame).add(piece.subarray(from)) ? undefined : TOO_LARGE;
  }

  /** The list without its objects. */
  rest(): string {
    return this.frame.take();
  }
}
