import type { NetlinkSocket } from "../base/addon.ts";
import type { Ip } from "../base/address.ts";
import { Attr, Command, type Element, IPSET_PROTOCOL, NET, encodable, validComment, validSetName, writeElement } from "./ipset-wire.ts";
import { readFailedLine } from "./ipset-read.ts";
import { AF_INET, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, sequences, Writer } from "../base/netlink.ts";
import { exchange, REPLY_BYTES, SEND_BYTES_MAX, SEND_MESSAGES_MAX } from "../base/netlink-exchange.ts";
import { type BatchFailure, type BatchResult, judge, type Lane, type Part, startOf } from "./ipset-parts.ts";

/** Elements waiting in one batch. */
export const BATCH_ELEMENTS_MAX = 65_536;
/** Sets one batch writes to. */
const BATCH_SETS_MAX = 64;
const MESSAGE_ELEMENTS_MAX = 128;
/** A failed message comes back whole, so it is kept well below the socket buffers. */
const MESSAGE_ELEMENT_BYTES_MAX = 12 * 1024;

const NO_FAILURES: readonly BatchFailure[] = [];

/**
 * Collects adds and deletes for several sets and gives them to the kernel in as few messages as it can. Add means
 * "have it, with these values" and delete "do not have it" (the ipset tool's -exist), so a commit may be repeated.
 * The order is kept per set, not between sets.
 *
 * The kernel stops at the first element of a message that it refuses: those before it are in, those behind it were not
 * looked at. So what is behind is sent again, one by one, and each element gets an answer of its own.
 */
export class IpsetBatch {
  private readonly lanes = new Map<string, Lane>();
  private readonly request = new Writer(SEND_BYTES_MAX);
  private readonly reply = Buffer.alloc(REPLY_BYTES);
  private waiting = 0;

  /** Elements waiting. */
  get count(): number {
    return this.waiting;
  }

  /** The element's index in this batch; -1 when it cannot be encoded, or the batch is full. */
  add(set: string, element: Element): number {
    return this.put(set, true, element);
  }

  /** As `add`. What is no part of the key (timeout, mark, comment) may be left out. */
  del(set: string, element: Element): number {
    return this.put(set, false, element);
  }

  /**
   * A hash:ip,port,ip element without an object: `timeout` in seconds (-1: the set's default), `markMask` 0 for no
   * skbmark, `comment` "" for none, `zero` as in Element. Returns as `add`.
   */
  addIpPortIp(
    set: string,
    address: Ip,
    protocol: number,
    port: number,
    address2: Ip,
    timeout: number,
    mark: number,
    markMask: number,
    comment: string,
    zero = false,
  ): number {
    if (comment !== "" && !validComment(comment)) return -1;
    const lane = this.lane(set);
    if (lane === undefined) return -1;
    writeElement(
      lane.writer,
      this.waiting + 1,
      address,
      -1,
      protocol,
      port,
      address2,
      -1,
      "",
      false,
      timeout,
      mark,
      markMask,
      comment,
      zero,
    );
    return this.written(lane, true);
  }

  delIpPortIp(set: string, address: Ip, protocol: number, port: number, address2: Ip): number {
    const lane = this.lane(set);
    if (lane === undefined) return -1;
    writeElement(lane.writer, this.waiting + 1, address, -1, protocol, port, address2, -1, "", false, -1, 0, 0, "", false);
    return this.written(lane, false);
  }

  /** Forgets what waits. */
  clear(): void {
    for (const lane of this.lanes.values()) {
      lane.writer.reset();
      lane.ends.length = 0;
      lane.adds.length = 0;
      lane.indexes.length = 0;
      lane.planned = 0;
    }
    this.waiting = 0;
  }

  /**
   * Sends everything, waits for every answer, and empties the batch. Never throws. The socket must have no dump under
   * way. After a failed call ("no-answer") nothing more is sent, and the elements it leaves in doubt are failures.
   */
  commit(socket: NetlinkSocket): BatchResult {
    const total = this.waiting;
    const failures: BatchFailure[] = [];
    let broken: string | undefined;
    for (let parts = this.plan(); parts.length > 0; parts = this.plan()) {
      broken ??= this.send(socket, parts);
      const again = judge(parts, broken, failures);
      if (again.length === 0) continue;
      broken ??= this.send(socket, again);
      judge(again, broken, failures);
    }
    this.clear();
    return { applied: total - failures.length, failures: failures.length === 0 ? NO_FAILURES : failures };
  }

  private put(set: string, add: boolean, element: Element): number {
    if (!encodable(element)) return -1;
    const lane = this.lane(set);
    if (lane === undefined) return -1;
    writeElement(
      lane.writer,
      this.waiting + 1,
      element.address,
      element.bits ?? -1,
      element.protocol ?? -1,
      element.port ?? 0,
      element.address2 ?? "",
      element.bits2 ?? -1,
      element.iface ?? "",
      element.wildcard === true,
      element.timeout ?? -1,
      element.mark ?? 0,
      element.markMask ?? 0,
      element.comment ?? "",
      element.zero === true,
    );
    return this.written(lane, add);
  }

  private lane(set: string): Lane | undefined {
    if (this.waiting >= BATCH_ELEMENTS_MAX) return undefined;
    let lane = this.lanes.get(set);
    if (lane === undefined && this.lanes.size < BATCH_SETS_MAX && validSetName(set)) {
      lane = { set, writer: new Writer(), ends: [], adds: [], indexes: [], planned: 0 };
      this.lanes.set(set, lane);
    }
    return lane;
  }

  private written(lane: Lane, add: boolean): number {
    lane.ends.push(lane.writer.at);
    lane.adds.push(add);
    lane.indexes.push(this.waiting);
    return this.waiting++;
  }

  /** The next messages: of each lane its next run of one command, so that an add and a delete of a set never travel together. */
  private plan(): Part[] {
    const parts: Part[] = [];
    for (const lane of this.lanes.values()) {
      const { ends, adds } = lane;
      let at = lane.planned;
      const command = adds[at];
      while (at < ends.length && adds[at] === command) {
        const from = at;
        const start = startOf(lane, from);
        do at++;
        while (
          at < ends.length &&
          adds[at] === command &&
          at - from < MESSAGE_ELEMENTS_MAX &&
          (ends[at] as number) - start <= MESSAGE_ELEMENT_BYTES_MAX
        );
        parts.push({ lane, from, to: at, error: -1, line: 0 });
      }
      lane.planned = at;
    }
    return parts;
  }

  /** Sends the parts, several messages in one call, and notes each answer in its part. Returns why it could not. */
  private send(socket: NetlinkSocket, parts: readonly Part[]): string | undefined {
    const { request } = this;
    for (let at = 0; at < parts.length; ) {
      const first = sequences(SEND_MESSAGES_MAX);
      const from = at;
      request.reset();
      do this.encode(parts[at] as Part, first + at++ - from);
      while (at < parts.length && at - from < SEND_MESSAGES_MAX && request.at <= SEND_BYTES_MAX - MESSAGE_ELEMENT_BYTES_MAX);
      const reason = exchange(socket, request.bytes, request.at, first, at - from, this.reply, (message) => {
        const part = parts[from + message.seq - first];
        if (message.type !== NLMSG_ERROR || part === undefined) return;
        part.error = message.error;
        part.line = message.error === 0 ? 0 : readFailedLine(message);
      });
      if (reason !== undefined) return reason;
    }
    return undefined;
  }

  private encode(part: Part, seq: number): void {
    const { request } = this;
    const { lane, from, to } = part;
    const message = request.begin(lane.adds[from] === true ? Command.add : Command.del, NLM_F_REQUEST | NLM_F_ACK, seq, AF_INET);
    request.attrU8(Attr.protocol, IPSET_PROTOCOL);
    request.attrText(Attr.setName, lane.set);
    request.attrU32(Attr.lineNumber | NET, 0);
    const elements = request.open(Attr.adt);
    request.copy(lane.writer, startOf(lane, from), lane.ends[to - 1] as number);
    request.close(elements);
    request.end(message);
  }
}
