import { existsSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import type { Attachment } from "../model/attachment.ts";
import type { LinkTable } from "./link.ts";

/** Looks at sysfs: is the host-side interface there, and is it a bridge port? `sys` is /sys, or a test's folder. */
export function attachmentOf(name: string, sys = "/sys"): Attachment {
  if (name === "") return { kind: "missing", interface: name, why: "its interface has not been found yet" };
  const folder = join(sys, "class", "net", name);
  try {
    const index = Number(readFileSync(join(folder, "ifindex"), "utf8"));
    if (!existsSync(join(folder, "brport"))) return { kind: "routed", interface: name, index };
    return { kind: "bridged", interface: name, index, bridge: basename(readlinkSync(join(folder, "brport", "bridge"))) };
  } catch {
    return { kind: "missing", interface: name, why: `there is no interface ${name} on this node` };
  }
}

/** The same out of a dump of the node's links, for whoever asks about many: a sixtieth of the time. undefined: it is not in there. */
export function attachmentIn(links: LinkTable, name: string): Attachment | undefined {
  const link = links.byName.get(name);
  if (link === undefined) return undefined;
  const master = links.masterOf(link);
  return master?.kind === "bridge"
    ? { kind: "bridged", interface: name, index: link.index, bridge: master.name }
    : { kind: "routed", interface: name, index: link.index };
}

/** Does the kernel show bridged packets to iptables? Without it a bridged pod cannot be guarded. */
export function bridgeNetfilter(family: 4 | 6, proc = "/proc"): boolean {
  try {
    return (
      readFileSync(join(proc, "sys", "net", "bridge", `bridge-nf-call-${family === 4 ? "iptables" : "ip6tables"}`), "utf8").trim() === "1"
    );
  } catch {
    return false;
  }
}
