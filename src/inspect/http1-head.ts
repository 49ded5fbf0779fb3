import { FIELD_CHARS_MAX } from "../model/verdict.ts";
import type { Bad, Need } from "../base/cursor.ts";
import { readAuthority, sameAuthority, type Authority } from "./http1-authority.ts";
import { readRequestLine, SCHEME_PORTS, type RequestLine, type TargetForm } from "./http1-line.ts";
import { field, lower } from "./text.ts";

/**
 * The head of an HTTP/1 request (RFC 9112): request line, header lines, empty line. Strict: what a server has to refuse,
 * or what two servers could read differently (a space before a colon, a folded line, a bare CR, a NUL, a second Host, two
 * lengths of the body), is `bad`. Lines may end with LF alone (§2.2).
 */
export interface RequestHead {
  readonly method: string;
  readonly form: TargetForm;
  /** From the first slash, without query; undefined where the target has none. Printable, cut. */
  readonly path: string | undefined;
  /** What the absolute form or a CONNECT asks for, with its port: what a proxy is to reach. */
  readonly target: (Authority & { readonly port: number }) | undefined;
  /** The Host field; undefined where there is none, or an empty one. */
  readonly host: Authority | undefined;
  /** As it was written. */
  readonly hostText: string | undefined;
  readonly version: "1.0" | "1.1";
  /** What the Upgrade field asks for, lower case: `websocket`, `h2c`, `tcp`. */
  readonly upgrade: string | undefined;
  readonly userAgent: string | undefined;
  /** Content-Length in bytes (0 without one), or chunks. */
  readonly body: number | "chunked";
  /** Target and Host name different hosts: a server takes the target (RFC 9112 §3.2.2), a careless one the Host. */
  readonly disagree: boolean;
  /** Offset behind the empty line. */
  readonly end: number;
}

/** `application`: the request line is HTTP/1, so these bytes are nothing else. */
export interface BadHead extends Bad {
  readonly application?: "http1";
}
const broken = (bad: string): BadHead => ({ bad, application: "http1" });

export const HEAD_BYTES_MAX = 65_536; // servers take 8 to 64 KiB
const LINES_MAX = 1000; // Node takes 2000 halves of pairs, Apache 100 lines, nginx what fits

/** Reads the head at the start of bytes[start..end). `need` counts from `start`. */
export function readHead(bytes: Uint8Array, start: number, end: number): RequestHead | (Need & { readonly line?: RequestLine }) | BadHead {
  const line = readRequestLine(bytes, start, end);
  if (!("method" in line)) return line;
  const headEnd = findHeadEnd(bytes, line.end, Math.min(end, start + HEAD_BYTES_MAX));
  if (headEnd >= 0) return readFields(bytes, line, headEnd);
  if (end - start >= HEAD_BYTES_MAX) return broken(`a request head of more than ${HEAD_BYTES_MAX} bytes`);
  return { need: end - start + 1, line };
}

/** Behind the empty line; -1 when it is not there. `at` is behind the request line. Native searches: asked again with every segment. */
function findHeadEnd(bytes: Uint8Array, at: number, end: number): number {
  const from = at - 1; // its LF
  const lines = Buffer.from(bytes.buffer, bytes.byteOffset + from, end - from);
  const crlf = lines.indexOf("\n\r\n", 0, "latin1");
  const lf = lines.indexOf("\n\n", 0, "latin1");
  if (lf >= 0 && (crlf < 0 || lf < crlf)) return from + lf + 2;
  return crlf < 0 ? -1 : from + crlf + 3;
}

/** What is gathered from the header lines. */
interface Gathered {
  hosts: number;
  host: string;
  upgrade: string | undefined;
  userAgent: string | undefined;
  length: string | undefined;
  coding: string | undefined;
}

function readFields(bytes: Uint8Array, line: RequestLine, end: number): RequestHead | BadHead {
  const found: Gathered = { hosts: 0, host: "", upgrade: undefined, userAgent: undefined, length: undefined, coding: undefined };
  let lines = 0;
  for (let at = line.end; at < end; ) {
    const next = bytes.indexOf(0x0a, at);
    const lineEnd = bytes[next - 1] === 0x0d && next > at ? next - 1 : next;
    if (lineEnd === at) break;
    if (++lines > LINES_MAX) return broken(`more than ${LINES_MAX} header lines`);
    const wrong = readField(bytes, at, lineEnd, found);
    if (wrong !== undefined) return broken(wrong);
    at = next + 1;
  }
  if (found.hosts > 1) return broken("more than one Host");
  const host = found.host === "" ? undefined : readAuthority(found.host);
  if (found.host !== "" && host === undefined) return broken("a Host that is no host");
  const body = bodyOf(found, line.version);
  if (typeof body === "object") return body;
  const target = targetOf(bytes, line);
  if ("bad" in target) return target;
  return {
    method: line.method,
    form: line.form,
    path: target.path,
    target: target.to,
    host,
    hostText: found.hosts === 0 ? undefined : found.host,
    version: line.version,
    upgrade: found.upgrade === "" ? undefined : found.upgrade,
    userAgent: found.userAgent,
    body,
    disagree: target.to !== undefined && host !== undefined && !sameAuthority(target.to, host),
    end,
  };
}

/** `name: value`; says what is wrong with it. */
function readField(bytes: Uint8Array, start: number, end: number, found: Gathered): string | undefined {
  let colon = start;
  while (colon < end && TOKEN[bytes[colon] as number] === 1) colon++;
  if (colon === start || colon === end || bytes[colon] !== 0x3a) return "not a header line";
  for (let i = colon + 1; i < end; i++) {
    const c = bytes[i] as number;
    if ((c < 0x20 && c !== 0x09) || c === 0x7f) return "a control character in a header line";
  }
  switch (colon - start) {
    case 4:
      if (!isName(bytes, start, "host")) return undefined;
      found.hosts++;
      found.host = value(bytes, colon + 1, end);
      return end - colon > FIELD_CHARS_MAX ? "a Host that is no host" : undefined;
    case 7:
      if (isName(bytes, start, "upgrade")) found.upgrade = joined(found.upgrade, value(bytes, colon + 1, end).toLowerCase());
      return undefined;
    case 10:
      if (isName(bytes, start, "user-agent")) found.userAgent ??= value(bytes, colon + 1, end);
      return undefined;
    case 14:
      if (isName(bytes, start, "content-length")) found.length = joined(found.length, value(bytes, colon + 1, end));
      return undefined;
    case 17:
      if (isName(bytes, start, "transfer-encoding")) found.coding = joined(found.coding, value(bytes, colon + 1, end).toLowerCase());
      return undefined;
    default:
      return undefined;
  }
}

/** Several lines of one name are one list (RFC 9110 §5.3). */
function joined(before: string | undefined, now: string): string {
  return before === undefined ? now : `${before}, ${now}`;
}

function isName(bytes: Uint8Array, at: number, name: string): boolean {
  for (let i = 0; i < name.length; i++) if (lower(bytes[at + i] as number) !== name.charCodeAt(i)) return false;
  return true;
}

/** Without the blanks around it; printable, cut: a cut or escaped Host or length is refused by its reader. */
function value(bytes: Uint8Array, start: number, end: number): string {
  let from = start;
  let to = end;
  while (from < to && (bytes[from] === 0x20 || bytes[from] === 0x09)) from++;
  while (to > from && (bytes[to - 1] === 0x20 || bytes[to - 1] === 0x09)) to--;
  return field(bytes, from, to);
}

/** RFC 9112 §6.3. Two lengths, or a length and chunks, are how one request is hidden in another. */
function bodyOf({ length, coding }: Gathered, version: "1.0" | "1.1"): number | "chunked" | BadHead {
  if (coding !== undefined) {
    if (length !== undefined) return broken("both Content-Length and Transfer-Encoding");
    if (version === "1.0") return broken("a Transfer-Encoding in HTTP/1.0");
    const codings = coding.split(",").map((one) => one.trim());
    if (codings.indexOf("chunked") !== codings.length - 1) return broken("a Transfer-Encoding that does not end with chunked");
    return "chunked";
  }
  if (length === undefined) return 0;
  if (length === "" || length.length > 15) return broken("a Content-Length that is no number");
  let bytes = 0;
  for (let i = 0; i < length.length; i++) {
    const digit = length.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return broken("a Content-Length that is no number");
    bytes = bytes * 10 + digit;
  }
  return bytes;
}

interface Target {
  readonly path: string | undefined;
  readonly to: (Authority & { readonly port: number }) | undefined;
}

function targetOf(bytes: Uint8Array, { form, targetStart, targetEnd }: RequestLine): Target | BadHead {
  if (form === "asterisk") return { path: "*", to: undefined };
  if (form === "origin") return { path: pathOf(bytes, targetStart, targetEnd), to: undefined };
  if (form === "authority") {
    const to = readAuthority(text(bytes, targetStart, targetEnd));
    if (to?.port === undefined) return broken("a CONNECT target that is no host and port");
    return { path: undefined, to: { ...to, port: to.port } };
  }
  const scheme = bytes.indexOf(0x3a, targetStart);
  const from = scheme + 3;
  let end = from;
  while (end < targetEnd && bytes[end] !== 0x2f && bytes[end] !== 0x3f && bytes[end] !== 0x23) end++;
  const to = readAuthority(text(bytes, from, end));
  const port = to?.port ?? SCHEME_PORTS.get(text(bytes, targetStart, scheme).toLowerCase());
  if (to === undefined || port === undefined) return broken("a request target without a host");
  return { path: bytes[end] === 0x2f && end < targetEnd ? pathOf(bytes, end, targetEnd) : "/", to: { ...to, port } };
}

/** Cut and escaped, so what is no plain host is refused by readAuthority. */
function text(bytes: Uint8Array, start: number, end: number): string {
  return end - start > FIELD_CHARS_MAX ? "" : field(bytes, start, end);
}

/** Up to the query or the fragment. */
function pathOf(bytes: Uint8Array, start: number, end: number): string {
  let to = start;
  while (to < end && bytes[to] !== 0x3f && bytes[to] !== 0x23) to++;
  return field(bytes, start, to);
}

/** tchar of RFC 9110 §5.6.2. */
const TOKEN = new Uint8Array(256);
for (const c of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") TOKEN[c.charCodeAt(0)] = 1;
