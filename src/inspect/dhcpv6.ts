import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading } from "./inspector.ts";
import { firstDatagram, sizeOf } from "./parts.ts";

/** DHCPv6 (RFC 8415 §8): a client's message: type, transaction, options to the end, the client's identifier among them. */
const TYPES = [1, 3, 4, 5, 6, 8, 9, 11]; // Solicit, Request, Confirm, Renew, Rebind, Release, Decline, Information-request
const OPTION_MAX = 150;
const CLIENT_ID = 1;
const DUID_TYPE_MAX = 4;
const bad = { bad: "not DHCPv6" };

export const dhcpv6Inspector: Inspector = {
  application: "dhcpv6",
  transports: [Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    if (sizeOf(run) < 14 || !TYPES.includes(run.bytes[run.start] as number)) return bad;
    const c = new Cursor(run.bytes, run.start + 4, run.end);
    let identified = false;
    while (c.left > 0) {
      const code = c.u16();
      const value = c.view(c.u16());
      if (c.short || code === 0 || code > OPTION_MAX) return bad;
      if (code === CLIENT_ID) identified = value.length > 2 && value[0] === 0 && (value[1] as number) <= DUID_TYPE_MAX;
    }
    return identified ? { application: "dhcpv6", serverName: undefined } : bad;
  },
};
