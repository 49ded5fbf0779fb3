import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { latin1, more, sizeOf } from "./parts.ts";

/** RocketMQ's remoting protocol: length, serialization (0 JSON) and header length, then a JSON header with code, flag, opaque. */
const HEAD_BYTES = 8;
const HEADER_MAX = 65_536;
const FRAME_MAX = 16 * 1024 * 1024; // com.rocketmq.remoting.frameMaxLength
const NUMBERS = ["code", "flag", "opaque", "version"];
const bad = { bad: "not RocketMQ" };

export const rocketmqInspector: Inspector = {
  application: "rocketmq",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    const have = sizeOf(client);
    const c = new Cursor(bytes, start, client.end);
    if (have > 0 && (bytes[start] as number) > 1) return bad;
    const total = c.u32();
    const header = c.u32(); // the highest octet says how it is written: 0 is JSON
    if (have >= HEAD_BYTES && (header > HEADER_MAX || header + 4 > total || header < 8 || total > FRAME_MAX)) return bad;
    if (have > HEAD_BYTES && bytes[start + HEAD_BYTES] !== 0x7b) return bad;
    if (have <= HEAD_BYTES || have < HEAD_BYTES + header) return more(client, HEAD_BYTES + Math.max(header, 1));
    return isHeader(latin1(bytes, start + HEAD_BYTES, start + HEAD_BYTES + header))
      ? { application: "rocketmq", serverName: undefined }
      : bad;
  },
};

function isHeader(text: string): boolean {
  try {
    const header: unknown = JSON.parse(text);
    return (
      typeof header === "object" &&
      header !== null &&
      NUMBERS.every((name) => typeof (header as Record<string, unknown>)[name] === "number")
    );
  } catch {
    return false;
  }
}
