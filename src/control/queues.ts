import { readFileSync } from "node:fs";
import { Fault } from "../base/fault.ts";
import { QueueOffset } from "../firewall/rules.ts";
import type { EventDraft } from "../model/event.ts";

/** Losses are said when they are seen, and then no more often than this. */
const AGAIN_MS = 10_000;
const PROC = "/proc/self/net/netfilter/nfnetlink_queue";

/** The text of the kernel's list of queues; empty where there is none. */
export function readQueueList(): string {
  try {
    return readFileSync(PROC, "utf8");
  } catch {
    return "";
  }
}

/** An agent that has just been stopped may not be gone yet, milliseconds. */
const LEAVING_MS = 2000;
const LOOK_MS = 100;

/** Queues have one owner each. Throws before anything is touched: the sets are another agent's as well. */
export async function refuseTakenQueues(queueBase: number, list: () => string = readQueueList): Promise<void> {
  const ours = new Set(Object.values(QueueOffset).map((offset) => String(queueBase + offset)));
  const taken = (): string | undefined =>
    list()
      .split("\n")
      .map((line) => line.trim().split(/\s+/)[0] ?? "")
      .find((queue) => ours.has(queue));
  for (let waited = 0; taken() !== undefined && waited < LEAVING_MS; waited += LOOK_MS)
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  const queue = taken();
  if (queue === undefined) return;
  throw new Fault(
    "queue-busy",
    `another process listens on NFQUEUE ${queue}, which is to be ours`,
    "is another agent running on this node? stop it, or choose other queues with --queue-base",
  );
}

/**
 * Packets that the kernel dropped because a queue of ours, or the socket behind it, was full: it alone can count them. A
 * line of its list (nfnetlink_queue.c, seq_show): number, port id, waiting, copy mode, copy range, dropped by the queue,
 * dropped before the socket, last id, 1.
 */
export class QueueWatch {
  /** By name of the queue, since the agent's start. */
  readonly dropped: Record<string, number> = {};
  private readonly last = new Map<string, number>();
  private readonly names: ReadonlyMap<number, string>;
  private readonly emit: (draft: EventDraft) => void;
  private unsaid = 0;
  private saidMs = Number.NEGATIVE_INFINITY;

  constructor(queueBase: number, emit: (draft: EventDraft) => void) {
    this.names = new Map(Object.entries(QueueOffset).map(([name, offset]) => [queueBase + offset, name]));
    this.emit = emit;
    for (const name of this.names.values()) this.dropped[name] = 0;
  }

  /** Packets that wait, by name of the queue: in the kernel's queue, read or not, without a verdict yet. */
  lengths(list: string): Readonly<Record<string, number>> {
    const lengths: Record<string, number> = {};
    for (const line of list.split("\n")) {
      const words = line.trim().split(/\s+/).map(Number);
      const name = this.names.get(words[0] ?? -1);
      const length = words[2] ?? 0;
      if (name !== undefined && Number.isSafeInteger(length)) lengths[name] = length;
    }
    return lengths;
  }

  tick(list: string, nowMs: number): void {
    for (const line of list.split("\n")) {
      const words = line.trim().split(/\s+/).map(Number);
      const name = this.names.get(words[0] ?? -1);
      const count = (words[5] ?? 0) + (words[6] ?? 0);
      if (name === undefined || !Number.isSafeInteger(count)) continue;
      // A queue that was bound again counts from zero.
      const before = this.last.get(name) ?? 0;
      const more = count < before ? count : count - before;
      this.last.set(name, count);
      this.dropped[name] = (this.dropped[name] ?? 0) + more;
      this.unsaid += more;
    }
    if (this.unsaid === 0 || nowMs - this.saidMs < AGAIN_MS) return;
    const where = Object.entries(this.dropped).flatMap(([name, count]) => (count === 0 ? [] : [`${name} ${count}`]));
    this.emit({
      type: "limit",
      verdict: "deny",
      why: "queue-full",
      count: this.unsaid,
      message: `packets came faster than they can be judged; ${this.unsaid} were dropped (in all: ${where.join(", ")})`,
    });
    this.unsaid = 0;
    this.saidMs = nowMs;
  }
}
