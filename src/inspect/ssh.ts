import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { field, findByte, startsLike } from "./text.ts";

/**
 * SSH (RFC 4253 §4.2): both sides send `SSH-protoversion-softwareversion SP comments CR LF` without waiting; a server may
 * send other lines before it, a client may not. 255 octets with CR and LF.
 */
const LINE_MAX = 255;

export const sshInspector: Inspector = {
  application: "ssh",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    if (!startsLike(client, "SSH-")) return { bad: "no SSH identification" };
    const end = findByte(client, 0x0a, LINE_MAX);
    if (end < 0) {
      const have = client.end - client.start;
      if (have >= LINE_MAX) return { bad: "an SSH identification of more than 255 octets" };
      if (client.closed) return have >= 4 ? { application: "ssh", serverName: undefined } : { bad: "too short for SSH" };
      return { need: have + 1, of: "client" };
    }
    return identification(client, end);
  },
};

/** `SSH-2.0-OpenSSH_9.2p1 Debian-2`; 1.99 is a server that also speaks 1. */
function identification(run: Run, end: number): Reading {
  const line = field(run.bytes, run.start, run.bytes[end - 1] === 0x0d ? end - 1 : end);
  const dash = line.indexOf("-", 4);
  if (dash < 0 || !["1.5", "1.99", "2.0"].includes(line.slice(4, dash))) return { bad: "no SSH version" };
  const software = line.slice(dash + 1);
  return {
    application: "ssh",
    serverName: undefined,
    version: line.slice(4, dash),
    ...(software === "" ? {} : { fields: { application: software } }),
  };
}
