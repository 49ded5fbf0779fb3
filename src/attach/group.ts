import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InterfaceGroup } from "../model/attachment.ts";

const file = (iface: string, sys: string): string => join(sys, "class", "net", iface, "netdev_group");

export function groupOf(iface: string, sys = "/sys"): number | undefined {
  try {
    return Number(readFileSync(file(iface, sys), "utf8"));
  } catch {
    return undefined; // no such interface
  }
}

/** Writes the group. Returns why it could not; an interface that is not there is nobody's problem here. */
export function setGroup(iface: string, group: number, sys = "/sys"): string | undefined {
  if (groupOf(iface, sys) === undefined) return undefined;
  try {
    writeFileSync(file(iface, sys), String(group));
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** The interfaces that are in a group of ours. */
export function grouped(sys = "/sys"): string[] {
  const ours: readonly (number | undefined)[] = Object.values(InterfaceGroup);
  try {
    return readdirSync(join(sys, "class", "net")).filter((iface) => ours.includes(groupOf(iface, sys)));
  } catch {
    return [];
  }
}
