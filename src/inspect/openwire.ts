import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { more, sizeOf } from "./parts.ts";

/** OpenWire (activemq.apache.org/wire-protocol): a WireFormatInfo command: length, type 1, the magic word, a version. */
const MAGIC = [1, ...Buffer.from("ActiveMQ")];
const LENGTH_BYTES = 4;
const VERSION_MAX = 20;
const bad = { bad: "not OpenWire" };

export const openwireInspector: Inspector = {
  application: "openwire",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    const have = sizeOf(client);
    if (have > 0 && bytes[start] !== 0) return bad;
    for (const [i, octet] of MAGIC.entries()) {
      const at = LENGTH_BYTES + i;
      if (at < have && bytes[start + at] !== octet) return bad;
    }
    const whole = LENGTH_BYTES + MAGIC.length + 4;
    if (have < whole) return more(client, whole);
    const version = bytes[start + whole - 1] as number;
    return version >= 1 && version <= VERSION_MAX ? { application: "openwire", serverName: undefined, version: String(version) } : bad;
  },
};
