import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { datagram, firstDatagram, sizeOf } from "./parts.ts";

/** WireGuard (wireguard.com/protocol): a handshake initiation of 148 octets; data only where both sides send it. */
const INITIATION_BYTES = 148;
const DATA_BYTES_MIN = 32;
const bad = { bad: "not WireGuard" };
const evidence: Reading = { application: "wireguard", serverName: undefined };

export const wireguardInspector: Inspector = {
  application: "wireguard",
  transports: [Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    if (isType(run, 1)) return sizeOf(run) === INITIATION_BYTES ? evidence : bad;
    if (!isData(run)) return bad;
    if (sizeOf(first.client) === 0) return bad;
    const answer = datagram(first.server, 0);
    if (answer === undefined) return first.server.closed ? bad : { need: sizeOf(first.server) + 1, of: "server", release: true };
    return isData(answer) ? evidence : bad;
  },
};

function isType({ bytes, start, end }: Run, type: number): boolean {
  return end - start >= 4 && bytes[start] === type && bytes[start + 1] === 0 && bytes[start + 2] === 0 && bytes[start + 3] === 0;
}

/** Receiver, a counter that is not huge yet, and whole blocks of 16. */
function isData(run: Run): boolean {
  const { bytes, start, end } = run;
  if (!isType(run, 4) || end - start < DATA_BYTES_MIN || (end - start) % 16 !== 0) return false;
  return bytes.subarray(start + 12, start + 16).every((octet) => octet === 0);
}
