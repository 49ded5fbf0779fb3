import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { Pieces, PIECES_BYTES_MAX } from "./pieces.ts";
import { RECORD_BYTES_MAX } from "./tls.ts";
import { helloEvidence } from "./tls-evidence.ts";
import { isVersion, readHelloBody } from "./tls-hello.ts";

/**
 * DTLS 1.0, 1.2 and 1.3 (RFC 4347, RFC 6347 §4.2, RFC 9147 §5): the ClientHello, whose fragments may come in any order and
 * twice. A server can ask for the hello again, with a cookie: it has the next message number, and the first hello that is
 * whole is read.
 */

const DATAGRAMS_MAX = 64;
const MESSAGE_NUMBER_MAX = 1; // 0: the first hello, 1: the one with the cookie
const HELLO_BYTES_MIN = 42; // version, random, three empty lengths, one cipher suite, one compression method
const HANDSHAKE = 22; // content types: RFC 8446 §5.1; 25 is tls12_cid (RFC 9146), 26 ACK (RFC 9147)
const CONTENT_TYPE_MIN = 20;
const CONTENT_TYPE_MAX = 26;
const CLIENT_HELLO = 1;

/** Hellos by their message number. */
type Hellos = Map<number, { readonly length: number; readonly pieces: Pieces }>;

export const dtlsInspector: Inspector = {
  application: "dtls",
  transports: [Protocol.UDP],
  opens: "client",
  read: ({ client }) => readDtls(client),
};

function readDtls(run: Run): Reading {
  const hellos: Hellos = new Map();
  const have = run.end - run.start;
  const ends = run.ends.length > 0 || have === 0 ? run.ends : [run.end];
  let start = run.start;
  for (let i = 0; i < ends.length; i++) {
    const end = Math.min(ends[i] as number, run.end);
    if (i === 0 && !isRecords(run.bytes, start, end)) return { bad: "no DTLS records" };
    const bad = readDatagram(run.bytes, start, end, hellos);
    if (bad !== undefined) return { bad, application: "dtls" };
    const reading = judge(hellos);
    if (reading !== undefined) return reading;
    if (i === 0 && hellos.size === 0) return { bad: "DTLS without a ClientHello", application: "dtls" };
    if (i >= DATAGRAMS_MAX) return { bad: `a ClientHello in more than ${DATAGRAMS_MAX} datagrams`, application: "dtls" };
    start = end;
  }
  if (run.closed) return hellos.size > 0 ? { bad: "a ClientHello that ends too early", application: "dtls" } : { bad: "no DTLS" };
  return { need: have + 1, of: "client", ...(hellos.size > 0 ? { application: "dtls" } : {}) };
}

/** A record header at `c` (RFC 6347 §4.1); undefined where there is none. */
function readRecord(c: Cursor): { type: number; epoch: number; at: number; end: number } | undefined {
  const type = c.u8();
  const version = c.u16();
  const epoch = c.u16();
  c.skip(6); // sequence number
  const length = c.u16();
  const at = c.at;
  c.skip(length);
  const sound = type >= CONTENT_TYPE_MIN && type <= CONTENT_TYPE_MAX && isVersion(version, "dtls") && length > 0;
  return c.short || !sound || length > RECORD_BYTES_MAX + 2048 ? undefined : { type, epoch, at, end: c.at };
}

/** Is the datagram nothing but records? What begins with a hello's fragment is looked at no further. */
function isRecords(bytes: Uint8Array, start: number, end: number): boolean {
  const c = new Cursor(bytes, start, end);
  do if (readRecord(c) === undefined) return false;
  while (c.left > 0);
  return true;
}

/** Adds the fragments of hellos that are in the clear; answers what is wrong. */
function readDatagram(bytes: Uint8Array, start: number, end: number, hellos: Hellos): string | undefined {
  const records = new Cursor(bytes, start, end);
  while (records.left > 0) {
    const record = readRecord(records);
    if (record === undefined) return undefined; // a server drops the rest (RFC 6347 §4.1.2.7)
    if (record.type !== HANDSHAKE || record.epoch !== 0) continue;
    const c = new Cursor(bytes, record.at, record.end);
    while (c.left > 0) {
      const bad = readFragment(c, hellos);
      if (bad !== undefined) return bad;
    }
  }
  return undefined;
}

/** RFC 6347 §4.2.2. */
function readFragment(c: Cursor, hellos: Hellos): string | undefined {
  const type = c.u8();
  const length = c.u24();
  const number = c.u16();
  const offset = c.u24();
  const fragment = c.view(c.u24());
  if (c.short || offset + fragment.length > length) return "a fragment longer than its message";
  if (type !== CLIENT_HELLO) return "not a ClientHello";
  if (number > MESSAGE_NUMBER_MAX) return `a ClientHello as message ${number}`;
  if (length > PIECES_BYTES_MAX || length < HELLO_BYTES_MIN) return `a ClientHello of ${length} bytes`;
  const hello = hellos.get(number) ?? { length, pieces: new Pieces() };
  hellos.set(number, hello);
  if (hello.length !== length) return "fragments of two lengths";
  hello.pieces.add(offset, fragment);
  return undefined;
}

function judge(hellos: Hellos): Reading | undefined {
  for (const { length, pieces } of hellos.values()) {
    if (pieces.prefix < length) continue;
    const read = readHelloBody(pieces.bytes, 0, length, "dtls");
    if ("bad" in read) return { bad: read.bad, application: "dtls" };
    return { ...helloEvidence("dtls", read, "d"), ...evasion(pieces, hellos) };
  }
  return undefined;
}

function evasion(pieces: Pieces, hellos: Hellos): { evasion?: string } {
  if (pieces.conflict) return { evasion: "fragments that disagree" };
  // The one that is not whole could be finished later, with another name.
  return hellos.size > 1 ? { evasion: "a second hello before the first one was whole" } : {};
}
