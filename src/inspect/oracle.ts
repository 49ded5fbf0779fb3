import { Protocol } from "../model/packet.ts";
import { bytesLike, cursorAt, evidenceOf, more } from "./binary.ts";
import type { Inspector, NotIt, Reading, Run } from "./inspector.ts";
import { readDescriptor } from "./oracle-descriptor.ts";
import { sizeOf, isPrintable } from "./parts.ts";

/**
 * Oracle Net (TNS; no public specification: as python-oracledb, JDBC thin and captures have it). The client begins with a
 * CONNECT packet: versions, sizes, and where the connect descriptor stands in it. A long descriptor follows at once in DATA packets. After
 * a REDIRECT or a RESEND the client says the same again. The user is that of the client's system; the database's comes encrypted.
 */
const HEADER_BYTES = 8;
const CONNECT_BYTES_MIN = 34;
const CONNECT_BYTES_MAX = 8192;
const DESCRIPTOR_BYTES_MAX = 16_384;
const DATA_HEADER_BYTES = 10;
const DATA_PACKETS_MAX = 16;
const Type = { connect: 1, data: 6 } as const;
const VERSION_MIN = 0x100; // 0x136 is 10g, 0x13b 12c, 0x13f 21c
const VERSION_MAX = 0x1ff;

export const oracleInspector: Inspector = {
  application: "oracle",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const not: NotIt = { bad: "no TNS CONNECT packet" };
    if (!isPacket(client, 0, Type.connect)) return not;
    if (sizeOf(client) < CONNECT_BYTES_MIN) return more(client, CONNECT_BYTES_MIN, not);
    const length = packetBytes(client, 0);
    const c = cursorAt(client, HEADER_BYTES);
    const version = c.u16();
    const compatible = c.u16();
    c.skip(12);
    const bytes = c.u16();
    const offset = c.u16();
    if (length < CONNECT_BYTES_MIN || length > CONNECT_BYTES_MAX || offset < CONNECT_BYTES_MIN || offset > length) return not;
    if (version < VERSION_MIN || version > VERSION_MAX || compatible < VERSION_MIN || compatible > version) return not;
    const isInside = offset + bytes === length;
    if (bytes === 0 || bytes > DESCRIPTOR_BYTES_MAX || (!isInside && offset !== length)) return not;
    if (sizeOf(client) < length) return more(client, length, not);
    const descriptor = isInside ? cursorAt(client, offset).view(bytes) : followingData(client, length, bytes);
    if ("need" in descriptor) return more(client, descriptor.need, not);
    if ("bad" in descriptor) return descriptor;
    if (!isPrintable(withoutBreaks(descriptor))) return not;
    const found = readDescriptor(Buffer.from(descriptor).toString("latin1"));
    return found === undefined ? not : evidenceOf("oracle", found, String(version));
  },
};

/** Two bytes of length and two of checksum, which is 0; or, since version 315, four bytes of length. */
function packetBytes(client: Run, at: number): number {
  const c = cursorAt(client, at);
  const short = c.u16();
  return short === 0 ? c.u16() : short;
}

/** As far as its bytes go, could a packet of `type` stand at `at`? */
function isPacket(client: Run, at: number, type: number): boolean {
  if (!bytesLike(client, at, [0, 0]) && !bytesLike(client, at + 2, [0, 0])) return false;
  const limit = (DESCRIPTOR_BYTES_MAX >> 8) + 1;
  for (const offset of [at, at + 2]) {
    const c = cursorAt(client, offset);
    if (c.left > 0 && c.u8() > limit) return false;
  }
  return bytesLike(client, at + 4, [type, undefined, 0, 0]);
}

/** The descriptor of `bytes` bytes in DATA packets from `at` on. */
function followingData(client: Run, at: number, bytes: number): Uint8Array | { need: number } | NotIt {
  const not: NotIt = { bad: "no connect descriptor behind CONNECT", application: "oracle" };
  const parts: Uint8Array[] = [];
  let got = 0;
  for (let next = at; parts.length < DATA_PACKETS_MAX; ) {
    if (!isPacket(client, next, Type.data)) return not;
    if (sizeOf(client) < next + DATA_HEADER_BYTES) return { need: next + DATA_HEADER_BYTES + 1 };
    const end = next + packetBytes(client, next);
    const part = end - next - DATA_HEADER_BYTES;
    if (part <= 0 || got + part > bytes) return not;
    if (sizeOf(client) < end) return { need: end };
    parts.push(cursorAt(client, next + DATA_HEADER_BYTES).view(part));
    got += part;
    if (got === bytes) return Buffer.concat(parts);
    next = end;
  }
  return not;
}

/** Descriptors may be written over several lines. */
function withoutBreaks(descriptor: Uint8Array): Uint8Array {
  return descriptor.filter((byte) => byte !== 0x0a && byte !== 0x0d && byte !== 0x09 && byte !== 0);
}
