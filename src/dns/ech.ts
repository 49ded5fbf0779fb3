import type { DnsName } from "../base/name.ts";
import { CLASS_IN, Flag, Message, Type } from "./message.ts";
import { readService, type Service, SvcKey } from "./svcb.ts";

/**
 * `ech: Strip`: the keys for an encrypted ClientHello (SvcParam `ech`, RFC 9848) are taken out of HTTPS and SVCB records, in
 * place and without a change of length: what is behind them moves up, and a parameter that no client knows, all zeros, fills
 * the end of the record. So every compression pointer, every length and (over TCP) every sequence number stays right.
 */

/** The last SvcParamKey for private use (RFC 9460 §14.3.1): clients pass over it, and no other can stand behind it. */
const FILLER_KEY = 65534;
/** The last record type for private use (RFC 6895 §3.1): a record that cannot be rewritten is hidden from its readers by it. */
const HIDDEN_TYPE = 65534;
const PARAM_HEADER_OCTETS = 4;
/** Type, class, TTL and length stand before the data. */
const TYPE_BEFORE_DATA = 10;

const message = new Message();
const service: Service = { priority: 0, ipv4: 0, ipv4End: 0, ipv6: 0, ipv6End: 0, ech: false };

/**
 * Rewrites the DNS reply bytes[start..end): every HTTPS and SVCB record, in all sections, when `strips` says so of the asked
 * name or of the record's owner. Answers how many records were changed. What is behind a malformed record is not read.
 */
export function stripEch(bytes: Uint8Array, start: number, end: number, strips: (name: DnsName) => boolean): number {
  if (!message.open(bytes, start, end) || (message.flags & (Flag.QR | Flag.OPCODE)) !== Flag.QR) return 0;
  if (message.questions !== 1 || !message.question()) return 0;
  const asked = nameAt(message.owner);
  const all = asked !== undefined && strips(asked);
  let changed = 0;
  for (let left = message.answers + message.authorities + message.additionals; left > 0 && message.record(); left--) {
    if ((message.type !== Type.HTTPS && message.type !== Type.SVCB) || message.class !== CLASS_IN) continue;
    const owner = all ? undefined : nameAt(message.owner);
    if ((all || (owner !== undefined && strips(owner))) && stripRecord(bytes, message.data, message.dataEnd)) changed++;
  }
  // Nobody has authenticated what stands there now (RFC 4035 §3.2.3).
  if (changed > 0) bytes[start + 3] = (bytes[start + 3] as number) & ~Flag.AD;
  return changed;
}

/**
 * Could the message that begins with bytes[start..end) be one to rewrite, and do these bytes go beyond its question? They
 * must not reach the pod before the rest is there.
 */
export function mayHaveEch(bytes: Uint8Array, start: number, end: number, strips: (name: DnsName) => boolean): boolean {
  if (!message.open(bytes, start, end) || message.questions !== 1 || !message.question() || message.at === end) return false;
  const { type } = message;
  if (type !== Type.HTTPS && type !== Type.SVCB && type !== Type.ANY) return false;
  const asked = nameAt(message.owner);
  return asked !== undefined && strips(asked);
}

function nameAt(at: number): DnsName | undefined {
  return message.walk(at) ? message.name() : undefined;
}

/** True: the record was changed. */
function stripRecord(bytes: Uint8Array, from: number, to: number): boolean {
  if (!readService(bytes, from, to, service)) return hide(bytes, from); // clients have to ignore it (RFC 9460 §2.2), and now do
  if (!service.ech) return false;
  const u16 = (at: number): number => ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  let at = from + 2;
  while (bytes[at] !== 0) at += 1 + (bytes[at] as number); // the target name
  let mandatory = 0;
  let ech = 0;
  let last = 0;
  for (at++; at < to; at += PARAM_HEADER_OCTETS + u16(at + 2)) {
    last = u16(at);
    if (last === SvcKey.mandatory) mandatory = at;
    if (last === SvcKey.ech) ech = at;
  }
  if (last >= FILLER_KEY) return hide(bytes, from);
  // A client that must understand the keys must now understand the filler, which none does: it does without the record.
  if (mandatory > 0) {
    const listEnd = mandatory + PARAM_HEADER_OCTETS + u16(mandatory + 2);
    for (let key = mandatory + PARAM_HEADER_OCTETS; key < listEnd; key += 2) {
      if (u16(key) !== SvcKey.ech) continue;
      bytes.copyWithin(key, key + 2, listEnd);
      put16(bytes, listEnd - 2, FILLER_KEY);
      break;
    }
  }
  const length = u16(ech + 2);
  bytes.copyWithin(ech, ech + PARAM_HEADER_OCTETS + length, to);
  const filler = to - PARAM_HEADER_OCTETS - length;
  put16(bytes, filler, FILLER_KEY);
  put16(bytes, filler + 2, length);
  bytes.fill(0, filler + PARAM_HEADER_OCTETS, to);
  return true;
}

function hide(bytes: Uint8Array, data: number): true {
  put16(bytes, data - TYPE_BEFORE_DATA, HIDDEN_TYPE);
  return true;
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 255;
}
