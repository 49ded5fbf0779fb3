import { Protocol } from "../model/packet.ts";
import { bytesLike, cursorAt, evidenceOf, more, viewField } from "./binary.ts";
import type { Inspector, NotIt, Reading, Run } from "./inspector.ts";
import { BINARY_HEADER_BYTES, readBinaryRequest, REQUEST } from "./memcache-binary.ts";
import { readTextRequest } from "./memcached-text.ts";
import { sizeOf } from "./parts.ts";

/**
 * memcached (doc/protocol.txt and protocol_binary.txt of its sources): lines or binary requests; over UDP behind a header of 8 bytes. Only the
 * first request is read: an authentication that follows another request is not seen.
 */
const UDP_HEADER_BYTES = 8; // request id, number of the datagram, how many, 0
const SASL_BYTES_MAX = 4096;
const SASL_AUTH = 0x21;
const SASL_STEP = 0x22;

/** Name, bytes of extras, has a key, may have a value. */
type Shape = readonly [name: string, extras: readonly number[], key: boolean | undefined, value: boolean];
const KEY_ONLY: readonly number[] = [0];
const SHAPES: Readonly<Record<number, Shape>> = {
  0x00: ["get", KEY_ONLY, true, false],
  0x01: ["set", [8], true, true],
  0x02: ["add", [8], true, true],
  0x03: ["replace", [8], true, true],
  0x04: ["delete", KEY_ONLY, true, false],
  0x05: ["increment", [20], true, false],
  0x06: ["decrement", [20], true, false],
  0x07: ["quit", KEY_ONLY, false, false],
  0x08: ["flush", [0, 4], false, false],
  0x09: ["getq", KEY_ONLY, true, false],
  0x0a: ["noop", KEY_ONLY, false, false],
  0x0b: ["version", KEY_ONLY, false, false],
  0x0c: ["getk", KEY_ONLY, true, false],
  0x0d: ["getkq", KEY_ONLY, true, false],
  0x0e: ["append", KEY_ONLY, true, true],
  0x0f: ["prepend", KEY_ONLY, true, true],
  0x10: ["stat", KEY_ONLY, undefined, false],
  0x11: ["setq", [8], true, true],
  0x12: ["addq", [8], true, true],
  0x13: ["replaceq", [8], true, true],
  0x14: ["deleteq", KEY_ONLY, true, false],
  0x15: ["incrementq", [20], true, false],
  0x16: ["decrementq", [20], true, false],
  0x17: ["quitq", KEY_ONLY, false, false],
  0x18: ["flushq", [0, 4], false, false],
  0x19: ["appendq", KEY_ONLY, true, true],
  0x1a: ["prependq", KEY_ONLY, true, true],
  0x1b: ["verbosity", [4], false, false],
  0x1c: ["touch", [4], true, false],
  0x1d: ["gat", [4], true, false],
  0x1e: ["gatq", [4], true, false],
  0x20: ["sasl-list", KEY_ONLY, false, false],
  [SASL_AUTH]: ["sasl-auth", KEY_ONLY, true, true],
  [SASL_STEP]: ["sasl-step", KEY_ONLY, true, true],
};

const not: NotIt = { bad: "no memcached request" };

export const memcachedInspector: Inspector = {
  application: "memcached",
  transports: [Protocol.TCP, Protocol.UDP],
  opens: "client",
  read({ transport, client, server }): Reading {
    if (transport === Protocol.UDP) return readDatagram(client);
    if (sizeOf(client) === 0) return more(client, 1, not);
    return client.bytes[client.start] === REQUEST ? readBinary(client) : readTextRequest(client, server);
  },
};

/** A request is one datagram, which is all there: nothing more is waited for. */
function readDatagram(client: Run): Reading {
  const end = client.ends[0];
  if (end === undefined) return more(client, sizeOf(client) + 1, not);
  const id = [undefined, undefined, 0, 0, 0, 1, 0, 0];
  if (end - client.start <= UDP_HEADER_BYTES || !bytesLike(client, 0, id)) return not;
  const one: Run = { ...client, start: client.start + UDP_HEADER_BYTES, end, closed: true };
  return one.bytes[one.start] === REQUEST ? readBinary(one) : readTextRequest(one, undefined);
}

function readBinary(client: Run): Reading {
  const request = readBinaryRequest(client, REQUEST);
  if (request === undefined) return not;
  if (typeof request === "number") return more(client, request, not);
  const { opcode, keyBytes, extraBytes, valueBytes, datatype, bucket } = request;
  const shape = SHAPES[opcode];
  if (shape === undefined || datatype !== 0 || bucket !== 0) return not;
  const [method, extras, key, value] = shape;
  if (!extras.includes(extraBytes) || (key !== undefined && key !== keyBytes > 0) || (valueBytes > 0 && !value)) return not;
  if (opcode !== SASL_AUTH) return evidenceOf("memcached", { method });
  const need = BINARY_HEADER_BYTES + keyBytes + valueBytes;
  if (need > SASL_BYTES_MAX) return not;
  if (sizeOf(client) < need) return more(client, need, not);
  const c = cursorAt(client, BINARY_HEADER_BYTES);
  const mechanism = viewField(c.view(keyBytes));
  const user = mechanism === "PLAIN" ? plainUser(c.view(valueBytes)) : undefined;
  return evidenceOf("memcached", { method, mechanism, user });
}

/** RFC 4616 §2: `[authzid] NUL authcid NUL passwd`. */
function plainUser(message: Uint8Array): string | undefined {
  const first = message.indexOf(0);
  const second = message.indexOf(0, first + 1);
  return first < 0 || second < 0 ? undefined : viewField(message.subarray(first + 1, second));
}
