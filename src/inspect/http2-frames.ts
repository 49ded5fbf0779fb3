import { Cursor, type Bad, type Need } from "../base/cursor.ts";

/**
 * The client's side of an HTTP/2 connection (RFC 9113) up to its first request: preface, SETTINGS, other frames of the
 * connection, HEADERS with its CONTINUATIONs. What a server must answer with a connection error is `bad`.
 */
export interface FirstRequest {
  /** The header block: HPACK, of one stream. */
  readonly block: Uint8Array;
}
/** `waits`: whole frames that a client may send and then wait for the server's SETTINGS. */
export interface NeedFrames extends Need {
  readonly waits: boolean;
  /** The preface and SETTINGS are there: nothing but HTTP/2. */
  readonly certain: boolean;
}
export interface BadFrames extends Bad {
  readonly application?: "http2";
}

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"; // §3.4
const FRAME_HEADER_BYTES = 9;
const PAYLOAD_BYTES_MAX = 16_384; // §4.2: SETTINGS_MAX_FRAME_SIZE unless the server allows more
const SETTING_BYTES = 6;
const FRAMES_MAX = 64; // before and of the first request; browsers send up to ten
const BLOCK_BYTES_MAX = 65_536; // of the header block
const BYTES_MAX = 131_072; // of all that

const Type = { data: 0, headers: 1, priority: 2, settings: 4, ping: 6, goaway: 7, windowUpdate: 8, continuation: 9 } as const;
const Flag = { ack: 1, endHeaders: 4, padded: 8, priority: 0x20 } as const;

interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Uint8Array;
}

/** `need` counts from `start`. */
export function readFirstRequest(bytes: Uint8Array, start: number, end: number): FirstRequest | NeedFrames | BadFrames {
  const there = Math.min(PREFACE.length, end - start);
  for (let i = 0; i < there; i++) if (bytes[start + i] !== PREFACE.charCodeAt(i)) return { bad: "not the HTTP/2 preface" };
  if (there < PREFACE.length) return { need: PREFACE.length + FRAME_HEADER_BYTES, waits: false, certain: false };
  const c = new Cursor(bytes, start + PREFACE.length, end);
  const parts: Uint8Array[] = [];
  let stream = 0; // of the HEADERS, 0 before it
  let blockBytes = 0;
  let unknown = false;
  for (let frames = 0; ; frames++) {
    const at = c.at - start;
    if (frames === FRAMES_MAX || at > BYTES_MAX) return broken("no request in the first frames");
    const certain = frames > 0;
    // An unknown frame may carry anything: with it nothing goes out before there is a verdict.
    if (c.left < FRAME_HEADER_BYTES)
      return { need: at + FRAME_HEADER_BYTES, waits: c.left === 0 && certain && stream === 0 && !unknown, certain };
    const length = c.u24();
    if (length > PAYLOAD_BYTES_MAX) return broken(`a frame of ${length} bytes`);
    const type = c.u8();
    const flags = c.u8();
    const id = c.u32() & 0x7fff_ffff;
    const wrong = stream > 0 ? badContinuation(type, id, stream) : badFrame(frames, type, flags, id, length);
    if (wrong !== undefined) return broken(wrong);
    if (c.left < length) return { need: at + FRAME_HEADER_BYTES + length, waits: false, certain };
    const frame: Frame = { type, flags, stream: id, payload: c.view(length) };
    if (type !== Type.headers && type !== Type.continuation) {
      unknown ||= type > Type.continuation;
      continue;
    }
    const fragment = type === Type.headers ? fragmentOf(frame) : frame.payload;
    if (fragment === undefined) return broken("padding or priority larger than its frame");
    stream = id;
    parts.push(fragment);
    blockBytes += fragment.length;
    if (blockBytes > BLOCK_BYTES_MAX) return broken(`a header block of more than ${BLOCK_BYTES_MAX} bytes`);
    if ((flags & Flag.endHeaders) !== 0) return { block: parts.length === 1 ? fragment : joined(parts, blockBytes) };
  }
}

const broken = (bad: string): BadFrames => ({ bad, application: "http2" });

/** What can be said against a frame before the first request from its header; §6, §5.5 for unknown types. */
function badFrame(nth: number, type: number, flags: number, stream: number, length: number): string | undefined {
  if (nth === 0 && (type !== Type.settings || (flags & Flag.ack) !== 0)) return "no SETTINGS behind the preface";
  switch (type) {
    case Type.settings:
      if (stream !== 0) return "SETTINGS of a stream";
      return length % SETTING_BYTES !== 0 || ((flags & Flag.ack) !== 0 && length > 0) ? "SETTINGS of a wrong length" : undefined;
    case Type.windowUpdate:
      return length === 4 ? undefined : "a WINDOW_UPDATE of a wrong length";
    case Type.priority:
      return length === 5 && stream !== 0 ? undefined : "a PRIORITY of a wrong length or stream";
    case Type.ping:
      return length === 8 && stream === 0 ? undefined : "a PING of a wrong length or stream";
    case Type.goaway:
      return length >= 8 && stream === 0 ? undefined : "a GOAWAY of a wrong length or stream";
    case Type.headers:
      return (stream & 1) === 1 ? undefined : "HEADERS of a stream that is not the client's";
    default:
      return type > Type.continuation ? undefined : "a frame of a stream that has no HEADERS";
  }
}

/** §6.10: nothing may stand between a header block's frames. */
function badContinuation(type: number, id: number, stream: number): string | undefined {
  return type === Type.continuation && id === stream ? undefined : "another frame inside a header block";
}

/** The header block fragment of HEADERS, without padding and priority (§6.2). */
function fragmentOf({ flags, payload }: Frame): Uint8Array | undefined {
  const padded = (flags & Flag.padded) !== 0;
  const from = (padded ? 1 : 0) + ((flags & Flag.priority) !== 0 ? 5 : 0);
  const to = payload.length - (padded ? (payload[0] ?? 0) : 0);
  return to < from ? undefined : payload.subarray(from, to);
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
