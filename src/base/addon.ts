import { createRequire } from "node:module";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Fault, messageOf } from "./fault.ts";

/**
 * The native addon (native/): it copies bytes and calls the kernel; it parses and decides nothing. Every call is
 * synchronous. Failing system calls throw an Error with `code` (ENOBUFS, EPERM, ...) and `syscall`; a netlink error
 * *answer* is not an exception, it is bytes for the caller to read.
 */
export interface Addon {
  readonly NetlinkSocket: new (options?: { receiveBuffer?: number; protocol?: number }) => NetlinkSocket;
  readonly PacketQueue: new (options: PacketQueueOptions) => PacketQueue;
  readonly RawSender: new () => RawSender;
  readonly BpfMap: new (options: BpfMapOptions | Pinned) => BpfMap;
  readonly BpfProgram: new (options: BpfProgramOptions | Pinned) => BpfProgram;
  /**
   * The slice of time that a thread asks for, nanoseconds (sched_setattr(2) sched_runtime of SCHED_OTHER, 0.1 to 100 ms; 0: the
   * kernel's own). Its nice value stays. Kernels before 6.12 take it and do nothing. Throws ESRCH, EPERM, ...
   */
  setSlice(thread: number, nanoseconds: number): void;
}

/** `protocol` of a NetlinkSocket (linux/netlink.h). Links, routes and neighbours; ipset, conntrack and nf_tables (the default). */
export const NetlinkProtocol = { route: 0, netfilter: 12 } as const;

/** A netlink request socket. */
export interface NetlinkSocket {
  /**
   * Sends `length` bytes of `request` (one or several nlmsg, each with NLM_F_ACK) in one sendmsg and receives until
   * `acks` NLMSG_ERROR messages have come. They are copied to `reply` one behind the other (without the request they
   * answer; data messages, if the request has some, in between as they came). Returns the bytes written.
   * Throws ETIMEDOUT after 1 s without an answer, EMSGSIZE when `reply` is too small.
   */
  transact(request: Uint8Array, length: number, reply: Uint8Array, acks: number): number;
  /** Sends without waiting: the start of a dump. */
  send(request: Uint8Array, length: number): void;
  /** One recvmsg of a dump into `reply`; returns its bytes. Throws ETIMEDOUT after 1 s; ENOBUFS is thrown too. */
  receive(reply: Uint8Array): number;
  close(): void;
}

/** nfnetlink_queue verdicts as the kernel numbers them. */
export const NfVerdict = { drop: 0, accept: 1, repeat: 4 } as const;
/** Put in `verdicts[2 * i]` by the callback: not now, `settle` comes later. */
export const HOLD = 0xffffffff;

export interface PacketQueueOptions {
  readonly queue: number;
  /** Bytes of each packet copied to us (NFQNL_COPY_PACKET). */
  readonly copyRange: number;
  /** NFQA_CFG_QUEUE_MAXLEN, packets. */
  readonly maxLength: number;
  /** Bytes, SO_RCVBUFFORCE. */
  readonly receiveBuffer: number;
  /** Packets per wake-up, 1..64. */
  readonly batch: number;
  readonly gso: boolean;
  readonly failOpen: boolean;
  /**
   * The native watchdog settles what nobody has settled for this long (and what waits unread for so long because this
   * thread is blocked) with this verdict: NfVerdict.drop or accept. So does close() with all that is held.
   */
  readonly deadlineMs: number;
  readonly deadlineVerdict: number;
}

/** Words of one record in PacketQueue.records. */
export const RecordWord = {
  id: 0,
  mark: 1,
  indev: 2,
  outdev: 3,
  physindev: 4,
  physoutdev: 5,
  /** Where the IP packet starts in PacketQueue.packets. */
  offset: 6,
  /** Bytes copied. */
  length: 7,
  /** Bytes of the packet before the copy range cut it. */
  fullLength: 8,
  /** netfilter hook number << 16 | ethertype. */
  hook: 9,
  /** NFQA_SKB_INFO bits: 1 checksum not ready, 2 GSO, 4 checksum not verified. */
  skbInfo: 10,
  reserved: 11,
} as const;
export const RECORD_WORDS = 12;

export interface PacketQueue {
  /** Bytes of the batch in hand; valid during the callback only. Never transfer its buffer: the queue closes then. */
  readonly packets: Uint8Array;
  /** RECORD_WORDS words a packet. */
  readonly records: Uint32Array;
  /** [verdict, mark] a packet, to be written by the callback; prefilled with deadlineVerdict and 0 before each call. */
  readonly verdicts: Uint32Array;
  /**
   * Starts polling on this thread's event loop. `onBatch(count)` is called with 1..batch packets; when it returns (or
   * throws) everything not HOLD is settled in one sendmsg. `onLost` is called after ENOBUFS, a sequence gap or a failed
   * socket (the queue re-binds itself with back-off, 10 ms to 5 s; ids go on, and those held before are unknown then).
   * Both are called with exceptions caught; a fault of `onBatch` (or a verdict that is none) is told to `onLost`.
   */
  start(
    onBatch: (count: number) => void,
    onLost: (what: "enobufs" | "gap" | "rebind" | "watchdog" | "fault", detail: string) => void,
  ): void;
  /** Settles a held packet; `packet` replaces its bytes (NFQA_PAYLOAD). Unknown ids are ignored and counted. */
  settle(id: number, verdict: number, mark: number, packet?: Uint8Array): void;
  /** Replaces the bytes of packet `index` of the batch in hand when it is settled. */
  replace(index: number, packet: Uint8Array): void;
  /**
   * Settles the batch in hand now, as the end of the callback would; what is left of the callback keeps nobody waiting.
   * Records and packets stay readable until it ends. Throws where a verdict is none.
   */
  release(): void;
  stats(): QueueStats;
  close(): void;
}

export interface QueueStats {
  readonly received: number;
  readonly settled: number;
  /** Holes in the packet ids: lost between kernel and us. */
  readonly gaps: number;
  readonly enobufs: number;
  readonly rebinds: number;
  /** Settled by the watchdog. */
  readonly late: number;
  /** Outstanding now. */
  readonly held: number;
  /** `settle` of an id that was not (or no longer) outstanding. */
  readonly unknown?: number;
  /** Verdicts the kernel answered with an error: it had dropped the packet itself (its interface went away). */
  readonly refused?: number;
}

/** Sends whole IP packets (header included) through the host's routing, with a packet mark. */
export interface RawSender {
  /** The family is the packet's version nibble. Throws EPERM, EINVAL, ... */
  send(packet: Uint8Array, length: number, mark: number): void;
  /** One Ethernet frame, header included, out of the interface with this index (AF_PACKET). Throws EPERM, ENXIO, ENETDOWN, ... */
  frame(index: number, frame: Uint8Array, length: number): void;
  close(): void;
}

/** Opens what is pinned at this path. */
interface Pinned {
  readonly path: string;
}

interface BpfMapOptions {
  /** At most 15 characters are kept. */
  readonly name: string;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly entries: number;
  /** 1: memory for all entries is taken at once, so that none fails for want of it. */
  readonly preallocated: 0 | 1;
}

/** A hash map that programs in the kernel share with us. Keys and values have the map's sizes; E2BIG when it is full. */
export interface BpfMap {
  readonly fd: number;
  /** False: there is no such element; else its value is copied to `value`. */
  get(key: Uint8Array, value: Uint8Array): boolean;
  put(key: Uint8Array, value: Uint8Array): void;
  /** False: there was none. */
  delete(key: Uint8Array): boolean;
  /** The key behind `key` in the kernel's order (without `key`, or when it is gone: the first); false: no more. */
  next(next: Uint8Array, key?: Uint8Array): boolean;
  /** Needs a bpf file system. */
  pin(path: string): void;
  close(): void;
}

interface BpfProgramOptions {
  readonly name: string;
  readonly license: string;
  /** 8 bytes each, map references with their descriptors. */
  readonly instructions: Uint8Array;
}

/** A program for xt_bpf. Loading one that the verifier refuses throws with the verifier's last words. */
export interface BpfProgram {
  /** What it answers for an IP packet; the maps change as with a real one. */
  run(packet: Uint8Array): number;
  pin(path: string): void;
  close(): void;
}

let loaded: Addon | undefined;

/** What the build has made beside the addon; undefined: not built. */
export function builtFile(name: string): string | undefined {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (let i = 0; i < 6; i++, folder = dirname(folder)) {
    const file = join(folder, "native", "build", "Release", name);
    if (existsSync(file)) return file;
  }
  return undefined;
}

/** Loads the addon once per thread. Throws a Fault that says how to build it. */
export function addon(): Addon {
  if (loaded !== undefined) return loaded;
  const file = builtFile("namegate.node");
  if (file === undefined)
    throw new Fault("addon-missing", "the native addon has not been built", "build it: npm run build (needs python3, make and g++)");
  try {
    loaded = createRequire(import.meta.url)(file) as Addon;
    return loaded;
  } catch (error) {
    throw new Fault("addon-broken", `the native addon does not load: ${messageOf(error)}`, "rebuild it: npm run build", error);
  }
}
