import { readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { setPriority } from "node:os";
import { basename } from "node:path";

/** Nice value of this thread: a packet waits for it, and nothing else in the pod network does. */
const NICE = -10;

/** Node has no priorities of threads; Linux has them by thread id (setpriority(2)). Without CAP_SYS_NICE all stays as it is. */
export function hurry(): void {
  try {
    setPriority(Number(basename(readlinkSync("/proc/thread-self"))), NICE);
    hurrySession();
  } catch {
    // not permitted: slower under load, and not wrong
  }
}

/**
 * Where the kernel shares time between sessions (sched(7), autogroup: no container, and no cgroup with a CPU share), a nice value
 * counts within the session only. Ours gets the same; a session that somebody else leads is left alone.
 */
function hurrySession(): void {
  const [pid, , , , , session] = readFileSync("/proc/self/stat", "utf8")
    .replace(/\(.*\)/, "()")
    .split(" ");
  if (pid === session) writeFileSync("/proc/self/autogroup", String(NICE));
}
