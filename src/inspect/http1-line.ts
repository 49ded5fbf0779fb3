import type { Bad, Need } from "../base/cursor.ts";
import { lower } from "./text.ts";

/** The request line (RFC 9112 §3): `method SP request-target SP HTTP/1.x`, CR LF or LF behind it. */
export interface RequestLine {
  readonly method: string;
  readonly form: TargetForm;
  /** bytes[targetStart..targetEnd). */
  readonly targetStart: number;
  readonly targetEnd: number;
  readonly version: "1.0" | "1.1";
  /** Behind its LF. */
  readonly end: number;
}
/** RFC 9112 §3.2: `/path`, `scheme://authority/path`, `host:port` of CONNECT, `*` of OPTIONS. */
export type TargetForm = "origin" | "absolute" | "authority" | "asterisk";

export const LINE_BYTES_MAX = 16_384; // RFC 9112 §3: 8000 should do; servers take 8 to 64 KiB
const LEADING_LINES_MAX = 8; // RFC 9112 §2.2: "at least one" empty line before a request is to be ignored
const VERSION = "HTTP/1.";

/** The IANA HTTP Method Registry, without PRI; WebDAV's are in it. Names are case-sensitive (RFC 9110 §9.1). */
const REGISTERED =
  "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL " +
  "MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND " +
  "UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL";
/** Not registered, but in use: cache purges, UPnP (HTTP over TCP of it), Exchange, RPC over HTTP, BITS, SSTP, Icecast, Vault. */
const IN_USE =
  "PURGE BAN REFRESH NOTIFY SUBSCRIBE UNSUBSCRIBE POLL M-SEARCH BCOPY BDELETE BMOVE BPROPFIND BPROPPATCH RPC_IN_DATA RPC_OUT_DATA " +
  "BITS_POST CCM_POST SSTP_DUPLEX_POST SOURCE LIST";
const METHODS: readonly string[] = `${REGISTERED} ${IN_USE}`.split(" ");

/** Schemes that a proxy is asked for, with their ports (RFC 9110 §4.2, RFC 6455 §3; FTP through a proxy's gateway). */
export const SCHEME_PORTS: ReadonlyMap<string, number> = new Map([
  ["http", 80],
  ["https", 443],
  ["ws", 80],
  ["wss", 443],
  ["ftp", 21],
]);

/**
 * Reads the request line at the start of bytes[start..end), and empty lines before it. `bad` with the first byte that
 * cannot be one's. `need` counts from `start`.
 */
export function readRequestLine(bytes: Uint8Array, start: number, end: number): RequestLine | Need | Bad {
  const from = skipEmptyLines(bytes, start, end);
  if (from < 0) return { bad: "not an HTTP request" };
  const limit = Math.min(end, from + LINE_BYTES_MAX);
  const more =
    limit < end || end - from === LINE_BYTES_MAX
      ? { bad: `a request line of more than ${LINE_BYTES_MAX} bytes` }
      : { need: end - start + 1 };
  const method = methodAt(bytes, from, limit);
  if (method === undefined) return { bad: "not an HTTP method" };
  if (method === "") return more;
  const targetStart = from + method.length + 1;
  const form = formAt(bytes, targetStart, limit, method);
  if (form === undefined) return { bad: "not an HTTP request target" };
  let at = targetStart;
  while (at < limit && isTargetOctet(bytes[at] as number)) at++;
  if (at === limit) return more;
  const targetEnd = at;
  if (bytes[at++] !== 0x20 || targetEnd === targetStart) return { bad: "not an HTTP request target" };
  if (form === "asterisk" && targetEnd > targetStart + 1) return { bad: "not an HTTP request target" };
  const matched = Math.min(VERSION.length, limit - at);
  for (let i = 0; i < matched; i++) if (bytes[at + i] !== VERSION.charCodeAt(i)) return { bad: "not HTTP/1" };
  at += VERSION.length;
  if (at >= limit) return more;
  const minor = bytes[at++];
  if (minor !== 0x30 && minor !== 0x31) return { bad: "not HTTP/1.0 or 1.1" };
  if (at < limit && bytes[at] === 0x0d) at++;
  if (at >= limit) return more;
  if (bytes[at] !== 0x0a) return { bad: "not the end of a request line" };
  return { method, form, targetStart, targetEnd, version: minor === 0x30 ? "1.0" : "1.1", end: at + 1 };
}

/** Where the first line with something on it starts; -1 where no request can start. */
function skipEmptyLines(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  for (let lines = 0; at < end && (bytes[at] === 0x0d || bytes[at] === 0x0a); lines++) {
    if (lines === LEADING_LINES_MAX) return -1;
    if (bytes[at] === 0x0d && at + 1 < end && bytes[at + 1] !== 0x0a) return -1;
    at += bytes[at] === 0x0d ? 2 : 1;
  }
  return Math.min(at, end);
}

/** The method before a space; "" while the bytes are the start of one; undefined when they are none's. */
function methodAt(bytes: Uint8Array, start: number, end: number): string | undefined {
  let partly = false;
  for (const method of METHODS) {
    const count = Math.min(method.length, end - start);
    let same = 0;
    while (same < count && bytes[start + same] === method.charCodeAt(same)) same++;
    if (same < count) continue;
    if (start + method.length >= end) partly = true;
    else if (bytes[start + method.length] === 0x20) return method;
  }
  return partly ? "" : undefined;
}

/** The form that the first bytes of a target have, or can still have; undefined: none. */
function formAt(bytes: Uint8Array, start: number, end: number, method: string): TargetForm | undefined {
  if (method === "CONNECT") return "authority";
  if (start >= end || bytes[start] === 0x2f) return "origin";
  if (bytes[start] === 0x2a) return method === "OPTIONS" ? "asterisk" : undefined;
  for (const scheme of SCHEME_PORTS.keys()) {
    const count = Math.min(scheme.length + 3, end - start);
    let same = 0;
    while (same < count && lower(bytes[start + same] as number) === schemeOctet(scheme, same)) same++;
    if (same === count) return "absolute";
  }
  return undefined;
}

function schemeOctet(scheme: string, i: number): number {
  return i < scheme.length ? scheme.charCodeAt(i) : "://".charCodeAt(i - scheme.length);
}

/** Anything visible; some clients send raw UTF-8. */
function isTargetOctet(c: number): boolean {
  return c > 0x20 && c !== 0x7f;
}
