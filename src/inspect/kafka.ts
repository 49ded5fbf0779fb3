import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { latin1, more, printable, shown, sizeOf } from "./parts.ts";

/**
 * Kafka (kafka.apache.org/protocol): size, api key, api version, correlation id, client id. Any length-prefixed protocol
 * looks a little like it, so key and version must be of the table, and what the header promises must be there.
 */
const SIZE_MAX = 100 * 1024 * 1024; // socket.request.max.bytes
const HELLO_MAX = 8192; // of the requests that are read whole
const HEADER_BYTES = 14; // with the size and the length of the client id
const CLIENT_ID_MAX = 255;

/** By api key: the newest version of Kafka 4.1, and the first one with tagged fields (NEVER where there is none). */
const NEVER = 99;
// biome-ignore format: a table
const APIS: readonly (readonly [newest: number, tagged: number])[] = [
  [13, 9], [18, 12], [11, 6], [13, 9], [7, 4], [4, 2], [8, 6], [3, 3], [10, 8], [10, 6], // 0 Produce, Fetch, ListOffsets, Metadata ...
  [6, 3], [9, 6], [4, 4], [5, 4], [5, 4], [6, 5], [5, 3], [1, NEVER], [4, 3], [7, 5], // 10 FindCoordinator ... 17 SaslHandshake, 18 ApiVersions
  [6, 4], [2, 2], [6, 2], [4, 4], [5, 3], [4, 3], [5, 3], [2, 1], [5, 3], [3, 2], // 20 DeleteTopics ...
  [3, 2], [3, 2], [4, 4], [2, 2], [2, 2], [5, 2], [2, 2], [3, 2], [3, 2], [2, 2], // 30 CreateAcls ...
  [2, 2], [3, 2], [2, 2], [2, 2], [1, 1], [1, 0], [0, 0], [0, NEVER], [1, 1], [1, 1], // 40 ExpireDelegationToken ...
];
/** Later requests all have tagged fields; none of them has more than a few versions. */
const KEY_MAX = 92;
const LATER_VERSION_MAX = 5;

const Key = { metadata: 3, saslHandshake: 17, apiVersions: 18 } as const;
const MECHANISMS = ["PLAIN", "GSSAPI", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"];
const bad = { bad: "not a Kafka request" };

export const kafkaInspector: Inspector = {
  application: "kafka",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    const have = sizeOf(client);
    if (have > 0 && (bytes[start] as number) > SIZE_MAX >> 24) return bad;
    const c = new Cursor(bytes, start, client.end);
    const size = c.u32();
    const key = c.u16();
    const version = c.u16();
    if (have >= 4 && (size > SIZE_MAX || size < HEADER_BYTES - 4)) return bad;
    if (have >= 6 && key > KEY_MAX) return bad;
    if (have >= 8 && version > (APIS[key]?.[0] ?? LATER_VERSION_MAX)) return bad;
    c.skip(4);
    const idBytes = c.u16();
    if (c.short) return more(client, HEADER_BYTES);
    const id = idBytes === 0xffff ? 0 : idBytes;
    if (id > CLIENT_ID_MAX || HEADER_BYTES + id > size + 4) return bad;
    const idEnd = Math.min(start + HEADER_BYTES + id, client.end);
    if (idEnd > start + HEADER_BYTES && !printable(bytes, start + HEADER_BYTES, idEnd)) return bad;
    // The few requests that begin a connection are short: they are read whole. Any other must name its client.
    const whole = key === Key.apiVersions || key === Key.saslHandshake || (key === Key.metadata && id === 0);
    if (!whole && id === 0) return bad;
    if (whole && size > HELLO_MAX) return bad;
    const wanted = whole ? size + 4 : HEADER_BYTES + id;
    if (have < wanted) return more(client, wanted);
    const clientId = id === 0 ? {} : { clientId: latin1(bytes, start + HEADER_BYTES, idEnd) };
    const said = whole ? readBody(client, start + HEADER_BYTES + id, start + wanted, key, version) : {};
    if (said === undefined) return bad;
    return { application: "kafka", serverName: undefined, fields: { ...clientId, ...said } };
  },
};

interface Said {
  readonly application?: string;
  readonly mechanism?: string;
}

/** The rest of a request that is read whole; undefined when it is not what its key and version say. */
function readBody({ bytes }: Run, start: number, end: number, key: number, version: number): Said | undefined {
  const c = new Cursor(bytes, start, end);
  if (key === Key.apiVersions) {
    // Old librdkafka sends an empty array of keys in version 0.
    if (version < 3) return c.left === 0 || (version === 0 && c.left === 4 && c.u32() === 0) ? {} : undefined;
    if (!skipTags(c)) return undefined;
    const name = compactString(c);
    const number = compactString(c);
    if (name === undefined || number === undefined || !skipTags(c) || c.left !== 0) return undefined;
    return { application: shown(`${name}/${number}`) };
  }
  if (key === Key.saslHandshake) {
    const mechanism = c.u16() === c.left ? latin1(bytes, c.at, end) : "";
    return MECHANISMS.includes(mechanism) ? { mechanism } : undefined;
  }
  if (version >= 9) return skipTags(c) ? {} : undefined;
  return metadataTopics(c, version) ? {} : undefined;
}

/** Metadata before version 9: an array of topics, then flags that came with versions 4 and 8. */
function metadataTopics(c: Cursor, version: number): boolean {
  const count = c.u32();
  for (let i = 0; count !== 0xffffffff && i < count && !c.short; i++) {
    const bytes = c.u16();
    if (bytes === 0 || bytes > 249) return false; // a topic's name
    if (!printable(c.bytes, c.at, Math.min(c.at + bytes, c.end))) return false;
    c.skip(bytes);
  }
  c.skip(version >= 8 ? 3 : version >= 4 ? 1 : 0);
  return !c.short && c.left === 0;
}

/** An unsigned varint; undefined when it has more than 5 octets. */
function varint(c: Cursor): number | undefined {
  let value = 0;
  for (let shift = 1; shift <= 0x10000000; shift *= 128) {
    const octet = c.u8();
    value += (octet & 127) * shift;
    if (octet < 128) return c.short ? undefined : value;
  }
  return undefined;
}

/** KIP-482: tags with their lengths, skipped. */
function skipTags(c: Cursor): boolean {
  const count = varint(c);
  if (count === undefined || count > 16) return false;
  for (let i = 0; i < count; i++) {
    const tag = varint(c);
    const bytes = varint(c);
    if (tag === undefined || bytes === undefined) return false;
    c.skip(bytes);
  }
  return !c.short;
}

function compactString(c: Cursor): string | undefined {
  const bytes = varint(c);
  if (bytes === undefined || bytes === 0 || bytes - 1 > CLIENT_ID_MAX) return undefined;
  const view = c.view(bytes - 1);
  return c.short ? undefined : latin1(view, 0, view.length);
}
