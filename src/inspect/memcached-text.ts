import { evidenceOf, more, wordLike } from "./binary.ts";
import type { NotIt, Reading, Run } from "./inspector.ts";
import { field, findByte, startsLike } from "./text.ts";
import { sizeOf } from "./parts.ts";

/** memcached's requests as lines (doc/protocol.txt): words in lower case, numbers where they must stand. */

const LINE_BYTES_MAX = 2048;
const KEY_CHARS_MAX = 250;
const KEYS_MAX = 100;
const NUMBER_CHARS_MAX = 20;
const LF = 0x0a;
const CR = 0x0d;

/**
 * What follows a word: `k` a key, `n` a number, `-` a number that may be negative, `*` more keys, `?` words (flags, noreply). A line that other
 * protocols have too stands in REPLIES with what memcached answers.
 */
const LINES: Readonly<Record<string, string>> = {
  add: "kn-n?",
  append: "kn-n?",
  cas: "kn-nn?",
  decr: "kn?",
  delete: "k?",
  flush_all: "?",
  gat: "-k*",
  gats: "-k*",
  get: "k*",
  gets: "k*",
  incr: "kn?",
  ma: "k?",
  md: "k?",
  me: "k?",
  mg: "k?",
  mn: "",
  ms: "kn?",
  prepend: "kn-n?",
  replace: "kn-n?",
  set: "kn-n?",
  stats: "?",
  touch: "k-?",
  verbosity: "n?",
  version: "",
};
const WORDS = Object.keys(LINES);
const REPLIES: Readonly<Record<string, readonly string[]>> = { get: ["VALUE ", "END\r\n"] };

const not: NotIt = { bad: "no memcached request" };

/** `server` is undefined where nothing else than memcached can have sent this. */
export function readTextRequest(client: Run, server: Run | undefined): Reading {
  if (!wordLike(client, WORDS)) return not;
  const end = findByte(client, LF, LINE_BYTES_MAX);
  const have = sizeOf(client);
  const stop = end < 0 ? client.end : end;
  for (let i = client.start; i < stop; i++) {
    const c = client.bytes[i] as number;
    if ((c < 0x20 || c === 0x7f) && !(c === CR && i === stop - 1)) return not;
  }
  if (end < 0) return have >= LINE_BYTES_MAX ? not : more(client, have + 1, not);
  const line = Buffer.from(client.bytes.subarray(client.start, client.bytes[end - 1] === CR ? end - 1 : end)).toString("latin1");
  const [word = "", ...given] = line.split(" ").filter((one) => one !== "");
  const shape = Object.hasOwn(LINES, word) ? LINES[word] : undefined;
  if (shape === undefined || !fits(given, shape)) return not;
  const found = evidenceOf("memcached", { method: field(client.bytes, client.start, client.start + word.length) });
  const replies = REPLIES[word];
  if (replies === undefined || server === undefined) return found;
  const possible = replies.filter((reply) => startsLike(server, reply));
  if (possible.some((reply) => sizeOf(server) >= reply.length)) return found;
  if (possible.length === 0 || server.closed) return not;
  return { need: sizeOf(server) + 1, of: "server", release: true };
}

function fits(given: readonly string[], shape: string): boolean {
  let at = 0;
  for (const kind of shape) {
    if (kind === "?") return given.length - at <= KEYS_MAX;
    if (kind === "*") return given.length <= KEYS_MAX && given.every((key) => key.length <= KEY_CHARS_MAX);
    const word = given[at++];
    if (word === undefined) return false;
    if (kind === "k" ? word.length > KEY_CHARS_MAX : !isNumber(kind === "-" && word.startsWith("-") ? word.slice(1) : word)) return false;
  }
  return at === given.length;
}

function isNumber(word: string): boolean {
  for (let i = 0; i < word.length; i++) if (word.charCodeAt(i) < 0x30 || word.charCodeAt(i) > 0x39) return false;
  return word !== "" && word.length <= NUMBER_CHARS_MAX;
}
