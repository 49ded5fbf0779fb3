import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading } from "./inspector.ts";
import { firstDatagram, latin1, mayStart, sizeOf } from "./parts.ts";

/** Dropbox looks for itself on the local network: one JSON object, broadcast. */
const DATAGRAM_MAX = 4096;
const KEYS = ["host_int", "version", "port", "namespaces"];
const bad = { bad: "not Dropbox" };

export const dbLspDiscInspector: Inspector = {
  application: "db-lsp-disc",
  transports: [Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    if (!mayStart(run, ['{"']) || sizeOf(run) > DATAGRAM_MAX) return bad;
    try {
      const said: unknown = JSON.parse(latin1(run.bytes, run.start, run.end));
      const right = typeof said === "object" && said !== null && KEYS.every((key) => Object.hasOwn(said, key));
      return right ? { application: "db-lsp-disc", serverName: undefined } : bad;
    } catch {
      return bad;
    }
  },
};
