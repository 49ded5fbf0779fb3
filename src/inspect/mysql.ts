import type { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import { bytesLike, cursorAt, evidenceOf, more, u16le, u24le, u32le, untilNul, viewField } from "./binary.ts";
import type { Certain } from "./binary.ts";
import type { Inspector, NotIt, Reading, Run } from "./inspector.ts";
import { withUpgrade } from "./upgrade.ts";
import { sizeOf, isPrintable } from "./parts.ts";

/**
 * MySQL and MariaDB ("Connection Phase" of MySQL's internals and of MariaDB's knowledge base): packets of a 24-bit length and a sequence
 * number. The server greets with number 0 (or an ERR: too many connections), the client answers with number 1: either who it is, or an SSLRequest with TLS at once
 * behind it. COM_CHANGE_USER and COM_INIT_DB can change user and database later; that is not looked at.
 */
const HEADER_BYTES = 4;
const GREETING_BYTES_MIN = 32;
const GREETING_BYTES_MAX = 1024;
const ERROR_BYTES_MAX = 1024;
const RESPONSE_BYTES_MIN = 8; // before 4.1
const RESPONSE_BYTES_MAX = 16_384; // attributes may have 64 KB, and have 300 bytes
const SSL_REQUEST_BYTES = 32;
const ATTRIBUTES_MAX = 64;
const VERSION_CHARS_MAX = 80;
const Capability = {
  mysql: 1, // unset by MariaDB's clients, which then use four of the reserved bytes
  database: 8,
  protocol41: 0x200,
  ssl: 0x800,
  secure: 0x8000,
  plugin: 0x80000,
  attributes: 0x100000,
  longAuth: 0x200000,
} as const;

export const mysqlInspector: Inspector = {
  application: "mysql",
  transports: [Protocol.TCP],
  opens: "server",
  read({ client, server }): Reading {
    const early = badResponseStart(client);
    if (early !== undefined) return early;
    const silent = sizeOf(client) === 0;
    const greeting = readGreeting(server);
    if (typeof greeting === "number") {
      // A client alone (one direction of a capture) must say for itself that it is one.
      if (server.closed) return sizeOf(server) > 0 || silent ? { bad: "no MySQL greeting" } : readResponse(client, undefined);
      return { need: greeting, of: "server", ...(silent ? { release: true } : {}) };
    }
    if ("bad" in greeting) return greeting;
    if (greeting.isError) return evidenceOf("mysql");
    if (silent && !client.closed) return { need: HEADER_BYTES, of: "client", release: true, application: "mysql" };
    if (silent) return evidenceOf("mysql", { server: greeting.version });
    return readResponse(client, greeting.version);
  },
};

interface Greeting {
  readonly version: string;
  readonly isError: boolean;
}

/** The first packet of the server, or how many bytes of it are wanted. */
function readGreeting(server: Run): Greeting | number | NotIt {
  const not: NotIt = { bad: "no MySQL greeting" };
  const have = sizeOf(server);
  if (!bytesLike(server, 2, [0, 0])) return not;
  const c = cursorAt(server, 0);
  const length = u24le(c);
  if (have >= 3 && (length < 3 || length > GREETING_BYTES_MAX)) return not;
  c.skip(1);
  if (have <= HEADER_BYTES) return HEADER_BYTES + 1;
  const kind = c.u8();
  if (kind !== 10 && kind !== 0xff) return not;
  if (have < HEADER_BYTES + length) return HEADER_BYTES + length;
  const rest = cursorAt({ ...server, end: server.start + HEADER_BYTES + length }, HEADER_BYTES + 1);
  return kind === 10 ? readVersion(rest, length, not) : readError(rest, length, not);
}

/** Version, thread, 8 bytes of salt and a 0; capabilities, character set, status, more capabilities; 10 reserved bytes, of which MariaDB uses 4. */
function readVersion(c: Cursor, length: number, not: NotIt): Greeting | NotIt {
  const version = untilNul(c);
  c.skip(4 + 8);
  const filler = c.u8();
  c.skip(2 + 1 + 2 + 2 + 1);
  const reserved = c.view(6);
  if (length < GREETING_BYTES_MIN || c.short || filler !== 0 || version.length === 0 || version.length > VERSION_CHARS_MAX) return not;
  return isPrintable(version) && reserved.every((byte) => byte === 0) ? { version: viewField(version), isError: false } : not;
}

/** A code (1040, 1129, 1130, ...) and a message. */
function readError(c: Cursor, length: number, not: NotIt): Greeting | NotIt {
  const code = u16le(c);
  const text = c.view(c.left);
  return length <= ERROR_BYTES_MAX && code >= 1000 && code < 5000 && text.length > 0 && isPrintable(text)
    ? { version: "", isError: true }
    : not;
}

function badResponseStart(client: Run): NotIt | undefined {
  const length = u24le(cursorAt(client, 0));
  if (sizeOf(client) >= 3 && (length < RESPONSE_BYTES_MIN || length > RESPONSE_BYTES_MAX)) return { bad: "no MySQL response" };
  return bytesLike(client, 3, [1]) ? undefined : { bad: "no MySQL response" };
}

/** With `server`, the server's version, the greeting was read; without, the response must be beyond doubt. */
function readResponse(client: Run, server: string | undefined): Reading {
  const known = evidenceOf("mysql", { server });
  const not: NotIt = server === undefined ? { bad: "no MySQL response" } : { bad: "no MySQL response", application: "mysql" };
  const have = sizeOf(client);
  if (have < HEADER_BYTES + 2) return more(client, HEADER_BYTES + 2, server === undefined ? not : known);
  const c = cursorAt(client, 0);
  const length = u24le(c);
  c.skip(1);
  const low = u16le(c);
  const isSslRequest = (low & Capability.protocol41) !== 0 && (low & Capability.ssl) !== 0 && length === SSL_REQUEST_BYTES;
  if (have < HEADER_BYTES + length) return more(client, HEADER_BYTES + length, server === undefined ? not : known);
  const body = cursorAt({ ...client, end: client.start + HEADER_BYTES + length }, HEADER_BYTES);
  if ((low & Capability.protocol41) === 0) return server === undefined ? not : readOld(body, server, not);
  const capabilities = u32le(body);
  u32le(body); // the greatest packet
  body.skip(1); // character set
  const reserved = body.view(23);
  const extended = (capabilities & Capability.mysql) === 0 ? 4 : 0;
  if (body.short || reserved.subarray(0, 23 - extended).some((byte) => byte !== 0)) return not;
  if (isSslRequest) return withUpgrade(known, client, HEADER_BYTES + length);
  return readWho(body, capabilities, server) ?? not;
}

/** Who the client is, from the user name of HandshakeResponse41 on. */
function readWho(c: Cursor, capabilities: number, server: string | undefined): Certain | undefined {
  const has = (bit: number): boolean => (capabilities & bit) !== 0;
  const user = untilNul(c);
  if (has(Capability.longAuth)) c.skip(lengthEncoded(c));
  else if (has(Capability.secure)) c.skip(c.u8());
  else untilNul(c);
  const database = has(Capability.database) && c.left > 0 ? untilNul(c) : undefined;
  if (c.short) return undefined;
  if (has(Capability.plugin) && c.left > 0) skipPlugin(c);
  const application = has(Capability.attributes) && c.left > 0 ? readAttributes(c) : undefined;
  if (c.short) return undefined;
  return evidenceOf("mysql", {
    user: viewField(user),
    database: database === undefined ? undefined : viewField(database),
    application,
    server,
  });
}

/** Clients have sent the plugin's name as the last thing without its NUL. */
function skipPlugin(c: Cursor): void {
  const at = c.bytes.subarray(c.at, c.end).indexOf(0);
  c.skip(at < 0 ? c.left : at + 1);
}

/** What calls itself `program_name`, else the library. */
function readAttributes(c: Cursor): string | undefined {
  const bytes = lengthEncoded(c);
  if (c.short || bytes > c.left) c.short = true;
  const end = c.at + bytes;
  let library: string | undefined;
  for (let count = 0; !c.short && c.at < end && count < ATTRIBUTES_MAX; count++) {
    const key = viewField(c.view(lengthEncoded(c)));
    const value = viewField(c.view(lengthEncoded(c)));
    if (key === "program_name" && value !== "") return value;
    if (key === "_client_name") library = value;
  }
  return library;
}

/** A length-encoded integer; nothing that is read here is longer than 2^24. */
function lengthEncoded(c: Cursor): number {
  const first = c.u8();
  if (first < 0xfb) return first;
  if (first === 0xfc) return u16le(c);
  if (first === 0xfd) return u24le(c);
  c.short = true;
  return 0;
}

/** HandshakeResponse320: capabilities and greatest packet in 5 bytes, user, password, database. */
function readOld(c: Cursor, server: string, not: NotIt): Reading {
  const capabilities = u16le(c);
  c.skip(3);
  const user = viewField(untilNul(c));
  if (c.short) return not;
  const rest = c.left > 0 && (capabilities & Capability.database) !== 0 ? (untilNul(c), untilNul(c)) : undefined;
  return evidenceOf("mysql", { user, database: rest === undefined || c.short ? undefined : viewField(rest), server });
}
