import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { firstDatagram, latin1, mayStart, more, sizeOf } from "./parts.ts";

/** BitTorrent: the peer handshake (BEP 3), messages of the distributed hash table (BEP 5), and uTP's first packet (BEP 29). */
const HANDSHAKE = "\x13BitTorrent protocol";
const DHT_STARTS = ["d1:ad2:id20:", "d1:rd2:id20:", "d2:ip6:", "d2:ip18:", "d1:eli"];
const UTP_SYN = 0x41; // type 4, version 1
const UTP_BYTES = 20;
const bad = { bad: "not BitTorrent" };
const evidence: Reading = { application: "bittorrent", serverName: undefined };

export const bittorrentInspector: Inspector = {
  application: "bittorrent",
  transports: [Protocol.TCP, Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    if (first.transport === Protocol.TCP) {
      const { client } = first;
      if (!mayStart(client, [HANDSHAKE])) return bad;
      return sizeOf(client) < HANDSHAKE.length ? more(client, HANDSHAKE.length) : evidence;
    }
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    return isDht(run) || isUtp(run) ? evidence : bad;
  },
};

/** A bencoded dictionary that says what kind of message it is. */
function isDht(run: Run): boolean {
  if (sizeOf(run) < 40 || run.bytes[run.end - 1] !== 0x65 || !mayStart(run, DHT_STARTS)) return false;
  return latin1(run.bytes, run.start, run.end).includes("1:y1:");
}

/** ST_SYN without extensions: no time difference yet, sequence number 1. */
function isUtp({ bytes, start, end }: Run): boolean {
  if (end - start !== UTP_BYTES || bytes[start] !== UTP_SYN || bytes[start + 1] !== 0) return false;
  for (let i = 8; i < 12; i++) if (bytes[start + i] !== 0) return false;
  return bytes[start + 16] === 0 && bytes[start + 17] === 1;
}
