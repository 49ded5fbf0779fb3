import { join } from "node:path";
import { type CgroupUid, podOfProcess } from "./cgroup-path.ts";
import { list, readLinkText, readText } from "./files.ts";

const STAT_BYTES_MAX = 1024;
const CGROUP_BYTES_MAX = 8192;
/** Processes of a node that a scan looks at (kernel.pid_max is 32 768 by default, and threads do not count). */
const SCAN_MAX = 32_768;
/** Processes of one pod that a scan keeps. */
const SCAN_POD_MAX = 24;

export interface Process {
  readonly pid: number;
  /** Clock ticks after boot; with the pid it names a process for good. */
  readonly start: number;
  /** The network namespace, `net:[4026531840]`; undefined where we may not see it (no CAP_SYS_PTRACE). */
  readonly netns: string | undefined;
}

/** Processes by /proc; `proc` is /proc of the node (hostPID), or a test's folder. */
export class Processes {
  private readonly proc: string;
  /** The network namespace that this process is in: the node's, for the agent is a hostNetwork pod. */
  readonly own: string | undefined;

  constructor(proc = "/proc") {
    this.proc = proc;
    this.own = readLinkText(join(proc, "self", "ns", "net"));
  }

  /** undefined: it has gone, or is no process of this pod. */
  look(pid: number, uid: CgroupUid): Process | undefined {
    const start = this.start(pid);
    if (start === undefined || podOfProcess(readText(join(this.proc, String(pid), "cgroup"), CGROUP_BYTES_MAX) ?? "") !== uid)
      return undefined;
    return { pid, start, netns: readLinkText(join(this.proc, String(pid), "ns", "net")) };
  }

  /** Is it still that process, and not another one that got its number? */
  same(process: Process): boolean {
    return this.start(process.pid) === process.start;
  }

  /** Every process that is in some pod's cgroup: slow, for where the cgroup tree of the node is not to be seen. */
  scan(): ReadonlyMap<CgroupUid, readonly number[]> {
    const found = new Map<CgroupUid, number[]>();
    for (const name of list(this.proc, SCAN_MAX, "all")) {
      if (!/^[1-9][0-9]{0,9}$/.test(name)) continue;
      const uid = podOfProcess(readText(join(this.proc, name, "cgroup"), CGROUP_BYTES_MAX) ?? "");
      if (uid === undefined) continue;
      const pids = found.get(uid);
      if (pids === undefined) found.set(uid, [Number(name)]);
      else if (pids.length < SCAN_POD_MAX) pids.push(Number(name));
    }
    return found;
  }

  private start(pid: number): number | undefined {
    return startOf(readText(join(this.proc, String(pid), "stat"), STAT_BYTES_MAX) ?? "");
  }
}

/** Field 22 of /proc/PID/stat (proc(5)); the second one is the command in parentheses, and may hold anything. A dead process has none. */
export function startOf(stat: string): number | undefined {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ", 20);
  const start = Number(fields[19]);
  return fields[0] === "Z" || fields[0] === "X" || fields[19] === undefined || !Number.isSafeInteger(start) ? undefined : start;
}
