import { Cursor } from "../base/cursor.ts";

/**
 * The first packet of Google's QUIC before version 50 (QUIC Wire Layout Specification, 2016; 46 with a long header of its
 * own): public header, hash, and a STREAM frame with the CHLO in the clear.
 */

const CID_BYTES = 8;
const HASH_BYTES = 12;
const DATAGRAM_BYTES_MIN = 1200; // a client pads its first packet at least so far
const NUMBER_BYTES = [1, 2, 4, 6] as const;
const HANDSHAKE_STREAM = 1;
const BIG_ENDIAN_FROM = 39;
const Flag = { version: 0x01, reset: 0x02, cid: 0x08, unused: 0xc0 } as const;
const Stream = { is: 0x80, fin: 0x40, hasLength: 0x20 } as const;

export interface GooglePacket {
  /** `Q043` */
  readonly version: string;
  /** What the STREAM frame carries, a view; undefined where the packet does not begin with one. */
  readonly data: Uint8Array | undefined;
}

/** undefined: not such a packet. */
export function readGooglePacket(bytes: Uint8Array, start: number, end: number): GooglePacket | undefined {
  if (end - start < DATAGRAM_BYTES_MIN) return undefined;
  const c = new Cursor(bytes, start, end);
  const flags = c.u8();
  const long = (flags & 0xc0) === 0xc0;
  const numberBytes = long ? (flags & 3) + 1 : (NUMBER_BYTES[(flags >> 4) & 3] as number);
  if (!long) {
    if ((flags & (Flag.version | Flag.reset | Flag.cid | Flag.unused)) !== (Flag.version | Flag.cid)) return undefined;
    c.skip(CID_BYTES);
  }
  const number = versionNumber(c);
  if (number === undefined) return undefined;
  if (long) {
    if (number !== 46 || c.u8() !== 0x50) return undefined; // a destination connection id of 8 bytes, and no other
    c.skip(CID_BYTES);
  }
  c.skip(numberBytes + HASH_BYTES);
  return { version: `Q${String(number).padStart(3, "0")}`, data: readStream(c, number) };
}

/** `Q043`: 43. */
function versionNumber(c: Cursor): number | undefined {
  if (c.u8() !== 0x51) return undefined;
  let number = 0;
  for (let i = 0; i < 3; i++) {
    const digit = c.u8() - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    number = number * 10 + digit;
  }
  return number;
}

/** A STREAM frame from offset 0 of the handshake's stream: `1FDOOOSS`. */
function readStream(c: Cursor, version: number): Uint8Array | undefined {
  const type = c.u8();
  const offsetBits = (type >> 2) & 7;
  const idBytes = (type & 3) + 1;
  const big = version >= BIG_ENDIAN_FROM;
  if ((type & (Stream.is | Stream.fin)) !== Stream.is || number(c, idBytes, big) !== HANDSHAKE_STREAM) return undefined;
  if (offsetBits > 0 && number(c, offsetBits + 1, big) !== 0) return undefined;
  const data = c.view((type & Stream.hasLength) === 0 ? c.left : number(c, 2, big));
  return c.short ? undefined : data;
}

function number(c: Cursor, bytes: number, big: boolean): number {
  let value = 0;
  for (let i = 0; i < bytes; i++) value = big ? value * 256 + c.u8() : value + c.u8() * 256 ** i;
  return value;
}
