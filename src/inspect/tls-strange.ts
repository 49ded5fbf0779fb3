import type { Need } from "../base/cursor.ts";
import { LEGACY_TLS, type Evidence } from "../model/verdict.ts";
import { type BadHello, RECORD_BYTES_MAX, RECORD_HEADER_BYTES } from "./tls.ts";
import { isVersion } from "./tls-hello.ts";
import { versionText } from "./tls-evidence.ts";

/** Streams that are TLS beyond doubt, but do not begin with a ClientHello of SSL 3.0 or later. */

const CIPHERTEXT_BYTES_MAX = RECORD_BYTES_MAX + 2048; // RFC 5246 §6.2.3
const CHANGE_CIPHER_SPEC = 20; // content types, RFC 8446 §5.1
const ALERT = 21;
const APPLICATION_DATA = 23;

const not = { bad: "not TLS" };
const broken = (bad: string): BadHello => ({ bad, application: "tls" });

/**
 * Another record where the hello should be: junk before a ClientHello, which blinds some readers, or a connection that is
 * seen from its middle. Known by the record behind it.
 */
export function readOtherRecord(bytes: Uint8Array, start: number, end: number): BadHello | Need {
  const have = end - start;
  const type = bytes[start] as number;
  if (have >= 1 && type !== CHANGE_CIPHER_SPEC && type !== ALERT && type !== APPLICATION_DATA) return not;
  if (have >= 2 && bytes[start + 1] !== 3) return not;
  if (have >= 3 && (bytes[start + 2] as number) > 4) return not;
  if (have < RECORD_HEADER_BYTES) return { need: RECORD_HEADER_BYTES };
  const length = ((bytes[start + 3] as number) << 8) | (bytes[start + 4] as number);
  if (length === 0 || length > CIPHERTEXT_BYTES_MAX) return not;
  if (type === CHANGE_CIPHER_SPEC && length !== 1) return not;
  const next = RECORD_HEADER_BYTES + length;
  if (have < next + 3) return { need: next + 3 };
  const at = start + next;
  const follows = (bytes[at] as number) >= CHANGE_CIPHER_SPEC && (bytes[at] as number) <= APPLICATION_DATA;
  return follows && bytes[at + 1] === 3 && bytes[at + 2] === bytes[start + 2] ? broken("a record before the ClientHello") : not;
}

const V2_HEADER_BYTES = 2;
const V2_FIXED_BYTES = 9; // type, version and the three lengths
const V2_BYTES_MAX = 1023; // far more than all SSL 2.0 and 3.0 cipher specs
const V2_CIPHER_BYTES = 3;
const V2_SESSION_BYTES = 16;
const V2_CHALLENGE_BYTES = { min: 16, max: 32 };

/**
 * An SSL 2.0 CLIENT-HELLO, also as the envelope of a later version's (RFC 5246 appendix E.2; RFC 6176 forbids it): length with
 * the high bit set, type 1, version, and three lengths that fill it.
 */
export function readV2Hello(bytes: Uint8Array, start: number, end: number): (Evidence & { application: "tls" }) | BadHello | Need {
  const have = end - start;
  const at = (i: number): number => bytes[start + i] as number;
  const u16 = (i: number): number => (at(i) << 8) | at(i + 1);
  if (have >= 1 && (at(0) & ~(V2_BYTES_MAX >> 8)) !== 0x80) return not;
  if (have >= 3 && at(2) !== 1) return not;
  if (have >= 4 && at(3) !== 0 && at(3) !== 3) return not;
  if (have < V2_HEADER_BYTES + V2_FIXED_BYTES) return { need: V2_HEADER_BYTES + V2_FIXED_BYTES };
  const [length, version, ciphers, session, challenge] = [u16(0) & 0x7fff, u16(3), u16(5), u16(7), u16(9)];
  const filled = length === V2_FIXED_BYTES + ciphers + session + challenge;
  const sound = ciphers > 0 && ciphers % V2_CIPHER_BYTES === 0 && (session === 0 || session === V2_SESSION_BYTES);
  if (!filled || !sound || challenge < V2_CHALLENGE_BYTES.min || challenge > V2_CHALLENGE_BYTES.max) return not;
  if (version !== 0x0002 && !isVersion(version, "tls")) return not;
  return { application: "tls", serverName: undefined, version: versionText(version), evasion: `${LEGACY_TLS}: an SSL 2.0 hello` };
}

/** The server's first bytes are a ServerHello (RFC 8446 §4.1.3): type 2 that is whole in its record. */
export function isServerHello(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start < 11 || bytes[start] !== 22 || bytes[start + 5] !== 2) return false;
  const u16 = (i: number): number => ((bytes[start + i] as number) << 8) | (bytes[start + i + 1] as number);
  return (
    isVersion(u16(1), "tls") && bytes[start + 6] === 0 && u16(7) + 4 <= u16(3) && u16(3) <= RECORD_BYTES_MAX && isVersion(u16(9), "tls")
  );
}
