/** The bytes of a spool's segments. Pure. */

/** Of one event in JSON: bound() lets none be larger. */
export const RECORD_BYTES_MAX = 512 * 1024;
/** `NGA1`, the length of the payload and the CRC-32 of length and payload, both little-endian. */
export const HEADER_BYTES = 12;
const MAGIC = 0x3141474e;

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c >>> 0;
});

/** CRC-32 (ISO-HDLC, as zlib's) of bytes[start..end). Node's own is in no release before 20.15. */
export function crc32(bytes: Uint8Array, start = 0, end = bytes.length, seed = 0): number {
  let crc = ~seed;
  for (let i = start; i < end; i++) crc = (TABLE[(crc ^ (bytes[i] as number)) & 0xff] as number) ^ (crc >>> 8);
  return ~crc >>> 0;
}

export function encodeRecord(payload: string): Buffer {
  const length = Buffer.byteLength(payload);
  const record = Buffer.allocUnsafe(HEADER_BYTES + length);
  record.writeUInt32LE(MAGIC, 0);
  record.writeUInt32LE(length, 4);
  record.write(payload, HEADER_BYTES, "utf8");
  record.writeUInt32LE(checksum(record, 0, length), 8);
  return record;
}

function checksum(bytes: Buffer, at: number, length: number): number {
  return crc32(bytes, at + HEADER_BYTES, at + HEADER_BYTES + length, crc32(bytes, at + 4, at + 8));
}

export type ReadRecord =
  /** `next`: where the record behind it begins. */
  | { readonly kind: "record"; readonly payload: string; readonly next: number }
  /** No record begins here; the next that may is at `next`. */
  | { readonly kind: "damaged"; readonly next: number }
  /** The bytes end before this record does. */
  | { readonly kind: "short" };

/**
 * Reads the record at `at`. `last`: nothing comes behind these bytes, so that what is short is damaged. Text inside a record cannot pass
 * for one: the last byte of a length is zero, and JSON has no zero bytes.
 */
export function readRecord(bytes: Buffer, at: number, last: boolean): ReadRecord {
  const short: ReadRecord = last && at < bytes.length ? { kind: "damaged", next: nextMagic(bytes, at + 1, true) } : { kind: "short" };
  if (bytes.length - at < HEADER_BYTES) return short;
  const length = bytes.readUInt32LE(at + 4);
  if (bytes.readUInt32LE(at) !== MAGIC || length > RECORD_BYTES_MAX) return { kind: "damaged", next: nextMagic(bytes, at + 1, last) };
  const next = at + HEADER_BYTES + length;
  if (next > bytes.length) return short;
  if (bytes.readUInt32LE(at + 8) !== checksum(bytes, at, length)) return { kind: "damaged", next: nextMagic(bytes, at + 1, last) };
  return { kind: "record", payload: bytes.toString("utf8", at + HEADER_BYTES, next), next };
}

const MAGIC_BYTES = Buffer.from("NGA1");

/** Where the magic stands next; without one the end, but for bytes that could be its beginning where more follow. */
function nextMagic(bytes: Buffer, from: number, last: boolean): number {
  const found = bytes.indexOf(MAGIC_BYTES, from);
  return found >= 0 ? found : last ? bytes.length : Math.max(from, bytes.length - MAGIC_BYTES.length + 1);
}
