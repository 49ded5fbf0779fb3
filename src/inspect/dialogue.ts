import type { Evidence, Fields } from "../model/verdict.ts";
import type { FirstBytes, NeedOf, Reading, Run } from "./inspector.ts";
import { lineAt, mayStart, sizeOf } from "./parts.ts";
import { withUpgrade } from "./upgrade.ts";

/**
 * The protocols that are a dialogue of lines and that a server opens: SMTP, FTP, POP3, IMAP. The server greets, the client
 * commands, the server answers each command; one command asks for TLS, which begins when the server has agreed. The
 * client's commands are read until it is clear whether it will ask for TLS.
 */
export interface Dialogue {
  readonly application: string;
  /** What the greeting can begin with. */
  readonly greetings: readonly string[];
  /** Can these be the first bytes of a client? Nothing to say against none. */
  begins(client: Run): boolean;
  /** The client's first line tells the protocol, also without a greeting (in a recording that lacks it). */
  readonly alone: boolean;
  /** The whole greeting line fits; what it says. */
  greet(line: string): Fields | undefined;
  /** What a command line says; `first`: nothing but this one has told the protocol. */
  command(line: string, first: boolean): Command | undefined;
  /** The reply at `at` to `command` ("" for the greeting): where it ends, and whether it says yes; undefined when it is not all there. */
  reply(server: Run, at: number, command: Command | undefined): Reply | undefined;
}

export interface Command {
  /** `more`: an upgrade may still come; `tls`: asks for it; `done`: nothing that we want to know comes behind this. */
  readonly next: "more" | "tls" | "done";
  readonly fields?: Fields;
  /** The line as it was, for the reply. */
  readonly line: string;
}

export interface Reply {
  readonly end: number;
  readonly yes: boolean;
}

const GREETING_MAX = 4096; // one line; RFC 5321 §4.5.3.1.5 has 512, IMAP greetings list their capabilities
const COMMAND_MAX = 2048;
const COMMANDS_MAX = 12; // before the dialogue is taken to stay plain

export function readDialogue(of: Dialogue, { client, server }: FirstBytes): Reading {
  const { application } = of;
  if (!mayStart(server, of.greetings)) return { bad: `no ${application} greeting` };
  if (!of.begins(client)) return { bad: `no ${application} command` };
  const greeting = lineAt(server, server.start, GREETING_MAX);
  if (greeting === "long") return { bad: `a greeting of more than ${GREETING_MAX} octets` };
  if (greeting === undefined && !server.closed) return { need: sizeOf(server) + 1, of: "server", release: true };
  // A recording without the server's half: the client's words have to do.
  const greeted = greeting === undefined ? {} : of.greet(greeting.text);
  if (greeted === undefined) return { bad: `no ${application} greeting` };
  if (greeting === undefined && (sizeOf(server) > 0 || !of.alone)) return { bad: `no ${application} greeting` };

  let evidence: Certain = { application, serverName: undefined, ...(Object.keys(greeted).length > 0 ? { fields: greeted } : {}) };
  let at = client.start;
  const commands: Command[] = [];
  for (;;) {
    const first = commands.length === 0;
    const line = lineAt(client, at, COMMAND_MAX);
    if (line === "long") return { bad: "a command without end", ...(first ? {} : { application }) };
    if (line === undefined) {
      if (client.closed) return first ? { bad: `no ${application} command` } : evidence;
      return waiting(of, client, server, at, commands);
    }
    const command = of.command(line.text, first);
    if (command === undefined) return first ? { bad: `no ${application} command` } : evidence;
    evidence = { ...evidence, ...(command.fields && { fields: { ...evidence.fields, ...command.fields } }) };
    commands.push(command);
    at = line.next;
    if (command.next === "done" || commands.length === COMMANDS_MAX) return evidence;
    if (command.next === "more") continue;
    const reply = replyTo(of, server, commands);
    if (reply === undefined && !server.closed) {
      if (client.end > at) return { ...evidence, evasion: "bytes behind the request for TLS, before the server agreed" };
      return { need: sizeOf(server) + 1, of: "server", release: true, application };
    }
    if (reply?.yes === false) continue;
    if (client.end > at && client.bytes[at] !== TLS_HANDSHAKE) return { ...evidence, evasion: "plain text where TLS has to begin" };
    if (client.end === at && client.closed) return evidence;
    return release(withUpgrade(evidence, client, at - client.start), client.end === at);
  }
}

type Certain = Evidence & { readonly application: string };
const TLS_HANDSHAKE = 22;

/** The next command is not there yet: it comes when the server has answered those that are. */
function waiting(of: Dialogue, client: Run, server: Run, at: number, commands: readonly Command[]): NeedOf {
  const application = commands.length === 0 ? {} : { application: of.application };
  if (client.end > at) return { need: sizeOf(client) + 1, of: "client", ...application };
  if (!server.closed && replyTo(of, server, commands) === undefined)
    return { need: sizeOf(server) + 1, of: "server", release: true, ...application };
  return { need: sizeOf(client) + 1, of: "client", release: true, ...application };
}

/** Nothing is held while the client has not begun with TLS: the server's agreement must reach it. */
function release(reading: Reading, nothingYet: boolean): Reading {
  return "need" in reading && nothingYet ? { ...reading, release: true } : reading;
}

/** The reply to the last of `commands`: the greeting comes first, then one reply a command. */
function replyTo(of: Dialogue, server: Run, commands: readonly Command[]): Reply | undefined {
  let reply = of.reply(server, server.start, undefined);
  for (const command of commands) {
    if (reply === undefined) return undefined;
    reply = of.reply(server, reply.end, command);
  }
  return reply;
}

/** RFC 959 §4.2, RFC 5321 §4.2.1: `250-text` lines, then `250 text`. `yes` is the code that agrees. */
export function codedReply(server: Run, at: number, yes: string): Reply | undefined {
  for (let i = 0, next = at; i < REPLY_LINES_MAX; i++) {
    const line = lineAt(server, next, GREETING_MAX);
    if (line === undefined || line === "long") return undefined;
    next = line.next;
    if (isCode(line.text) && line.text[3] !== "-") return { end: next, yes: line.text.startsWith(yes) };
  }
  return undefined;
}
const REPLY_LINES_MAX = 256;

function isCode(line: string): boolean {
  for (let i = 0; i < 3; i++) if (!(line.charCodeAt(i) >= 0x30 && line.charCodeAt(i) <= 0x39)) return false;
  return line.length === 3 || line[3] === " " || line[3] === "-";
}
