import { Protocol } from "../model/packet.ts";
import { bytesLike, cursorAt, evidenceOf, more, viewField } from "./binary.ts";
import type { Cursor } from "../base/cursor.ts";
import type { Inspector, NotIt, Reading, Run } from "./inspector.ts";
import { sizeOf, isPrintable } from "./parts.ts";

/**
 * Elasticsearch's and OpenSearch's transport between nodes, port 9300 (their sources: TcpHeader, OutboundMessage): `ES`, a length, the id of the
 * request, status bits, the sender's version; then headers and, in a request, the action. A length of -1 is a ping. REST is HTTP.
 */
const MARK = [0x45, 0x53];
const PING_BYTES = 6;
const HEADER_BYTES = 19;
const STATUS_BITS = 0x0f; // response, error, compressed, handshake
const RESPONSE = 1;
const LENGTH_MIN = 13;
const LENGTH_MAX = 0x1fff_ffff; // a third of a node's memory
const HEADERS_BYTES_MAX = 16_384;
const OPENSEARCH = 0x0800_0000; // OpenSearch's versions have this bit turned over
const VERSION_MIN = 1_000_000;
const VERSION_MAX = 99_999_999;
const VERSION_HEADER_SIZE = 7_060_000; // since then the size of the headers stands before them
const RELEASE = 99;
const TRANSPORT_VERSIONS_FROM = 8_500_000; // from 8.9 on: no version any more, but a count
const ITEMS_MAX = 64;
const ACTION_CHARS_MAX = 200;

const not: NotIt = { bad: "no Elasticsearch transport message" };

export const elasticsearchInspector: Inspector = {
  application: "elasticsearch",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client, server }): Reading {
    // A recording of the server alone is certain as well.
    const isServer = client.closed && sizeOf(client) === 0 && sizeOf(server) >= HEADER_BYTES;
    return isServer ? readMessage({ ...server, closed: true }, true) : readMessage(client, false);
  },
};

function readMessage(run: Run, isServer: boolean): Reading {
  if (!bytesLike(run, 0, MARK)) return not;
  if (bytesLike(run, 2, [0xff])) {
    if (!bytesLike(run, 2, [0xff, 0xff, 0xff, 0xff])) return not;
    if (sizeOf(run) >= PING_BYTES) return evidenceOf("elasticsearch", { method: "ping" });
  } else if (sizeOf(run) > 2 && (run.bytes[run.start + 2] as number) > LENGTH_MAX >> 24) return not;
  if (!bytesLike(run, PING_BYTES, [0, 0])) return not; // ids are counted
  if (sizeOf(run) < PING_BYTES) return more(run, PING_BYTES, not);
  const c = cursorAt(run, MARK.length);
  const length = c.u32();
  if (length < LENGTH_MIN || length > LENGTH_MAX) return not;
  c.skip(8);
  const status = c.u8();
  if (!c.short && ((status & ~STATUS_BITS) !== 0 || ((status & RESPONSE) !== 0) !== isServer)) return not;
  const id = c.u32();
  if (c.short) return more(run, HEADER_BYTES, not);
  const plain = (id & OPENSEARCH) !== 0 ? id ^ OPENSEARCH : id;
  if (plain < VERSION_MIN || plain > VERSION_MAX) return not;
  const version = versionText(plain);
  const known = evidenceOf("elasticsearch", {}, version);
  if (isServer) return known;
  const hasSize = plain >= VERSION_HEADER_SIZE || plain !== id;
  const headers = hasSize ? c.u32() : Math.min(length - LENGTH_MIN, HEADERS_BYTES_MAX);
  if (hasSize && c.short) return more(run, HEADER_BYTES + 4, not);
  if (hasSize && headers > length - LENGTH_MIN) return not;
  const end = HEADER_BYTES + (hasSize ? 4 : 0) + Math.min(headers, HEADERS_BYTES_MAX);
  if (sizeOf(run) < end) return more(run, end, known);
  const method = readAction(
    cursorAt({ ...run, end: run.start + end }, HEADER_BYTES + (hasSize ? 4 : 0)),
    plain === id && plain < 8_000_000,
  );
  return evidenceOf("elasticsearch", { method }, version);
}

function versionText(id: number): string | undefined {
  if (id % 100 !== RELEASE || id >= TRANSPORT_VERSIONS_FROM) return undefined;
  return `${Math.trunc(id / 1_000_000)}.${Math.trunc(id / 10_000) % 100}.${Math.trunc(id / 100) % 100}`;
}

/** Request headers, response headers, before 8.0 features, then the action (OpenSearch kept the features). Undefined when it is hidden. */
function readAction(c: Cursor, hasFeatures: boolean): string | undefined {
  for (let count = items(c); count > 0; count--) skipTexts(c, 2);
  for (let count = items(c); count > 0; count--) {
    skipTexts(c, 1);
    skipTexts(c, items(c));
  }
  if (hasFeatures) skipTexts(c, items(c));
  const action = c.view(variable(c));
  return c.short || action.length > ACTION_CHARS_MAX || !isPrintable(action) ? undefined : viewField(action);
}

function items(c: Cursor): number {
  const count = variable(c);
  if (count > ITEMS_MAX) c.short = true;
  return c.short ? 0 : count;
}

function skipTexts(c: Cursor, count: number): void {
  for (let i = 0; i < count && !c.short; i++) c.skip(variable(c));
}

/** A number in groups of seven bits, the lowest first. */
function variable(c: Cursor): number {
  let value = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = c.u8();
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  c.short = true;
  return 0;
}
