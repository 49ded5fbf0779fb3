import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { shown } from "./parts.ts";
import { readRequestLine } from "./request-line.ts";

/** RTSP (RFC 2326 §6.1, RFC 7826 §7.1): the request line. */
const METHODS = [
  "OPTIONS",
  "DESCRIBE",
  "SETUP",
  "PLAY",
  "PAUSE",
  "TEARDOWN",
  "ANNOUNCE",
  "RECORD",
  "GET_PARAMETER",
  "SET_PARAMETER",
  "REDIRECT",
  "PLAY_NOTIFY",
];
const SCHEMES = ["rtsp://", "rtsps://", "rtspu://", "* RTSP/"];

export const rtspInspector: Inspector = {
  application: "rtsp",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const line = readRequestLine(client, client.start, METHODS, SCHEMES);
    if (!("method" in line)) return line;
    if (line.version !== "RTSP/1.0" && line.version !== "RTSP/2.0") return { bad: "not RTSP" };
    const version = line.version.slice(5);
    const fields = { method: line.method, ...location(line.target) };
    return { application: "rtsp", serverName: undefined, version, fields };
  },
};

/** `rtsp://user@host:port/path`. */
function location(url: string): { readonly host?: string; readonly path?: string } {
  const from = url.indexOf("://");
  if (from < 0) return {};
  const slash = url.indexOf("/", from + 3);
  const authority = url.slice(from + 3, slash < 0 ? undefined : slash);
  return { host: shown(authority.slice(authority.lastIndexOf("@") + 1)), path: slash < 0 ? "/" : shown(url.slice(slash)) };
}
