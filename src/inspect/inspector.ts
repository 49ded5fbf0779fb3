import type { Bad, Need } from "../base/cursor.ts";
import type { Evidence } from "../model/verdict.ts";

/**
 * One protocol, read from the first payload bytes of a connection. The caller collects the bytes of both directions in
 * order (capture does it for files, the inline side for live connections) and asks again when more have come; an
 * inspector keeps nothing between calls, so the same bytes always give the same answer, however they were cut.
 */
export interface Inspector {
  /** As in the corpus and in policies: `tls`, `postgresql`, ... */
  readonly application: string;
  /** IP protocol numbers it runs over. */
  readonly transports: readonly number[];
  /** Who sends the first byte. A server-first protocol is asked with server bytes only at first. */
  readonly opens: Direction;
  /**
   * Reads what is there. Must not throw, must not keep `first`, and must be able to say `bad` as early as the bytes
   * tell (a first byte that cannot be this protocol), so that an unknown protocol does not wait for more bytes.
   */
  read(first: FirstBytes): Reading;
}

export type Direction = "client" | "server";

/** What has been seen of a connection so far. Reused by the caller; views, not copies. */
export interface FirstBytes {
  /** IP protocol number. Over UDP a Run holds datagrams one behind the other, `ends` says where each ends. */
  transport: number;
  client: Run;
  server: Run;
}

/** bytes[start..end), in order from the first byte of its direction. */
export interface Run {
  bytes: Uint8Array;
  start: number;
  end: number;
  /** UDP: the end of every datagram, as an offset into `bytes`; empty for TCP. */
  ends: readonly number[];
  /** No more bytes will come (FIN, or the limit of what is collected). */
  closed: boolean;
}

/**
 * The evidence; or `need`: bytes of direction `of` wanted in all (counted from the first, always more than are there)
 * before asking again; or `bad`: these bytes are not this protocol, or break its rules. `application` is set when they are
 * this protocol beyond doubt, but broken. A direction that is `closed` is never needed: then it is the evidence that there is
 * (the protocol, where no other could begin like this), or `bad`.
 */
export type Reading = Evidence | NeedOf | NotIt;
export interface NeedOf extends Need {
  readonly of: Direction;
  /**
   * The bytes of `of` will not come while the others are held back: the peer must have them first (an SSLRequest wants its
   * answer, a server-first protocol its greeting answered). They are legal, complete messages so far. Without it they are
   * held until there is a verdict.
   */
  readonly release?: true;
  /** Already certain to be this application, whatever comes. */
  readonly application?: string;
}
export interface NotIt extends Bad {
  readonly application?: string;
}

export const NO_BYTES: Run = { bytes: new Uint8Array(0), start: 0, end: 0, ends: [], closed: false };
