import { Protocol } from "../model/packet.ts";
import { FIELD_CHARS_MAX, NAMES_DISAGREE, type Evidence } from "../model/verdict.ts";
import { readHead, type RequestHead } from "./http1-head.ts";
import type { FirstBytes, Inspector, Reading } from "./inspector.ts";

/**
 * HTTP/1.0 and 1.1 (RFC 9112): the first request, whole head. The server name is the host that is asked for: the target's
 * where the target has one (absolute form, CONNECT), else the Host's. A request to become a WebSocket (RFC 6455 §4.1) is
 * `websocket`; any other Upgrade is named and stays http1, for most servers answer as if it were not there.
 */
export const http1Inspector: Inspector = { application: "http1", transports: [Protocol.TCP], opens: "client", read: readHttp1 };

/** The same first request, where it asks for a WebSocket. */
export const websocketInspector: Inspector = {
  application: "websocket",
  transports: [Protocol.TCP],
  opens: "client",
  read(first) {
    const reading = readHttp1(first);
    const other = !("need" in reading) && !("bad" in reading) && reading.application !== "websocket";
    return other ? { bad: "HTTP/1 without an upgrade to a WebSocket" } : reading;
  },
};

function readHttp1({ client }: FirstBytes): Reading {
  const head = readHead(client.bytes, client.start, client.end);
  if ("bad" in head) return head;
  if (!("need" in head)) return requestEvidence(head);
  if (!client.closed) return { need: head.need, of: "client" };
  // A head that stops short: its Host may be one of two, so none is told.
  if (head.line === undefined) return { bad: "too short for an HTTP request" };
  return { application: "http1", serverName: undefined, version: head.line.version, fields: { method: head.line.method } };
}

/** What one request says. */
export function requestEvidence(head: RequestHead): Evidence {
  const { target, host, hostText, upgrade, path, userAgent } = head;
  const websocket = head.method === "GET" && upgrade?.split(",").some((one) => one.trim() === "websocket") === true;
  return {
    application: websocket ? "websocket" : "http1",
    serverName: (target ?? host)?.name,
    version: head.version,
    ...(upgrade === undefined || websocket ? {} : { upgrade }),
    ...(head.disagree ? { evasion: `${NAMES_DISAGREE}: the request's target and its Host` } : {}),
    fields: {
      method: head.method,
      ...(path === undefined ? {} : { path }),
      ...(hostText === undefined || hostText === "" ? {} : { host: hostText }),
      ...(target === undefined ? {} : { target: `${target.host}:${target.port}`.slice(0, FIELD_CHARS_MAX) }),
      ...(userAgent === undefined || userAgent === "" ? {} : { application: userAgent }),
    },
  };
}
