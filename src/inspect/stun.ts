import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { firstDatagram, more } from "./parts.ts";
import { field } from "./text.ts";

/** STUN and TURN (RFC 8489 §5, §14): header with magic cookie, attributes to the end; over TCP perhaps framed (RFC 4571). */
const HEADER_BYTES = 20;
const COOKIE = 0x2112a442;
const LENGTH_MAX = 4096;
const Attribute = { username: 0x0006, realm: 0x0014 } as const;
const bad = { bad: "not STUN" };

export const stunInspector: Inspector = {
  application: "stun",
  transports: [Protocol.UDP, Protocol.TCP],
  opens: "client",
  read(first: FirstBytes): Reading {
    if (first.transport === Protocol.UDP) {
      const run = firstDatagram(first);
      return "bytes" in run ? message(run, run.start, true) : run;
    }
    const { client } = first;
    const plain = message(client, client.start, false);
    if (!("bad" in plain)) return plain;
    const c = new Cursor(client.bytes, client.start, client.end);
    const framed = c.u16();
    c.skip(2);
    if (!c.short && c.left >= 2 && framed !== c.u16() + HEADER_BYTES) return bad;
    return message(client, client.start + 2, false);
  },
};

function message(run: Run, at: number, alone: boolean): Reading {
  const c = new Cursor(run.bytes, at, run.end);
  const have = Math.max(0, run.end - at);
  const type = c.u16();
  const length = c.u16();
  const cookie = c.u32();
  if (have >= 2 && (type > 0x3fff || type === 0)) return bad;
  if (have >= 4 && (length > LENGTH_MAX || length % 4 !== 0)) return bad;
  if (have >= 8 ? cookie !== COOKIE : have > 4 && run.bytes[at + 4] !== COOKIE >> 24) return bad;
  const whole = HEADER_BYTES + length;
  if (alone && have !== whole) return bad;
  if (have < HEADER_BYTES || have < whole) return more(run, at - run.start + whole, have >= 8 ? "stun" : undefined);
  c.skip(12);
  const attributes = new Cursor(run.bytes, c.at, c.at + length);
  let user: string | undefined;
  let realm: string | undefined;
  while (attributes.left > 0) {
    const kind = attributes.u16();
    const size = attributes.u16();
    const value = attributes.view(size);
    attributes.skip((4 - (size % 4)) % 4);
    if (attributes.short) return bad;
    if (kind === Attribute.username) user = field(value, 0, value.length);
    if (kind === Attribute.realm) realm = field(value, 0, value.length);
  }
  const fields = { ...(user && { user }), ...(realm && { host: realm }) };
  return { application: "stun", serverName: undefined, ...(Object.keys(fields).length > 0 ? { fields } : {}) };
}
