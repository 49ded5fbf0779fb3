import { bytesLike, cursorAt, evidenceOf, more, u16le } from "./binary.ts";
import type { Reading, Run } from "./inspector.ts";
import { TDS_HEADER_BYTES } from "./tds.ts";
import { sizeOf } from "./parts.ts";

/**
 * A SQL batch or a remote call as the first thing seen (MS-TDS §2.2.6.6, §2.2.6.7): a recording that begins in the middle of a connection.
 * A server refuses them before a login, so that they are no way around one.
 */
/** §2.2.5.3: ALL_HEADERS with the transaction descriptor that every request has since 7.2. */
const HEADERS = [0x16, 0, 0, 0, 0x12, 0, 0, 0, 2, 0];
const TEXT_UNITS_MIN = 8;
const NAME_UNITS_MAX = 128;

const not = { bad: "no TDS request" } as const;

export function readCall(client: Run, isCall: boolean): Reading {
  const have = sizeOf(client);
  const text = isCall ? TDS_HEADER_BYTES + 2 : TDS_HEADER_BYTES;
  if (bytesLike(client, TDS_HEADER_BYTES, HEADERS)) {
    const need = TDS_HEADER_BYTES + HEADERS.length;
    if (have < need) return more(client, need, not);
    return evidenceOf("mssql");
  }
  // Before 7.2: a name with its length, or the text of the batch, in UTF-16.
  const c = cursorAt(client, TDS_HEADER_BYTES);
  const units = isCall ? u16le(c) : cursorAt(client, 2).u16() / 2 - TDS_HEADER_BYTES / 2;
  if (!c.short && (units < TEXT_UNITS_MIN || !Number.isInteger(units) || (isCall && units > NAME_UNITS_MAX))) return not;
  const wanted = text + 2 * TEXT_UNITS_MIN;
  for (let at = text; at < Math.min(have, wanted); at++) {
    const byte = client.bytes[client.start + at] as number;
    const isHigh = (at - text) % 2 === 1;
    if (isHigh ? byte !== 0 : byte < 0x20 || byte > 0x7e) return not;
  }
  return have < wanted ? more(client, wanted, not) : evidenceOf("mssql");
}
