import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { lineAt, mayStartAnyCase, more, shown, sizeOf } from "./parts.ts";

/** IRC (RFC 2812 §3.1, IRCv3 capability negotiation): how a client registers. NICK or PASS alone could be another's. */
const LINE_MAX = 512; // RFC 2812 §2.3
const LINES_MAX = 4;
const STARTS = ["CAP LS", "PASS ", "NICK ", "USER "];
const bad = { bad: "not IRC" };

export const ircInspector: Inspector = {
  application: "irc",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    if (!mayStartAnyCase(client, STARTS)) return bad;
    let nick: string | undefined;
    for (let i = 0, at = client.start; i < LINES_MAX; i++) {
      const line = lineAt(client, at, LINE_MAX);
      if (line === "long") return bad;
      if (line === undefined) return more(client, sizeOf(client) + 1);
      at = line.next;
      const [verb = "", ...parameters] = line.text.split(" ", 6);
      const upper = verb.toUpperCase();
      if (upper === "NICK" && parameters.length === 1) nick = parameters[0] ?? "";
      else if (upper === "USER" && parameters.length < 4) return bad;
      else if (upper === "USER" || (upper === "CAP" && parameters[0]?.toUpperCase() === "LS")) {
        return { application: "irc", serverName: undefined, ...(nick === undefined ? {} : { fields: { user: shown(nick) } }) };
      } else if (upper !== "PASS") return bad;
    }
    return bad;
  },
};
