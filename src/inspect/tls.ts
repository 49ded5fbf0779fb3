import type { Bad, Need } from "../base/cursor.ts";
import { HELLO_BYTES_MAX, isVersion, readHelloBody, type ClientHello } from "./tls-hello.ts";

/**
 * The first records of a TLS stream over TCP (RFC 8446 §5.1): the ClientHello, over one or several handshake records. Strict, as
 * the hello itself. Reading ends with the hello; what follows it in other records (early data, a compatibility
 * ChangeCipherSpec) is not looked at.
 */

const RECORDS_MAX = 1024; // of one hello; honest clients send one or two
export const RECORD_BYTES_MAX = 2 ** 14; // RFC 8446 §5.1
export const RECORD_HEADER_BYTES = 5;
const HANDSHAKE_HEADER_BYTES = 4;
const HEAD_BYTES = HANDSHAKE_HEADER_BYTES + 2; // and the version behind it
export const HANDSHAKE = 22; // content type, RFC 8446 §5.1
const CLIENT_HELLO = 1; // handshake type, RFC 8446 §4
const SERVER_HELLO = 2;
const SERVER_HELLO_BYTES_MIN = 38; // RFC 8446 §4.1.3
/** Other handshake types that are sent in the clear before TLS 1.3: new_session_ticket ... finished (RFC 5246 §7.4). */
const OTHER_HANDSHAKES: readonly number[] = [4, 11, 12, 13, 14, 15, 16, 20, 22];

/** `application`: the bytes are a TLS handshake beyond doubt, but break its rules. */
export interface BadHello extends Bad {
  readonly application?: "tls";
}
export interface NeedHello extends Need {
  readonly application?: "tls";
}
const broken = (bad: string): BadHello => ({ bad, application: "tls" });

const head = new Uint8Array(HEAD_BYTES);

/**
 * Reads the ClientHello at the start of a TLS stream. `need` counts from `start`. The first bytes of a record could also be a
 * little-endian length; nothing is called TLS before the hello's own version or a third record has been seen.
 */
export function readClientHello(bytes: Uint8Array, start: number, end: number): ClientHello | NeedHello | BadHello {
  let joined: Uint8Array | undefined; // the message, once it has more than one record
  let have = 0; // bytes of the handshake message in whole records
  let want = 0; // its length with header, 0 until known
  let headBytes = 0;
  let at = start;
  for (let records = 0; records < RECORDS_MAX; records++) {
    const sure = headBytes === HEAD_BYTES || records > 1;
    const wrong = badRecordStart(bytes, at, end, sure) ?? emptyRecord(bytes, at, start, end, sure);
    if (wrong !== undefined) return wrong;
    if (end - at < RECORD_HEADER_BYTES) return more(at - start + RECORD_HEADER_BYTES + (want > 0 ? want - have : 1), headBytes);
    const length = ((bytes[at + 3] as number) << 8) | (bytes[at + 4] as number);
    const from = at + RECORD_HEADER_BYTES;
    const there = Math.min(from + length, end);
    for (let i = from; i < there && headBytes < HEAD_BYTES; i++) head[headBytes++] = bytes[i] as number;
    if (headBytes > 0 && head[0] !== CLIENT_HELLO) {
      const other = otherHandshake(headBytes, length);
      return other === undefined ? { need: from - start + Math.min(length, HEAD_BYTES) } : other;
    }
    if (headBytes < HEAD_BYTES && there - from < length) return { need: from - start + length };
    if (want === 0 && headBytes >= HANDSHAKE_HEADER_BYTES) want = HANDSHAKE_HEADER_BYTES + messageBytes();
    const bad = badHead(headBytes, want, have + length);
    if (bad !== undefined) return headBytes === HEAD_BYTES && isHeadVersion() ? broken(bad) : { bad };
    if (there - from < length) {
      const others = want > have + length ? RECORD_HEADER_BYTES + want - have - length : 0;
      return more(from - start + length + others, headBytes);
    }
    if (records === 0 && want === length) return body(readHelloBody(bytes, from + HANDSHAKE_HEADER_BYTES, there));
    joined = append(joined, have, want, bytes.subarray(from, there));
    have += length;
    at = there;
    if (have === want) return body(readHelloBody(joined, HANDSHAKE_HEADER_BYTES, want));
  }
  return broken(`a ClientHello in more than ${RECORDS_MAX} records`);
}

const messageBytes = (): number => ((head[1] as number) << 16) | ((head[2] as number) << 8) | (head[3] as number);
const isHeadVersion = (): boolean => isVersion(((head[4] as number) << 8) | (head[5] as number), "tls");

function body(read: ClientHello | Bad): ClientHello | BadHello {
  return "bad" in read ? broken(read.bad) : read;
}

/** With type, length and version of a hello there is no doubt. */
function more(need: number, headBytes: number): NeedHello {
  return headBytes < HEAD_BYTES ? { need } : { need, application: "tls" };
}

/** `joined` with `part` at `at`; it has the message's length as soon as that is known. */
function append(joined: Uint8Array | undefined, at: number, want: number, part: Uint8Array): Uint8Array {
  let into = joined ?? new Uint8Array(Math.max(want, HANDSHAKE_HEADER_BYTES));
  if (into.length < want) {
    into = new Uint8Array(want);
    into.set((joined as Uint8Array).subarray(0, at));
  }
  into.set(part, at);
  return into;
}

/** What can be said against a record from the bytes of its header that are there. */
function badRecordStart(bytes: Uint8Array, at: number, end: number, sure: boolean): BadHello | undefined {
  const not = (bad: string): BadHello => (sure ? broken(bad) : { bad });
  const left = end - at;
  if (left >= 1 && bytes[at] !== HANDSHAKE) return not("not a handshake record");
  if (left >= 2 && bytes[at + 1] !== 3) return not("not a TLS version");
  if (left >= 3 && (bytes[at + 2] as number) > 4) return not("not a TLS version");
  if (left < RECORD_HEADER_BYTES) return undefined;
  const length = ((bytes[at + 3] as number) << 8) | (bytes[at + 4] as number);
  return length > RECORD_BYTES_MAX ? not(`a record of ${length} bytes`) : undefined;
}

/** RFC 8446 §5.1 forbids empty handshake records, some servers skip them: they could only blind a reader. */
function emptyRecord(bytes: Uint8Array, at: number, start: number, end: number, sure: boolean): BadHello | Need | undefined {
  if (end - at < RECORD_HEADER_BYTES || bytes[at + 3] !== 0 || bytes[at + 4] !== 0) return undefined;
  if (sure) return broken("an empty handshake record");
  const next = at + RECORD_HEADER_BYTES;
  if (end - next < 3) return badRecordStart(bytes, next, end, false) ?? { need: next + 3 - start };
  return badRecordStart(bytes, next, end, false) ?? broken("an empty handshake record");
}

/** What can be said against the hello from its first bytes; with the record in hand it would have `bytes` bytes. */
function badHead(headBytes: number, want: number, bytes: number): string | undefined {
  if (headBytes === HEAD_BYTES && !isHeadVersion()) return "not a TLS version in the ClientHello";
  if (want > HELLO_BYTES_MAX) return `a ClientHello of ${want} bytes`;
  // Nothing else may share its record: the keys can change behind it (RFC 8446 §5.1).
  return want > 0 && bytes > want ? "bytes behind the ClientHello in its record" : undefined;
}

/** Another handshake message that fills its record: TLS, from its middle or from its other side. undefined: too few bytes. */
function otherHandshake(headBytes: number, length: number): BadHello | undefined {
  const type = head[0] as number;
  const bad = "not a ClientHello";
  if (length < HEAD_BYTES || (type !== SERVER_HELLO && !OTHER_HANDSHAKES.includes(type))) return { bad };
  if (headBytes < HEAD_BYTES) return undefined;
  const message = messageBytes();
  if (type === SERVER_HELLO) {
    return isHeadVersion() && message >= SERVER_HELLO_BYTES_MIN && message + HANDSHAKE_HEADER_BYTES <= length ? broken(bad) : { bad };
  }
  return message + HANDSHAKE_HEADER_BYTES === length ? broken(bad) : { bad };
}
