import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { firstDatagram, more, sizeOf } from "./parts.ts";

/**
 * OpenVPN (openvpn-wire-protocol): the client's hard reset, or of a recording that has only the server's half its answer; over TCP
 * with a length before it. Plain, with tls-auth (an HMAC), and with tls-crypt.
 */
const Op = { resetV2: 0x38, resetV3: 0x50, answer: 0x40 } as const; // opcode 7, 10 and 8, key 0
const PLAIN_BYTES = 14; // opcode, session, no acknowledgements, packet id 0
const HMACS = [0, 16, 20, 28, 32, 48, 64]; // with a packet id and a time where there is one
const REPLAY_BYTES = 8;
const CRYPT_BYTES = 54; // opcode, session, packet id, time, tag of 32, encrypted 5
const CRYPT_V2_MAX = 1100; // with the wrapped key
const ANSWER_BYTES = 26;
const bad = { bad: "not OpenVPN" };
const evidence: Reading = { application: "openvpn", serverName: undefined };

export const openvpnInspector: Inspector = {
  application: "openvpn",
  transports: [Protocol.UDP, Protocol.TCP],
  opens: "client",
  read(first: FirstBytes): Reading {
    if (first.transport === Protocol.UDP) {
      const run = firstDatagram(first);
      if (!("bytes" in run)) return run;
      return isReset(run.bytes, run.start, run.end) || (sizeOf(first.client) === 0 && isAnswer(run)) ? evidence : bad;
    }
    const { client } = first;
    const { bytes, start } = client;
    const have = sizeOf(client);
    if (have > 0 && (bytes[start] as number) > CRYPT_V2_MAX >> 8) return bad;
    const length = have < 2 ? 0 : ((bytes[start] as number) << 8) | (bytes[start + 1] as number);
    if (have >= 2 && (length < PLAIN_BYTES || length > CRYPT_V2_MAX)) return bad;
    if (have >= 3 && bytes[start + 2] !== Op.resetV2 && bytes[start + 2] !== Op.resetV3) return bad;
    if (have < 3 || have < 2 + length) return more(client, Math.max(3, 2 + length));
    return isReset(bytes, start + 2, start + 2 + length) ? evidence : bad;
  },
};

function isReset(bytes: Uint8Array, start: number, end: number): boolean {
  const size = end - start;
  const op = bytes[start];
  if (size < PLAIN_BYTES || (op !== Op.resetV2 && op !== Op.resetV3)) return false;
  if (op === Op.resetV3) return size > CRYPT_BYTES && size <= CRYPT_V2_MAX && isFirst(bytes, start + 9);
  // Ends with no acknowledgements and packet id 0, in the plain form and with tls-auth.
  const hmac = size - PLAIN_BYTES === 0 ? 0 : size - PLAIN_BYTES - REPLAY_BYTES;
  const plain = HMACS.includes(hmac) && bytes.subarray(end - 5, end).every((octet) => octet === 0);
  if (plain) return hmac === 0 || isFirst(bytes, start + 9 + hmac);
  return size === CRYPT_BYTES && isFirst(bytes, start + 9);
}

/** The packet id that stops replays begins with 1; tls-crypt-v2 has flags before it. */
function isFirst(bytes: Uint8Array, at: number): boolean {
  const flags = bytes[at];
  return (flags === 0 || flags === 0x0f) && bytes[at + 1] === 0 && bytes[at + 2] === 0 && bytes[at + 3] === 1;
}

/** Acknowledges packet 0 of the client's session, and is packet 0 itself. */
function isAnswer({ bytes, start, end }: Run): boolean {
  const extra = end - start - ANSWER_BYTES;
  if (bytes[start] !== Op.answer || !HMACS.includes(extra === 0 ? 0 : extra - REPLAY_BYTES)) return false;
  const tail = bytes.subarray(end - 17, end);
  return tail[0] === 1 && [1, 2, 3, 4, 13, 14, 15, 16].every((i) => tail[i] === 0);
}
