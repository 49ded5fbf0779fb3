import { cursorAt } from "./binary.ts";
import type { Run } from "./inspector.ts";
import { sizeOf } from "./parts.ts";

/** Packets of the Tabular Data Stream (MS-TDS §2.2.3.1): an 8-byte header and a part of a message. */

export const TDS_HEADER_BYTES = 8;
const STATUS_LAST = 1;
const STATUS_BITS = 0x1f;
const PACKET_BYTES_MAX = 32_767; // §2.2.6.4
const PACKETS_MAX = 64;

/** As far as its bytes go, could this be a client's packet of `type`? Clients leave SPID and window 0. */
export function isTdsPacket(run: Run, at: number, type: number): boolean {
  const c = cursorAt(run, at);
  if (c.left > 0 && c.u8() !== type) return false;
  if (c.left > 0 && (c.u8() & ~STATUS_BITS) !== 0) return false;
  if (c.left > 1) {
    const length = c.u16();
    if (length <= TDS_HEADER_BYTES || length > PACKET_BYTES_MAX) return false;
  }
  if (c.left > 1 && c.u16() !== 0) return false;
  if (c.left > 0) c.skip(1);
  return c.left <= 0 || c.u8() === 0;
}

export interface TdsMessage {
  /** The parts of its packets together; also what is there of a message that is not complete. */
  readonly payload: Uint8Array;
  /** Where it ends in the run, when it is complete. */
  readonly end: number;
  /** Bytes of the run wanted before there is more of it; 0: it is complete, or what follows is no part of it. */
  readonly need: number;
}

/**
 * The message of `type` at `at`, over its packets. `open`: one whose packets do not say which is the last (TLS inside). Undefined
 * when a packet is malformed or there are too many.
 */
export function readTdsMessage(run: Run, at: number, type: number, open = false): TdsMessage | undefined {
  const parts: Uint8Array[] = [];
  const have = sizeOf(run);
  const message = (end: number, need: number): TdsMessage => ({
    payload: parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts),
    end,
    need,
  });
  for (let end = at; parts.length <= PACKETS_MAX; ) {
    if (!isTdsPacket(run, end, type)) return open && parts.length > 0 ? message(end, 0) : undefined;
    if (have - end < TDS_HEADER_BYTES) return message(end, end + TDS_HEADER_BYTES + 1);
    const c = cursorAt(run, end + 1);
    const last = (c.u8() & STATUS_LAST) !== 0;
    const next = end + c.u16();
    c.skip(4);
    parts.push(c.view(Math.min(next, have) - end - TDS_HEADER_BYTES));
    if (have < next) return message(next, next);
    if (last && !open) return message(next, 0);
    end = next;
  }
  return undefined;
}
