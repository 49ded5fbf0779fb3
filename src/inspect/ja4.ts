import { createHash } from "node:crypto";
import { Extension, isGrease, newestVersion, type ClientHello } from "./tls-hello.ts";

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
  const ciphers: number[] = [];
  for (const value of hello.ciphers) if (!isGrease(value)) ciphers.push(value);
  const hashed: number[] = [];
  let count = 0;
  let named = "i";
  for (const type of hello.extensions) {
    if (isGrease(type)) continue;
    count++;
    if (type === Extension.serverName) named = "d";
    else if (type !== Extension.alpn) hashed.push(type);
  }
  const signatures: number[] = [];
  for (const value of hello.signatureAlgorithms) if (!isGrease(value)) signatures.push(value);
  const version = VERSIONS[newestVersion(hello)] ?? "00";
  const start = `${carrier}${version}${named}${twoDigits(ciphers.length)}${twoDigits(count)}${alpnChars(hello.alpn[0])}`;
  return `${start}_${hashLists(sort(ciphers), NONE)}_${hashLists(sort(hashed), signatures)}`;
}

const NONE: readonly number[] = [];

function twoDigits(count: number): string {
  return count < 10 ? `0${count}` : String(Math.min(count, COUNT_MAX));
}

function sort(list: number[]): readonly number[] {
  return list.sort((a, b) => a - b);
}

/**
 * Clients have few lists and send them in every hello, and a hash costs as much as the rest of reading a hello: the last
 * ones are remembered. Short lists only, so that what is remembered stays below 1 MB; when it is full it starts again.
 */
const remembered = new Map<string, string>();
const REMEMBERED_MAX = 1024;
const REMEMBERED_VALUES_MAX = 256;

/** The hash of `sorted`, or of `sorted_inOrder` where that has something; of nothing it is zeros. */
function hashLists(sorted: readonly number[], inOrder: readonly number[]): string {
  if (sorted.length === 0) return NOTHING;
  if (sorted.length + inOrder.length > REMEMBERED_VALUES_MAX) return hash(sorted, inOrder);
  // The first character tells where the one list ends.
  const key = String.fromCharCode(sorted.length, ...sorted, ...inOrder);
  const known = remembered.get(key);
  if (known !== undefined) return known;
  if (remembered.size === REMEMBERED_MAX) remembered.clear();
  const text = hash(sorted, inOrder);
  remembered.set(key, text);
  return text;
}

function hash(sorted: readonly number[], inOrder: readonly number[]): string {
  const text = inOrder.length === 0 ? hexList(sorted) : `${hexList(sorted)}_${hexList(inOrder)}`;
  return createHash("sha256").update(text).digest("hex").slice(0, HASH_CHARS);
}

function hexList(list: readonly number[]): string {
  return list.map((value) => value.toString(16).padStart(4, "0")).join(",");
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
