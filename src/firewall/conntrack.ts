import type { NetlinkSocket } from "../base/addon.ts";
import type { Ip } from "../base/address.ts";
import { type ConntrackEntry, type FlowTuple, newEntry } from "./conntrack-entry.ts";
import { readEntry } from "./conntrack-read.ts";
import { Command, Cta, familyNumber, writeClosed, writeSourceFilter, writeTuple } from "./conntrack-wire.ts";
import { Protocol } from "../model/packet.ts";
import { AF_UNSPEC, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR, sequences, Writer } from "../base/netlink.ts";
import { codeOf, exchange, receiveDump, REPLY_BYTES, SEND_BYTES_MAX, SEND_MESSAGES_MAX } from "../base/netlink-exchange.ts";
import { newMessage } from "../base/netlink-read.ts";
import { errnoRefusal, noAnswer, type Refusal } from "./refusal.ts";

export { type ConntrackEntry, type FlowTuple, Status } from "./conntrack-entry.ts";
export type { Refusal } from "./refusal.ts";

/** Changes waiting in one batch. */
export const CHANGES_MAX = 65_536;
/** One change in bytes: two headers, an IPv6 tuple, mark, mask, zone, state, time or id; rounded up. */
const CHANGE_BYTES_MAX = 192;
/** A connection that is over is remembered for so long without a packet; after its next one the kernel's own 10 s count. */
const CLOSED_SECONDS = 120;

/** Which entries a dump is about; what is absent does not matter. */
export interface ConntrackFilter {
  /** Entries with (mark & markMask) === mark. */
  readonly mark?: number;
  readonly markMask?: number;
  /** The original source. */
  readonly source?: Ip;
}

/**
 * Reads the conntrack table a piece at a time (one receive), so that the caller can do other work in between. The socket
 * is the dump's own until it has ended. The kernel filters where it can; what it lets through is filtered here again.
 * Connections that come and go meanwhile may be seen or not; one may be seen twice.
 */
export class ConntrackDump {
  /** Why the dump failed. */
  refusal: Refusal | undefined;
  /** Entries handed out. */
  count = 0;
  private readonly socket: NetlinkSocket;
  private readonly request = new Writer(256);
  private readonly reply = Buffer.alloc(REPLY_BYTES);
  private readonly message = newMessage();
  private readonly entry = newEntry();
  private filter: ConntrackFilter = {};
  /** Does the kernel take our filter? Assumed until it says no. */
  private kernelFilters = true;
  private seq = 0;
  private state: "more" | "done" | "failed" = "done";

  constructor(socket: NetlinkSocket) {
    this.socket = socket;
  }

  /** False when a dump is under way, or when the request cannot be sent (see `refusal`). */
  start(filter: ConntrackFilter = {}): boolean {
    if (this.state === "more") return false;
    this.refusal = undefined;
    this.count = 0;
    this.filter = filter;
    return this.ask();
  }

  private ask(): boolean {
    const { request } = this;
    const { mark, markMask, source } = this.filter;
    this.seq = sequences(1);
    request.reset();
    const message = request.begin(
      Command.get,
      NLM_F_REQUEST | NLM_F_DUMP,
      this.seq,
      source === undefined ? AF_UNSPEC : familyNumber(source),
    );
    if (this.kernelFilters) {
      // The kernel's IPv6 comparison is inverted (ctnetlink_filter_match_tuple, seen on 6.18): it leaves out what matches.
      if (source !== undefined && source.length === 4) writeSourceFilter(request, source);
      if (mark !== undefined) {
        request.attrU32(Cta.mark, mark);
        request.attrU32(Cta.markMask, markMask ?? 0xffffffff);
      }
    }
    request.end(message);
    try {
      this.socket.send(request.bytes, request.at);
    } catch (error) {
      this.refusal = noAnswer(codeOf(error));
      this.state = "failed";
      return false;
    }
    this.state = "more";
    return true;
  }

  /** One receive. `onEntry` gets one and the same object each time; it must not use this dump's socket. */
  next(onEntry: (entry: ConntrackEntry) => void): "more" | "done" | "failed" {
    if (this.state !== "more") return this.state;
    const { entry } = this;
    const step = receiveDump(this.socket, this.seq, this.reply, this.message, (message) => {
      if (message.type !== Command.set || !readEntry(message, entry) || !this.wanted(entry)) return;
      this.count++;
      onEntry(entry);
    });
    if (
      step.state === "failed" &&
      step.error !== 0 &&
      this.kernelFilters &&
      this.count === 0 &&
      (this.filter.mark !== undefined || this.filter.source !== undefined)
    ) {
      this.kernelFilters = false;
      return this.ask() ? "more" : this.state;
    }
    if (step.state === "failed") this.refusal = step.error === 0 ? noAnswer(step.reason) : errnoRefusal(step.error);
    this.state = step.state;
    return step.state;
  }

  private wanted(entry: ConntrackEntry): boolean {
    const { mark, markMask, source } = this.filter;
    if (source !== undefined && entry.origSource !== source) return false;
    return mark === undefined || (entry.mark & (markMask ?? 0xffffffff)) >>> 0 === mark >>> 0;
  }
}

export interface ConntrackFailure {
  /** What `setMark` or `remove` returned for it. */
  readonly index: number;
  readonly refusal: Refusal;
}

export interface ConntrackResult {
  readonly applied: number;
  /** Entries that were not there any more: nothing to do, no failure. */
  readonly gone: number;
  readonly failures: readonly ConntrackFailure[];
}

/** Collects changes of conntrack entries and gives them to the kernel, many in one call. */
export class ConntrackBatch {
  private readonly writer = new Writer();
  private readonly ends: number[] = [];
  private readonly reply = Buffer.alloc(REPLY_BYTES);

  get count(): number {
    return this.ends.length;
  }

  /**
   * Sets the bits of the entry's mark under `mask` to `mark`; its other bits stay, and no entry is made. The kernel
   * computes (old & ~mask) ^ mark, so a bit of `mark` outside `mask` would flip: it is cut off. Returns the index in this
   * batch; -1: the batch is full.
   */
  setMark(tuple: FlowTuple, mark: number, mask: number): number {
    return this.set(tuple, mark, mask, false);
  }

  /**
   * As `setMark`, and the TCP connection is over for conntrack: a SYN with the same ports begins another, with no mark
   * (nf_conntrack_proto_tcp.c does so in state CLOSE), and the entry lasts for minutes, not days.
   */
  end(tuple: FlowTuple, mark: number, mask: number): number {
    return this.set(tuple, mark, mask, tuple.protocol === Protocol.TCP);
  }

  private set(tuple: FlowTuple, mark: number, mask: number, close: boolean): number {
    if (this.ends.length >= CHANGES_MAX) return -1;
    const { writer } = this;
    const message = writer.begin(Command.set, NLM_F_REQUEST | NLM_F_ACK, 0, familyNumber(tuple.origSource));
    writeTuple(writer, tuple);
    writer.attrU32(Cta.mark, (mark & mask) >>> 0);
    writer.attrU32(Cta.markMask, mask);
    if (close) writeClosed(writer, CLOSED_SECONDS);
    writer.end(message);
    return this.ends.push(writer.at) - 1;
  }

  /** Forgets the entry; with `id` (not 0) only while it is still the same one. Returns as `setMark`. */
  remove(tuple: FlowTuple, id = 0): number {
    if (this.ends.length >= CHANGES_MAX) return -1;
    const { writer } = this;
    const message = writer.begin(Command.delete, NLM_F_REQUEST | NLM_F_ACK, 0, familyNumber(tuple.origSource));
    writeTuple(writer, tuple);
    if (id !== 0) writer.attrU32(Cta.id, id);
    writer.end(message);
    return this.ends.push(writer.at) - 1;
  }

  clear(): void {
    this.writer.reset();
    this.ends.length = 0;
  }

  /** Sends everything, waits for every answer, and empties the batch. Never throws. The socket must have no dump under way. */
  commit(socket: NetlinkSocket): ConntrackResult {
    const { ends, writer } = this;
    const failures: ConntrackFailure[] = [];
    let applied = 0;
    let gone = 0;
    let reason: string | undefined;
    for (let from = 0; from < ends.length; ) {
      const start = from === 0 ? 0 : (ends[from - 1] as number);
      const first = sequences(SEND_MESSAGES_MAX);
      let to = from;
      for (let at = start; to < ends.length && to - from < SEND_MESSAGES_MAX && at - start <= SEND_BYTES_MAX - CHANGE_BYTES_MAX; to++) {
        writer.bytes.writeUInt32LE(first + to - from, at + 8);
        at = ends[to] as number;
      }
      const answered = new Array<boolean>(to - from).fill(false);
      const base = from;
      reason ??= exchange(
        socket,
        writer.bytes.subarray(start),
        (ends[to - 1] as number) - start,
        first,
        to - from,
        this.reply,
        (message) => {
          const index = base + message.seq - first;
          if (message.type !== NLMSG_ERROR || index >= to) return;
          answered[index - base] = true;
          if (message.error === 0) applied++;
          else if (errnoRefusal(message.error).code === "absent") gone++;
          else failures.push({ index, refusal: errnoRefusal(message.error) });
        },
      );
      for (let i = from; i < to; i++)
        if (answered[i - from] !== true) failures.push({ index: i, refusal: noAnswer(reason ?? "none came") });
      from = to;
    }
    this.clear();
    return { applied, gone, failures };
  }
}
