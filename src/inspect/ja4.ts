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
  const ciphers = hello.ciphers.filter(notGrease);
  const extensions = hello.extensions.filter(notGrease);
  const named = extensions.includes(Extension.serverName) ? "d" : "i";
  const version = VERSIONS[newestVersion(hello)] ?? "00";
  const start = `${carrier}${version}${named}${twoDigits(ciphers.length)}${twoDigits(extensions.length)}${alpnChars(hello.alpn[0])}`;
  const hashed = extensions.filter(isHashed);
  if (hashed.length <= INSERTION_MAX) insertionSort(hashed); // browsers send them in any order: fewer lists to remember
  return `${start}_${hashLists(ciphers, NONE)}_${hashLists(hashed, hello.signatureAlgorithms.filter(notGrease))}`;
}

const NONE: readonly number[] = [];
const notGrease = (value: number): boolean => !isGrease(value);
const isHashed = (type: number): boolean => type !== Extension.serverName && type !== Extension.alpn;

function twoDigits(count: number): string {
  return count < 10 ? `0${count}` : String(Math.min(count, COUNT_MAX));
}

const INSERTION_MAX = 64; // above it is slower than the built-in one

function insertionSort(list: number[]): void {
  for (let i = 1; i < list.length; i++) {
    const value = list[i] as number;
    let k = i;
    for (; k > 0 && (list[k - 1] as number) > value; k--) list[k] = list[k - 1] as number;
    list[k] = value;
  }
}

/**
 * Clients have few lists and send them in every hello, and to hash one costs more than to read the whole hello: the last
 * ones are remembered, each in the one slot it can have. Short lists only: all slots together stay below 1 MB.
 */
const SLOTS = 512; // a power of two
const REMEMBERED_VALUES_MAX = 128;
const slots: ({ readonly list: readonly number[]; readonly inOrder: readonly number[]; readonly text: string } | undefined)[] = new Array(
  SLOTS,
).fill(undefined);

/** The hash of `list` sorted, with `_inOrder` where that has something; of no list it is zeros. */
function hashLists(list: readonly number[], inOrder: readonly number[]): string {
  if (list.length === 0) return NOTHING;
  if (list.length + inOrder.length > REMEMBERED_VALUES_MAX) return hash(list, inOrder);
  const at = (mix(mix(list.length, list), inOrder) >>> 7) & (SLOTS - 1);
  const slot = slots[at];
  if (slot !== undefined && same(slot.list, list) && same(slot.inOrder, inOrder)) return slot.text;
  const text = hash(list, inOrder);
  slots[at] = { list, inOrder, text };
  return text;
}

function mix(from: number, list: readonly number[]): number {
  let mixed = from;
  for (const value of list) mixed = Math.imul(mixed ^ value, 0x01000193);
  return mixed;
}

function same(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function hash(list: readonly number[], inOrder: readonly number[]): string {
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
