import { Protocol } from "../model/packet.ts";
import { readDialogue, type Command, type Dialogue, type Reply } from "./dialogue.ts";
import type { Inspector, Run } from "./inspector.ts";
import { lineAt, mayStartAnyCase, shown, words } from "./parts.ts";

/** POP3 (RFC 1939), CAPA (RFC 2449), AUTH (RFC 5034), STLS (RFC 2595 §4). */
const LINE_MAX = 512; // RFC 2449 §4
const LINES_MAX = 256;

/** What a client can begin with. */
const VERBS = ["USER ", "CAPA\r", "AUTH\r", "AUTH ", "APOP ", "STLS\r", "QUIT\r"];

const pop3: Dialogue = {
  application: "pop3",
  greetings: ["+OK"],
  alone: false,
  begins: (client) => mayStartAnyCase(client, VERBS),
  greet: (line) => (line === "+OK" || line.startsWith("+OK ") ? (line.length > 4 ? { server: shown(line.slice(4)) } : {}) : undefined),
  command(line): Command | undefined {
    const [verb = "", rest = ""] = words(line, 2);
    switch (verb.toUpperCase()) {
      case "CAPA":
        return { next: "more", line };
      case "AUTH":
        return rest === ""
          ? { next: "more", line }
          : { next: "done", line, fields: { mechanism: shown((words(rest, 2)[0] ?? "").toUpperCase()) } };
      case "STLS":
        return { next: "tls", line };
      case "USER":
        return { next: "done", line, fields: { user: shown(rest) } };
      case "APOP":
        return { next: "done", line, fields: { user: shown(words(rest, 2)[0] ?? ""), mechanism: "APOP" } };
      default:
        return { next: "done", line };
    }
  },
  reply,
};

/** `+OK` or `-ERR`; CAPA and AUTH alone are answered with lines until one with a dot. */
function reply(server: Run, at: number, command: Command | undefined): Reply | undefined {
  const line = lineAt(server, at, LINE_MAX);
  if (line === undefined || line === "long") return undefined;
  const yes = line.text.startsWith("+OK");
  const verb = command?.line.trim().toUpperCase();
  if (!yes || (verb !== "CAPA" && verb !== "AUTH")) return { end: line.next, yes };
  for (let i = 0, next = line.next; i < LINES_MAX; i++) {
    const listed = lineAt(server, next, LINE_MAX);
    if (listed === undefined || listed === "long") return undefined;
    next = listed.next;
    if (listed.text === ".") return { end: next, yes };
  }
  return undefined;
}

export const pop3Inspector: Inspector = {
  application: pop3.application,
  transports: [Protocol.TCP],
  opens: "server",
  read: (first) => readDialogue(pop3, first),
};
