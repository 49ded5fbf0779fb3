import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** A collection takes some 100 ms of the thread: one percent of the time at most. */
const EVERY_MS = 10_000;
const GROWTH_BYTES = 12 * 1024 * 1024;
/** Asking V8 for the heap's size costs more than all else that a quiet second has. */
const LOOK_MS = 5000;

/**
 * A whole garbage collection of this thread, now, that moves what is left together: some 100 ms for 30 MB. A start leaves garbage that
 * nothing collects while little is allocated, in between what stays, so that its pages stay resident for days. Node has no other door
 * to it at run time.
 */
export function collect(): void {
  setFlagsFromString("--expose-gc");
  const gc: unknown = runInNewContext("gc");
  if (typeof gc !== "function") return;
  setFlagsFromString("--compact-on-every-full-gc"); // else only pages that are nearly empty are given up
  gc();
  setFlagsFromString("--no-compact-on-every-full-gc");
  gc(); // gives back the pages that the first one emptied
}

/**
 * Call it now and then: it collects when the heap of this thread has grown by so much since the last time. V8 itself waits until it has
 * doubled and more, for somebody else's memory is nothing to it: with pods that come and go, 30 MB.
 */
export function heapTrimmer(
  used: () => number = () => getHeapStatistics().used_heap_size,
  run: () => void = collect,
): (nowMs: number) => void {
  let base = used();
  let nextMs = Number.NEGATIVE_INFINITY;
  return (nowMs) => {
    if (nowMs < nextMs) return;
    nextMs = nowMs + LOOK_MS;
    const size = used();
    // What V8 has collected by itself counts as well.
    base = Math.min(base, size);
    if (size - base < GROWTH_BYTES) return;
    run();
    base = used();
    nextMs = nowMs + EVERY_MS;
  };
}
