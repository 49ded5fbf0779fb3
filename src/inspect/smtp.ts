import { Protocol } from "../model/packet.ts";
import { codedReply, readDialogue, type Command, type Dialogue } from "./dialogue.ts";
import type { Inspector } from "./inspector.ts";
import { mayStartAnyCase, shown, words } from "./parts.ts";

/** SMTP (RFC 5321), LMTP (RFC 2033) and STARTTLS (RFC 3207). FTP greets with 220 too: the client's verb decides. */
const GREETING_VERBS = ["EHLO", "HELO", "LHLO"];
/** Commands that may stand before the one that tells. */
const IDLE_VERBS = ["NOOP", "RSET", "HELP", "VRFY", "EXPN", "XCLIENT", "XFORWARD"];

/** What a client can begin with. */
const VERBS = ["EHLO ", "HELO ", "LHLO ", "EHLO\r", "HELO\r"];

const smtp: Dialogue = {
  application: "smtp",
  greetings: ["220 ", "220-", "554 "],
  alone: true,
  begins: (client) => mayStartAnyCase(client, VERBS),
  greet(line) {
    const [, name = ""] = words(line, 3);
    return line.startsWith("554") || name === "" || name.indexOf(".") < 0 ? {} : { server: shown(name) };
  },
  command(line, first): Command | undefined {
    const [verb = "", rest = ""] = words(line, 2);
    const upper = verb.toUpperCase();
    if (GREETING_VERBS.includes(upper)) return { next: "more", line, fields: rest === "" ? {} : { host: shown(rest.trim()) } };
    if (first) return undefined;
    if (upper === "STARTTLS") return { next: "tls", line };
    if (upper === "AUTH") return { next: "done", line, fields: { mechanism: shown((words(rest, 2)[0] ?? "").toUpperCase()) } };
    return { next: IDLE_VERBS.includes(upper) ? "more" : "done", line };
  },
  reply: (server, at) => codedReply(server, at, "220"),
};

export const smtpInspector: Inspector = {
  application: smtp.application,
  transports: [Protocol.TCP],
  opens: "server",
  read: (first) => readDialogue(smtp, first),
};
