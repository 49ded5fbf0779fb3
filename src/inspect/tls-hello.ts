import { parseIp } from "../base/address.ts";
import { Cursor, type Bad } from "../base/cursor.ts";
import { dnsName } from "../base/name.ts";

/**
 * The body of a ClientHello (RFC 8446 §4.1.2; over DTLS with a cookie, RFC 6347 §4.2.1), as TLS, DTLS and QUIC carry it. Strict:
 * what a server would refuse, or what two servers could read differently, is `bad`.
 */

export const HELLO_BYTES_MAX = 65_536; // handshake message; 24 bits allow 16 MB, post-quantum hellos need 2 KB, the biggest seen has 11 KB
const EXTENSIONS_MAX = 256;
const ALPN_MAX = 64;
const RANDOM_BYTES = 32;
const SESSION_BYTES_MAX = 32;

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
  /** Lower case. A DnsName, or the address that some clients send against RFC 6066 §3: no name of a policy is equal to it. */
  readonly serverName: string | undefined;
  /** Protocol names, one char an octet. */
  readonly alpn: readonly string[];
  readonly supportedVersions: readonly number[];
  readonly signatureAlgorithms: readonly number[];
  /** An encrypted ClientHello (or a GREASE one, which cannot be told apart): the real server name may be another. */
  readonly ech: boolean;
}

interface Draft {
  legacyVersion: number;
  ciphers: number[];
  extensions: number[];
  serverName: string | undefined;
  alpn: string[];
  supportedVersions: number[];
  signatureAlgorithms: number[];
  ech: boolean;
}

/** RFC 8701: 0x0a0a, 0x1a1a, ... 0xfafa. */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 255);
}

/** The newest version offered; GREASE is none. DTLS versions count downwards (RFC 9147 §5.3). */
export function newestVersion(hello: ClientHello): number {
  let newest = 0;
  for (const version of hello.supportedVersions) {
    if (isGrease(version)) continue;
    if (newest === 0 || (version >= 0xfe00 && newest >= 0xfe00 ? version < newest : version > newest)) newest = version;
  }
  return newest === 0 ? hello.legacyVersion : newest;
}

const c = new Cursor(new Uint8Array(0));
const body = new Cursor(new Uint8Array(0));

/** bytes[start..end) is the whole handshake message behind its header. */
export function readHelloBody(bytes: Uint8Array, start: number, end: number, carrier: "tls" | "dtls" = "tls"): ClientHello | Bad {
  c.reset(bytes, start, end);
  const hello: Draft = {
    legacyVersion: c.u16(),
    ciphers: [],
    extensions: [],
    serverName: undefined,
    alpn: [],
    supportedVersions: [],
    signatureAlgorithms: [],
    ech: false,
  };
  const bad = readFixed(hello, carrier) ?? (c.left > 0 ? readExtensions(hello) : undefined);
  return bad === undefined ? hello : { bad };
}

/** What stands before the extensions; answers what is wrong. */
function readFixed(hello: Draft, carrier: "tls" | "dtls"): string | undefined {
  c.skip(RANDOM_BYTES);
  const sessionBytes = c.u8();
  c.skip(sessionBytes);
  if (carrier === "dtls") c.skip(c.u8()); // cookie
  const fits = u16List(c, c.u16(), hello.ciphers);
  const compressions = c.u8();
  let uncompressed = false;
  for (let i = 0; i < compressions && !c.short; i++) if (c.u8() === 0) uncompressed = true;
  if (c.short || !fits) return "a ClientHello that is too short";
  if (!isVersion(hello.legacyVersion, carrier)) return "not a TLS version in the ClientHello";
  if (sessionBytes > SESSION_BYTES_MAX) return `a session id of ${sessionBytes} bytes`;
  if (hello.ciphers.length === 0) return "no cipher suites";
  return uncompressed ? undefined : "no null compression";
}

export function isVersion(version: number, carrier: "tls" | "dtls"): boolean {
  return carrier === "tls" ? version >> 8 === 3 && (version & 255) <= 4 : version >= 0xfefc && version <= 0xfeff && version !== 0xfefe;
}

/** Before TLS 1.3 a hello may end without extensions (RFC 5246 §7.4.1.2). Answers what is wrong. */
function readExtensions(hello: Draft): string | undefined {
  const { extensions } = hello;
  if (c.u16() !== c.left || c.short) return "extensions that do not fill the ClientHello";
  while (c.left > 0) {
    const type = c.u16();
    const length = c.u16();
    const at = c.at;
    c.skip(length);
    if (c.short) return "an extension that is too short";
    if (extensions.length === EXTENSIONS_MAX) return `more than ${EXTENSIONS_MAX} extensions`;
    if (extensions.includes(type)) return `extension ${type} twice`;
    if (extensions[extensions.length - 1] === Extension.preSharedKey) return "an extension behind pre_shared_key";
    extensions.push(type);
    const wrong = readExtension(type, at, hello);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

/** Reads the extensions that matter, from `at` to where `c` stands; answers what is wrong. */
function readExtension(type: number, at: number, hello: Draft): string | undefined {
  switch (type) {
    case Extension.serverName:
      return readServerName(body.reset(c.bytes, at, c.at), hello);
    case Extension.alpn:
      return readAlpn(body.reset(c.bytes, at, c.at), hello);
    case Extension.supportedVersions:
      body.reset(c.bytes, at, c.at);
      return fills(body.u8(), hello.supportedVersions) ? undefined : "a malformed supported_versions extension";
    case Extension.signatureAlgorithms:
      body.reset(c.bytes, at, c.at);
      return fills(body.u16(), hello.signatureAlgorithms) ? undefined : "a malformed signature_algorithms extension";
    case Extension.encryptedClientHello:
    case Extension.encryptedServerName:
      hello.ech = true;
      return undefined;
    default:
      return undefined;
  }
}

/** RFC 6066 §3: a list with exactly one host_name, which is a DNS name without trailing dot. */
function readServerName(list: Cursor, hello: Draft): string | undefined {
  const listBytes = list.u16();
  if (list.short || listBytes !== list.left) return "a malformed server_name extension";
  const type = list.u8();
  const length = list.u16();
  if (list.short || length !== list.left) return "a malformed server_name extension, or more than one name";
  if (type !== 0) return `a server name of type ${type}`;
  const text = latin1(list.bytes, list.at, length);
  const name = text.endsWith(".") ? undefined : (dnsName(text) ?? (parseIp(text) === undefined ? undefined : text));
  if (name === undefined) return "a server name that is no DNS name";
  hello.serverName = name;
  return undefined;
}

/** RFC 7301 §3.1. */
function readAlpn(list: Cursor, hello: Draft): string | undefined {
  const listBytes = list.u16();
  if (list.short || listBytes !== list.left || listBytes === 0) return "a malformed ALPN extension";
  while (list.left > 0) {
    const length = list.u8();
    const at = list.at;
    list.skip(length);
    if (list.short || length === 0) return "a malformed ALPN extension";
    if (hello.alpn.length === ALPN_MAX) return `more than ${ALPN_MAX} ALPN names`;
    hello.alpn.push(protocolName(list.bytes, at, length));
  }
  const [first, second] = hello.alpn;
  // It is kept: without the room that pushing left, and the list of nearly everybody once.
  hello.alpn = hello.alpn.length === 2 && first === "h2" && second === "http/1.1" ? WEB : hello.alpn.slice();
  return undefined;
}

const WEB: string[] = ["h2", "http/1.1"];

/** The two that nearly all hellos have cost nothing. */
function protocolName(bytes: Uint8Array, at: number, length: number): string {
  if (length === 2 && bytes[at] === 0x68 && bytes[at + 1] === 0x32) return "h2";
  const name = latin1(bytes, at, length);
  return name === "http/1.1" ? "http/1.1" : name;
}

const SHORT_TEXT = 64; // below this a Buffer costs more

/** Four at a time: a string that grows by single characters is kept as a tree of them. */
function latin1(b: Uint8Array, start: number, length: number): string {
  if (length > SHORT_TEXT) return Buffer.from(b.buffer, b.byteOffset + start, length).toString("latin1");
  const end = start + length;
  let text = "";
  let i = start;
  for (; i + 4 <= end; i += 4) {
    text += String.fromCharCode(b[i] as number, b[i + 1] as number, b[i + 2] as number, b[i + 3] as number);
  }
  for (; i < end; i++) text += String.fromCharCode(b[i] as number);
  return text;
}

/** Reads the next `bytes` bytes as 16-bit numbers; false when they are odd or not there. */
function u16List(from: Cursor, bytes: number, into: number[]): boolean {
  if (from.short || bytes % 2 !== 0 || bytes > from.left) {
    from.short = true;
    return false;
  }
  for (let i = 0; i < bytes; i += 2) into.push(from.u16());
  return true;
}

/** A list of 16-bit numbers that fills its extension and is not empty. */
function fills(bytes: number, into: number[]): boolean {
  return u16List(body, bytes, into) && into.length > 0 && body.left === 0;
}
