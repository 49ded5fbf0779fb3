import { Cursor } from "../base/cursor.ts";

/** SvcParamKeys (RFC 9460 §14.3.2). */
export const SvcKey = { mandatory: 0, alpn: 1, noDefaultAlpn: 2, port: 3, ipv4hint: 4, ech: 5, ipv6hint: 6 } as const;

/** What one SVCB or HTTPS record says about addresses; filled again and again. Offsets index the message's bytes. */
export interface Service {
  /** 0 is AliasMode: no parameters count. */
  priority: number;
  ipv4: number;
  ipv4End: number;
  ipv6: number;
  ipv6End: number;
  ech: boolean;
}

const cursor = new Cursor(new Uint8Array(0));
const inner = new Cursor(new Uint8Array(0));

/** Keys seen, a bit each for the first 32; the others in `high`, which a record rarely has. */
let seen = 0;
const high: number[] = [];

function wasSeen(key: number): boolean {
  return key < 32 ? ((seen >>> key) & 1) === 1 : high.includes(key);
}

function alpnIsWhole(bytes: Uint8Array, from: number, to: number): boolean {
  inner.reset(bytes, from, to);
  if (inner.left === 0) return false;
  while (inner.left > 0) {
    const length = inner.u8();
    if (length === 0) return false;
    inner.skip(length);
    if (inner.short) return false;
  }
  return true;
}

function mandatoryIsWhole(bytes: Uint8Array, from: number, to: number): boolean {
  if (from === to) return false;
  inner.reset(bytes, from, to);
  let last: number = SvcKey.mandatory;
  while (inner.left > 0) {
    const key = inner.u16();
    if (inner.short || key <= last || !wasSeen(key)) return false;
    last = key;
  }
  return true;
}

/** Keys kept beyond the first 32; a record with more is refused (`mandatory` would be costly to check). */
const HIGH_KEYS_MAX = 64;

/**
 * Reads the RDATA of an SVCB or HTTPS record into `out`. False: malformed as RFC 9460 §2.2 says (keys out of order or
 * twice, a wrong length, a compressed or overlong target, a mandatory key that is absent), and the record is to be ignored.
 */
export function readService(bytes: Uint8Array, from: number, to: number, out: Service): boolean {
  cursor.reset(bytes, from, to);
  seen = 0;
  high.length = 0;
  out.ipv4 = out.ipv4End = out.ipv6 = out.ipv6End = 0;
  out.ech = false;
  out.priority = cursor.u16();
  for (let octets = 0; ; ) {
    const length = cursor.u8();
    octets += length + 1;
    if (cursor.short || length > 63 || octets > 255) return false; // uncompressed, RFC 9460 §2.2
    if (length === 0) break;
    cursor.skip(length);
  }
  if (cursor.short) return false;
  let last = -1;
  let mandatory = 0;
  let mandatoryEnd = 0;
  while (cursor.left > 0) {
    const key = cursor.u16();
    const length = cursor.u16();
    const value = cursor.at;
    cursor.skip(length);
    if (cursor.short || key <= last) return false;
    last = key;
    if (key < 32) seen |= 1 << key;
    else if (high.push(key) > HIGH_KEYS_MAX) return false;
    if (key === SvcKey.mandatory) {
      if (length === 0) return false;
      mandatory = value;
      mandatoryEnd = value + length;
    } else if (key === SvcKey.alpn) {
      if (!alpnIsWhole(bytes, value, value + length)) return false;
    } else if (key === SvcKey.noDefaultAlpn) {
      if (length !== 0 || !wasSeen(SvcKey.alpn)) return false;
    } else if (key === SvcKey.port) {
      if (length !== 2) return false;
    } else if (key === SvcKey.ipv4hint) {
      if (length === 0 || length % 4 !== 0) return false;
      out.ipv4 = value;
      out.ipv4End = value + length;
    } else if (key === SvcKey.ech) {
      if (length === 0) return false;
      out.ech = true;
    } else if (key === SvcKey.ipv6hint) {
      if (length === 0 || length % 16 !== 0) return false;
      out.ipv6 = value;
      out.ipv6End = value + length;
    }
  }
  return mandatoryEnd === 0 || mandatoryIsWhole(bytes, mandatory, mandatoryEnd);
}
