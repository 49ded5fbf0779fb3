import { Protocol } from "../model/packet.ts";
import { codedReply, readDialogue, type Command, type Dialogue } from "./dialogue.ts";
import type { Inspector } from "./inspector.ts";
import { mayStartAnyCase, shown, words } from "./parts.ts";

/** FTP (RFC 959) and AUTH TLS (RFC 4217). SMTP greets with 220 too: the client's verb decides. */
const TLS_WORDS = ["TLS", "TLS-C", "SSL", "TLS-P"];
const IDLE_VERBS = ["FEAT", "SYST", "OPTS", "HOST", "CLNT", "NOOP", "PBSZ", "PROT"];

/** What a client can begin with. */
const VERBS = ["USER ", "AUTH TLS", "AUTH SSL", "AUTH GSSAPI", "FEAT\r", "SYST\r", "OPTS UTF8", "OPTS MLST", "HOST ", "CLNT "];

const ftp: Dialogue = {
  application: "ftp",
  greetings: ["220 ", "220-", "120 "],
  alone: false,
  begins: (client) => mayStartAnyCase(client, VERBS),
  greet: (line) => (line.length > 4 ? { server: shown(line.slice(4)) } : {}),
  command(line): Command | undefined {
    const [verb = "", rest = ""] = words(line, 2);
    const upper = verb.toUpperCase();
    if (upper === "USER") return { next: "done", line, fields: { user: shown(rest) } };
    if (upper === "AUTH") return { next: TLS_WORDS.includes(rest.trim().toUpperCase()) ? "tls" : "done", line };
    return { next: IDLE_VERBS.includes(upper) ? "more" : "done", line, ...(upper === "HOST" ? { fields: { host: shown(rest) } } : {}) };
  },
  reply: (server, at) => codedReply(server, at, "234"),
};

export const ftpInspector: Inspector = {
  application: ftp.application,
  transports: [Protocol.TCP],
  opens: "server",
  read: (first) => readDialogue(ftp, first),
};
