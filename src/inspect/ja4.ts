import { createHash } from "node:crypto";
import { Extension, isGrease, type ClientHello } from "./tls.ts";

/**
 * JA4, the TLS client fingerprint: `t13d1516h2_<ciphers>_<extensions>`, 36 characters. Written from its public description
 * (FoxIO, BSD-3-Clause for JA4 itself; the other members of the JA4+ family have another licence and are not here).
 */
export type Ja4 = string;

const COUNT_MAX = 99; // two digits
const HASH_CHARS = 12;
const NOTHING = "0".repeat(HASH_CHARS); // hash of an empty list

const VERSIONS: Readonly<Record<number, string>> = {
  0x0304: "13",
  0x0303: "12",
  0x0302: "11",
  0x0301: "10",
  0x0300: "s3",
  0x0002: "s2",
  0xfeff: "d1",
  0xfefd: "d2",
  0xfefc: "d3",
};

/** `carrier`: t for TLS over TCP, q for QUIC, d for DTLS. GREASE values count nowhere. */
export function ja4(hello: ClientHello, carrier: "t" | "q" | "d"): Ja4 {
  const ciphers = hello.ciphers.filter(notGrease);
  const extensions = hello.extensions.filter(notGrease);
  const start = [
    carrier,
    VERSIONS[newestVersion(hello)] ?? "00",
    extensions.includes(Extension.serverName) ? "d" : "i",
    count(ciphers),
    count(extensions),
    alpnChars(hello.alpn[0]),
  ].join("");
  const hashed = extensions.filter((type) => type !== Extension.serverName && type !== Extension.alpn);
  const signatures = hello.signatureAlgorithms.filter(notGrease);
  const tail = sorted(hashed) + (signatures.length > 0 ? `_${signatures.map(hex).join(",")}` : "");
  return `${start}_${ciphers.length === 0 ? NOTHING : hash(sorted(ciphers))}_${hashed.length === 0 ? NOTHING : hash(tail)}`;
}

const notGrease = (value: number): boolean => !isGrease(value);

function newestVersion(hello: ClientHello): number {
  const offered = hello.supportedVersions.filter(notGrease);
  if (offered.length === 0) return hello.legacyVersion;
  // DTLS versions count downwards (RFC 9147 §5.3).
  return offered.every((version) => version >= 0xfe00) ? Math.min(...offered) : Math.max(...offered);
}

function count(list: readonly number[]): string {
  return String(Math.min(list.length, COUNT_MAX)).padStart(2, "0");
}

function hex(value: number): string {
  return value.toString(16).padStart(4, "0");
}

function sorted(list: readonly number[]): string {
  return list.map(hex).sort().join(",");
}

function hash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, HASH_CHARS);
}

/** First and last character of the first protocol name; of its hexadecimal form where one of the two is not alphanumeric. */
function alpnChars(name: string | undefined): string {
  if (name === undefined || name === "") return "00";
  const ends = `${name[0] as string}${name[name.length - 1] as string}`;
  if (isAlphanumeric(ends.charCodeAt(0)) && isAlphanumeric(ends.charCodeAt(1))) return ends;
  const text = Buffer.from(name, "latin1").toString("hex");
  return `${text[0] as string}${text[text.length - 1] as string}`;
}

function isAlphanumeric(c: number): boolean {
  return (c >= 48 && c <= 57) || (c >= 65 && c <= 90) || (c >= 97 && c <= 122);
}
