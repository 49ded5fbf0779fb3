import { ipsetRefusal, noAnswer, type Refusal } from "./refusal.ts";
import type { Writer } from "../base/netlink.ts";

/** An element that is not as it was to be. */
export interface BatchFailure {
  /** What `add` or `del` returned for it. */
  readonly index: number;
  readonly set: string;
  readonly command: "add" | "del";
  readonly refusal: Refusal;
}

export interface BatchResult {
  readonly applied: number;
  readonly failures: readonly BatchFailure[];
}

/** The elements for one set, encoded, in the order they came. */
export interface Lane {
  readonly set: string;
  readonly writer: Writer;
  /** By position: where the element ends in `writer`, whether it is an add, its index in the batch. */
  readonly ends: number[];
  readonly adds: boolean[];
  readonly indexes: number[];
  /** Positions below this are planned. */
  planned: number;
}

/** Positions from..to of a lane: one message. */
export interface Part {
  readonly lane: Lane;
  readonly from: number;
  readonly to: number;
  /** The answer: errno, 0 for done, -1 for none yet; and the line number of the element to blame, 0 for none. */
  error: number;
  line: number;
}

/** Where the element at `position` starts in the lane's writer. */
export function startOf(lane: Lane, position: number): number {
  return position === 0 ? 0 : (lane.ends[position - 1] as number);
}

/**
 * Reads the answers of `parts` into `failures`. Returns the elements to be sent again, one a part: those behind a
 * refused one, up to the end of what was sent to that set, so that the last word about an element stays the last.
 */
export function judge(parts: readonly Part[], broken: string | undefined, failures: BatchFailure[]): Part[] {
  const again: Part[] = [];
  const resend = new Set<Lane>();
  const fail = (lane: Lane, position: number, refusal: Refusal): void => {
    failures.push({
      index: lane.indexes[position] as number,
      set: lane.set,
      command: lane.adds[position] === true ? "add" : "del",
      refusal,
    });
  };
  for (const { lane, from, to, error, line } of parts) {
    let next = from;
    if (!resend.has(lane)) {
      if (error === 0) continue;
      const refusal = error < 0 ? noAnswer(broken ?? "none came") : ipsetRefusal(error);
      if (error < 0 || to - from === 1 || refusal.code === "no-set") {
        for (let i = from; i < to; i++) fail(lane, i, refusal);
        continue;
      }
      const blamed = lane.indexes.indexOf(line - 1, from);
      if (line > 0 && blamed >= from && blamed < to) {
        fail(lane, blamed, refusal);
        next = blamed + 1;
      }
      resend.add(lane);
    }
    for (let i = next; i < to; i++) {
      if (broken === undefined) again.push({ lane, from: i, to: i + 1, error: -1, line: 0 });
      else fail(lane, i, noAnswer(broken));
    }
  }
  return again;
}
