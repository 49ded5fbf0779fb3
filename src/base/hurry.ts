import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { setPriority } from "node:os";
import { basename } from "node:path";
import type { Addon } from "./addon.ts";

/** Who goes first where threads wait for a processor. What is not permitted is left: slower under load, and not wrong. */

/** Nice value of the packet thread: before our other threads. Against pods, the share of our cgroup counts, or of our session. */
const NICE = -10;
/** The longest slice that Linux takes, nanoseconds (kernel/sched/syscalls.c). */
const LONG_SLICE = 100_000_000;

/** This thread carries packets. Node has no priorities of threads; Linux has them by thread id (setpriority(2)). */
export function hurry(native: Addon): void {
  allowed(() => {
    const thread = Number(basename(readlinkSync("/proc/thread-self")));
    allowed(() => native.setSlice(thread, 0)); // a new thread has its creator's
    allowed(() => setPriority(thread, NICE));
  });
  allowed(hurrySession);
}

/**
 * Every thread there is, and those that they begin, asks for long slices of time: no less of it, but who waits with a shorter slice
 * goes first (EEVDF, Linux 6.12; before, nothing changes). The engine compiles and collects for milliseconds at a time in threads
 * beside this one; a pod whose reply has just been let through would wait behind them on its processor.
 */
export function giveWay(native: Addon): void {
  allowed(() => {
    for (const thread of readdirSync("/proc/self/task")) allowed(() => native.setSlice(Number(thread), LONG_SLICE));
  });
}

function allowed(change: () => void): void {
  try {
    change();
  } catch {
    // not permitted, no /proc, or the thread has ended
  }
}

/**
 * Where the kernel shares time between sessions (sched(7), autogroup: no container, and no cgroup with a CPU share), a nice value
 * counts within the session only. Ours gets the same: with less, pods that flood keep this thread from emptying the kernel's queues.
 * A session that somebody else leads is left alone.
 */
function hurrySession(): void {
  const [pid, , , , , session] = readFileSync("/proc/self/stat", "utf8")
    .replace(/\(.*\)/, "()")
    .split(" ");
  if (pid === session) writeFileSync("/proc/self/autogroup", String(NICE));
}
