import { parseIp } from "../base/address.ts";
import type { Bad } from "../base/cursor.ts";
import { dnsNameAt } from "../base/name.ts";
import { latin1 } from "./parts.ts";

/**
 * The body of a ClientHello (RFC 8446 §4.1.2; over DTLS with a cookie, RFC 6347 §4.2.1), as TLS, DTLS and QUIC carry it. Strict:
 * what a server would refuse, or what two servers could read differently, is `bad`. It is read once for every connection, so it
 * is read in place: each length is compared with what is left before anything behind it is looked at, and lists are not copied.
 */

export const HELLO_BYTES_MAX = 65_536; // handshake message; 24 bits allow 16 MB, post-quantum hellos need 2 KB, the biggest seen has 11 KB
export const EXTENSIONS_MAX = 256;
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

/** Lists are [at, end) in `bytes`, as they stand there, GREASE included; valid as long as the bytes are. */
export interface ClientHello {
  readonly bytes: Uint8Array;
  /** Of 16-bit numbers. */
  readonly ciphersAt: number;
  readonly ciphersEnd: number;
  /** Whole extensions: type, length, data. No type is there twice. */
  readonly extensionsAt: number;
  readonly extensionsEnd: number;
  /** Of 16-bit numbers; empty without the extension. */
  readonly signaturesAt: number;
  readonly signaturesEnd: number;
  /** The newest that is offered: 0x0304 for TLS 1.3. */
  readonly version: number;
  /** Lower case. A DnsName, or the address that some clients send against RFC 6066 §3: no name of a policy is equal to it. */
  readonly serverName: string | undefined;
  /** Protocol names, one char an octet. */
  readonly alpn: readonly string[];
  /** An encrypted ClientHello (or a GREASE one, which cannot be told apart): the real server name may be another. */
  readonly ech: boolean;
}

/** RFC 8701: 0x0a0a, 0x1a1a, ... 0xfafa. */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 255);
}

/** The caller has checked that both bytes are there. */
export function u16At(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

const SHORT: Bad = { bad: "a ClientHello that is too short" };

/** bytes[start..end) is the whole handshake message behind its header. */
export function readHelloBody(bytes: Uint8Array, start: number, end: number, carrier: "tls" | "dtls" = "tls"): ClientHello | Bad {
  const sessionAt = start + 2 + RANDOM_BYTES;
  if (sessionAt >= end || end > bytes.length) return SHORT;
  const sessionBytes = bytes[sessionAt] as number;
  let at = sessionAt + 1 + sessionBytes;
  if (carrier === "dtls") {
    if (at >= end) return SHORT;
    at += 1 + (bytes[at] as number); // cookie
  }
  const ciphersAt = at + 2;
  if (ciphersAt > end) return SHORT;
  const ciphersEnd = ciphersAt + u16At(bytes, at);
  if (ciphersEnd >= end || (ciphersEnd - ciphersAt) % 2 !== 0) return SHORT;
  const behind = ciphersEnd + 1 + (bytes[ciphersEnd] as number); // compression methods
  if (behind > end) return SHORT;
  let uncompressed = false;
  for (let i = ciphersEnd + 1; i < behind; i++) if (bytes[i] === 0) uncompressed = true;
  const version = u16At(bytes, start);
  if (!isVersion(version, carrier)) return { bad: "not a TLS version in the ClientHello" };
  if (sessionBytes > SESSION_BYTES_MAX) return { bad: `a session id of ${sessionBytes} bytes` };
  if (ciphersEnd === ciphersAt) return { bad: "no cipher suites" };
  if (!uncompressed) return { bad: "no null compression" };
  said.version = version;
  said.serverName = undefined;
  said.alpn = NO_ALPN;
  said.ech = false;
  said.signaturesAt = said.signaturesEnd = behind;
  let extensionsAt = behind;
  // Before TLS 1.3 a hello may end without extensions (RFC 5246 §7.4.1.2).
  if (behind < end) {
    extensionsAt += 2;
    if (extensionsAt > end || u16At(bytes, behind) !== end - extensionsAt) return { bad: "extensions that do not fill the ClientHello" };
    const bad = readExtensions(bytes, extensionsAt, end);
    if (bad !== undefined) return { bad };
  }
  return {
    bytes,
    ciphersAt,
    ciphersEnd,
    extensionsAt,
    extensionsEnd: end,
    signaturesAt: said.signaturesAt,
    signaturesEnd: said.signaturesEnd,
    version: said.version,
    serverName: said.serverName,
    alpn: said.alpn,
    ech: said.ech,
  };
}

export function isVersion(version: number, carrier: "tls" | "dtls"): boolean {
  return carrier === "tls" ? version >> 8 === 3 && (version & 255) <= 4 : version >= 0xfefc && version <= 0xfeff && version !== 0xfefe;
}

const NO_ALPN: readonly string[] = [];

/** What the extensions of the hello in hand say. */
const said = {
  version: 0,
  serverName: undefined as string | undefined,
  alpn: NO_ALPN,
  ech: false,
  signaturesAt: 0,
  signaturesEnd: 0,
};
/** Its extension types from BITS on. */
const seen = new Uint16Array(EXTENSIONS_MAX);
const BITS = 32;

/** Reads them all into `said`; answers what is wrong. */
function readExtensions(bytes: Uint8Array, start: number, end: number): string | undefined {
  let bits = 0; // types below BITS that were there
  let others = 0;
  let last = -1;
  let count = 0;
  for (let at = start; at < end; ) {
    const data = at + 4;
    if (data > end) return "an extension that is too short";
    const type = u16At(bytes, at);
    at = data + u16At(bytes, at + 2);
    if (at > end) return "an extension that is too short";
    if (count++ === EXTENSIONS_MAX) return `more than ${EXTENSIONS_MAX} extensions`;
    if (type < BITS) {
      if ((bits & (1 << type)) !== 0) return `extension ${type} twice`;
      bits |= 1 << type;
    } else {
      for (let i = 0; i < others; i++) if (seen[i] === type) return `extension ${type} twice`;
      seen[others++] = type;
    }
    if (last === Extension.preSharedKey) return "an extension behind pre_shared_key";
    last = type;
    const wrong = readExtension(type, bytes, data, at);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

/** Reads the extensions that matter; answers what is wrong. */
function readExtension(type: number, bytes: Uint8Array, at: number, end: number): string | undefined {
  switch (type) {
    case Extension.serverName:
      return readServerName(bytes, at, end);
    case Extension.alpn:
      return readAlpn(bytes, at, end);
    case Extension.supportedVersions:
      if (at === end || !isList(bytes[at] as number, end - at - 1)) return "a malformed supported_versions extension";
      readVersions(bytes, at + 1, end);
      return undefined;
    case Extension.signatureAlgorithms:
      if (end - at < 2 || !isList(u16At(bytes, at), end - at - 2)) return "a malformed signature_algorithms extension";
      said.signaturesAt = at + 2;
      said.signaturesEnd = end;
      return undefined;
    case Extension.encryptedClientHello:
    case Extension.encryptedServerName:
      said.ech = true;
      return undefined;
    default:
      return undefined;
  }
}

/** A list of 16-bit numbers that fills what is left, and is not empty. */
function isList(listBytes: number, left: number): boolean {
  return listBytes === left && left > 0 && left % 2 === 0;
}

/** The newest that is offered; GREASE is none. DTLS versions count downwards (RFC 9147 §5.3). */
function readVersions(bytes: Uint8Array, at: number, end: number): void {
  let newest = 0;
  for (let i = at; i < end; i += 2) {
    const version = u16At(bytes, i);
    if (isGrease(version)) continue;
    if (newest === 0 || (version >= 0xfe00 && newest >= 0xfe00 ? version < newest : version > newest)) newest = version;
  }
  if (newest > 0) said.version = newest;
}

/** RFC 6066 §3: a list with exactly one host_name, which is a DNS name without trailing dot. */
function readServerName(bytes: Uint8Array, at: number, end: number): string | undefined {
  if (end - at < 2 || u16At(bytes, at) !== end - at - 2) return "a malformed server_name extension";
  const text = at + 5;
  if (text > end || u16At(bytes, at + 3) !== end - text) return "a malformed server_name extension, or more than one name";
  const type = bytes[at + 2] as number;
  if (type !== 0) return `a server name of type ${type}`;
  const name = dnsNameAt(bytes, text, end) ?? addressAt(bytes, text, end);
  if (name === undefined) return "a server name that is no DNS name";
  said.serverName = name;
  return undefined;
}

function addressAt(bytes: Uint8Array, at: number, end: number): string | undefined {
  const text = latin1(bytes, at, end);
  return parseIp(text) === undefined ? undefined : text;
}

/** RFC 7301 §3.1. */
function readAlpn(bytes: Uint8Array, start: number, end: number): string | undefined {
  if (end - start <= 2 || u16At(bytes, start) !== end - start - 2) return "a malformed ALPN extension";
  if (isWeb(bytes, start + 2, end)) {
    said.alpn = WEB;
    return undefined;
  }
  const names: string[] = [];
  for (let at = start + 2; at < end; ) {
    const name = at + 1;
    at = name + (bytes[at] as number);
    if (at > end || at === name) return "a malformed ALPN extension";
    if (names.length === ALPN_MAX) return `more than ${ALPN_MAX} ALPN names`;
    names.push(latin1(bytes, name, at));
  }
  said.alpn = names.slice(); // it is kept: without the room that pushing left
  return undefined;
}

/** The list of nearly everybody costs nothing. */
const WEB: readonly string[] = ["h2", "http/1.1"];
const WEB_BYTES = Uint8Array.from(Buffer.from("\x02h2\x08http/1.1", "latin1"));

function isWeb(bytes: Uint8Array, at: number, end: number): boolean {
  if (end - at !== WEB_BYTES.length) return false;
  for (let i = 0; i < WEB_BYTES.length; i++) if (bytes[at + i] !== WEB_BYTES[i]) return false;
  return true;
}
