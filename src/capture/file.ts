import { Cursor } from "../base/cursor.ts";
import { Fault } from "../base/fault.ts";
import { ipInFrame } from "./link.ts";

/**
 * Capture files, read offline: classic pcap (microseconds or nanoseconds, either byte order) and pcapng (sections,
 * interfaces, enhanced, simple and old packet blocks). The npm package `pcap`, which the live capture uses, opens files
 * as well, but through libpcap: it needs a native build and cannot be had everywhere, while `replay` and `learn` need no
 * privilege and no compiler. Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
 */

const FRAME_BYTES_MAX = 262_144; // libpcap's MAXIMUM_SNAPLEN: more is a broken file
const BLOCK_BYTES_MAX = 16 * 1024 * 1024; // as libpcap limits a pcapng block
const INTERFACES_MAX = 4096; // per pcapng section

/** One IP packet of a capture. The record is reused: copy what is to be kept. `bytes` is the whole file. */
export interface CaptureRecord {
  /** Milliseconds since the epoch, with the fraction the file has. */
  time: number;
  bytes: Uint8Array;
  start: number;
  end: number;
}

/** The IP packets of a file, once. The counters and `fault` are final when the iteration has ended. */
export interface Capture extends Iterable<CaptureRecord> {
  /** Frames read so far. */
  readonly frames: number;
  /** Of these, frames without an IP packet (ARP, an unknown link type, ...). */
  readonly skipped: number;
  /** Why reading stopped before the end of the file; everything before it was given out. */
  readonly fault: Fault | undefined;
}

/** One frame as the container says, before its link layer is read. */
interface Frame {
  time: number;
  linkType: number;
  start: number;
  end: number;
}

/** Never throws: a file that is none, or is cut or corrupt, ends the iteration and sets `fault`. */
export function readCapture(bytes: Uint8Array): Capture {
  let frames = 0;
  let skipped = 0;
  let fault: Fault | undefined;
  const record: CaptureRecord = { time: 0, bytes, start: 0, end: 0 };
  function* packets(): Generator<CaptureRecord, void> {
    const each = framesOf(bytes);
    for (let next = each.next(); ; next = each.next()) {
      if (next.done === true) {
        fault = next.value;
        return;
      }
      frames++;
      const { linkType, start, end, time } = next.value;
      record.time = time;
      if (ipInFrame(linkType, bytes, start, end, record)) yield record;
      else skipped++;
    }
  }
  return {
    [Symbol.iterator]: packets,
    get frames() {
      return frames;
    },
    get skipped() {
      return skipped;
    },
    get fault() {
      return fault;
    },
  };
}

type Frames = Generator<Frame, Fault | undefined>;

function* framesOf(bytes: Uint8Array): Frames {
  const magic = new Cursor(bytes).u32();
  switch (magic) {
    case 0xa1b2c3d4:
      return yield* pcapFrames(bytes, false, 1e3);
    case 0xd4c3b2a1:
      return yield* pcapFrames(bytes, true, 1e3);
    case 0xa1b23c4d:
      return yield* pcapFrames(bytes, false, 1e6);
    case 0x4d3cb2a1:
      return yield* pcapFrames(bytes, true, 1e6);
    case SECTION:
      return yield* pcapngFrames(bytes);
    default:
      return new Fault(
        "capture-format",
        "this is neither a pcap nor a pcapng file",
        "give a capture as tcpdump or Wireshark writes it, not compressed",
      );
  }
}

const cut = (at: number): Fault =>
  new Fault(
    "capture-cut",
    `the capture ends inside the record at byte ${at}; everything before it was read`,
    "capture again, or go on with what was read",
  );
const corrupt = (at: number, what: string): Fault =>
  new Fault(
    "capture-corrupt",
    `the capture is corrupt at byte ${at}: ${what}; everything before it was read`,
    "capture again, or go on with what was read",
  );

/** Numbers of the byte order the file was written in. */
function reader(c: Cursor, little: boolean): { u16(): number; u32(): number } {
  if (!little) return { u16: () => c.u16(), u32: () => c.u32() };
  return {
    u16: () => {
      const v = c.u16();
      return ((v & 255) << 8) | (v >> 8);
    },
    u32: () => {
      const v = c.u32();
      return ((v << 24) | ((v & 0xff00) << 8) | ((v >>> 8) & 0xff00) | (v >>> 24)) >>> 0;
    },
  };
}

function* pcapFrames(bytes: Uint8Array, little: boolean, unitsPerMs: number): Frames {
  const c = new Cursor(bytes);
  const r = reader(c, little);
  c.skip(20);
  const linkType = r.u32() & 0x03ffffff; // the bits above describe a frame check sequence
  if (c.short) return cut(0);
  const frame: Frame = { time: 0, linkType, start: 0, end: 0 };
  while (c.left > 0) {
    const at = c.at;
    const seconds = r.u32();
    const fraction = r.u32();
    const captured = r.u32();
    c.skip(4); // length on the wire
    if (c.short) return cut(at);
    if (captured > FRAME_BYTES_MAX) return corrupt(at, `a frame of ${captured} bytes`);
    frame.time = seconds * 1000 + fraction / unitsPerMs;
    frame.start = c.at;
    c.skip(captured);
    if (c.short) return cut(at);
    frame.end = c.at;
    yield frame;
  }
  return undefined;
}

const SECTION = 0x0a0d0d0a;
const Block = { interface: 1, oldPacket: 2, simplePacket: 3, enhancedPacket: 6 } as const;
const Option = { end: 0, timeResolution: 9, timeOffset: 14 } as const;

interface Interface {
  readonly linkType: number;
  readonly snapLength: number;
  readonly unitsPerMs: number;
  readonly offsetMs: number;
}

function* pcapngFrames(bytes: Uint8Array): Frames {
  const c = new Cursor(bytes);
  let little = false;
  let r = reader(c, little);
  let interfaces: Interface[] = [];
  const frame: Frame = { time: 0, linkType: 0, start: 0, end: 0 };
  while (c.left > 0) {
    const at = c.at;
    const type = r.u32();
    if (type === SECTION) {
      c.skip(4);
      const order = c.u32();
      if (c.short) return cut(at);
      if (order !== 0x1a2b3c4d && order !== 0x4d3c2b1a) return corrupt(at, "no byte order mark");
      little = order === 0x4d3c2b1a;
      r = reader(c, little);
      interfaces = [];
      c.reset(bytes, at, bytes.length);
      c.skip(4);
    }
    const length = r.u32();
    if (c.short) return cut(at);
    if (length < 12 || length % 4 !== 0 || length > BLOCK_BYTES_MAX) return corrupt(at, `a block of ${length} bytes`);
    if (length > bytes.length - at) return cut(at);
    const bodyEnd = at + length - 4;
    let bad: string | undefined;
    let packet = false;
    c.end = bodyEnd;
    switch (type) {
      case Block.interface:
        if (interfaces.length === INTERFACES_MAX) bad = `more than ${INTERFACES_MAX} interfaces`;
        else interfaces.push(readInterface(c, r, little));
        break;
      case Block.enhancedPacket:
      case Block.oldPacket: {
        const from = interfaces[type === Block.enhancedPacket ? r.u32() : r.u16()];
        if (type === Block.oldPacket) c.skip(2); // drops
        const high = r.u32();
        const low = r.u32();
        const captured = r.u32();
        c.skip(4);
        if (from === undefined) bad = "a packet of an interface that was not described";
        else if (captured > FRAME_BYTES_MAX) bad = `a frame of ${captured} bytes`;
        else {
          frame.time = (high * 2 ** 32 + low) / from.unitsPerMs + from.offsetMs;
          frame.linkType = from.linkType;
          frame.start = c.at;
          c.skip(captured);
          frame.end = c.at;
          packet = true;
        }
        break;
      }
      case Block.simplePacket: {
        const from = interfaces[0];
        const original = r.u32();
        if (from === undefined) bad = "a packet before any interface";
        else {
          frame.linkType = from.linkType; // it has no time: the packet before it is the best guess
          frame.start = c.at;
          frame.end = c.at + Math.min(original, c.left, from.snapLength === 0 ? FRAME_BYTES_MAX : from.snapLength);
          packet = true;
        }
        break;
      }
      default: // names, statistics, secrets, custom blocks
        break;
    }
    if (bad === undefined && c.short) bad = "a block shorter than its content";
    c.reset(bytes, bodyEnd, bytes.length);
    if (bad === undefined && r.u32() !== length) bad = "the two lengths of a block differ";
    if (bad !== undefined) return corrupt(at, bad);
    if (packet) yield frame;
  }
  return undefined;
}

/** The body of an interface description block; options that do not fit end the reading of options. */
function readInterface(c: Cursor, r: { u16(): number; u32(): number }, little: boolean): Interface {
  const linkType = r.u16();
  c.skip(2);
  const snapLength = r.u32();
  let unitsPerMs = 1e3; // microseconds where nothing is said
  let offsetMs = 0;
  while (!c.short && c.left >= 4) {
    const code = r.u16();
    const length = r.u16();
    if (code === Option.end || length > c.left) break;
    const value = new Cursor(c.view(length));
    c.skip(Math.min(c.left, (4 - (length % 4)) % 4));
    if (code === Option.timeResolution && length === 1) {
      const resolution = value.u8();
      unitsPerMs = (resolution & 128) !== 0 ? 2 ** (resolution & 127) / 1000 : 10 ** (resolution - 3);
    } else if (code === Option.timeOffset && length === 8) {
      const v = reader(value, little);
      const first = v.u32();
      const second = v.u32();
      const high = little ? second : first;
      offsetMs = ((high | 0) * 2 ** 32 + (little ? first : second)) * 1000;
    }
  }
  return { linkType, snapLength, unitsPerMs, offsetMs };
}
