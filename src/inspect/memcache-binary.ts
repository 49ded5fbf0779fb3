import { bytesLike, cursorAt } from "./binary.ts";
import type { Run } from "./inspector.ts";
import { sizeOf } from "./parts.ts";

/** Requests of memcached's binary protocol (protocol_binary.txt; Couchbase's kv_engine "BinaryProtocol.md" builds on it). */

export const BINARY_HEADER_BYTES = 24;
export const REQUEST = 0x80;
/** Couchbase: a request with framing extras, which shares the bytes of the key's length with them. */
export const FRAMED_REQUEST = 0x08;
const KEY_BYTES_MAX = 250;
const BODY_BYTES_MAX = 20 * 1024 * 1024 + 300;

export interface BinaryRequest {
  readonly opcode: number;
  readonly keyBytes: number;
  readonly extraBytes: number;
  readonly valueBytes: number;
  readonly datatype: number;
  readonly bucket: number;
}

/** The request's header; undefined: it is none; or how many bytes are wanted. */
export function readBinaryRequest(run: Run, magic: number): BinaryRequest | number | undefined {
  if (!bytesLike(run, 0, [magic])) return undefined;
  if (sizeOf(run) < BINARY_HEADER_BYTES) return BINARY_HEADER_BYTES;
  const c = cursorAt(run, 1);
  const opcode = c.u8();
  const frameBytes = magic === FRAMED_REQUEST ? c.u8() : 0;
  const keyBytes = magic === FRAMED_REQUEST ? c.u8() : c.u16();
  const extraBytes = c.u8();
  const datatype = c.u8();
  const bucket = c.u16();
  const bodyBytes = c.u32();
  const valueBytes = bodyBytes - frameBytes - keyBytes - extraBytes;
  if (keyBytes > KEY_BYTES_MAX || valueBytes < 0 || bodyBytes > BODY_BYTES_MAX) return undefined;
  return { opcode, keyBytes, extraBytes, valueBytes, datatype, bucket };
}
