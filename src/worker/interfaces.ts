import { readdirSync, readFileSync } from "node:fs";

/** The name of an interface index, looked up in sysfs (rare: only for events); null when it is gone. */
export function interfaceOf(index: number): string | null {
  try {
    for (const name of readdirSync("/sys/class/net")) {
      if (Number(readFileSync(`/sys/class/net/${name}/ifindex`, "utf8")) === index) return name;
    }
  } catch {
    // no sysfs: the event goes without the name
  }
  return null;
}
