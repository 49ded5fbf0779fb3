import type { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import { bytesLike, cursorAt, evidenceOf, more, u32le, untilNul, viewField } from "./binary.ts";
import { readBson, type Bson } from "./bson.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { field } from "./text.ts";
import { sizeOf, isPrintable } from "./parts.ts";

/**
 * MongoDB (manual, "MongoDB Wire Protocol"; handshake and SCRAM specifications of the drivers): messages of a little-endian length, an
 * id, what it answers (nothing: 0, or -1 from old clients) and an operation. A client begins with `hello`, as OP_QUERY of `admin.$cmd` or as
 * OP_MSG; with SCRAM the user stands in it. A saslStart or a command that follows is not looked at, and TLS is `tls` from the first byte.
 */
const HEADER_BYTES = 16;
const MESSAGE_BYTES_MAX = 65_536; // of a first one; a hello has less than 1 KB, with a token 8 KB
const COLLECTION_CHARS_MAX = 255;
const Operation = { query: 2004, compressed: 2012, message: 2013 } as const;
const COMPRESSED_HEADER_BYTES = 9;
const COMPRESSORS = 3; // noop, snappy, zlib, zstd
const QUERY_FLAGS = 0xfe; // bit 0 is reserved
const MESSAGE_FLAGS = 0x1_0003; // checksumPresent, moreToCome, exhaustAllowed
const CHECKSUM_BYTES = 4;
const NONCE = [0, 0xffffffff];

export const mongodbInspector: Inspector = {
  application: "mongodb",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const not = { bad: "no MongoDB message" } as const;
    if (!bytesLike(client, 3, [0]) || !bytesLike(client, 13, [7, 0, 0])) return not;
    const c = cursorAt(client, 0);
    const length = u32le(c);
    if (!c.short && (length < HEADER_BYTES + 10 || length > MESSAGE_BYTES_MAX)) return not;
    c.skip(4);
    const answers = u32le(c);
    if (!c.short && !NONCE.includes(answers)) return not;
    const operation = u32le(c);
    if (c.short) return more(client, HEADER_BYTES, not);
    if (!(Object.values(Operation) as number[]).includes(operation)) return not;
    if (sizeOf(client) < length) return more(client, length, not);
    return readBody({ ...client, end: client.start + length }, operation) ?? not;
  },
};

function readBody(message: Run, operation: number): Reading | undefined {
  const c = cursorAt(message, HEADER_BYTES);
  if (operation === Operation.query) return readQuery(c);
  if (operation === Operation.message) return readMessage(c);
  const original = u32le(c);
  u32le(c); // uncompressed bytes
  const compressor = c.u8();
  const known = original === Operation.message || original === Operation.query;
  if (c.short || !known || compressor > COMPRESSORS || sizeOf(message) <= HEADER_BYTES + COMPRESSED_HEADER_BYTES) return undefined;
  return evidenceOf("mongodb");
}

/** Flags, `database.collection`, two numbers, the query, and perhaps which fields are wanted. */
function readQuery(c: Cursor): Reading | undefined {
  const flags = u32le(c);
  const collection = untilNul(c);
  c.skip(8);
  if (c.short || (flags & ~QUERY_FLAGS) !== 0 || collection.length > COLLECTION_CHARS_MAX || !isPrintable(collection)) return undefined;
  const dot = collection.indexOf(0x2e);
  if (dot < 1) return undefined;
  const query = readBson(c);
  if (query === undefined || (c.left > 0 && readBson(c) === undefined) || c.left > 0) return undefined;
  return evidenceFrom(query, field(collection, 0, dot));
}

/** Flags and sections; the command is a section of kind 0, documents in bulk are of kind 1. */
function readMessage(c: Cursor): Reading | undefined {
  const flags = u32le(c);
  if ((flags & ~MESSAGE_FLAGS) !== 0) return undefined;
  if ((flags & 1) !== 0) c.end -= CHECKSUM_BYTES;
  if (c.u8() === 1) return skipSequence(c);
  const command = readBson(c);
  if (command === undefined || c.short || (c.left > 0 && c.u8() !== 1)) return undefined;
  return evidenceFrom(command, command.texts.get("$db"));
}

/** A message that begins with its bulk: a size with itself counted, a name. It is no hello. */
function skipSequence(c: Cursor): Reading | undefined {
  const size = u32le(c);
  if (c.short || size < 5 || size - 4 > c.left) return undefined;
  const name = untilNul(c);
  return !c.short && isPrintable(name) ? evidenceOf("mongodb") : undefined;
}

const HELLO: readonly string[] = ["hello", "ismaster", "isMaster"];

function evidenceFrom({ first, texts, binaries }: Bson, database: string | undefined): Reading {
  const { user, source } = whoAsks(texts, binaries);
  const driver = [texts.get("client.driver.name"), texts.get("client.driver.version")].filter(Boolean).join(" ");
  return evidenceOf("mongodb", {
    user,
    // A hello goes to `admin` whatever the client is there for.
    database: source ?? (HELLO.includes(first) ? undefined : database),
    application: texts.get("client.application.name") ?? driver,
    mechanism: texts.get("speculativeAuthenticate.mechanism") ?? texts.get("mechanism"),
    method: first,
  });
}

/** `saslSupportedMechs: "database.user"`, else the user in SCRAM's first message (RFC 5802 §5.1: `n,,n=user,r=nonce`). */
function whoAsks(texts: Bson["texts"], binaries: Bson["binaries"]): { user: string | undefined; source: string | undefined } {
  const asked = texts.get("saslSupportedMechs") ?? "";
  const dot = asked.indexOf(".");
  if (dot > 0) return { user: asked.slice(dot + 1), source: asked.slice(0, dot) };
  const source = texts.get("speculativeAuthenticate.db");
  const x509 = texts.get("speculativeAuthenticate.user");
  const payload = binaries.get("speculativeAuthenticate.payload") ?? binaries.get("payload");
  const scram = payload === undefined ? "" : viewField(payload);
  if (!scram.startsWith("n,,n=")) return { user: x509, source };
  const end = scram.indexOf(",", 5);
  return { user: end < 0 ? undefined : scram.slice(5, end).replaceAll("=2C", ",").replaceAll("=3D", "="), source };
}
