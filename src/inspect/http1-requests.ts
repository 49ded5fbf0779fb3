import { Chunks } from "./http1-chunks.ts";
import { HEAD_BYTES_MAX, readHead, type BadHead, type RequestHead } from "./http1-head.ts";
import { readRequestLine } from "./http1-line.ts";

/**
 * Follows one connection of HTTP/1 requests to a proxy, so that each is judged by its own target. The client's bytes go
 * through `next`, in order and each once. A CONNECT or an Upgrade makes a tunnel of the connection only when the server says
 * so, and a refused one is followed by other requests: while `waiting`, the server's bytes go through `answer`.
 *
 * Both are taken as first requests only (or behind refused ones): behind others it could not be told whose answer is whose.
 */
export class Http1Requests {
  private state: "head" | "length" | "chunks" | "waiting" | "tunnel" | "broken" = "head";
  /** The begin of a head that came in pieces. */
  private part: Uint8Array = new Uint8Array(0);
  private partBytes = 0;
  private readonly headEnd = new HeadEnd();
  private left = 0;
  private chunks = new Chunks();
  private tunnelWanted: "connect" | "upgrade" | undefined;
  private ordinary = false; // a request was seen that wants no tunnel
  private reply = new Reply();
  private why = "";

  /** The last request wants a tunnel, and the server has not answered. */
  get waiting(): boolean {
    return this.state === "waiting";
  }

  /** Bytes of a head whose end has not come. */
  get unfinished(): number {
    return this.partBytes;
  }

  /** Reads on at `start`. Call again from `at` until it is `more` or `wait`. */
  next(bytes: Uint8Array, start: number, end: number): Step {
    let at = start;
    for (;;) {
      switch (this.state) {
        case "head": {
          if (at === end) return { kind: "more", at };
          const head = this.head(bytes, at, end);
          if (head === undefined) return { kind: "more", at: end };
          if ("bad" in head) return this.fail(head.bad);
          return this.begin(head.request, head.at);
        }
        case "length": {
          const there = Math.min(this.left, end - at);
          at += there;
          this.left -= there;
          if (this.left > 0) return { kind: "more", at };
          this.endBody();
          break;
        }
        case "chunks": {
          const behind = this.chunks.skip(bytes, at, end);
          if (typeof behind !== "number") return this.fail(behind.bad);
          at = behind;
          if (!this.chunks.done) return { kind: "more", at };
          this.endBody();
          break;
        }
        case "waiting":
          return { kind: at === end ? "more" : "wait", at };
        case "tunnel":
          return { kind: "tunnel", at };
        case "broken":
          return { kind: "bad", why: this.why };
        default:
          return this.state satisfies never;
      }
    }
  }

  /** The server's bytes since the request that wants a tunnel; not needed while nothing is `waiting`. */
  answer(bytes: Uint8Array, start: number, end: number): void {
    if (this.state !== "waiting") return;
    const status = this.reply.status(bytes, start, end);
    if (status === undefined) return;
    const agreed = this.tunnelWanted === "connect" ? status >= 200 && status < 300 : status === 101;
    this.tunnelWanted = undefined;
    if (status === 0) this.fail("the answer is not HTTP/1");
    else this.state = agreed ? "tunnel" : "head";
  }

  /** The head that ends in these bytes; undefined when it goes on. */
  private head(bytes: Uint8Array, start: number, end: number): { request: RequestHead; at: number } | BadHead | undefined {
    const at = this.headEnd.find(bytes, start, end);
    const stop = at < 0 ? end : at;
    if (this.partBytes + stop - start > HEAD_BYTES_MAX) return { bad: `a request head of more than ${HEAD_BYTES_MAX} bytes` };
    if (at >= 0 && this.partBytes === 0) return whole(readHead(bytes, start, at), at);
    const before = this.partBytes;
    this.keep(bytes, start, stop);
    if (at >= 0) {
      this.partBytes = 0;
      return whole(readHead(this.part, 0, before + at - start), at);
    }
    // What is no request is refused at once; only while there is little to read again.
    const line = before < EARLY_BYTES ? readRequestLine(this.part, 0, this.partBytes) : undefined;
    return line !== undefined && "bad" in line ? line : undefined;
  }

  private keep(bytes: Uint8Array, start: number, end: number): void {
    const length = this.partBytes + end - start;
    if (length > this.part.length) {
      const larger = new Uint8Array(Math.max(length, 2 * this.part.length, 1024));
      larger.set(this.part.subarray(0, this.partBytes));
      this.part = larger;
    }
    this.part.set(bytes.subarray(start, end), this.partBytes);
    this.partBytes = length;
  }

  private begin(request: RequestHead, at: number): Step {
    const connect = request.method === "CONNECT";
    if (connect || request.upgrade !== undefined) {
      if (this.ordinary) return this.fail(`${connect ? "a CONNECT" : "an Upgrade"} behind other requests`);
      if (connect && request.body !== 0) return this.fail("a CONNECT with a body");
      this.tunnelWanted = connect ? "connect" : "upgrade";
      this.reply = new Reply();
    } else this.ordinary = true;
    if (request.body === "chunked") {
      this.chunks = new Chunks();
      this.state = "chunks";
    } else {
      this.left = request.body;
      this.state = "length";
      if (this.left === 0) this.endBody();
    }
    return { kind: "request", at, request };
  }

  private endBody(): void {
    this.state = this.tunnelWanted === undefined ? "head" : "waiting";
  }

  private fail(why: string): Step {
    this.state = "broken";
    this.why = why;
    return { kind: "bad", why };
  }
}

/**
 * `at`: the offset up to which the bytes are judged. `request`: a head ends there; its body is not looked at. `wait`: what
 * follows depends on the server's answer. `tunnel`: all that follows is another protocol's. `bad`: for good.
 */
export type Step =
  | { readonly kind: "request"; readonly at: number; readonly request: RequestHead }
  | { readonly kind: "more" | "wait" | "tunnel"; readonly at: number }
  | { readonly kind: "bad"; readonly why: string };

const EARLY_BYTES = 256;

function whole(head: ReturnType<typeof readHead>, at: number): { request: RequestHead; at: number } | BadHead {
  if ("bad" in head) return head;
  return "need" in head ? { bad: "a line that does not end with CR LF" } : { request: head, at };
}

/** Finds the end of a head that comes in pieces: the first empty line behind a line that is not. */
class HeadEnd {
  private begun = false;
  private column = 0;

  /** The offset behind it; -1 when it is not there yet. */
  find(bytes: Uint8Array, start: number, end: number): number {
    for (let at = start; at < end; at++) {
      const c = bytes[at] as number;
      if (c === 0x0a) {
        if (this.begun && this.column === 0) {
          this.begun = false;
          return at + 1;
        }
        this.column = 0;
      } else if (c !== 0x0d) {
        this.begun = true;
        this.column++;
      }
    }
    return -1;
  }
}

const STATUS_AT = "HTTP/1.x ".length;
const STATUS_LINE = STATUS_AT + 3;
const VERSION = "HTTP/1.";

/** The status of an answer that comes in pieces; interim ones (1xx but 101) are passed over (RFC 9110 §15.2). */
class Reply {
  private line: number[] = [];
  private readonly headEnd = new HeadEnd();
  private bytes = 0;

  /** Undefined while it is not there; 0 when it is no HTTP/1 answer. */
  status(bytes: Uint8Array, start: number, end: number): number | undefined {
    for (let at = start; at < end; ) {
      while (at < end && this.line.length < STATUS_LINE) {
        this.headEnd.find(bytes, at, at + 1);
        this.line.push(bytes[at++] as number);
      }
      if (this.line.length < STATUS_LINE) return undefined;
      const status = statusOf(this.line);
      if (status === 101 || status === 0 || status >= 200) return status;
      const next = this.headEnd.find(bytes, at, end);
      this.bytes += (next < 0 ? end : next) - at;
      if (this.bytes > HEAD_BYTES_MAX) return 0;
      if (next < 0) return undefined;
      at = next;
      this.line = [];
    }
    return undefined;
  }
}

function statusOf(line: readonly number[]): number {
  for (let i = 0; i < VERSION.length; i++) if (line[i] !== VERSION.charCodeAt(i)) return 0;
  if (line[STATUS_AT - 1] !== 0x20) return 0;
  let status = 0;
  for (let i = STATUS_AT; i < STATUS_LINE; i++) {
    const digit = (line[i] as number) - 0x30;
    if (digit < 0 || digit > 9) return 0;
    status = status * 10 + digit;
  }
  return status >= 100 && status < 600 ? status : 0;
}
