import { parseIp, putIp } from "../../src/base/address.ts";

/** Builders of packets for tests. Checksums are left 0: nothing here reads them. */

export function concat(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

export function u16(value: number): number[] {
  return [(value >> 8) & 255, value & 255];
}

export function u32(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
}

function octets(text: string): Uint8Array {
  const ip = parseIp(text);
  if (ip === undefined) throw new Error(`not an address: ${text}`);
  const bytes = new Uint8Array(ip.length);
  putIp(bytes, 0, ip);
  return bytes;
}

export interface Ip4 {
  readonly source?: string;
  readonly destination?: string;
  readonly protocol: number;
  readonly options?: readonly number[];
  /** flags and offset */
  readonly fragment?: number;
  readonly id?: number;
  readonly total?: number;
}

export function ip4(header: Ip4, payload: Uint8Array): Uint8Array {
  const options = header.options ?? [];
  const headerBytes = 20 + options.length;
  return concat(
    [0x40 | (headerBytes / 4), 0],
    u16(header.total ?? headerBytes + payload.length),
    u16(header.id ?? 1),
    u16(header.fragment ?? 0),
    [64, header.protocol, 0, 0],
    octets(header.source ?? "10.0.0.1"),
    octets(header.destination ?? "192.0.2.1"),
    options,
    payload,
  );
}

export interface Ip6 {
  readonly source?: string;
  readonly destination?: string;
  readonly next: number;
  readonly length?: number;
}

/** `payload` includes the extension headers. */
export function ip6(header: Ip6, payload: Uint8Array): Uint8Array {
  return concat(
    [0x60, 0, 0, 0],
    u16(header.length ?? payload.length),
    [header.next, 64],
    octets(header.source ?? "fd00::1"),
    octets(header.destination ?? "2001:db8::1"),
    payload,
  );
}

export interface Tcp {
  readonly from: number;
  readonly to: number;
  readonly seq?: number;
  readonly ack?: number;
  readonly flags?: number;
  readonly options?: readonly number[];
}

export function tcp(header: Tcp, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const options = header.options ?? [];
  return concat(
    u16(header.from),
    u16(header.to),
    u32(header.seq ?? 0),
    u32(header.ack ?? 0),
    [((20 + options.length) / 4) << 4, header.flags ?? 16, 0xff, 0xff, 0, 0, 0, 0],
    options,
    payload,
  );
}

export function udp(from: number, to: number, payload: Uint8Array, length = payload.length + 8): Uint8Array {
  return concat(u16(from), u16(to), u16(length), [0, 0], payload);
}

export function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}
