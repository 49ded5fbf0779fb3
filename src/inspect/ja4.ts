import { createHash } from "node:crypto";
import { Extension, EXTENSIONS_MAX, isGrease, u16At, type ClientHello } from "./tls-hello.ts";

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
  const most = Head.words + EXTENSIONS_MAX + (hello.ciphersEnd - hello.ciphersAt + hello.signaturesEnd - hello.signaturesAt) / 2;
  const key = most <= scratch.length ? scratch : new Uint16Array(most);
  const length = writeKey(key, hello, carrier);
  if (length > REMEMBERED_MAX) return fingerprint(key.subarray(0, length));
  const at = (mixed(key, length) >>> 7) & (SLOTS - 1);
  const slot = slots[at];
  if (slot !== undefined && isKey(slot.key, key, length)) return slot.text;
  const own = key.slice(0, length);
  const text = fingerprint(own);
  slots[at] = { key: own, text };
  return text;
}

/**
 * Clients have few fingerprints and hashing costs more than reading the whole hello: the last ones are remembered, each in the
 * one slot it can have, with all that it is made of. Short hellos only: all slots together stay below 1 MB.
 */
const SLOTS = 512; // a power of two
const REMEMBERED_MAX = 256; // values
const slots: ({ readonly key: Uint16Array; readonly text: Ja4 } | undefined)[] = new Array(SLOTS).fill(undefined);
const scratch = new Uint16Array(1024);

/** What a key begins with. Behind it the ciphers as offered, the extension types from BITS on sorted, the signature algorithms as offered. */
const Head = { carrier: 0, version: 1, alpnLength: 2, alpnEnds: 3, lowTypes: 4, ciphersEnd: 6, typesEnd: 7, words: 8 } as const;
const BITS = 32;

/** Writes all that the fingerprint depends on; returns how many values. Browsers send extensions in any order: the key has none. */
function writeKey(key: Uint16Array, hello: ClientHello, carrier: string): number {
  const { bytes, extensionsEnd } = hello;
  const name = hello.alpn[0] ?? "";
  let types = 0; // those below BITS, a bit each
  let end = copy(key, Head.words, bytes, hello.ciphersAt, hello.ciphersEnd);
  const first = end;
  key[Head.ciphersEnd] = end;
  for (let at = hello.extensionsAt; at < extensionsEnd; at += 4 + u16At(bytes, at + 2)) {
    const type = u16At(bytes, at);
    if (type < BITS) types |= 1 << type;
    else if (!isGrease(type)) insert(key, first, end++, type);
  }
  key[Head.carrier] = carrier.charCodeAt(0);
  key[Head.version] = hello.version;
  key[Head.alpnLength] = name.length;
  key[Head.alpnEnds] = name === "" ? 0 : (name.charCodeAt(0) << 8) | name.charCodeAt(name.length - 1);
  key[Head.lowTypes] = types;
  key[Head.lowTypes + 1] = types >>> 16;
  key[Head.typesEnd] = end;
  return copy(key, end, bytes, hello.signaturesAt, hello.signaturesEnd);
}

function copy(key: Uint16Array, to: number, bytes: Uint8Array, start: number, end: number): number {
  let next = to;
  for (let at = start; at < end; at += 2) {
    const value = u16At(bytes, at);
    if (!isGrease(value)) key[next++] = value;
  }
  return next;
}

/** key[from..end) is sorted, and stays so: they are few. */
function insert(key: Uint16Array, from: number, end: number, value: number): void {
  let at = end;
  for (; at > from && (key[at - 1] as number) > value; at--) key[at] = key[at - 1] as number;
  key[at] = value;
}

function mixed(key: Uint16Array, length: number): number {
  let mix = length;
  for (let i = 0; i < length; i++) mix = Math.imul(mix ^ (key[i] as number), 0x01000193);
  return mix;
}

function isKey(known: Uint16Array, key: Uint16Array, length: number): boolean {
  if (known.length !== length) return false;
  for (let i = 0; i < length; i++) if (known[i] !== key[i]) return false;
  return true;
}

function fingerprint(key: Uint16Array): Ja4 {
  const ciphers = key.subarray(Head.words, key[Head.ciphersEnd]);
  const extensions = typesOf(key);
  const named = extensions.includes(Extension.serverName) ? "d" : "i";
  const version = VERSIONS[key[Head.version] as number] ?? "00";
  const alpn = key[Head.alpnLength] === 0 ? "00" : alpnChars(key[Head.alpnEnds] as number);
  const carrier = String.fromCharCode(key[Head.carrier] as number);
  const start = `${carrier}${version}${named}${twoDigits(ciphers.length)}${twoDigits(extensions.length)}${alpn}`;
  const hashed = extensions.filter((type) => type !== Extension.serverName && type !== Extension.alpn);
  return `${start}_${hash(ciphers.slice().sort(), NONE)}_${hash(hashed, key.subarray(key[Head.typesEnd]))}`;
}

/** The extension types, sorted. */
function typesOf(key: Uint16Array): number[] {
  const types: number[] = [];
  const low = (key[Head.lowTypes] as number) | ((key[Head.lowTypes + 1] as number) << 16);
  for (let type = 0; type < BITS; type++) if ((low & (1 << type)) !== 0) types.push(type);
  return types.concat(...key.subarray(key[Head.ciphersEnd], key[Head.typesEnd]));
}

const NONE: ArrayLike<number> = [];

function twoDigits(count: number): string {
  return count < 10 ? `0${count}` : String(Math.min(count, COUNT_MAX));
}

/** The hash of `sorted`, with `_inOrder` where that has something; of no list it is zeros. */
function hash(sorted: ArrayLike<number>, inOrder: ArrayLike<number>): string {
  if (sorted.length === 0) return NOTHING;
  const text = inOrder.length === 0 ? hexList(sorted) : `${hexList(sorted)}_${hexList(inOrder)}`;
  return createHash("sha256").update(text).digest("hex").slice(0, HASH_CHARS);
}

function hexList(list: ArrayLike<number>): string {
  return Array.from(list, (value) => value.toString(16).padStart(4, "0")).join(",");
}

/** First and last character of the first protocol name; of its hexadecimal form where one of the two is not alphanumeric. */
function alpnChars(ends: number): string {
  const [first, last] = [ends >> 8, ends & 255];
  if (isAlphanumeric(first) && isAlphanumeric(last)) return String.fromCharCode(first, last);
  return (first >> 4).toString(16) + (last & 15).toString(16);
}

function isAlphanumeric(c: number): boolean {
  return (c >= 48 && c <= 57) || (c >= 65 && c <= 90) || (c >= 97 && c <= 122);
}
