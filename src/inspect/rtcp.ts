import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading } from "./inspector.ts";
import { firstDatagram } from "./parts.ts";

/**
 * RTCP (RFC 3550 §6.1): a compound packet: a report first, a source description among what follows, and lengths that end where the
 * datagram does. RTP alone has nothing that other datagrams could not have, and is not recognised.
 */
const Type = { senderReport: 200, receiverReport: 201, description: 202, last: 207 } as const;
const bad = { bad: "not RTCP" };

export const rtcpInspector: Inspector = {
  application: "rtcp",
  transports: [Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    const { bytes, start, end } = run;
    let described = false;
    for (let at = start; at < end; ) {
      const type = bytes[at + 1] as number;
      if (at + 4 > end || (bytes[at] as number) >> 6 !== 2 || type < Type.senderReport || type > Type.last) return bad;
      if (at === start && type > Type.receiverReport) return bad;
      described ||= type === Type.description;
      at += 4 + 4 * (((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number));
      if (at > end) return bad;
    }
    return described ? { application: "rtcp", serverName: undefined } : bad;
  },
};
