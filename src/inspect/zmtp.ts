import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { latin1, more, sizeOf } from "./parts.ts";

/** ZMTP 3 (rfc.zeromq.org/spec/23): the greeting: signature, version, mechanism padded to 20 octets. */
const GREETING_BYTES = 32;
const MECHANISMS = ["NULL", "PLAIN", "CURVE", "GSSAPI"];
const bad = { bad: "not ZMTP" };

export const zmtpInspector: Inspector = {
  application: "zmtp",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    const have = sizeOf(client);
    const at = (i: number): number => (i < have ? (bytes[start + i] as number) : -1);
    if ((have > 0 && at(0) !== 0xff) || (have > 1 && at(1) !== 0) || (have > 9 && at(9) !== 0x7f) || (have > 10 && at(10) !== 3))
      return bad;
    if (have < GREETING_BYTES) return more(client, GREETING_BYTES);
    const [mechanism = "", ...padding] = latin1(bytes, start + 12, start + GREETING_BYTES).split("\0");
    if (!MECHANISMS.includes(mechanism) || padding.some((part) => part !== "")) return bad;
    return { application: "zmtp", serverName: undefined, version: `3.${at(11)}`, fields: { mechanism } };
  },
};
