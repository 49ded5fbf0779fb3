import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { lineAt, mayStart, more, shown, sizeOf } from "./parts.ts";

/** The PROXY protocol's prefix, versions 1 and 2 (haproxy, proxy-protocol.txt §2): addresses that a client can make up. */
const LINE_MAX = 107; // §2.1
const SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";
const HEADER_BYTES = 16;

export const proxyInspector: Inspector = {
  application: "proxy",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const bad = { bad: "no PROXY prefix" };
    if (mayStart(client, [SIGNATURE])) {
      if (sizeOf(client) < HEADER_BYTES) return more(client, HEADER_BYTES);
      const command = client.bytes[client.start + 12] as number;
      return command === 0x20 || command === 0x21 ? { application: "proxy", serverName: undefined, version: "2" } : bad;
    }
    if (!mayStart(client, ["PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN"])) return bad;
    const line = lineAt(client, client.start, LINE_MAX);
    if (line === "long") return bad;
    if (line === undefined) return more(client, sizeOf(client) + 1);
    const [, family, source] = line.text.split(" ");
    const fields = source === undefined || family === "UNKNOWN" ? {} : { fields: { host: shown(source) } };
    return { application: "proxy", serverName: undefined, version: "1", ...fields };
  },
};
