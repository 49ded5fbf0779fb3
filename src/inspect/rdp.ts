import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { latin1, more, shown, sizeOf } from "./parts.ts";

/** RDP (MS-RDPBCGR §2.2.1.1): a TPKT with an X.224 connection request, then a cookie or a negotiation request. */
const HEADER_BYTES = 11; // TPKT, X.224
const REQUEST_MAX = 512;
const COOKIE = "Cookie: mstshash=";
const TOKEN = "Cookie: msts=";
const NEGOTIATION_BYTES = 8;
const bad = { bad: "not RDP" };

export const rdpInspector: Inspector = {
  application: "rdp",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    const have = sizeOf(client);
    const c = new Cursor(bytes, start, client.end);
    const tpkt = c.u16();
    const length = c.u16();
    const rest = c.u8();
    const code = c.u8();
    if ((have >= 1 && bytes[start] !== 3) || (have >= 2 && tpkt !== 0x0300)) return bad;
    if (have >= 4 && (length < HEADER_BYTES || length > REQUEST_MAX)) return bad;
    if (have >= 5 && rest !== length - 5) return bad;
    if (have >= 6 && code !== 0xe0) return bad;
    if (have < HEADER_BYTES || have < length) return more(client, Math.max(length, HEADER_BYTES));
    const text = latin1(bytes, start + HEADER_BYTES, start + length);
    const end = text.startsWith("Cookie: ") ? text.indexOf("\r\n") + 2 : 0;
    if (end === 1 || (end > 0 && !text.startsWith(COOKIE) && !text.startsWith(TOKEN))) return bad;
    const asks = text.length - end;
    const negotiation = start + HEADER_BYTES + end;
    // Type 1, its own length 8; a correlation (type 6, 36 octets) may follow. ISO's own parameters are another protocol.
    if (asks > 0 && (asks < NEGOTIATION_BYTES || bytes[negotiation] !== 1 || bytes[negotiation + 2] !== NEGOTIATION_BYTES)) return bad;
    const user = text.startsWith(COOKIE) ? shown(text.slice(COOKIE.length, end - 2)) : "";
    return { application: "rdp", serverName: undefined, ...(user === "" ? {} : { fields: { user } }) };
  },
};
