import { readdirSync, readFileSync } from "node:fs";

/** The name of an interface index, looked up in sysfs (rare: only for events); null when it is gone. */
export function interfaceOf(index: number, sys = "/sys"): string | null {
  const folder = `${sys}/class/net`;
  try {
    return readdirSync(folder).find((name) => indexOf(`${folder}/${name}/ifindex`) === index) ?? null;
  } catch {
    return null; // no sysfs: the event goes without the name
  }
}

function indexOf(file: string): number | undefined {
  try {
    return Number(readFileSync(file, "utf8"));
  } catch {
    return undefined; // it has just gone, or is none (bonding_masters)
  }
}
