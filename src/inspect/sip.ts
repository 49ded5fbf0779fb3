import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { datagram, firstDatagram, mayStart, more, shown, sizeOf } from "./parts.ts";
import { readRequestLine } from "./request-line.ts";

/** SIP (RFC 3261 §7): a request or a response line; CR LF before it is a keep-alive (RFC 5626 §3.5.1). */
const METHODS = [
  "REGISTER",
  "INVITE",
  "ACK",
  "BYE",
  "CANCEL",
  "OPTIONS",
  "PRACK",
  "UPDATE",
  "SUBSCRIBE",
  "NOTIFY",
  "PUBLISH",
  "INFO",
  "REFER",
  "MESSAGE",
];
const SCHEMES = ["sip:", "sips:", "tel:", "urn:"];
const KEEP_ALIVES_MAX = 16;
const bad = { bad: "not SIP" };

export const sipInspector: Inspector = {
  application: "sip",
  transports: [Protocol.UDP, Protocol.TCP],
  opens: "client",
  read(first: FirstBytes): Reading {
    if (first.transport === Protocol.TCP) return message(first.client);
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    const reading = message(run);
    // Keep-alives alone are not SIP yet: what comes behind them is.
    if (!("need" in reading) && "bad" in reading && reading === onlyKeepAlives) {
      for (let i = 1; i < KEEP_ALIVES_MAX; i++) {
        const next = datagram(first.client, i);
        if (next === undefined) break;
        const later = message(next);
        if (later !== onlyKeepAlives) return later;
      }
      return more(first.client, sizeOf(first.client) + 1);
    }
    return reading;
  },
};

const onlyKeepAlives: Reading = { bad: "keep-alives" };

function message(run: Run): Reading {
  let at = run.start;
  while (at < run.end && at - run.start < 2 * KEEP_ALIVES_MAX && (run.bytes[at] === 0x0d || run.bytes[at] === 0x0a)) at++;
  if (at === run.end) return run.closed && sizeOf(run) > 0 && sizeOf(run) <= 4 ? onlyKeepAlives : more(run, sizeOf(run) + 1);
  const rest: Run = { ...run, start: at };
  if (mayStart(rest, ["SIP/2.0 "])) {
    if (sizeOf(rest) < 12) return more(run, at - run.start + 12);
    const code = Number(String.fromCharCode(...run.bytes.subarray(at + 8, at + 11)));
    return code >= 100 && code < 700 && run.bytes[at + 11] === 0x20 ? { application: "sip", serverName: undefined, version: "2.0" } : bad;
  }
  const line = readRequestLine(run, at, METHODS, SCHEMES);
  if (!("method" in line)) return line;
  if (line.version !== "SIP/2.0") return bad;
  return { application: "sip", serverName: undefined, version: "2.0", fields: { method: line.method, ...addressee(line.target) } };
}

/** `sip:user:password@host:port;parameters` (§19.1). */
function addressee(uri: string): { readonly host?: string; readonly user?: string } {
  if (!uri.startsWith("sip")) return {};
  let rest = uri.slice(uri.indexOf(":") + 1);
  for (const end of [";", "?"]) if (rest.includes(end)) rest = rest.slice(0, rest.indexOf(end));
  const at = rest.lastIndexOf("@");
  const user = at < 0 ? "" : (rest.slice(0, at).split(":")[0] ?? "");
  return { host: shown(rest.slice(at + 1)), ...(user === "" ? {} : { user: shown(user) }) };
}
