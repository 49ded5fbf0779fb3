import { Cursor } from "../base/cursor.ts";
import type { Ip } from "../base/address.ts";

/**
 * What a ClientHello that was found right is known by in the kernel: native/hello.bpf.c reads the same bytes in the same way, and
 * both must change together (a test compares them). Everything that a policy's answer can depend on is in the key, or the
 * hello has none: server name, ALPN and versions byte for byte, no ECH, no extension that is not known here. What
 * inspect/tls.ts would refuse has no key either.
 */

const SNI_MAX = 96;
const ALPN_MAX = 24;
const VERSIONS_MAX = 16;
const SERVER_AT = 16;
const PORT_AT = 32;
const LENGTHS_AT = 34;
const SNI_AT = 40;
const ALPN_AT = SNI_AT + SNI_MAX;
const VERSIONS_AT = ALPN_AT + ALPN_MAX;
/** Bytes of a key. */
export const HELLO_KEY_BYTES = VERSIONS_AT + VERSIONS_MAX;

const RECORD_BYTES_MAX = 2 ** 14 + 5;
const HEAD_BYTES = 11; // of record, handshake and its version
const RANDOM_BYTES = 32;
const SESSION_BYTES_MAX = 32;
/** Extension types (IANA, TLS ExtensionType Values). */
const Extension = { serverName: 0, signatureAlgorithms: 13, alpn: 16, preSharedKey: 41, supportedVersions: 43 } as const;
const RENEGOTIATION_INFO = 0xff01;
/** More comes right behind the hello, which is to pass alone. */
const EARLY_DATA = 42;
const TYPES = 63;
const EXTENSIONS_MAX = 24;

/** Writes an address as 16 bytes, IPv4 as ::ffff:0:0/96. */
export function putAddress(into: Uint8Array, at: number, address: Ip): void {
  into.fill(0, at, at + 16);
  if (address.length === 4) into.fill(0xff, at + 10, at + 12);
  for (let i = 0; i < address.length; i++) into[at + 16 - address.length + i] = address.charCodeAt(i);
}

const c = new Cursor(new Uint8Array(0));

/** The key of the hello that is the whole of bytes[start..end); undefined: it has none. */
export function helloKey(client: Ip, server: Ip, port: number, bytes: Uint8Array, start: number, end: number): Uint8Array | undefined {
  const size = end - start;
  if (size < HEAD_BYTES || size > RECORD_BYTES_MAX) return undefined;
  c.reset(bytes, start, end);
  if (c.u8() !== 22 || c.u8() !== 3 || c.u8() > 3 || c.u16() !== size - 5) return undefined;
  if (c.u8() !== 1 || c.u8() !== 0 || c.u16() !== size - 9) return undefined;
  if (c.u16() !== 0x0303) return undefined;
  c.skip(RANDOM_BYTES);
  const session = c.u8();
  c.skip(session);
  const ciphers = c.u16();
  c.skip(ciphers);
  if (session > SESSION_BYTES_MAX || ciphers === 0 || ciphers % 2 !== 0) return undefined;
  if (c.u16() !== 0x0100) return undefined; // one compression method: none
  if (c.u16() !== c.left || c.short) return undefined;
  const key = new Uint8Array(HELLO_KEY_BYTES);
  putAddress(key, 0, client);
  putAddress(key, SERVER_AT, server);
  key[PORT_AT] = port >>> 8;
  key[PORT_AT + 1] = port & 255;
  return putExtensions(key) ? key : undefined;
}

function putExtensions(key: Uint8Array): boolean {
  const seen = new Set<number>();
  for (let i = 0; c.left > 0; i++) {
    const type = c.u16();
    const length = c.u16();
    const at = c.at;
    c.skip(length);
    if (c.short || i === EXTENSIONS_MAX || (type >= TYPES && type !== RENEGOTIATION_INFO) || type === EARLY_DATA) return false;
    if (seen.has(type) || seen.has(Extension.preSharedKey)) return false;
    seen.add(type);
    if (type === Extension.serverName && !put(key, 0, SNI_AT, SNI_MAX, at, length)) return false;
    if (type === Extension.alpn && !put(key, 1, ALPN_AT, ALPN_MAX, at, length)) return false;
    if (type === Extension.supportedVersions && !put(key, 2, VERSIONS_AT, VERSIONS_MAX, at, length)) return false;
    if (type === Extension.signatureAlgorithms && !isList(at, length)) return false;
  }
  return true;
}

function put(key: Uint8Array, which: number, to: number, max: number, at: number, length: number): boolean {
  if (length === 0 || length > max) return false;
  key[LENGTHS_AT + which] = length;
  key.set(c.bytes.subarray(at, at + length), to);
  return true;
}

/** 16-bit numbers behind their length in bytes. */
function isList(at: number, length: number): boolean {
  return length >= 4 && length % 2 === 0 && (((c.bytes[at] as number) << 8) | (c.bytes[at + 1] as number)) === length - 2;
}
