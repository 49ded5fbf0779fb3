import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { firstDatagram, latin1, more, sizeOf } from "./parts.ts";

/**
 * Thrift (thrift-binary-protocol, thrift-compact-protocol): a call's or a oneway's message header, strict; perhaps framed by a
 * length of 4 octets. The method's name must be an identifier, or `service:method`.
 */
const NAME_MAX = 128;
const FRAME_MAX = 16_384_000; // the usual limit
const COMPACT = 0x82;
const COMPACT_KINDS = [0x21, 0x81]; // version 1; call, oneway
const bad = { bad: "not Thrift" };

export const thriftInspector: Inspector = {
  application: "thrift",
  transports: [Protocol.TCP, Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = first.transport === Protocol.UDP ? firstDatagram(first) : first.client;
    if (!("bytes" in run)) return run;
    if (sizeOf(run) === 0) return more(run, 1);
    const leading = run.bytes[run.start] as number;
    if (leading === COMPACT) return compact(run, run.start);
    if (leading === 0x80) return binary(run, run.start);
    if (first.transport === Protocol.UDP || leading > 0) return bad;
    const length = sizeOf(run) < 4 ? 16 : new Cursor(run.bytes, run.start, run.end).u32();
    if (length < 12 || length > FRAME_MAX) return bad;
    const inner = run.bytes[run.start + 4];
    if (sizeOf(run) <= 4) return more(run, 5);
    return inner === COMPACT ? compact(run, run.start + 4) : inner === 0x80 ? binary(run, run.start + 4) : bad;
  },
};

/** `80 01 00`, the kind of message, the name with its length, a sequence number. */
function binary(run: Run, at: number): Reading {
  const c = new Cursor(run.bytes, at, run.end);
  const have = run.end - at;
  const version = c.u16();
  const kind = c.u16();
  const length = c.u32();
  if (have >= 2 && version !== 0x8001) return bad;
  if (have >= 4 && kind !== 1 && kind !== 4) return bad;
  if (have >= 8 && (length === 0 || length > NAME_MAX)) return bad;
  const whole = 8 + (have < 8 ? 1 : length) + 4;
  return have < whole ? more(run, at - run.start + whole) : named(run, at + 8, length);
}

/** `82`, version and kind, the sequence number and the name's length as varints. */
function compact(run: Run, at: number): Reading {
  const c = new Cursor(run.bytes, at + 1, run.end);
  if (run.end > at + 1 && !COMPACT_KINDS.includes(c.u8())) return bad;
  for (let i = 0; (c.u8() & 0x80) !== 0; i++) if (i === 4) return bad;
  const length = c.u8();
  if (c.short || run.end === at + 1) return more(run, sizeOf(run) + 1);
  if (length === 0 || length > 127) return bad;
  return c.left < length ? more(run, c.at - run.start + length) : named(run, c.at, length);
}

function named(run: Run, at: number, length: number): Reading {
  const name = latin1(run.bytes, at, at + length);
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i) | 0x20;
    const letter = (c >= 0x61 && c <= 0x7a) || name[i] === "_";
    if (!letter && (i === 0 || !"0123456789.:".includes(name[i] as string))) return bad;
  }
  return { application: "thrift", serverName: undefined, fields: { method: name } };
}
