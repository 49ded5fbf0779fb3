import { parseIp } from "../base/address.ts";
import { Cursor, type Bad, type Need } from "../base/cursor.ts";
import { dnsName, type DnsName } from "../base/name.ts";

/**
 * The TLS ClientHello (RFC 8446 §4.1.2), over one or several handshake records (§5.1). Strict: what a server would
 * refuse, or what two servers could read differently, is `bad`. Reading ends with the hello; what follows it in other
 * records (early data, a compatibility ChangeCipherSpec) is not looked at.
 */

export const HELLO_BYTES_MAX = 65_536; // handshake message; 24 bits allow 16 MB, post-quantum hellos need 2 KB, the biggest seen has 11 KB
const RECORDS_MAX = 1024; // of one hello; honest clients send one or two
const RECORD_BYTES_MAX = 2 ** 14; // RFC 8446 §5.1
const RECORD_HEADER_BYTES = 5;
const HANDSHAKE_HEADER_BYTES = 4;
const EXTENSIONS_MAX = 256;
const ALPN_MAX = 64;

/** Extension types (IANA, TLS ExtensionType Values). */
export const Extension = {
  serverName: 0,
  signatureAlgorithms: 13,
  alpn: 16,
  preSharedKey: 41,
  supportedVersions: 43,
  encryptedClientHello: 0xfe0d,
  /** draft-ietf-tls-esni-02, deployed for a while: the same purpose. */
  encryptedServerName: 0xffce,
} as const;

export interface ClientHello {
  /** 0x0303 for TLS 1.2 and 1.3. */
  readonly legacyVersion: number;
  /** In the order offered, GREASE included; the same for the other lists. */
  readonly ciphers: readonly number[];
  readonly extensions: readonly number[];
  readonly serverName: DnsName | undefined;
  /** Protocol names, one char an octet. */
  readonly alpn: readonly string[];
  readonly supportedVersions: readonly number[];
  readonly signatureAlgorithms: readonly number[];
  /** An encrypted ClientHello (or a GREASE one, which cannot be told apart): the real server name may be another. */
  readonly ech: boolean;
}

/** `application`: the bytes are a TLS handshake beyond doubt, but break its rules. */
export interface BadHello extends Bad {
  readonly application?: "tls";
}
const broken = (bad: string): BadHello => ({ bad, application: "tls" });

/** RFC 8701: 0x0a0a, 0x1a1a, ... 0xfafa. */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 255);
}

/** Reads the ClientHello at the start of a TLS stream. `need` counts from `start`. */
export function readClientHello(bytes: Uint8Array, start: number, end: number): ClientHello | Need | BadHello {
  const c = new Cursor(bytes, start, end);
  const parts: Uint8Array[] = [];
  let have = 0; // bytes of the handshake message in whole records
  let want = 0; // its length with header, 0 until known
  for (let records = 0; ; records++) {
    if (records === RECORDS_MAX) return broken(`a ClientHello in more than ${RECORDS_MAX} records`);
    const at = c.at - start;
    const wrong = badRecordStart(bytes, c.at, c.end, records);
    if (wrong !== undefined) return wrong;
    if (c.left < RECORD_HEADER_BYTES) return { need: at + RECORD_HEADER_BYTES + (want > 0 ? want - have : 1) };
    c.skip(3);
    const length = c.u16();
    const there = c.view(Math.min(length, c.left));
    const header = handshakeHeader(parts, there);
    if (header !== undefined) {
      if (header.type !== 1) return records === 0 && have === 0 ? { bad: "not a ClientHello" } : broken("not a ClientHello");
      want = HANDSHAKE_HEADER_BYTES + header.length;
      if (want > HELLO_BYTES_MAX) return broken(`a ClientHello of ${want} bytes`);
      // Nothing else may share its record: the keys can change behind it (RFC 8446 §5.1).
      if (have + length > want) return broken("bytes behind the ClientHello in its record");
    }
    if (there.length < length) {
      const more = want > have + length ? RECORD_HEADER_BYTES + want - have - length : 0;
      return { need: at + RECORD_HEADER_BYTES + length + more };
    }
    parts.push(there);
    have += length;
    if (want > 0 && have === want) return readBody(whole(parts, want));
  }
}

/** What can be said against a record from the bytes of its header that are there. */
function badRecordStart(bytes: Uint8Array, at: number, end: number, records: number): BadHello | undefined {
  const c = new Cursor(bytes, at, end);
  const not = (bad: string): BadHello => (records > 0 ? broken(bad) : { bad });
  if (c.left >= 1 && c.u8() !== 22) return not("not a handshake record");
  if (c.left >= 1 && c.u8() !== 3) return not("not a TLS version");
  if (c.left >= 1 && c.u8() > 4) return not("not a TLS version");
  if (c.left >= 2) {
    const length = c.u16();
    if (length === 0) return not("an empty handshake record");
    if (length > RECORD_BYTES_MAX) return not(`a record of ${length} bytes`);
  }
  return undefined;
}

/** Type and length of the handshake message, from the records so far and the one in hand; undefined while they are not all there. */
function handshakeHeader(parts: readonly Uint8Array[], last: Uint8Array): { type: number; length: number } | undefined {
  const octets: number[] = [];
  for (let i = 0; i <= parts.length && octets.length < HANDSHAKE_HEADER_BYTES; i++) {
    const part = parts[i] ?? last;
    for (let k = 0; k < part.length && octets.length < HANDSHAKE_HEADER_BYTES; k++) octets.push(part[k] as number);
  }
  if (octets.length > 0 && octets[0] !== 1) return { type: octets[0] as number, length: 0 };
  if (octets.length < HANDSHAKE_HEADER_BYTES) return undefined;
  const c = new Cursor(Uint8Array.from(octets), 1);
  return { type: 1, length: c.u24() };
}

function whole(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  if (parts.length === 1) return parts[0] as Uint8Array;
  const joined = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** What the extensions are read into. */
interface Draft {
  serverName: DnsName | undefined;
  alpn: string[];
  supportedVersions: number[];
  signatureAlgorithms: number[];
}

/** The whole handshake message, header included. */
function readBody(message: Uint8Array): ClientHello | BadHello {
  const c = new Cursor(message, HANDSHAKE_HEADER_BYTES);
  const legacyVersion = c.u16();
  c.skip(32); // random
  const sessionBytes = c.u8();
  c.skip(sessionBytes);
  const ciphers = u16List(c, c.u16());
  const compressions = c.view(c.u8());
  if (c.short || ciphers === undefined) return broken("a ClientHello that is too short");
  if (legacyVersion >> 8 !== 3 || (legacyVersion & 255) > 4) return broken("not a TLS version in the ClientHello");
  if (sessionBytes > 32) return broken(`a session id of ${sessionBytes} bytes`);
  if (ciphers.length === 0) return broken("no cipher suites");
  if (!compressions.includes(0)) return broken("no null compression");
  const extensions: number[] = [];
  const draft: Draft = { serverName: undefined, alpn: [], supportedVersions: [], signatureAlgorithms: [] };
  if (c.left > 0) {
    // Before TLS 1.3 a hello may end without extensions (RFC 5246 §7.4.1.2).
    if (c.u16() !== c.left || c.short) return broken("extensions that do not fill the ClientHello");
    while (c.left > 0) {
      const type = c.u16();
      const body = new Cursor(c.view(c.u16()));
      if (c.short) return broken("an extension that is too short");
      if (extensions.length === EXTENSIONS_MAX) return broken(`more than ${EXTENSIONS_MAX} extensions`);
      if (extensions.includes(type)) return broken(`extension ${type} twice`);
      if (type !== Extension.preSharedKey && extensions.includes(Extension.preSharedKey))
        return broken("an extension behind pre_shared_key");
      extensions.push(type);
      const wrong = readExtension(type, body, draft);
      if (wrong !== undefined) return broken(wrong);
    }
  }
  const ech = extensions.includes(Extension.encryptedClientHello) || extensions.includes(Extension.encryptedServerName);
  return { legacyVersion, ciphers, extensions, ech, ...draft };
}

/** Reads the extensions that matter; answers what is wrong. */
function readExtension(type: number, body: Cursor, draft: Draft): string | undefined {
  switch (type) {
    case Extension.serverName:
      return readServerName(body, draft);
    case Extension.alpn:
      return readAlpn(body, draft);
    case Extension.supportedVersions:
      return fill(draft.supportedVersions, u16List(body, body.u8()), body) ? undefined : "a malformed supported_versions extension";
    case Extension.signatureAlgorithms:
      return fill(draft.signatureAlgorithms, u16List(body, body.u16()), body) ? undefined : "a malformed signature_algorithms extension";
    default:
      return undefined;
  }
}

/** RFC 6066 §3: a list with exactly one host_name, which is a DNS name without trailing dot and not an address. */
function readServerName(body: Cursor, draft: Draft): string | undefined {
  const listBytes = body.u16();
  if (body.short || listBytes !== body.left) return "a malformed server_name extension";
  const type = body.u8();
  const octets = body.view(body.u16());
  if (body.short || body.left !== 0) return "a malformed server_name extension, or more than one name";
  if (type !== 0) return `a server name of type ${type}`;
  const text = Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("latin1");
  const name = text.endsWith(".") ? undefined : dnsName(text);
  if (name === undefined) return "a server name that is no DNS name";
  if (parseIp(name) !== undefined) return "a server name that is an address";
  draft.serverName = name;
  return undefined;
}

/** RFC 7301 §3.1. */
function readAlpn(body: Cursor, draft: Draft): string | undefined {
  const listBytes = body.u16();
  if (body.short || listBytes !== body.left || listBytes === 0) return "a malformed ALPN extension";
  while (body.left > 0) {
    const octets = body.view(body.u8());
    if (body.short || octets.length === 0) return "a malformed ALPN extension";
    if (draft.alpn.length === ALPN_MAX) return `more than ${ALPN_MAX} ALPN names`;
    draft.alpn.push(Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("latin1"));
  }
  return undefined;
}

/** The next `bytes` bytes as 16-bit numbers; undefined when they are odd or not there. */
function u16List(c: Cursor, bytes: number): number[] | undefined {
  if (c.short || bytes % 2 !== 0 || bytes > c.left) {
    c.short = true;
    return undefined;
  }
  const list: number[] = [];
  for (let i = 0; i < bytes; i += 2) list.push(c.u16());
  return list;
}

/** A list that fills its extension and is not empty. */
function fill(into: number[], list: readonly number[] | undefined, body: Cursor): boolean {
  if (list === undefined || list.length === 0 || body.left !== 0) return false;
  for (const value of list) into.push(value);
  return true;
}
