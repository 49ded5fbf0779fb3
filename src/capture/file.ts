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
  let source: Frames | undefined;
  const record: CaptureRecord = { time: 0, bytes, start: 0, end: 0 };
  // A generator would cost as much a packet as decoding it.
  function packets(): Iterator<CaptureRecord, undefined> {
    const from = (source = framesOf(bytes));
    const found: IteratorYieldResult<CaptureRecord> = { done: false, value: record };
    return {
      next() {
        for (;;) {
          const frame = from.next();
          if (frame === undefined) return { done: true, value: undefined };
          frames++;
          record.time = frame.time;
          if (ipInFrame(frame.linkType, bytes, frame.start, frame.end, record)) return found;
          skipped++;
        }
      },
    };
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
      return source?.fault;
    },
  };
}

/** The frames of a file, in a reused object; undefined at the end, and where `fault` says why it ends early. */
interface Frames {
  next(): Frame | undefined;
  readonly fault: Fault | undefined;
}

function framesOf(bytes: Uint8Array): Frames {
  const magic = new Cursor(bytes).u32();
  switch (magic) {
    case 0xa1b2c3d4:
      return new PcapFrames(bytes, false, 1e3);
    case 0xd4c3b2a1:
      return new PcapFrames(bytes, true, 1e3);
    case 0xa1b23c4d:
      return new PcapFrames(bytes, false, 1e6);
    case 0x4d3cb2a1:
      return new PcapFrames(bytes, true, 1e6);
    case SECTION:
      return new PcapngFrames(bytes);
    default:
      return { next: () => undefined, fault: FORMAT };
  }
}

const FORMAT = new Fault(
  "capture-format",
  "this is neither a pcap nor a pcapng file",
  "give a capture as tcpdump or Wireshark writes it, not compressed",
);
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
interface Reader {
  u16(): number;
  u32(): number;
}

function reader(c: Cursor, little: boolean): Reader {
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

const PCAP_HEADER_BYTES = 24;
const PCAP_RECORD_BYTES = 16;

class PcapFrames implements Frames {
  fault: Fault | undefined;
  readonly #view: DataView;
  readonly #little: boolean;
  readonly #unitsPerMs: number;
  readonly #frame: Frame = { time: 0, linkType: 0, start: 0, end: 0 };
  #at = PCAP_HEADER_BYTES;

  constructor(bytes: Uint8Array, little: boolean, unitsPerMs: number) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#little = little;
    this.#unitsPerMs = unitsPerMs;
    if (bytes.length < PCAP_HEADER_BYTES) this.fault = cut(0);
    else this.#frame.linkType = this.#view.getUint32(20, little) & 0x03ffffff; // the bits above describe a frame check sequence
  }

  next(): Frame | undefined {
    const at = this.#at;
    const left = this.#view.byteLength - at;
    if (left === 0 || this.fault !== undefined) return undefined;
    if (left < PCAP_RECORD_BYTES) return this.#stop(cut(at));
    const captured = this.#view.getUint32(at + 8, this.#little);
    if (captured > FRAME_BYTES_MAX) return this.#stop(corrupt(at, `a frame of ${captured} bytes`));
    if (left - PCAP_RECORD_BYTES < captured) return this.#stop(cut(at));
    const frame = this.#frame;
    frame.time = this.#view.getUint32(at, this.#little) * 1000 + this.#view.getUint32(at + 4, this.#little) / this.#unitsPerMs;
    frame.start = at + PCAP_RECORD_BYTES;
    frame.end = this.#at = frame.start + captured;
    return frame;
  }

  #stop(fault: Fault): undefined {
    this.fault = fault;
  }
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

class PcapngFrames implements Frames {
  fault: Fault | undefined;
  readonly #bytes: Uint8Array;
  readonly #c: Cursor;
  readonly #frame: Frame = { time: 0, linkType: 0, start: 0, end: 0 };
  #little = false;
  #r: Reader;
  #interfaces: Interface[] = [];

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#c = new Cursor(bytes);
    this.#r = reader(this.#c, false);
  }

  next(): Frame | undefined {
    const c = this.#c;
    while (c.left > 0 && this.fault === undefined) {
      const at = c.at;
      const type = this.#r.u32();
      if (type === SECTION && !this.#startSection(at)) return undefined;
      const length = this.#r.u32();
      if (c.short) return this.#stop(cut(at));
      if (length < 12 || length % 4 !== 0 || length > BLOCK_BYTES_MAX) return this.#stop(corrupt(at, `a block of ${length} bytes`));
      if (length > this.#bytes.length - at) return this.#stop(cut(at));
      const bodyEnd = at + length - 4;
      c.end = bodyEnd;
      let found = this.#readBody(type);
      if (typeof found !== "string" && c.short) found = "a block shorter than its content";
      c.reset(this.#bytes, bodyEnd, this.#bytes.length);
      if (typeof found !== "string" && this.#r.u32() !== length) found = "the two lengths of a block differ";
      if (typeof found === "string") return this.#stop(corrupt(at, found));
      if (found) return this.#frame;
    }
    return undefined;
  }

  #stop(fault: Fault): undefined {
    this.fault = fault;
  }

  /** Reads the byte order behind the type and the length of a section block, and goes back to the length. */
  #startSection(at: number): boolean {
    const c = this.#c;
    c.skip(4);
    const order = c.u32();
    if (c.short) this.fault = cut(at);
    else if (order !== 0x1a2b3c4d && order !== 0x4d3c2b1a) this.fault = corrupt(at, "no byte order mark");
    this.#little = order === 0x4d3c2b1a;
    this.#r = reader(c, this.#little);
    this.#interfaces = [];
    c.reset(this.#bytes, at, this.#bytes.length);
    c.skip(4);
    return this.fault === undefined;
  }

  /** true: the block is a packet, now in #frame. A text: what is wrong. */
  #readBody(type: number): boolean | string {
    const c = this.#c;
    const r = this.#r;
    const frame = this.#frame;
    switch (type) {
      case Block.interface:
        if (this.#interfaces.length === INTERFACES_MAX) return `more than ${INTERFACES_MAX} interfaces`;
        this.#interfaces.push(readInterface(c, r, this.#little));
        return false;
      case Block.enhancedPacket:
      case Block.oldPacket: {
        const from = this.#interfaces[type === Block.enhancedPacket ? r.u32() : r.u16()];
        if (type === Block.oldPacket) c.skip(2); // drops
        const high = r.u32();
        const low = r.u32();
        const captured = r.u32();
        c.skip(4);
        if (from === undefined) return "a packet of an interface that was not described";
        if (captured > FRAME_BYTES_MAX) return `a frame of ${captured} bytes`;
        frame.time = (high * 2 ** 32 + low) / from.unitsPerMs + from.offsetMs;
        frame.linkType = from.linkType;
        frame.start = c.at;
        c.skip(captured);
        frame.end = c.at;
        return true;
      }
      case Block.simplePacket: {
        const from = this.#interfaces[0];
        const original = r.u32();
        if (from === undefined) return "a packet before any interface";
        frame.linkType = from.linkType; // it has no time: the packet before it is the best guess
        frame.start = c.at;
        frame.end = c.at + Math.min(original, c.left, from.snapLength === 0 ? FRAME_BYTES_MAX : from.snapLength);
        return true;
      }
      default: // names, statistics, secrets, custom blocks
        return false;
    }
  }
}

/** The body of an interface description block; options that do not fit end the reading of options. */
function readInterface(c: Cursor, r: Reader, little: boolean): Interface {
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
