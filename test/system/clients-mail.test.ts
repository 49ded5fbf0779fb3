import { test } from "node:test";
import { DIALOGUES, textServers } from "../support/text-server.ts";
import { SVC, trial } from "../support/trial.ts";

/** What a client says to get its answer, plain and with TLS in the middle, for a TLS server name. */
interface MailClient {
  readonly says: RegExp;
  readonly plain?: readonly string[];
  readonly tls?: (serverName: string) => readonly string[];
}

const curl = (url: string, ...more: string[]): string[] => ["curl", "-sSk", "-m", "8", "-u", "alice:secret", ...more, url];
/** Resolves svc.example.com, and says another name in TLS. */
const curlAs = (name: string, scheme: string, port: number, path: string, ...more: string[]): string[] =>
  curl(`${scheme}://${name}:${port}/${path}`, "--ssl-reqd", "--connect-to", `${name}:${port}:${SVC}:${port}`, ...more);
/** Any short file is the message. */
const MAIL = ["-v", "--mail-from", "a@example.com", "--mail-rcpt", "b@example.com", "-T", "/etc/hosts"];
const swaks = (...more: string[]): string[] => [
  "swaks",
  "--server",
  SVC,
  "--from",
  "a@example.com",
  "--to",
  "b@example.com",
  "--timeout",
  "8",
  ...more,
];

const CLIENTS: Readonly<Record<keyof typeof DIALOGUES, Readonly<Record<string, MailClient>>>> = {
  smtp: {
    swaks: { says: /goodbye from the server/, plain: swaks() },
    curl: {
      says: /completely uploaded and fine/,
      plain: curl(`smtp://${SVC}/`, ...MAIL),
      tls: (name) => curlAs(name, "smtp", 25, "", ...MAIL),
    },
    openssl: {
      says: /BEGIN CERTIFICATE/,
      tls: (name) => ["openssl", "s_client", "-starttls", "smtp", "-connect", `${SVC}:25`, "-servername", name],
    },
  },
  imap: {
    curl: { says: /from the server/, plain: curl(`imap://${SVC}/`), tls: (name) => curlAs(name, "imap", 143, "") },
  },
  pop3: {
    curl: { says: /1 4711/, plain: curl(`pop3://${SVC}/`), tls: (name) => curlAs(name, "pop3", 110, "") },
  },
  ftp: {
    curl: { says: /Content-Length: 4711/, plain: curl(`ftp://${SVC}/file`, "-I"), tls: (name) => curlAs(name, "ftp", 21, "file", "-I") },
  },
};

test("mail and files: the server speaks first, and TLS begins in the middle", async (t) => {
  const it = await trial(t, ["swaks", "curl"]);
  if (it === undefined) return;
  await textServers(it.lab, Object.values(DIALOGUES));

  for (const [application, clients] of Object.entries(CLIENTS)) {
    const { port } = DIALOGUES[application as keyof typeof DIALOGUES];
    for (const [client, { says, plain, tls }] of Object.entries(clients)) {
      await t.test(`${application} with ${client}`, async () => {
        if (plain !== undefined) {
          await it.rules({ application, port });
          await it.shows(plain, says, { application, upgrade: undefined });
        }
        if (tls === undefined) return;
        await it.rules({ application, port });
        await it.shows(tls(SVC), says, { application, upgrade: "tls", serverName: SVC });
        await it.denied(tls("evil.example.net"), says, "wrong-server-name", {
          application,
          upgrade: "tls",
          serverName: "evil.example.net",
        });
      });

      await t.test(`${application} with ${client}: a rule for another protocol`, async () => {
        for (const other of ["ssh", "tls", application === "ftp" ? "smtp" : "ftp"]) {
          await it.rules({ application: other, port });
          await it.denied(tls?.(SVC) ?? plain ?? [], says, "wrong-protocol", { application });
        }
      });
    }
  }
});
