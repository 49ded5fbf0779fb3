import { createSocket } from "node:dgram";
import { createRequire } from "node:module";
import { Fault, messageOf } from "../base/fault.ts";
import { ipInFrame, LinkType, SLL_BYTES, SllType, type Range } from "./link.ts";

/**
 * Live capture that only watches (Discover, Monitor, audit), through the npm package `pcap`. It can never enforce: what it
 * tells has already happened. It runs in the main thread only (the package is not context aware), as one session on the
 * device `any`: a session per veth would cost its ring each, and dies silently with its interface.
 *
 * The package reports no error at all when its session goes dead, so a canary watches it: a datagram to ourselves on the
 * loopback, let through by the filter. A heartbeat in which neither the canary nor any other packet came reopens the
 * session, with back-off.
 */

const SNAP_BYTES = 1600; // a packet of a usual MTU with its cooked header
const RING_BYTES = 4 * 1024 * 1024;
const RING_BYTES_MIN = 1024 * 1024;
const RING_BYTES_MAX = 10 * 1024 * 1024;
const HEARTBEAT_MS = 10_000;
const BACKOFF_MS = 1_000;
const BACKOFF_MS_MAX = 60_000;
const CANARY = "namegate canary";
const CANARY_PORT = 9; // discard, RFC 863: nobody needs to listen
const CLOSING_MAX = 8; // sessions told to close that still hold their ring

/** `in`: arrived on an interface. `out`: leaves by one. `other`: passes a bridge port. A forwarded packet is seen both ways. */
export type Seen = "in" | "out" | "other";

export interface PassiveOptions {
  /** A pcap-filter(7) expression; empty: everything. */
  readonly filter: string;
  /** An IP packet in bytes[start..end). The buffer is used again for the next one: be done with it before returning. */
  readonly onPacket: (bytes: Uint8Array, start: number, end: number, timeMs: number, seen: Seen) => void;
  /** A sentence about the capture itself: opened, dead, reopened, packets lost. */
  readonly onState: (text: string) => void;
  /** Kernel ring, bytes; resident memory. Clamped to 1..10 MB. */
  readonly ringBytes?: number;
  readonly snapBytes?: number;
  readonly heartbeatMs?: number;
  readonly backoffMs?: number;
  /** Loads the package; tests give their own. */
  readonly load?: () => PcapPackage;
}

export interface PassiveStats {
  readonly packets: number;
  /** Lost in the kernel because the ring was full. */
  readonly dropped: number;
  /** Frames without an IP packet. */
  readonly skipped: number;
  readonly reopened: number;
  readonly open: boolean;
}

export interface Passive {
  close(): void;
  stats(): PassiveStats;
}

/** What is used of the package; its own types are older than its code. */
export interface PcapPackage {
  warningHandler: (text: string) => void;
  createSession(device: string, options: Readonly<Record<string, unknown>>): PcapSession;
}
export interface PcapSession {
  readonly link_type: string;
  on(event: "packet", listener: (packet: { readonly buf: Buffer; readonly header: Buffer }) => void): unknown;
  stats(): { readonly ps_recv: number; readonly ps_drop: number };
  close(): void;
}

const LINK_TYPES: Readonly<Record<string, number>> = {
  LINKTYPE_LINUX_SLL: LinkType.linuxSll,
  LINKTYPE_ETHERNET: LinkType.ethernet,
  LINKTYPE_RAW: LinkType.raw,
};

/**
 * Sessions told to close, which the next packet makes them do. The package stops its poll handle then, but never closes
 * it: a session that is garbage collected leaves a dangling pointer in the event loop, so all of them stay reachable
 * (3 KB each, and the back-off bounds their number).
 */
const closing: PcapSession[] = [];
const closed: PcapSession[] = [];

function loadPackage(): PcapPackage {
  try {
    return createRequire(import.meta.url)("pcap") as PcapPackage;
  } catch (error) {
    throw new Fault(
      "pcap-missing",
      `the live capture needs the npm package pcap, which does not load: ${messageOf(error)}`,
      "in the main thread only: install libpcap-dev, python3, make and g++, then run: npm install pcap && npm rebuild pcap",
      error,
    );
  }
}

/** Opens the capture. Throws a Fault when the package is missing or the first session is refused (filter, privilege). */
export function openPassive(options: PassiveOptions): Passive {
  const { onState } = options;
  const heartbeatMs = options.heartbeatMs ?? HEARTBEAT_MS;
  const pcap = (options.load ?? loadPackage)();
  pcap.warningHandler = (text) => onState(`capture warning: ${text}`);

  let session: PcapSession | undefined;
  let ended = false;
  let packets = 0;
  let skipped = 0;
  let reopened = 0;
  let droppedBefore = 0; // by sessions that are closed
  let droppedSaid = 0;
  let seenAtBeat = 0;
  let anything = 0; // frames of this capture, canaries included
  let canarySent = false;
  let waitMs = options.backoffMs ?? BACKOFF_MS;
  let retry: NodeJS.Timeout | undefined;
  const range: Range = { start: 0, end: 0 };

  function open(): void {
    const canary = `(udp and src host 127.0.0.1 and dst host 127.0.0.1 and dst port ${CANARY_PORT})`;
    const made = pcap.createSession("any", {
      filter: options.filter === "" ? "" : `(${options.filter}) or ${canary}`,
      buffer_size: Math.min(RING_BYTES_MAX, Math.max(RING_BYTES_MIN, options.ringBytes ?? RING_BYTES)),
      snap_length: options.snapBytes ?? SNAP_BYTES,
      buffer_timeout: 0, // immediate mode: 18 µs instead of 81 ms from kernel to us
      promiscuous: false, // `any` refuses it
    });
    const linkType = LINK_TYPES[made.link_type];
    if (linkType === undefined) {
      retire(made);
      throw new Error(`link type ${made.link_type}`);
    }
    made.on("packet", ({ buf, header }) => {
      if (made !== session) return;
      const captured = Math.min(header.readUInt32LE(8), buf.length);
      anything++;
      if (!ipInFrame(linkType, buf, 0, captured, range)) {
        skipped++;
        return;
      }
      if (isCanary(buf, range)) return;
      packets++;
      const timeMs = header.readUInt32LE(0) * 1000 + header.readUInt32LE(4) / 1000;
      options.onPacket(buf, range.start, range.end, timeMs, linkType === LinkType.linuxSll ? seenOf(buf) : "in");
    });
    session = made;
  }

  const dropped = (): number => {
    try {
      return droppedBefore + (session?.stats().ps_drop ?? 0);
    } catch {
      return droppedBefore; // the session is closing
    }
  };

  function leave(): void {
    if (session === undefined) return;
    droppedBefore = dropped();
    const old = session;
    session = undefined;
    retire(old);
  }

  function reopen(why: string): void {
    leave();
    onState(`capture: ${why}; opening it again in ${waitMs} ms`);
    retry = setTimeout(() => {
      retry = undefined;
      if (ended) return;
      waitMs = Math.min(waitMs * 2, BACKOFF_MS_MAX);
      if (countClosing() >= CLOSING_MAX) {
        poke(none);
        reopen(`${CLOSING_MAX} sessions before it wait for a packet to close`);
        return;
      }
      try {
        open();
        reopened++;
        canarySent = false;
        onState("capture: open again");
      } catch (error) {
        reopen(`it cannot be opened: ${messageOf(error)}`);
      }
    }, waitMs);
  }

  /** Runs behind the poll phase, so that frames which waited for a busy event loop have been counted. */
  function beat(): void {
    if (ended || session === undefined) return;
    const lost = dropped();
    if (lost > droppedSaid) onState(`capture: ${lost - droppedSaid} packets lost, the ring was full`);
    droppedSaid = lost;
    if (anything > seenAtBeat) waitMs = options.backoffMs ?? BACKOFF_MS;
    else if (canarySent) {
      reopen("dead, its own canary was not seen");
      return;
    }
    seenAtBeat = anything;
    canarySent = false;
    poke((error) => {
      if (error === undefined) canarySent = true;
      else onState(`capture: cannot be watched, the loopback refuses a datagram: ${error.message}`);
    });
  }

  try {
    open();
  } catch (error) {
    throw new Fault(
      "capture-refused",
      `the live capture does not open: ${messageOf(error)}`,
      "run it with CAP_NET_RAW, and check the filter with: tcpdump -d",
      error,
    );
  }
  onState("capture: open");
  const timer = setInterval(() => setImmediate(beat), heartbeatMs);
  timer.unref();

  return {
    close() {
      if (ended) return;
      ended = true;
      clearInterval(timer);
      clearTimeout(retry);
      leave();
    },
    stats: () => ({ packets, dropped: dropped(), skipped, reopened, open: session !== undefined }),
  };
}

/** `close` only marks a session; the next packet it sees makes it free its ring and stop polling. The canary is one. */
function retire(session: PcapSession): void {
  closing.push(session);
  session.close();
  // Behind the first read, which the package schedules when it opens.
  setImmediate(poke, none);
}

/** How many closing sessions have not ended yet. */
function countClosing(): number {
  for (let i = closing.length - 1; i >= 0; i--) {
    const session = closing[i] as PcapSession;
    try {
      session.stats();
    } catch {
      closing.splice(i, 1); // it throws once the session is gone
      closed.push(session);
    }
  }
  return closing.length;
}

const none = (): void => {};

/** Sends the canary. */
function poke(done: (error: Error | undefined) => void): void {
  const socket = createSocket("udp4");
  socket.on("error", none);
  socket.send(CANARY, CANARY_PORT, "127.0.0.1", (error) => {
    socket.close();
    done(error ?? undefined);
  });
}

function seenOf(frame: Uint8Array): Seen {
  const type = frame[1];
  return type === SllType.outgoing ? "out" : type === SllType.otherHost ? "other" : "in";
}

const canaryBytes = Buffer.from(CANARY);
const CANARY_PACKET_BYTES = 20 + 8 + canaryBytes.length;

function isCanary(frame: Buffer, range: Range): boolean {
  if (range.end - range.start !== CANARY_PACKET_BYTES || range.start < SLL_BYTES) return false;
  return frame.compare(canaryBytes, 0, canaryBytes.length, range.end - canaryBytes.length, range.end) === 0;
}
