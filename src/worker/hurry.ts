import { readlinkSync } from "node:fs";
import { setPriority } from "node:os";
import { basename } from "node:path";

/** Nice value of this thread: a packet waits for it, and nothing else in the pod network does. */
const NICE = -10;

/** Node has no priorities of threads; Linux has them by thread id (setpriority(2)). Without CAP_SYS_NICE all stays as it is. */
export function hurry(): void {
  try {
    setPriority(Number(basename(readlinkSync("/proc/thread-self"))), NICE);
  } catch {
    // not permitted: slower under load, and not wrong
  }
}
