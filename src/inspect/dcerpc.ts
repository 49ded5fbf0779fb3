import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { more, sizeOf } from "./parts.ts";

/** DCE/RPC (C706 §12.6.4.3): version 5.0 or 5.1, a bind, its fragment's length, and at least one context. */
const HEADER_BYTES = 28; // up to the number of contexts
const BIND = 0x0b;
const BIND_ACK = 0x0c;
const FLAGS_MAX = 0x13; // first, last, concurrent multiplexing
const evidence: Reading = { application: "dcerpc", serverName: undefined };
const bad = { bad: "not DCE/RPC" };

export const dcerpcInspector: Inspector = {
  application: "dcerpc",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client, server }): Reading {
    // Of a recording that has only the server's half, its answer.
    const recorded = client.closed && sizeOf(client) === 0;
    const run = recorded ? server : client;
    const { bytes, start } = run;
    const have = sizeOf(run);
    const at = (i: number): number => bytes[start + i] as number;
    if (have > 0 && at(0) !== 5) return bad;
    if (have > 1 && at(1) > 1) return bad;
    if (have > 2 && at(2) !== (recorded ? BIND_ACK : BIND)) return bad;
    if (have > 3 && (at(3) & ~FLAGS_MAX) !== 0 && !recorded) return bad;
    if (have > 7 && ((at(4) !== 0x10 && at(4) !== 0) || at(5) > 3 || at(6) !== 0 || at(7) !== 0)) return bad;
    if (have < HEADER_BYTES) return more(run, HEADER_BYTES);
    const little = at(4) === 0x10;
    const length = little ? at(8) | (at(9) << 8) : (at(8) << 8) | at(9);
    if (recorded) return length === have || (length >= 60 && length < have) ? evidence : bad;
    return length >= 72 && length <= 16_384 && at(24) > 0 && at(25) === 0 ? evidence : bad;
  },
};
