import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { latin1, more, printable, shown, sizeOf } from "./parts.ts";

/** git's own transport (gitprotocol-pack): a pkt-line with the service, the path, NUL, `host=`. */
const LINE_MAX = 4096;
const LENGTH_CHARS = 4;
const SERVICES = ["git-upload-pack ", "git-receive-pack ", "git-upload-archive "];
const bad = { bad: "not git" };

export const gitInspector: Inspector = {
  application: "git",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    const have = sizeOf(client);
    let length = 0;
    for (let i = 0; i < Math.min(have, LENGTH_CHARS); i++) {
      const digit = "0123456789abcdef".indexOf(String.fromCharCode(bytes[start + i] as number).toLowerCase());
      if (digit < 0) return bad;
      length = length * 16 + digit;
    }
    if (have < LENGTH_CHARS) return more(client, LENGTH_CHARS + 4);
    if (length < 24 || length > LINE_MAX) return bad;
    const line = latin1(bytes, start + LENGTH_CHARS, Math.min(client.end, start + length));
    const service = SERVICES.find((name) => name.startsWith(line.slice(0, name.length)));
    if (service === undefined) return bad;
    if (have < length) return more(client, length, line.length >= service.length ? "git" : undefined);
    const [path = "", host = ""] = line.slice(service.length).split("\0", 2);
    const at = start + LENGTH_CHARS + service.length;
    if (!printable(bytes, at, at + path.length)) return { bad: "no path", application: "git" };
    const named = host.startsWith("host=") ? { host: shown(host.slice(5)) } : {};
    return { application: "git", serverName: undefined, fields: { method: service.trim(), path: shown(path), ...named } };
  },
};
