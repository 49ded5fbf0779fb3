import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { more, sizeOf } from "./parts.ts";

/** Dubbo 2 (dubbo.apache.org, protocol): magic, flags with the serialization, status, request id, length. */
const HEADER_BYTES = 16;
const BODY_MAX = 8 * 1024 * 1024; // its default payload limit
const REQUEST = 0x80;
const SERIALIZATIONS = [2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 21, 22, 23, 25];
const bad = { bad: "not Dubbo" };

export const dubboInspector: Inspector = {
  application: "dubbo",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const c = new Cursor(client.bytes, client.start, client.end);
    const have = sizeOf(client);
    const magic = c.u16();
    const flags = c.u8();
    if ((have > 0 && client.bytes[client.start] !== 0xda) || (have > 1 && magic !== 0xdabb)) return bad;
    if (have > 2 && ((flags & REQUEST) === 0 || !SERIALIZATIONS.includes(flags & 31))) return bad;
    if (have < HEADER_BYTES) return more(client, HEADER_BYTES);
    c.skip(9); // status (unused in a request) and id
    return c.u32() <= BODY_MAX ? { application: "dubbo", serverName: undefined } : bad;
  },
};
