import type { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import { bytesLike, cursorAt, evidenceOf, more, viewField } from "./binary.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { sizeOf, isPrintable } from "./parts.ts";

/**
 * Cassandra's and ScyllaDB's native protocol (CQL binary protocol v3 to v5, §2 and §4.1; DSE's 0x41 and 0x42): a client begins
 * with OPTIONS or STARTUP. The user comes later, in SASL, and the keyspace with USE. Between nodes (port 7000) a magic number begins.
 */
const HEADER_BYTES = 9;
const VERSIONS: readonly number[] = [3, 4, 5, 6, 0x41, 0x42];
const FLAG_BETA = 0x10; // §2.2: USE_BETA; compression, tracing, payload and warnings make no sense on a first message
const Opcode = { startup: 1, options: 5 } as const;
const STARTUP_BYTES_MAX = 8192;
const OPTIONS_MAX = 64;
const INTERNODE = [0xca, 0x55, 0x2d, 0xfa];
const INTERNODE_HEADER_BYTES = 8;

const not = { bad: "no CQL message" } as const;

export const cassandraInspector: Inspector = {
  application: "cassandra",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const have = sizeOf(client);
    const version = have > 0 ? (client.bytes[client.start] as number) : undefined;
    if (version === INTERNODE[0]) return readInternode(client);
    if (version !== undefined && !VERSIONS.includes(version)) return not;
    if (!bytesLike(client, 1, [0]) && !bytesLike(client, 1, [FLAG_BETA])) return not;
    if (have > 2 && (client.bytes[client.start + 2] as number) > 0x7f) return not; // the server's own streams
    const isOptions = bytesLike(client, 4, [Opcode.options, 0, 0, 0, 0]);
    if (!isOptions && !bytesLike(client, 4, [Opcode.startup, 0, 0])) return not;
    if (have < HEADER_BYTES) return more(client, HEADER_BYTES, not);
    const shown = (version as number) > 0x40 ? `DSE${(version as number) - 0x40}` : String(version);
    return isOptions ? evidenceOf("cassandra", { method: "OPTIONS" }, shown) : readStartup(client, shown);
  },
};

function readStartup(client: Run, version: string): Reading {
  const length = cursorAt(client, 5).u32();
  if (length > STARTUP_BYTES_MAX) return not;
  if (sizeOf(client) < HEADER_BYTES + length) return more(client, HEADER_BYTES + length, not);
  const options = readStringMap(cursorAt({ ...client, end: client.start + HEADER_BYTES + length }, HEADER_BYTES));
  if (options === undefined || !options.has("CQL_VERSION")) return not;
  const product = [options.get("DRIVER_NAME"), options.get("DRIVER_VERSION")].filter(Boolean).join(" ");
  const fields = { application: options.get("APPLICATION_NAME") ?? product, clientId: options.get("CLIENT_ID"), method: "STARTUP" };
  return evidenceOf("cassandra", fields, version);
}

/** §3: [string map], which must end where the message does. */
function readStringMap(c: Cursor): ReadonlyMap<string, string> | undefined {
  const found = new Map<string, string>();
  const count = c.u16();
  if (count > OPTIONS_MAX) return undefined;
  for (let i = 0; i < count; i++) {
    const key = c.view(c.u16());
    const value = c.view(c.u16());
    if (c.short || !isPrintable(key)) return undefined;
    found.set(viewField(key), viewField(value));
  }
  return c.left === 0 && !c.short ? found : undefined;
}

/** org.apache.cassandra.net.HandshakeProtocol: the magic number and a word of flags and versions. */
function readInternode(client: Run): Reading {
  if (!bytesLike(client, 0, INTERNODE)) return not;
  if (sizeOf(client) < INTERNODE_HEADER_BYTES) return more(client, INTERNODE_HEADER_BYTES, not);
  return evidenceOf("cassandra", { method: "internode" });
}
