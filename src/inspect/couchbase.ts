import { Protocol } from "../model/packet.ts";
import { cursorAt, evidenceOf, more, viewField } from "./binary.ts";
import type { Inspector, NotIt, Reading } from "./inspector.ts";
import { BINARY_HEADER_BYTES, FRAMED_REQUEST, readBinaryRequest, REQUEST } from "./memcache-binary.ts";
import { sizeOf } from "./parts.ts";

/**
 * Couchbase's key-value service (kv_engine, "BinaryProtocol.md"): memcached's binary requests with more operations. Clients begin
 * with HELLO, whose key says who they are; the bucket and the user come later. A request that memcached has too is memcached's.
 */
const HELLO = 0x1f;
const HELLO_BYTES_MAX = 2048;
/** What a connection may begin with besides: SELECT_BUCKET, GET_CLUSTER_CONFIG, GET_ERROR_MAP. */
const OTHERS: Readonly<Record<number, string>> = { 0x89: "SELECT_BUCKET", 0xb5: "GET_CLUSTER_CONFIG", 0xfe: "GET_ERROR_MAP" };
const SELECT_BUCKET = 0x89;

const not: NotIt = { bad: "no Couchbase request" };

export const couchbaseInspector: Inspector = {
  application: "couchbase",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    if (sizeOf(client) === 0) return more(client, BINARY_HEADER_BYTES, not);
    const magic = client.bytes[client.start] === FRAMED_REQUEST ? FRAMED_REQUEST : REQUEST;
    const opcode = sizeOf(client) > 1 ? (client.bytes[client.start + 1] as number) : HELLO;
    if (opcode !== HELLO && (OTHERS[opcode] === undefined || magic === FRAMED_REQUEST)) return not;
    const request = readBinaryRequest(client, magic);
    if (request === undefined) return not;
    if (typeof request === "number") return more(client, request, not);
    const { keyBytes, extraBytes, valueBytes, datatype, bucket } = request;
    if (extraBytes !== 0 || datatype !== 0 || bucket !== 0) return not;
    const bodyBytes = cursorAt(client, 8).u32();
    if (bodyBytes > HELLO_BYTES_MAX) return not;
    if (sizeOf(client) < BINARY_HEADER_BYTES + bodyBytes) return more(client, BINARY_HEADER_BYTES + bodyBytes, not);
    const c = cursorAt(client, BINARY_HEADER_BYTES + bodyBytes - keyBytes - valueBytes);
    const key = c.view(keyBytes);
    if (opcode === HELLO) return valueBytes % 2 === 0 ? evidenceOf("couchbase", { ...agent(key), method: "HELLO" }) : not;
    const database = opcode === SELECT_BUCKET ? viewField(key) : undefined;
    return evidenceOf("couchbase", { method: OTHERS[opcode], database });
  },
};

/** `{"a":"agent/1.0","i":"connection"}`, or from old clients a plain text. */
function agent(key: Uint8Array): { application: string; clientId?: string | undefined } {
  try {
    const said = JSON.parse(Buffer.from(key).toString("utf8")) as unknown;
    const { a, i } = said as { a?: unknown; i?: unknown };
    if (typeof a === "string") return { application: asField(a), clientId: typeof i === "string" ? asField(i) : undefined };
  } catch {
    // not JSON
  }
  return { application: viewField(key) };
}

const asField = (text: string): string => viewField(Buffer.from(text, "utf8"));
