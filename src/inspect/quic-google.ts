import type { Bad } from "../base/cursor.ts";
import { dnsName } from "../base/name.ts";
import type { Evidence } from "../model/verdict.ts";
import { field } from "./text.ts";

/**
 * The CHLO of Google's own QUIC handshake (QUIC Crypto, revision 2016): `CHLO`, the number of tags, and for each its four
 * letters and where its value ends.
 */

const HEADER_BYTES = 8;
const ENTRY_BYTES = 8;
const TAGS_MAX = 128; // QUIC Crypto
const SERVER_NAME = 0x534e4900; // SNI\0
const USER_AGENT = 0x55414944; // UAID

/** Bytes of the whole message, as far as they can be known from `have` of them. */
export function chloBytes(bytes: Uint8Array, have: number): number | Bad {
  const view = new DataView(bytes.buffer, bytes.byteOffset, have);
  if (have < HEADER_BYTES) return HEADER_BYTES;
  if (view.getUint32(0) !== 0x43484c4f) return { bad: "no CHLO" };
  const tags = view.getUint16(4, true);
  if (tags === 0 || tags > TAGS_MAX) return { bad: `a CHLO of ${tags} tags` };
  const values = HEADER_BYTES + tags * ENTRY_BYTES;
  return have < values ? values : values + view.getUint32(values - 4, true);
}

/** The whole message. */
export function readChlo(bytes: Uint8Array, length: number): Pick<Evidence, "serverName" | "fields"> | Bad {
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  const tags = view.getUint16(4, true);
  const values = HEADER_BYTES + tags * ENTRY_BYTES;
  let from = values;
  let serverName: string | undefined;
  let agent: string | undefined;
  for (let i = 0; i < tags; i++) {
    const entry = HEADER_BYTES + i * ENTRY_BYTES;
    const to = values + view.getUint32(entry + 4, true);
    if (to < from || to > length) return { bad: "a malformed CHLO" };
    if (view.getUint32(entry) === SERVER_NAME) {
      if (serverName !== undefined) return { bad: "two server names" };
      serverName = dnsName(Buffer.from(bytes.subarray(from, to)).toString("latin1"));
      if (serverName === undefined) return { bad: "a server name that is no DNS name" };
    } else if (view.getUint32(entry) === USER_AGENT) agent = field(bytes, from, to);
    from = to;
  }
  return { serverName, ...(agent === undefined ? {} : { fields: { application: agent } }) };
}
