import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { more, printable, sizeOf } from "./parts.ts";
import { field } from "./text.ts";

/** Pulsar (pulsar.apache.org, binary protocol): two lengths, then a protobuf BaseCommand: type CONNECT, the client's version. */
const HEAD_BYTES = 8;
const FRAME_MAX = 65_536; // of a CONNECT
const bad = { bad: "not Pulsar" };

export const pulsarInspector: Inspector = {
  application: "pulsar",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    const have = sizeOf(client);
    if (have > 0 && bytes[start] !== 0) return bad;
    const c = new Cursor(bytes, start, client.end);
    const total = c.u32();
    const command = c.u32();
    if (have >= HEAD_BYTES && (command !== total - 4 || total > FRAME_MAX || command < 8)) return bad;
    if (have < HEAD_BYTES + 2) return more(client, HEAD_BYTES + 2);
    // Field 1 (type) is 2; field 2 (connect) is a message whose field 1 is the client's version.
    if (c.u16() !== 0x0802) return bad;
    if (have < 4 + total) return more(client, 4 + total);
    const inner = c.u8() === 0x12 ? c.u8() : 0;
    if (inner > 127) c.skip(1);
    if (inner === 0 || c.u8() !== 0x0a) return bad;
    const length = c.u8();
    const version = c.at;
    c.skip(length);
    if (c.short || length > 127 || !printable(bytes, version, version + length)) return bad;
    return { application: "pulsar", serverName: undefined, fields: { application: field(bytes, version, version + length).trim() } };
  },
};
