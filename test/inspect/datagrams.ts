import { createCipheriv } from "node:crypto";
import type { FirstBytes, Run } from "../../src/inspect/inspector.ts";
import { NO_BYTES } from "../../src/inspect/inspector.ts";
import { initialKeys } from "../../src/inspect/quic-keys.ts";
import { quicVersion, type QuicVersion } from "../../src/inspect/quic-versions.ts";
import { Protocol } from "../../src/model/packet.ts";

/** Client datagrams for tests of QUIC and DTLS. */

export const cat = (...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));
export const u16 = (v: number): number[] => [v >> 8, v & 255];
export const u24 = (v: number): number[] => [v >> 16, ...u16(v & 0xffff)];
export const u32 = (v: number): number[] => [...u16(v >>> 16), ...u16(v & 0xffff)];

/** Datagrams of a client as an inspector gets them, in the middle of other bytes. */
export function fromClient(datagrams: readonly Uint8Array[], closed = false): FirstBytes {
  const bytes = cat([1, 2, 3], ...datagrams, [0xc0, 0, 0, 0, 1]);
  const ends: number[] = [];
  let end = 3;
  for (const datagram of datagrams) ends.push((end += datagram.length));
  const client: Run = { bytes, start: 3, end, ends, closed };
  return { transport: Protocol.UDP, client, server: { ...NO_BYTES, closed } };
}

/** CRYPTO frame, RFC 9000 §19.6. */
export function crypto(offset: number, data: Uint8Array): Uint8Array {
  const varint = (v: number): number[] => u16(0x4000 | v);
  return cat([6], varint(offset), varint(data.length), data);
}

export interface InitialOptions {
  readonly version?: number;
  readonly dcid?: Uint8Array;
  /** Keys are of this connection id where it is not `dcid`. */
  readonly keysOf?: Uint8Array;
  readonly token?: Uint8Array;
  readonly number?: number;
  /** Padding inside the packet, up to this size of it. */
  readonly size?: number;
}
export const DCID = Uint8Array.from(Buffer.from("8394c8f03e515708", "hex")); // RFC 9001 appendix A

/** A protected client Initial: RFC 9001 §5, forwards. */
export function initial(frames: Uint8Array, options: InitialOptions = {}): Uint8Array {
  const { version = 1, dcid = DCID, keysOf = dcid, token = new Uint8Array(0), number = 0, size = 1200 } = options;
  const rules = quicVersion(version) as QuicVersion;
  const keys = initialKeys(rules, keysOf);
  const type = rules.types.indexOf("initial");
  const before = cat([0xc0 | (type << 4) | 1], u32(version), [dcid.length], dcid, [0], u16(0x4000 | token.length), token);
  const overhead = before.length + 2 + 2 + 16;
  const plain = new Uint8Array(Math.max(frames.length, size - overhead, 20));
  plain.set(frames);
  const header = cat(before, u16(0x4000 | (2 + plain.length + 16)), u16(number));
  const nonce = Uint8Array.from(keys.iv);
  nonce[10] = (nonce[10] as number) ^ (number >> 8);
  nonce[11] = (nonce[11] as number) ^ (number & 255);
  const cipher = createCipheriv("aes-128-gcm", keys.key, nonce);
  cipher.setAAD(header);
  const sealed = cat(cipher.update(plain), cipher.final(), cipher.getAuthTag());
  const mask = keys.mask.update(sealed.subarray(2, 18));
  header[0] = (header[0] as number) ^ ((mask[0] as number) & 15);
  for (let i = 0; i < 2; i++) header[header.length - 2 + i] = (header[header.length - 2 + i] as number) ^ (mask[1 + i] as number);
  return cat(header, sealed);
}

/** The handshake message of a ClientHello with a server name and ALPN, of at least `bytes` bytes. */
export function helloMessage(name: string, bytes = 0, carrier: "tls" | "dtls" = "tls"): Uint8Array {
  const text = [...Buffer.from(name)];
  const extension = (type: number, body: readonly number[]): number[] => [...u16(type), ...u16(body.length), ...body];
  const list16 = (body: readonly number[]): number[] => [...u16(body.length), ...body];
  const newest = carrier === "tls" ? 0x0304 : 0xfefc;
  const extensions = [
    ...extension(0, list16([0, ...list16(text)])),
    ...extension(16, list16([2, 0x68, 0x33])),
    ...extension(43, [2, ...u16(newest)]),
    ...extension(13, list16(u16(0x0403))),
  ];
  const body = [...u16(carrier === "tls" ? 0x0303 : 0xfefd), ...new Uint8Array(32).fill(7), 0, ...(carrier === "dtls" ? [0] : [])];
  body.push(...list16([...u16(0x1301), ...u16(0x1302)]), 1, 0);
  const missing = bytes - (4 + body.length + 2 + extensions.length + 4);
  if (missing > 0)
    extensions.push(
      ...extension(
        51,
        Array.from({ length: missing }, (_, i) => i & 255),
      ),
    );
  return Uint8Array.from([1, ...u24(body.length + 2 + extensions.length), ...body, ...list16(extensions)]);
}
