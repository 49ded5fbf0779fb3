import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const RUN_NETNS = "/run/netns";
/** `ip netns exec` puts the files of /etc/netns/NAME over those of /etc. */
export const ETC_NETNS = "/etc/netns";
/** namegate-lab-PID-N-…, both in base 36; PID made it. */
const LAB_NAME = /^namegate-lab-([0-9a-z]+)-([0-9a-z]+)-/;

/** Removes namespaces, processes and files of labs whose process is gone. Returns the names of the namespaces. */
export function removeStale(): string[] {
  return removeWhere((name) => {
    const found = LAB_NAME.exec(name);
    return found !== null && !alive(Number.parseInt(found[1] as string, 36));
  });
}

/** The same for one lab. */
export function removeByPrefix(prefix: string): void {
  removeWhere((name) => name.startsWith(prefix));
}

function removeWhere(unwanted: (name: string) => boolean): string[] {
  const spaces = list(RUN_NETNS).filter(unwanted);
  removeSpaces(spaces);
  for (const folder of [ETC_NETNS, tmpdir()]) {
    for (const name of list(folder).filter(unwanted)) rmSync(join(folder, name), { recursive: true, force: true });
  }
  return spaces;
}

/** Kills what still runs in these namespaces (all of it was started in the lab) and deletes them. */
export function removeSpaces(names: readonly string[]): void {
  for (const name of names) {
    for (const pid of spawnSync("ip", ["netns", "pids", name], { encoding: "utf8", timeout: 5000 }).stdout?.split("\n") ?? []) {
      try {
        if (Number(pid) > 1 && Number(pid) !== process.pid) process.kill(Number(pid), "SIGKILL");
      } catch {
        // gone already
      }
    }
    spawnSync("ip", ["netns", "delete", name], { timeout: 5000 });
    rmSync(join(ETC_NETNS, name), { recursive: true, force: true });
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
