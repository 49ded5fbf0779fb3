import { Cursor, type Bad } from "../base/cursor.ts";
import { type PacketType, type QuicVersion, quicVersion } from "./quic-versions.ts";

/** Long header packets (RFC 9000 §17.2) of the versions that can be read. */

export const CID_BYTES_MAX = 20; // RFC 9000 §17.2, of versions 1 and 2

export interface LongPacket {
  readonly type: PacketType;
  readonly version: QuicVersion;
  /** A view. */
  readonly dcid: Uint8Array;
  readonly start: number;
  /** Where the (protected) packet number begins. */
  readonly numberAt: number;
  readonly end: number;
}

/** The version field of a long header; undefined for anything else. */
export function longHeaderVersion(bytes: Uint8Array, start: number, end: number): number | undefined {
  const c = new Cursor(bytes, start, end);
  const first = c.u8();
  const version = c.u32();
  return c.short || (first & 0xc0) !== 0xc0 ? undefined : version;
}

/** The packet at `start` of a datagram that ends at `end`; others may follow it. */
export function readLongPacket(bytes: Uint8Array, start: number, end: number): LongPacket | Bad {
  const c = new Cursor(bytes, start, end);
  const first = c.u8();
  const version = quicVersion(c.u32());
  const dcidBytes = c.u8();
  const dcid = c.view(dcidBytes);
  const scidBytes = c.u8();
  c.skip(scidBytes);
  if (c.short || (first & 0xc0) !== 0xc0 || version === undefined) return { bad: "no long header" };
  if (dcidBytes > CID_BYTES_MAX || scidBytes > CID_BYTES_MAX) return { bad: "a connection id that is too long" };
  const type = version.types[((first >> 4) & 3) as 0 | 1 | 2 | 3];
  if (type === "retry") return { type, version, dcid, start, numberAt: end, end };
  if (type === "initial") c.skip(varint(c)); // token
  const length = varint(c);
  if (c.short || length > c.left) return { bad: "a packet longer than its datagram" };
  return { type, version, dcid, start, numberAt: c.at, end: c.at + length };
}

/** RFC 9000 §16. More than 2^53 is as good as any number that is too much. */
export function varint(c: Cursor): number {
  const first = c.u8();
  const more = (1 << (first >> 6)) - 1;
  let value = first & 0x3f;
  for (let i = 0; i < more; i++) value = value * 256 + c.u8();
  return value;
}
