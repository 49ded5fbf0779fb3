import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import { element, smallNumber, Tag } from "./ber.ts";
import type { FirstBytes, Inspector, Reading } from "./inspector.ts";
import { firstDatagram } from "./parts.ts";

/** SNMP v1 (RFC 1157 §4), v2c (RFC 1901, RFC 3416 §3) and v3 (RFC 3412 §6): the whole message. */
const VERSIONS: Readonly<Record<number, string>> = { 0: "1", 1: "2c", 3: "3" };
const Pdu = { first: 0xa0, trapV1: 0xa4, last: 0xa8 } as const;
const bad = { bad: "not SNMP" };

export const snmpInspector: Inspector = {
  application: "snmp",
  transports: [Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    const outer = new Cursor(run.bytes, run.start, run.end);
    const message = element(outer, Tag.sequence);
    if (message === undefined || outer.left > 0) return bad;
    const c = new Cursor(run.bytes, message.start, message.end);
    const version = VERSIONS[smallNumber(c) ?? -1];
    if (version === undefined) return bad;
    const good = version === "3" ? isVersion3(c) : isCommunity(c, version);
    return good && c.left === 0 ? { application: "snmp", serverName: undefined, version } : bad;
  },
};

/** A community, and a PDU: three numbers and the bindings, or a trap of version 1. */
function isCommunity(c: Cursor, version: string): boolean {
  if (element(c, Tag.octets) === undefined) return false;
  const pdu = element(c);
  if (pdu === undefined || pdu.tag < Pdu.first || pdu.tag > Pdu.last) return false;
  const body = new Cursor(c.bytes, pdu.start, pdu.end);
  if (pdu.tag === Pdu.trapV1) {
    if (version !== "1" || element(body, Tag.oid) === undefined || element(body, 0x40) === undefined) return false;
    if (smallNumber(body) === undefined || smallNumber(body) === undefined || element(body, 0x43) === undefined) return false;
  } else {
    for (let i = 0; i < 3; i++) if (element(body, Tag.integer) === undefined) return false;
  }
  return element(body, Tag.sequence) !== undefined && body.left === 0;
}

/** Global data, security parameters, and what is plain or encrypted. */
function isVersion3(c: Cursor): boolean {
  const global = element(c, Tag.sequence);
  const security = element(c, Tag.octets);
  const scoped = element(c);
  if (global === undefined || security === undefined || (scoped?.tag !== Tag.sequence && scoped?.tag !== Tag.octets)) return false;
  const body = new Cursor(c.bytes, global.start, global.end);
  const id = smallNumber(body);
  const sizeMax = smallNumber(body) ?? 0;
  const flags = element(body, Tag.octets);
  return id !== undefined && sizeMax >= 484 && flags?.end === (flags?.start ?? 0) + 1 && smallNumber(body) !== undefined && body.left === 0;
}
