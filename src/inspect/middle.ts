import { Protocol } from "../model/packet.ts";
import { type FirstBytes, NO_BYTES, type Reading, type Run } from "./inspector.ts";
import { inspectFirst } from "./registry.ts";

/**
 * Recordings that begin in the middle of a connection: the first bytes of a side may be the rest of a message, and who is the
 * client is a guess. What one side alone, or the sides the other way round, show beyond doubt is still what is spoken; so is a
 * request of HTTP/2 behind a preface that was not seen. Nothing is judged by it: to a live connection all of these are wrong.
 */
export function readFromTheMiddle({ transport, client, server }: FirstBytes): Reading | undefined {
  const none: Run = { ...NO_BYTES, closed: true };
  for (const first of [
    { transport, client: none, server },
    { transport, client, server: none },
    { transport, client: server, server: client },
  ]) {
    const reading = inspectFirst(undefined, first);
    if (!("need" in reading) && reading.application !== undefined) return reading;
  }
  return transport === Protocol.TCP ? readCall(client) : undefined;
}

/** RFC 9113 §3.4: the preface and SETTINGS without a value. */
const HTTP2_BEGIN = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");
const HEADERS = 1; // RFC 9113 §6.2
const FRAME_HEADER_BYTES = 9;

/** A whole request that needs nothing of the header table. */
function readCall({ bytes, start, end }: Run): Reading | undefined {
  if (end - start < FRAME_HEADER_BYTES || bytes[start + 3] !== HEADERS) return undefined;
  const whole = Buffer.concat([HTTP2_BEGIN, bytes.subarray(start, end)]);
  const client: Run = { bytes: whole, start: 0, end: whole.length, ends: [], closed: true };
  const reading = inspectFirst("http", { transport: Protocol.TCP, client, server: NO_BYTES });
  return "need" in reading || "bad" in reading || reading.fields?.path === undefined ? undefined : reading;
}
