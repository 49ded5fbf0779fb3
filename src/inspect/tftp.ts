import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { datagram, firstDatagram, latin1, printable, shown, sizeOf } from "./parts.ts";

/**
 * TFTP (RFC 1350 §5, options RFC 2347): a read or write request, all of it. The data goes between other ports: there the
 * first block (§2) and its acknowledgement are recognised together.
 */
const Op = { read: 1, write: 2, data: 3, acknowledge: 4 } as const;
const MODES = ["netascii", "octet", "mail"];
const OPTIONS_MAX = 16;
const BLOCK_BYTES = 512;
const bad = { bad: "not TFTP" };

export const tftpInspector: Inspector = {
  application: "tftp",
  transports: [Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    const { bytes, start, end } = run;
    const op = bytes[start + 1];
    if (bytes[start] !== 0) return bad;
    if (op === Op.data) return firstBlock(run, first);
    if ((op !== Op.read && op !== Op.write) || bytes[end - 1] !== 0) return bad;
    const texts = latin1(bytes, start + 2, end - 1).split("\0", 2 + 2 * OPTIONS_MAX + 1);
    let at = start + 2;
    for (const text of texts) {
      if (!printable(bytes, at, at + text.length)) return bad;
      at += text.length + 1;
    }
    const [file = "", mode = ""] = texts;
    if (texts.length % 2 !== 0 || at !== end || !MODES.includes(mode.toLowerCase())) return bad;
    return { application: "tftp", serverName: undefined, fields: { file: shown(file), method: op === Op.read ? "read" : "write" } };
  },
};

function firstBlock(run: Run, { client, server }: FirstBytes): Reading {
  const { bytes, start } = run;
  if (bytes[start + 2] !== 0 || bytes[start + 3] !== 1 || sizeOf(run) > 4 + BLOCK_BYTES || sizeOf(client) === 0) return bad;
  const answer = datagram(server, 0);
  if (answer === undefined) return server.closed ? bad : { need: sizeOf(server) + 1, of: "server", release: true };
  const octets = answer.bytes.subarray(answer.start, answer.end).join(",");
  return octets === "0,4,0,1" ? { application: "tftp", serverName: undefined } : bad;
}
