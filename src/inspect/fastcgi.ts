import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { more, sizeOf } from "./parts.ts";

/** FastCGI 1.0 (§5.1): a BEGIN_REQUEST record, all 16 octets; undefined ones (reserved) are 0. */
const RECORD_BYTES = 16;
const bad = { bad: "not FastCGI" };

export const fastcgiInspector: Inspector = {
  application: "fastcgi",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    // version, type, request id (2), content length (2), padding, reserved, role (2), flags, reserved (5)
    const exact: readonly (number | undefined)[] = [1, 1, undefined, undefined, 0, 8, 0, 0, 0, undefined, undefined, 0, 0, 0, 0, 0];
    for (const [i, octet] of exact.entries()) if (i < sizeOf(client) && octet !== undefined && bytes[start + i] !== octet) return bad;
    if (sizeOf(client) < RECORD_BYTES) return more(client, RECORD_BYTES);
    const role = bytes[start + 9] as number;
    return role >= 1 && role <= 3 && (bytes[start + 10] as number) <= 1 ? { application: "fastcgi", serverName: undefined } : bad;
  },
};
