import { Protocol } from "../model/packet.ts";
import type { Fields } from "../model/verdict.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { latin1, mayStart, more, shown, sizeOf } from "./parts.ts";

/** STOMP (stomp.github.io, 1.0 to 1.2): a CONNECT or STOMP frame, its headers up to the empty line. */
const HEADERS_MAX = 8192;
const STARTS = ["STOMP\n", "STOMP\r\n", "CONNECT\n", "CONNECT\r\n"];
const KNOWN = ["accept-version", "login", "passcode", "host", "heart-beat", "client-id"];
const bad = { bad: "not STOMP" };

export const stompInspector: Inspector = {
  application: "stomp",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    if (!mayStart(client, STARTS)) return bad;
    const text = latin1(client.bytes, client.start, Math.min(client.end, client.start + HEADERS_MAX)).replaceAll("\r", "");
    const end = text.indexOf("\n\n");
    const nul = text.indexOf("\0");
    if (nul >= 0 && (end < 0 || nul < end)) return bad;
    if (end < 0) return sizeOf(client) >= HEADERS_MAX ? bad : more(client, sizeOf(client) + 1);
    const [command = "", ...lines] = text.slice(0, end).split("\n");
    const headers = new Map(
      lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
    );
    if (headers.has("")) return bad;
    if (command === "CONNECT" && !KNOWN.some((name) => headers.has(name))) return bad;
    return { application: "stomp", serverName: undefined, fields: fieldsOf(headers) };
  },
};

function fieldsOf(headers: ReadonlyMap<string, string>): Fields {
  const user = headers.get("login");
  const host = headers.get("host");
  const clientId = headers.get("client-id");
  return { ...(user && { user: shown(user) }), ...(host && { host: shown(host) }), ...(clientId && { clientId: shown(clientId) }) };
}
