import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { more, sizeOf } from "./parts.ts";
import { startsLike } from "./text.ts";
import { withUpgrade } from "./upgrade.ts";

/**
 * AMQP: the protocol header `AMQP` and four octets. 0-9-1 §4.2.2: 0, major, minor, revision (older ones: 1, 1, major, minor);
 * 1.0 §2.2: protocol id (0 AMQP, 2 TLS, 3 SASL), major, minor, revision. TLS begins when the server has sent the same header.
 */
const HEADER_BYTES = 8;
const TLS_ID = 2;
/** `AMQP` and what follows it, by version. */
const VERSIONS: ReadonlyMap<string, string> = new Map([
  ["0,0,9,1", "0-9-1"],
  ["1,1,0,9", "0-9"],
  ["1,1,9,1", "0-9"],
  ["1,1,8,0", "0-8"],
  ["1,1,0,10", "0-10"],
  ["0,1,0,0", "1.0"],
  ["2,1,0,0", "1.0"],
  ["3,1,0,0", "1.0"],
]);

/** 0-9-1 §2.3.5: type, channel, size, payload, and this octet. */
const FRAME_HEADER_BYTES = 7;
const FRAME_END = 0xce;
const FRAME_BYTES_MAX = 131_072; // what brokers negotiate
const METHOD_FRAME = 1;
const CLASSES = [10, 20, 30, 40, 50, 60, 85, 90]; // connection, channel, access, exchange, queue, basic, confirm, tx
const METHOD_MAX = 120;

export const amqpInspector: Inspector = {
  application: "amqp",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client, server }): Reading {
    if (sizeOf(client) === 0 && client.closed) return sizeOf(server) === 0 ? { bad: "no bytes" } : readFrame(server);
    if (!startsLike(client, "AMQP")) return readFrame(client);
    if (sizeOf(client) < HEADER_BYTES) return more(client, HEADER_BYTES, sizeOf(client) < 5 ? undefined : "amqp");
    const header = client.bytes.subarray(client.start + 4, client.start + HEADER_BYTES);
    const version = VERSIONS.get(header.join(","));
    if (version === undefined) return { bad: "no AMQP version", application: "amqp" };
    const evidence = { application: "amqp", serverName: undefined, version };
    if (header[0] !== TLS_ID) return evidence;
    // A server that has no TLS answers with another header and closes.
    if (sizeOf(server) < HEADER_BYTES) {
      if (!server.closed && sizeOf(client) === HEADER_BYTES)
        return { need: HEADER_BYTES, of: "server", release: true, application: "amqp" };
      if (!server.closed) return { ...evidence, evasion: "bytes before the server agreed to TLS" };
    } else if (server.bytes[server.start + 4] !== TLS_ID) return evidence;
    return withUpgrade(evidence, client, HEADER_BYTES);
  },
};

/** A method frame of 0-8 to 0-9-1, in the middle of a connection whose begin was not seen. */
function readFrame(run: Run): Reading {
  const bad = { bad: "neither an AMQP header nor a method frame" };
  const { bytes, start } = run;
  const have = sizeOf(run);
  if (have > 0 && bytes[start] !== METHOD_FRAME) return bad;
  const c = new Cursor(bytes, start + 3, run.end);
  const size = have < FRAME_HEADER_BYTES ? 0 : c.u32();
  if (have >= FRAME_HEADER_BYTES && (size < 4 || size > FRAME_BYTES_MAX)) return bad;
  const classId = c.u16();
  const methodId = c.u16();
  if (have >= FRAME_HEADER_BYTES + 2 && !CLASSES.includes(classId)) return bad;
  if (have >= FRAME_HEADER_BYTES + 4 && (methodId < 10 || methodId > METHOD_MAX)) return bad;
  const whole = FRAME_HEADER_BYTES + size + 1;
  if (have < whole || have < FRAME_HEADER_BYTES + 4) return more(run, Math.max(whole, FRAME_HEADER_BYTES + 4));
  return bytes[start + whole - 1] === FRAME_END ? { application: "amqp", serverName: undefined } : bad;
}
