import { Protocol } from "../model/packet.ts";
import { readDialogue, type Command, type Dialogue, type Reply } from "./dialogue.ts";
import type { Inspector, Run } from "./inspector.ts";
import { latin1, lineAt, mayStartAnyCase, shown, words } from "./parts.ts";

/** IMAP4rev1 and 2 (RFC 3501, RFC 9051): tagged commands; STARTTLS §6.2.1; ID (RFC 2971). */
const LINE_MAX = 8192; // RFC 9051 §4 (client lines), greetings with capabilities
const LINES_MAX = 256;
const TAG_MAX = 32;
const VERBS = [
  "CAPABILITY",
  "NOOP",
  "LOGOUT",
  "STARTTLS",
  "AUTHENTICATE",
  "LOGIN",
  "ID",
  "ENABLE",
  "COMPRESS",
  "SELECT",
  "EXAMINE",
  "LIST",
];
const IDLE_VERBS = ["CAPABILITY", "NOOP", "ID"];

const imap: Dialogue = {
  application: "imap",
  greetings: ["* OK", "* PREAUTH", "* BYE"],
  alone: true,
  begins,
  greet: (line) => ({ server: shown(line.slice(line.indexOf(" ", 2) + 1)) }),
  command(line): Command | undefined {
    const [tag = "", verb = "", rest = ""] = words(line, 3);
    const upper = verb.toUpperCase();
    if (!isTag(tag) || !VERBS.includes(upper)) return undefined;
    if (upper === "STARTTLS") return { next: "tls", line };
    if (upper === "LOGIN") return { next: "done", line, fields: { user: shown(astring(rest)) } };
    if (upper === "AUTHENTICATE") return { next: "done", line, fields: { mechanism: shown((words(rest, 2)[0] ?? "").toUpperCase()) } };
    // A literal ({12}) would make of the next lines something else than commands.
    return { next: IDLE_VERBS.includes(upper) && !line.endsWith("}") ? "more" : "done", line };
  },
  reply,
};

/** A tag, a blank, and a command that may come first. */
function begins(client: Run): boolean {
  let at = client.start;
  while (at < client.end && client.bytes[at] !== 0x20)
    if (at - client.start >= TAG_MAX || !isTag(latin1(client.bytes, at, ++at))) return false;
  if (at === client.end) return true;
  return at > client.start && mayStartAnyCase({ ...client, start: at + 1 }, VERBS);
}

/** RFC 9051 §9, tag: any ASTRING-CHAR but "+". */
function isTag(tag: string): boolean {
  if (tag.length === 0 || tag.length > TAG_MAX) return false;
  for (let i = 0; i < tag.length; i++) {
    const c = tag.charCodeAt(i);
    if (c <= 0x20 || c > 0x7e || '(){%*"\\+'.includes(tag[i] as string)) return false;
  }
  return true;
}

/** The first argument, quoted or not; empty for a literal. */
function astring(rest: string): string {
  if (rest.startsWith("{")) return "";
  if (!rest.startsWith('"')) return words(rest, 2)[0] ?? "";
  const end = rest.indexOf('"', 1);
  return end < 0 ? "" : rest.slice(1, end);
}

/** Untagged lines, then `tag OK`; the greeting is one untagged line. */
function reply(server: Run, at: number, command: Command | undefined): Reply | undefined {
  const tag = command === undefined ? "*" : (words(command.line, 2)[0] ?? "");
  for (let i = 0, next = at; i < LINES_MAX; i++) {
    const line = lineAt(server, next, LINE_MAX);
    if (line === undefined || line === "long") return undefined;
    next = line.next;
    if (line.text.startsWith(`${tag} `)) return { end: next, yes: line.text.slice(tag.length + 1, tag.length + 3).toUpperCase() === "OK" };
  }
  return undefined;
}

export const imapInspector: Inspector = {
  application: imap.application,
  transports: [Protocol.TCP],
  opens: "server",
  read: (first) => readDialogue(imap, first),
};
