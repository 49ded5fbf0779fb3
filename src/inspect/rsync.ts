import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { isNumber, lineAt, mayStart, more, sizeOf } from "./parts.ts";

/** rsync's daemon (rsyncd): both sides begin with `@RSYNCD: 31.0`. */
const LINE_MAX = 128;
const START = "@RSYNCD: ";

export const rsyncInspector: Inspector = {
  application: "rsync",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    if (!mayStart(client, [START])) return { bad: "not rsync" };
    const line = lineAt(client, client.start, LINE_MAX);
    if (line === undefined) return more(client, sizeOf(client) + 1);
    const version = line === "long" ? "" : (line.text.slice(START.length).split(" ")[0] ?? "");
    if (version.length === 0 || version.length > 8 || !isNumber(version)) return { bad: "not rsync" };
    return { application: "rsync", serverName: undefined, version };
  },
};
