import { Protocol } from "../model/packet.ts";
import { evidenceOf, more, wordLike } from "./binary.ts";
import type { Certain, Found } from "./binary.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { INLINE_WORDS, inlineReplies, isInlineCommand } from "./redis-inline.ts";
import { field, findByte } from "./text.ts";
import { sizeOf } from "./parts.ts";

/**
 * Redis (RESP, redis.io "Redis serialization protocol specification"; also Valkey, KeyDB, Dragonfly): the client sends arrays of
 * bulk strings, `*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n`, or plain lines. Only the first command is read: HELLO, AUTH, SELECT and CLIENT say who
 * the client is; an AUTH or SELECT that follows another command is not seen (a connection that is kept idle behind its HELLO may
 * not be held up for what it does later).
 */
const ARGUMENTS_MAX = 1024 * 1024; // proto-max-multibulk-len
const BULK_BYTES_MAX = 512 * 1024 * 1024; // proto-max-bulk-len
const COMMAND_BYTES_MAX = 64;
const NUMBER_CHARS_MAX = 10;
/** What is read of a command that says who the client is. */
const IDENTITY_ARGUMENTS_MAX = 16;
const IDENTITY_BULK_BYTES_MAX = 4096;
const IDENTITY_COMMANDS: readonly string[] = ["hello", "auth", "select", "client"];
const LINE_BYTES_MAX = 1024;
const REPLY_CHARS = 16;
const CR = 0x0d;
const LF = 0x0a;

const not = { bad: "no Redis command" } as const;

export const redisInspector: Inspector = {
  application: "redis",
  transports: [Protocol.TCP],
  opens: "client",
  read(first): Reading {
    if (sizeOf(first.client) === 0) return more(first.client, 1, not);
    return first.client.bytes[first.client.start] === 0x2a ? readArray(first.client) : readInline(first);
  },
};

function readArray(client: Run): Reading {
  const count = readNumber(client, 0, 0x2a);
  if (typeof count !== "object") return count === undefined ? not : more(client, count, not);
  if (count.value < 1 || count.value > ARGUMENTS_MAX) return not;
  const name = readBulk(client, count.next, COMMAND_BYTES_MAX);
  if (typeof name !== "object") return name === undefined ? not : more(client, name, not);
  const command = name.text.toLowerCase();
  if (!isCommandName(command)) return not;
  if (!IDENTITY_COMMANDS.includes(command) || count.value > IDENTITY_ARGUMENTS_MAX) return evidenceOf("redis", { method: name.text });
  const given: string[] = [];
  let at = name.next;
  while (given.length < count.value - 1) {
    const one = readBulk(client, at, IDENTITY_BULK_BYTES_MAX);
    if (one === undefined) return { bad: "a malformed Redis command", application: "redis" };
    if (typeof one === "number") return more(client, one, evidenceOf("redis", { method: name.text }));
    given.push(one.text);
    at = one.next;
  }
  return identity(name.text, given);
}

/** A number behind `mark`, up to CR LF; how many bytes are wanted; or undefined: it is none. */
function readNumber(client: Run, at: number, mark: number): { value: number; next: number } | number | undefined {
  const { bytes } = client;
  const start = client.start + at;
  if (start >= client.end) return at + 1;
  if (bytes[start] !== mark) return undefined;
  let value = 0;
  for (let i = start + 1; i < client.end; i++) {
    const c = bytes[i] as number;
    const digits = i - start - 1;
    if (c === CR && digits > 0) {
      if (i + 1 >= client.end) return i + 2 - client.start;
      return bytes[i + 1] === LF ? { value, next: i + 2 - client.start } : undefined;
    }
    if (c < 0x30 || c > 0x39 || digits >= NUMBER_CHARS_MAX) return undefined;
    value = value * 10 + c - 0x30;
  }
  return sizeOf(client) + 1;
}

function readBulk(client: Run, at: number, max: number): { text: string; next: number } | number | undefined {
  const length = readNumber(client, at, 0x24);
  if (typeof length !== "object") return length;
  if (length.value > Math.min(max, BULK_BYTES_MAX)) return undefined;
  const end = length.next + length.value;
  const start = client.start;
  if (sizeOf(client) > end && client.bytes[start + end] !== CR) return undefined;
  if (sizeOf(client) < end + 2) return end + 2;
  if (client.bytes[start + end + 1] !== LF) return undefined;
  return { text: field(client.bytes, start + length.next, start + end), next: end + 2 };
}

/** `FT.SEARCH`, `JSON.GET`, `config`: letters, digits and what modules use. */
function isCommandName(name: string): boolean {
  if (name === "") return false;
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i);
    const letter = c >= 0x61 && c <= 0x7a;
    if (!letter && (i === 0 || !((c >= 0x30 && c <= 0x39) || c === 0x2e || c === 0x2d || c === 0x5f || c === 0x7c))) return false;
  }
  return true;
}

/** What a first command says about the client. */
function identity(method: string, given: readonly string[]): Certain {
  const found: { -readonly [K in keyof Found]: Found[K] } = { method };
  switch (method.toLowerCase()) {
    case "hello": // HELLO 3 AUTH user password SETNAME name
      for (let i = 1; i < given.length; i++) {
        const word = given[i]?.toLowerCase();
        if (word === "auth") {
          found.user = given[i + 1];
          i += 2;
        } else if (word === "setname") found.application = given[++i];
      }
      return evidenceOf("redis", found, given[0]);
    case "auth": // a password alone is the default user's
      found.user = given.length > 1 ? given[0] : "default";
      break;
    case "select":
      found.database = given[0];
      break;
    case "client": {
      const what = given.slice(0, -1).join(" ").toLowerCase();
      if (what === "setname" || what === "setinfo lib-name") found.application = given[given.length - 1];
    }
  }
  return evidenceOf("redis", found);
}

/** A line that only a Redis client sends; or one that others send too, and Redis' answer to it. */
function readInline({ client, server }: FirstBytes): Reading {
  const end = findByte(client, LF, LINE_BYTES_MAX);
  const have = sizeOf(client);
  const stop = end < 0 ? client.end : end;
  if (!wordLike(client, INLINE_WORDS, true)) return not;
  for (let i = client.start; i < stop; i++) {
    const c = client.bytes[i] as number;
    if ((c < 0x20 || c > 0x7e) && !(c === CR && i === stop - 1)) return not;
  }
  if (end < 0) return have >= LINE_BYTES_MAX ? not : more(client, have + 1, not);
  const line = field(client.bytes, client.start, client.bytes[end - 1] === CR ? end - 1 : end);
  const words = line.split(" ").filter((word) => word !== "");
  const [method = "", ...given] = words;
  if (isInlineCommand(method, given)) return identity(method, given);
  const replies = inlineReplies(method, given);
  if (replies === undefined) return not;
  // The others' answers begin otherwise within the first bytes.
  const said = Buffer.from(server.bytes.buffer, server.bytes.byteOffset + server.start, Math.min(REPLY_CHARS, sizeOf(server))).toString(
    "latin1",
  );
  const possible = replies.filter((reply) => reply.startsWith(said.slice(0, reply.length)));
  if (possible.some((reply) => said.length >= reply.length)) return identity(method, given);
  if (possible.length === 0 || server.closed) return not;
  return { need: sizeOf(server) + 1, of: "server", release: true };
}
