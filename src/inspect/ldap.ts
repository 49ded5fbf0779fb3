import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Evidence } from "../model/verdict.ts";
import { element, elementHead, smallNumber, Tag } from "./ber.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { firstDatagram, isNumber, latin1, more, sizeOf } from "./parts.ts";
import { field } from "./text.ts";
import { withUpgrade } from "./upgrade.ts";

/**
 * LDAP (RFC 4511): one LDAPMessage, a bind (§4.2), a search (§4.5.1) or an extended request (§4.12); over UDP a search
 * (CLDAP, MS-ADTS §6.3.3). StartTLS (§4.14) is an extended request, and TLS begins behind its response.
 */
const MESSAGE_MAX = 65_536; // of the first message; a Kerberos ticket has a few KB
const START_TLS = "1.3.6.1.4.1.1466.20037";
const Op = { bind: 0x60, search: 0x63, extended: 0x77, extendedResponse: 0x78 } as const;
const RESULTS = [0x61, 0x65, Op.extendedResponse]; // bind, search result done, extended
const RESULT_MAX = 123; // IANA, LDAP result codes
const bad = { bad: "not an LDAP request" };

export const ldapInspector: Inspector = {
  application: "ldap",
  transports: [Protocol.TCP, Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    if (first.transport === Protocol.UDP) {
      const run = firstDatagram(first);
      if (!("bytes" in run)) return run;
      const message = readMessage(run);
      return "op" in message && message.op === Op.search && message.end === run.end ? message.evidence : bad;
    }
    const { client, server } = first;
    if (client.closed && sizeOf(client) === 0) return isResponse(server) ? { application: "ldap", serverName: undefined } : bad;
    const message = readMessage(client);
    if (!("op" in message)) return message;
    return message.startTls ? upgraded(first, message) : message.evidence;
  },
};

interface Message {
  readonly op: number;
  readonly end: number;
  readonly startTls: boolean;
  readonly evidence: Evidence & { readonly application: string };
}

function readMessage(run: Run): Message | Reading {
  const c = new Cursor(run.bytes, run.start, run.end);
  if (sizeOf(run) > 0 && run.bytes[run.start] !== Tag.sequence) return bad;
  const head = elementHead(c);
  if (c.short) return more(run, sizeOf(run) + 1);
  if (head === undefined || head.length < 7 || head.length > MESSAGE_MAX) return bad;
  const end = c.at + head.length;
  const early = new Cursor(run.bytes, c.at, Math.min(end, run.end));
  const id = smallNumber(early);
  const op = id === undefined ? 0 : early.u8();
  if (early.short || (id === undefined && early.left < 6)) {
    // The id's tag and length can already be wrong.
    if (c.left > 0 && run.bytes[c.at] !== Tag.integer) return bad;
    if (c.left > 1 && ((run.bytes[c.at + 1] as number) > 4 || run.bytes[c.at + 1] === 0)) return bad;
    return end > run.end ? more(run, end - run.start) : bad;
  }
  if (id === undefined || (op !== Op.bind && op !== Op.search && op !== Op.extended)) return bad;
  if (end > run.end) return more(run, end - run.start);
  const body = new Cursor(run.bytes, early.at - 1, end);
  const request = element(body);
  // Controls may follow (§4.1.11).
  if (request === undefined || (body.left > 0 && element(body, 0xa0) === undefined) || body.left > 0) return bad;
  const fields = readRequest(op, new Cursor(run.bytes, request.start, request.end));
  if (fields === undefined) return bad;
  return { op, end, startTls: fields === START_TLS_FIELDS, evidence: { application: "ldap", serverName: undefined, fields } };
}

type Said = Readonly<Partial<Record<"user" | "mechanism" | "method" | "query", string>>>;
const START_TLS_FIELDS: Said = { method: "StartTLS" };

function readRequest(op: number, c: Cursor): Said | undefined {
  if (op === Op.bind) return readBind(c);
  if (op === Op.search) return readSearch(c);
  const name = element(c, 0x80);
  if (name === undefined) return undefined;
  const oid = latin1(c.bytes, name.start, name.end);
  if (oid === START_TLS) return START_TLS_FIELDS;
  return oid.length > 2 && isNumber(oid) ? { method: oid.slice(0, 255) } : undefined;
}

/** Version, name, and how the client authenticates: [0] a password, or [3] SASL with its mechanism. */
function readBind(c: Cursor): Said | undefined {
  const version = smallNumber(c);
  const name = element(c, Tag.octets);
  const authentication = element(c);
  if (version === undefined || version < 1 || version > 3 || name === undefined || authentication === undefined || c.left > 0)
    return undefined;
  const user = name.end > name.start ? { user: field(c.bytes, name.start, name.end) } : {};
  if (authentication.tag === 0x80) return { ...user, mechanism: "simple" };
  if (authentication.tag !== 0xa3) return undefined;
  const mechanism = element(new Cursor(c.bytes, authentication.start, authentication.end), Tag.octets);
  return mechanism === undefined ? undefined : { ...user, mechanism: field(c.bytes, mechanism.start, mechanism.end) };
}

/** Base, scope, aliases, size and time limits, typesOnly, filter, attributes: all of them, and nothing else. */
function readSearch(c: Cursor): Said | undefined {
  const base = element(c, Tag.octets);
  const scope = smallNumber(c, Tag.enumerated);
  const aliases = smallNumber(c, Tag.enumerated);
  const limits = [smallNumber(c), smallNumber(c)];
  const typesOnly = element(c, Tag.boolean);
  const filter = element(c);
  const attributes = element(c, Tag.sequence);
  if (base === undefined || scope === undefined || scope > 3 || aliases === undefined || aliases > 3) return undefined;
  if (limits.includes(undefined) || typesOnly === undefined || filter === undefined || attributes === undefined || c.left > 0)
    return undefined;
  if ((filter.tag & 0xc0) !== 0x80) return undefined;
  return base.end > base.start ? { query: field(c.bytes, base.start, base.end) } : {};
}

function upgraded({ client, server }: FirstBytes, { end, evidence }: Message): Reading {
  const answer = readAnswer(server);
  if (answer === "no") return evidence;
  if (answer === undefined && !server.closed) {
    if (client.end > end) return { ...evidence, evasion: "bytes behind StartTLS, before the server agreed" };
    return { need: sizeOf(server) + 1, of: "server", release: true, application: "ldap" };
  }
  if (client.end > end && client.bytes[end] !== 22) return { ...evidence, evasion: "plain text where TLS has to begin" };
  const reading = withUpgrade(evidence, client, end - client.start);
  return "need" in reading && client.end === end ? { ...reading, release: true } : reading;
}

/** Of a recording that has only the server's half: a result (§4.1.9) of a bind, a search or an extended request, whole. */
function isResponse(server: Run): boolean {
  const outer = new Cursor(server.bytes, server.start, server.end);
  const message = element(outer, Tag.sequence);
  if (message === undefined) return false;
  const c = new Cursor(server.bytes, message.start, message.end);
  if (smallNumber(c) === undefined) return false;
  const response = element(c);
  if (response === undefined || !RESULTS.includes(response.tag)) return false;
  const result = new Cursor(server.bytes, response.start, response.end);
  const code = smallNumber(result, Tag.enumerated);
  return code !== undefined && code <= RESULT_MAX && element(result, Tag.octets) !== undefined && element(result, Tag.octets) !== undefined;
}

/** The extended response's result code; undefined while it is not all there. */
function readAnswer(server: Run): "yes" | "no" | undefined {
  const c = new Cursor(server.bytes, server.start, server.end);
  const head = elementHead(c);
  if (c.short || (head !== undefined && head.length <= MESSAGE_MAX && head.length > c.left)) return undefined;
  if (head === undefined || head.tag !== Tag.sequence || smallNumber(c) === undefined) return "no";
  const response = element(c, Op.extendedResponse);
  if (response === undefined) return "no";
  return smallNumber(new Cursor(c.bytes, response.start, response.end), Tag.enumerated) === 0 ? "yes" : "no";
}
