import { readFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { createSecureContext, TLSSocket } from "node:tls";
import { fileURLToPath } from "node:url";
import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { certificate } from "./servers.ts";

/**
 * A server that greets and answers line by line, enough for a mail or file client's session. An answer belongs to the first
 * word of a line (upper case, `*` for all others; IMAP: the second word, and `TAG` in the answer is the first). `tls`: the
 * word that TLS begins behind.
 */
export interface Dialogue {
  readonly port: number;
  readonly greeting: string;
  readonly tagged?: boolean;
  readonly tls?: string;
  readonly answers: Readonly<Record<string, string>>;
}

const text = (...lines: string[]): string => lines.map((line) => `${line}\r\n`).join("");

export const DIALOGUES = {
  smtp: {
    port: 25,
    greeting: text("220 svc.example.com ESMTP ready"),
    tls: "STARTTLS",
    answers: {
      EHLO: text("250-svc.example.com", "250-STARTTLS", "250 SIZE 1000000"),
      HELO: text("250 svc.example.com"),
      STARTTLS: text("220 go ahead"),
      DATA: text("354 end with a dot"),
      QUIT: text("221 goodbye from the server"),
      // Also for the lines of a message, which is why it is answered at its end only.
      "*": text("250 accepted by the server"),
    },
  },
  imap: {
    port: 143,
    greeting: text("* OK [CAPABILITY IMAP4rev1 STARTTLS] ready"),
    tagged: true,
    tls: "STARTTLS",
    answers: {
      CAPABILITY: text("* CAPABILITY IMAP4rev1 STARTTLS", "TAG OK done"),
      LIST: text('* LIST () "/" "from the server"', "TAG OK done"),
      "*": text("TAG OK done"),
    },
  },
  pop3: {
    port: 110,
    greeting: text("+OK ready"),
    tls: "STLS",
    answers: {
      CAPA: text("+OK", "USER", "STLS", "."),
      LIST: text("+OK", "1 4711", "."),
      "*": text("+OK"),
    },
  },
  ftp: {
    port: 21,
    greeting: text("220 ready"),
    tls: "AUTH",
    answers: {
      AUTH: text("234 go ahead"),
      USER: text("331 password?"),
      PASS: text("230 welcome"),
      PWD: text('257 "/"'),
      SIZE: text("213 4711"),
      MDTM: text("213 20260101000000"),
      QUIT: text("221 goodbye"),
      "*": text("200 fine"),
    },
  },
} as const satisfies Record<string, Dialogue>;

/** Starts dialogues in the namespace `out`; they listen when this returns. */
export async function textServers(lab: Lab, dialogues: readonly Dialogue[]): Promise<Child> {
  const child = lab.spawn("out", [
    process.execPath,
    fileURLToPath(import.meta.url),
    JSON.stringify({ dialogues, ...(await certificate(lab)) }),
  ]);
  await child.line((line) => line === "ready");
  return child;
}

/** The program itself. */
function main(argument: string): void {
  const { dialogues, key, cert } = JSON.parse(argument) as { dialogues: Dialogue[]; key: string; cert: string };
  const secureContext = createSecureContext({ key: readFileSync(key), cert: readFileSync(cert) });
  let waiting = dialogues.length;
  for (const dialogue of dialogues) {
    const server = createServer((socket) => {
      socket.write(dialogue.greeting);
      talk(dialogue, socket, (plain) => new TLSSocket(plain, { isServer: true, secureContext }));
    });
    server.listen(dialogue.port, "::", () => {
      if (--waiting === 0) console.log("ready");
    });
  }
}

function talk(dialogue: Dialogue, socket: Socket, secure: ((socket: Socket) => Socket) | undefined): void {
  let rest = "";
  let message = false; // inside of DATA
  const onData = (bytes: Buffer): void => {
    const lines = (rest + bytes.toString("latin1")).split("\r\n");
    rest = lines.pop() as string;
    for (const line of lines) {
      const words = line.split(" ");
      const word = (words[dialogue.tagged === true ? 1 : 0] ?? "").toUpperCase();
      if (message && line !== ".") continue;
      message = word === "DATA";
      socket.write((dialogue.answers[word] ?? dialogue.answers["*"] ?? "").replaceAll("TAG", words[0] ?? ""));
      if (word === dialogue.tls && secure !== undefined) {
        socket.off("data", onData);
        return talk(dialogue, secure(socket), undefined);
      }
    }
  };
  socket.on("error", () => {}).on("data", onData);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv[2] ?? "{}");
