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
export function ja4(hello: ClientHello, carrier: Carrier): Ja4 {
  const length = writeKey(hello, carrier);
  if (length === 0) return fingerprint(hello, carrier);
  const at = (mixed(length) >>> 7) & (SLOTS - 1);
  const slot = slots[at];
  if (slot !== undefined && isKey(slot.key, length)) return slot.text;
  const text = fingerprint(hello, carrier);
  slots[at] = { key: key.slice(0, length), text };
  return text;
}

type Carrier = "t" | "q" | "d";

/**
 * Clients have few fingerprints and hashing costs more than reading the whole hello: the last ones are remembered, each in the
 * one slot it can have, with all that it is made of. Short hellos only: all slots together stay below 1 MB.
 */
const SLOTS = 512; // a power of two
const slots: ({ readonly key: Uint16Array; readonly text: Ja4 } | undefined)[] = new Array(SLOTS).fill(undefined);
const key = new Uint16Array(256);
const HEAD_VALUES = 6;

/** Writes what the fingerprint depends on into `key`; returns how many values, 0 where there are too many. */
function writeKey(hello: ClientHello, carrier: Carrier): number {
  const { ciphers, extensions, signatureAlgorithms, alpn } = hello;
  if (HEAD_VALUES + ciphers.length + extensions.length + signatureAlgorithms.length > key.length) return 0;
  const name = alpn[0] ?? "";
  key[0] = carrier.charCodeAt(0);
  key[1] = newestVersion(hello);
  key[2] = name.length;
  key[3] = name === "" ? 0 : (name.charCodeAt(0) << 8) | name.charCodeAt(name.length - 1);
  const ciphersEnd = append(HEAD_VALUES, ciphers);
  const extensionsEnd = append(ciphersEnd, extensions);
  sort(ciphersEnd, extensionsEnd); // browsers send them in any order
  key[4] = ciphersEnd;
  key[5] = extensionsEnd;
  return append(extensionsEnd, signatureAlgorithms);
}

function append(at: number, list: readonly number[]): number {
  let end = at;
  for (const value of list) if (!isGrease(value)) key[end++] = value;
  return end;
}

/** By insertion: they are few. */
function sort(from: number, to: number): void {
  for (let i = from + 1; i < to; i++) {
    const value = key[i] as number;
    let k = i;
    for (; k > from && (key[k - 1] as number) > value; k--) key[k] = key[k - 1] as number;
    key[k] = value;
  }
}

function mixed(length: number): number {
  let mix = length;
  for (let i = 0; i < length; i++) mix = Math.imul(mix ^ (key[i] as number), 0x01000193);
  return mix;
}

function isKey(known: Uint16Array, length: number): boolean {
  if (known.length !== length) return false;
  for (let i = 0; i < length; i++) if (known[i] !== key[i]) return false;
  return true;
}

function fingerprint(hello: ClientHello, carrier: Carrier): Ja4 {
  const ciphers = hello.ciphers.filter(notGrease);
  const extensions = hello.extensions.filter(notGrease);
  const named = extensions.includes(Extension.serverName) ? "d" : "i";
  const version = VERSIONS[newestVersion(hello)] ?? "00";
  const start = `${carrier}${version}${named}${twoDigits(ciphers.length)}${twoDigits(extensions.length)}${alpnChars(hello.alpn[0])}`;
  const hashed = extensions.filter((type) => type !== Extension.serverName && type !== Extension.alpn);
  return `${start}_${hash(ciphers, NONE)}_${hash(hashed, hello.signatureAlgorithms.filter(notGrease))}`;
}

const NONE: readonly number[] = [];
const notGrease = (value: number): boolean => !isGrease(value);

function twoDigits(count: number): string {
  return count < 10 ? `0${count}` : String(Math.min(count, COUNT_MAX));
}

/** The hash of `list` sorted, with `_inOrder` where that has something; of no list it is zeros. */
function hash(list: readonly number[], inOrder: readonly number[]): string {
  if (list.length === 0) return NOTHING;
  const sorted = hexList(Uint16Array.from(list).sort());
  const text = inOrder.length === 0 ? sorted : `${sorted}_${hexList(inOrder)}`;
  return createHash("sha256").update(text).digest("hex").slice(0, HASH_CHARS);
}

function hexList(list: Iterable<number>): string {
  return Array.from(list, (value) => value.toString(16).padStart(4, "0")).join(",");
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
