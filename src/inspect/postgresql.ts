import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import { bytesLike, cursorAt, evidenceOf, more, untilNul, viewField } from "./binary.ts";
import type { FirstBytes, Inspector, NeedOf, NotIt, Reading, Run } from "./inspector.ts";
import { withUpgrade } from "./upgrade.ts";
import { sizeOf, isPrintable } from "./parts.ts";

/**
 * PostgreSQL (documentation, chapters "Message Flow" and "Message Formats"): packets without a type byte, a 32-bit length
 * (itself counted) and a code. A client may first ask for encryption (SSLRequest, GSSENCRequest), each once; the server's
 * one byte says whether the connection goes on as it is (`N`), as TLS (`S`) or under GSSAPI (`G`). Then the startup message, which
 * has all that a policy asks for. TLS without SSLRequest (`sslnegotiation=direct`) is `tls` with ALPN `postgresql`.
 */
const STARTUP_BYTES_MAX = 10_000; // MAX_STARTUP_PACKET_LENGTH
const STARTUP_BYTES_MIN = 15; // `user`, one letter, and their NULs
const HEADER_BYTES = 8;
const CANCEL_KEY_BYTES_MAX = 256; // 3.2; 4 before
const PARAMETERS_MAX = 256;
const Code = { cancel: 80_877_102, ssl: 80_877_103, gss: 80_877_104 } as const;
const MINOR_MAX = 2;
const MINOR_GREASE = 9999; // asked for by clients that test whether servers negotiate

export const postgresqlInspector: Inspector = {
  application: "postgresql",
  transports: [Protocol.TCP],
  opens: "client",
  read(first): Reading {
    const asked: number[] = [];
    // Twice at most: each request for encryption may stand there once.
    for (let at = 0; ; at += HEADER_BYTES) {
      const code = readHeader(first.client, at, asked);
      if (typeof code !== "number") return code;
      if (code !== Code.ssl && code !== Code.gss) return readMessage(first.client, at, code, asked.length > 0);
      asked.push(code);
      const answered = readAnswer(first, at + HEADER_BYTES, code, asked.length);
      if (answered !== "refused") return answered;
    }
  },
};

/** The code of the packet at `at`, once its length is known to go with it. */
function readHeader(client: Run, at: number, asked: readonly number[]): number | NotIt | Reading {
  const wrong: NotIt = notIt("no PostgreSQL startup packet", at > 0);
  if (!bytesLike(client, at, [0, 0])) return wrong;
  const c = cursorAt(client, at);
  const length = c.u32();
  if (!c.short && (length < HEADER_BYTES || length > STARTUP_BYTES_MAX)) return wrong;
  if (!bytesLike(client, at + 4, [0, 3]) && !bytesLike(client, at + 4, [0x04, 0xd2, 0x16])) return wrong;
  const code = c.u32();
  if (c.short) return more(client, at + HEADER_BYTES, at > 0 ? evidenceOf("postgresql") : wrong);
  const isRequest = code === Code.ssl || code === Code.gss;
  if (isRequest && (length !== HEADER_BYTES || asked.includes(code))) return wrong;
  if (code === Code.cancel && (length < 16 || length > 12 + CANCEL_KEY_BYTES_MAX)) return wrong;
  if (isRequest || code === Code.cancel) return code;
  const minor = code & 0xffff;
  const isStartup = code >> 16 === 3 && (minor <= MINOR_MAX || minor === MINOR_GREASE);
  return isStartup && length >= STARTUP_BYTES_MIN ? code : wrong;
}

const ANSWERS: readonly number[] = [0x53, 0x4e, 0x45, 0x47]; // S, N, E, G

/**
 * What came of the request for encryption that ends at `at`, the `count`th: "refused" when another packet follows. What the client sends
 * behind an SSLRequest without waiting may only be its ClientHello; anything else would be read as if it had been encrypted
 * (CVE-2021-23214).
 */
function readAnswer({ client, server }: FirstBytes, at: number, code: number, count: number): Reading | "refused" {
  const found = evidenceOf("postgresql", code === Code.gss ? { mechanism: "gssapi" } : {});
  const next = sizeOf(client) > at ? client.bytes[client.start + at] : undefined;
  const answer = sizeOf(server) >= count ? server.bytes[server.start + count - 1] : undefined;
  if (answer !== undefined && !ANSWERS.includes(answer)) return notIt("no answer to a request for encryption", true);
  if (answer === 0x45) return evidenceOf("postgresql"); // E: a server that knows no such request, and closes
  if (code === Code.ssl && next === 0x16) return withUpgrade(found, client, at);
  if (code === Code.gss && answer === 0x47) return found; // G
  if (next !== undefined && next !== 0) return notIt("bytes behind a request for encryption that are neither TLS nor a packet", true);
  if (answer === undefined && !server.closed) {
    const need: NeedOf = { need: count, of: "server", application: "postgresql" };
    return next === undefined ? { ...need, release: true } : need;
  }
  if (answer === 0x53 && code === Code.ssl && next !== undefined) return notIt("bytes between the SSLRequest and TLS", true);
  if (answer !== undefined && answer !== 0x4e && (answer !== 0x53 || code !== Code.ssl))
    return notIt("no answer to a request for encryption", true);
  if (next !== undefined) return "refused"; // or, in a capture of the client alone, it must have been
  if (client.closed) return evidenceOf("postgresql");
  return { need: at + 1, of: "client", release: true, application: "postgresql" };
}

/** A startup message or a CancelRequest, the last that is read. */
function readMessage(client: Run, at: number, code: number, certain: boolean): Reading {
  const length = cursorAt(client, at).u32();
  if (sizeOf(client) < at + length)
    return more(client, at + length, certain ? evidenceOf("postgresql") : { bad: "a PostgreSQL packet that ends too early" });
  if (code === Code.cancel) return evidenceOf("postgresql", { method: "CancelRequest" });
  const body = client.start + at + HEADER_BYTES;
  const found = readParameters(new Cursor(client.bytes, body, client.start + at + length));
  if (typeof found === "string") return notIt(found, certain);
  const user = found.get("user");
  if (user === undefined || user === "") return notIt("a startup message without a user", certain);
  // A replication connection has a database only when it names one.
  const database = found.get("database") ?? (found.has("replication") ? undefined : user);
  const fields = { user, database, application: found.get("application_name") };
  return evidenceOf("postgresql", fields, `3.${code & 0xffff}`);
}

/** Names and values, each with a NUL behind it, and a last NUL. Answers what is wrong. */
function readParameters(c: Cursor): ReadonlyMap<string, string> | string {
  const found = new Map<string, string>();
  while (c.left > 1) {
    const name = untilNul(c);
    const value = untilNul(c);
    if (c.short || name.length === 0 || !isPrintable(name)) return "a malformed startup message";
    const key = viewField(name);
    if (found.has(key)) return "a startup parameter twice";
    if (found.size === PARAMETERS_MAX) return `more than ${PARAMETERS_MAX} startup parameters`;
    found.set(key, viewField(value));
  }
  return c.u8() === 0 && !c.short ? found : "a startup message without its end";
}

function notIt(bad: string, certain: boolean): NotIt {
  return certain ? { bad, application: "postgresql" } : { bad };
}
