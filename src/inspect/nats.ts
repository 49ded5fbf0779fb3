import { Protocol } from "../model/packet.ts";
import type { Fields } from "../model/verdict.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { lineAt, shown, sizeOf } from "./parts.ts";
import { startsLike } from "./text.ts";
import { withUpgrade } from "./upgrade.ts";

/**
 * NATS (docs.nats.io, client protocol): the server begins with `INFO {json}`, the client answers `CONNECT {json}`, or with TLS
 * where the server said tls_required or tls_available.
 */
const LINE_MAX = 32_768; // connect_urls of a large cluster
const TLS_HANDSHAKE = 22;

export const natsInspector: Inspector = {
  application: "nats",
  transports: [Protocol.TCP],
  opens: "server",
  read({ client, server }): Reading {
    if (!startsLike(server, "INFO {")) return { bad: "no NATS INFO" };
    const tls = sizeOf(client) > 0 && client.bytes[client.start] === TLS_HANDSHAKE;
    if (tls && sizeOf(server) === 0) return { bad: "TLS before NATS INFO" };
    if (!tls && !startsLike(client, "CONNECT {")) return { bad: "no NATS CONNECT" };
    const greeting = lineAt(server, server.start, LINE_MAX);
    if (greeting === "long") return { bad: "a NATS INFO without end" };
    if (greeting === undefined && !server.closed) return { need: sizeOf(server) + 1, of: "server", release: true };
    // A recording without the server's half: what the client says is clear enough.
    const info = greeting === undefined ? undefined : objectOf(greeting.text, 5);
    if (greeting !== undefined && typeof info?.["server_id"] !== "string") return { bad: "no NATS INFO" };
    const evidence = { application: "nats", serverName: undefined, ...version(info) };
    if (tls) {
      if (info?.["tls_required"] !== true && info?.["tls_available"] !== true) return { bad: "TLS that NATS did not offer" };
      return withUpgrade(evidence, client, 0);
    }
    const line = lineAt(client, client.start, LINE_MAX);
    if (line === "long") return { bad: "a NATS CONNECT without end", application: "nats" };
    if (line === undefined) {
      if (client.closed) return info === undefined ? { bad: "no NATS CONNECT" } : evidence;
      const need = { need: sizeOf(client) + 1, of: "client" } as const;
      return sizeOf(client) === 0 ? { ...need, release: true } : need;
    }
    const said = objectOf(line.text, 8);
    if (said === undefined) return { bad: "no NATS CONNECT", application: "nats" };
    return { ...evidence, fields: fieldsOf(said) };
  },
};

type Json = Readonly<Record<string, unknown>>;

function objectOf(text: string, at: number): Json | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(text.slice(at), "latin1").toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Json) : undefined;
  } catch {
    return undefined;
  }
}

const textOf = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? shown(value) : undefined);

function version(info: Json | undefined): { readonly version?: string } {
  const found = textOf(info?.["version"]);
  return found === undefined ? {} : { version: found };
}

function fieldsOf(said: Json): Fields {
  const user = textOf(said["user"]);
  const clientId = textOf(said["name"]);
  const application = [textOf(said["lang"]), textOf(said["version"])].filter((part) => part !== undefined).join("/");
  return { ...(user && { user }), ...(clientId && { clientId }), ...(application && { application }) };
}
