import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { more, sizeOf } from "./parts.ts";

/** SMB 1 and 2 (MS-CIFS §2.2.3.1, MS-SMB2 §2.2.1) in a session packet (RFC 1002 §4.3.1): type 0, a length, `\xffSMB` or `\xfeSMB`. */
const HEADER_BYTES = 10;
const MESSAGE_MIN = 32;
const VERSIONS: Readonly<Record<number, string>> = { 0xff: "1", 0xfe: "2", 0xfd: "3" };
const SIGNATURE = [0x53, 0x4d, 0x42];

export const smbInspector: Inspector = {
  application: "smb",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const bad = { bad: "not SMB" };
    const { bytes, start } = client;
    const have = sizeOf(client);
    const at = (i: number): number => (i < have ? (bytes[start + i] as number) : -1);
    const version = VERSIONS[at(4)];
    if (at(0) > 0 || (have > 4 && version === undefined)) return bad;
    if (have >= 4 && ((at(1) << 16) | (at(2) << 8) | at(3)) < MESSAGE_MIN) return bad;
    if (SIGNATURE.some((octet, i) => at(5 + i) >= 0 && at(5 + i) !== octet)) return bad;
    if (have < HEADER_BYTES) return more(client, HEADER_BYTES);
    if (version === "2" && (at(8) !== 64 || at(9) !== 0)) return bad;
    return { application: "smb", serverName: undefined, ...(version === undefined ? {} : { version }) };
  },
};
