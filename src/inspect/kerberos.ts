import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Fields } from "../model/verdict.ts";
import { element, elementHead, smallNumber, Tag } from "./ber.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { firstDatagram, more, sizeOf } from "./parts.ts";
import { field } from "./text.ts";

/**
 * Kerberos 5 (RFC 4120 §5.4.1): AS-REQ and TGS-REQ; over TCP behind a length of 4 octets (§7.2.2), over UDP alone. Of an
 * AS-REQ, the client's name and realm are read.
 */
const MESSAGE_MAX = 65_536;
const LENGTH_BYTES = 4;
const VERSION = 5;
/** Application tags, and the message type that must be the same. */
const TYPES: Readonly<Record<number, number>> = { 0x6a: 10, 0x6c: 12 };
const ANSWERS: Readonly<Record<number, number>> = { 0x6b: 11, 0x6d: 13, 0x7e: 30 };
const bad = { bad: "not a Kerberos request" };

export const kerberosInspector: Inspector = {
  application: "kerberos",
  transports: [Protocol.TCP, Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    if (first.transport === Protocol.UDP) {
      const run = firstDatagram(first);
      return "bytes" in run ? request(run, run.start, run.end) : run;
    }
    const { client, server } = first;
    if (client.closed && sizeOf(client) === 0) return answer(server);
    const have = sizeOf(client);
    const c = new Cursor(client.bytes, client.start, client.end);
    if (have > 0 && client.bytes[client.start] !== 0) return bad;
    const length = c.u32();
    if (have >= LENGTH_BYTES && (length < 32 || length > MESSAGE_MAX)) return bad;
    if (have > LENGTH_BYTES && TYPES[c.u8()] === undefined) return bad;
    const whole = LENGTH_BYTES + length;
    if (have <= LENGTH_BYTES || have < whole) return more(client, Math.max(whole, LENGTH_BYTES + 1));
    return request(client, client.start + LENGTH_BYTES, client.start + whole);
  },
};

function request({ bytes }: Run, start: number, end: number): Reading {
  const outer = new Cursor(bytes, start, end);
  const head = elementHead(outer);
  const type = TYPES[head?.tag ?? 0];
  if (head === undefined || type === undefined || head.length !== outer.left) return bad;
  const sequence = element(outer, Tag.sequence);
  if (sequence === undefined || outer.left > 0) return bad;
  const c = new Cursor(bytes, sequence.start, sequence.end);
  if (numberIn(c, 0xa1) !== VERSION || numberIn(c, 0xa2) !== type) return bad;
  let body = element(c);
  if (body?.tag === 0xa3) body = element(c); // pre-authentication data
  if (body?.tag !== 0xa4 || c.left > 0) return bad;
  const inner = new Cursor(bytes, body.start, body.end);
  const fields = element(inner, Tag.sequence);
  if (fields === undefined) return bad;
  return { application: "kerberos", serverName: undefined, version: "5", ...named(new Cursor(bytes, fields.start, fields.end)) };
}

/** Of a recording that has only the server's half: a reply or an error (§5.4.2, §5.9.1), begun with its version and type. */
function answer({ bytes, start, end }: Run): Reading {
  const c = new Cursor(bytes, start, end);
  const length = c.u32();
  const type = ANSWERS[elementHead(c)?.tag ?? 0];
  if (c.short || type === undefined || length > MESSAGE_MAX || elementHead(c)?.tag !== Tag.sequence) return bad;
  return numberIn(c, 0xa0) === VERSION && numberIn(c, 0xa1) === type
    ? { application: "kerberos", serverName: undefined, version: "5" }
    : bad;
}

function numberIn(c: Cursor, tag: number): number | undefined {
  const found = element(c, tag);
  return found === undefined ? undefined : smallNumber(new Cursor(c.bytes, found.start, found.end));
}

/** KDC-REQ-BODY: options, the client's name [1] (of an AS-REQ), realm [2]. */
function named(c: Cursor): { readonly fields?: Fields } {
  if (element(c, 0xa0) === undefined) return {};
  let next = element(c);
  let name = "";
  if (next?.tag === 0xa1) {
    name = principal(new Cursor(c.bytes, next.start, next.end));
    next = element(c);
  }
  if (next?.tag !== 0xa2) return {};
  const realm = text(new Cursor(c.bytes, next.start, next.end));
  return name === "" ? {} : { fields: { user: `${name}@${realm}`.slice(0, 255) } };
}

/** PrincipalName: its type, and its parts. */
function principal(c: Cursor): string {
  const sequence = element(c, Tag.sequence);
  if (sequence === undefined) return "";
  const inner = new Cursor(c.bytes, sequence.start, sequence.end);
  const parts = element(inner, 0xa0) === undefined ? undefined : element(inner, 0xa1);
  if (parts === undefined) return "";
  const list = element(new Cursor(c.bytes, parts.start, parts.end), Tag.sequence);
  if (list === undefined) return "";
  const found: string[] = [];
  const each = new Cursor(c.bytes, list.start, list.end);
  while (each.left > 0 && !each.short && found.length < 4) found.push(text(each));
  return found.join("/");
}

function text(c: Cursor): string {
  const found = element(c, Tag.generalString);
  if (found === undefined) c.short = true;
  return found === undefined ? "" : field(c.bytes, found.start, found.end);
}
