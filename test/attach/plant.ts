import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { ROOT } from "../support/need.ts";

export interface Planted {
  readonly folder: string;
  readonly cgroup: string;
  readonly proc: string;
  /** `expect UID = pid pid`. */
  readonly expected: ReadonlyMap<string, readonly number[]>;
}

type Context = { after: (end: () => void) => void };

/**
 * Makes the files that a text tree describes, and /proc of its processes: `cgroup/PATH = pid pid` (a file cgroup.procs there;
 * cgroup.controllers is itself), `PATH/` (a folder), `PATH -> TARGET` (a link). Processes are in the namespace net:[1000 +
 * pid], started at pid × 10.
 */
export function plant(t: Context, text: string): Planted {
  const folder = mkdtempSync(join(tmpdir(), "namegate-tree-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const expected = new Map<string, number[]>();
  const planted = { folder, cgroup: join(folder, "cgroup"), proc: join(folder, "proc"), expected };
  mkdirSync(join(planted.proc, "self", "ns"), { recursive: true });
  symlinkSync("net:[1]", join(planted.proc, "self", "ns", "net"));
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const [left = "", right] = line.split(/ = | -> /);
    const pids = (right ?? "")
      .split(" ")
      .filter((word) => /^[1-9][0-9]{0,6}$/.test(word))
      .map(Number);
    if (left.startsWith("expect ")) {
      expected.set(left.slice(7), pids);
      continue;
    }
    const path = join(folder, left);
    mkdirSync(left.endsWith("/") ? path : dirname(path), { recursive: true });
    if (line.includes(" -> ")) symlinkSync(right as string, path);
    else if (left.endsWith("cgroup.controllers")) writeFileSync(path, `${right}\n`);
    else if (right !== undefined) {
      mkdirSync(path, { recursive: true });
      writeFileSync(join(path, "cgroup.procs"), `${right.split(" ").join("\n")}\n`);
      // v1 paths begin below the hierarchy.
      const own = left.replace(/^cgroup/, "").replace(/^\/(systemd|memory|pids|cpu,cpuacct)(?=\/)/, "");
      for (const pid of pids) process(planted.proc, pid, { cgroup: own });
    }
  }
  return planted;
}

export function plantFile(t: Context, name: string): Planted {
  return plant(t, readFileSync(join(ROOT, "test", "attach", "fixtures", `${name}.tree`), "utf8"));
}

export interface FakeProcess {
  readonly cgroup: string;
  readonly start?: number;
  /** Number of its network namespace; null: not to be seen. */
  readonly net?: number | null;
  readonly command?: string;
  readonly state?: string;
}

/** Files of /proc/PID as the kernel writes them; an earlier process of the number is replaced. */
export function process(proc: string, pid: number, fake: FakeProcess): void {
  const folder = join(proc, String(pid));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, "ns"), { recursive: true });
  writeFileSync(join(folder, "stat"), stat(pid, fake));
  writeFileSync(join(folder, "cgroup"), `12:pids:/init.scope\n1:name=systemd:${fake.cgroup}\n0::${fake.cgroup}\n`);
  if (fake.net !== null) symlinkSync(`net:[${fake.net ?? 1000 + pid}]`, join(folder, "ns", "net"));
}

export function stat(pid: number, { command = "pause", state = "S", start = pid * 10 }: Partial<FakeProcess>): string {
  return `${pid} (${command}) ${state} 1 ${pid} ${pid} 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 ${start} 1000 1 18446744073709551615 1 1\n`;
}
