import { runTool } from "./tool.ts";

/** One interface, as `ip` shows it. */
export interface Link {
  readonly index: number;
  /** Octets; empty where it has none. */
  readonly mac: readonly number[];
  /** `veth`, `ifb`, …; undefined: hardware, loopback. */
  readonly driver: string | undefined;
  /** What sits on it for eBPF by its own nature: XDP, or a driver that is made for programs. */
  readonly program: string | undefined;
}
export type Links = ReadonlyMap<string, Link>;

/** All interfaces, by name: from `ip`, not from sysfs, which may show another network namespace than ours. undefined: it cannot be asked. */
export async function readLinks(): Promise<Links | undefined> {
  const { status, stdout } = await runTool("ip", ["-j", "-d", "link", "show"]);
  return status === 0 ? linksOf(stdout) : undefined;
}

/** `ip -j -d link show`, read. */
export function linksOf(text: string): Links {
  const links = new Map<string, Link>();
  for (const { ifname, ifindex, address, linkinfo, xdp } of list(text)) {
    if (typeof ifname !== "string" || typeof ifindex !== "number") continue;
    const driver = isRecord(linkinfo) && typeof linkinfo["info_kind"] === "string" ? linkinfo["info_kind"] : undefined;
    links.set(ifname, {
      index: ifindex,
      mac: typeof address === "string" && address !== "" ? address.split(":").map((octet) => Number.parseInt(octet, 16)) : [],
      driver,
      program: isRecord(xdp) ? "an XDP program" : driver === "netkit" ? "a netkit device, whose packets go through eBPF" : undefined,
    });
  }
  return links;
}

export type Fields = Readonly<Record<string, unknown>>;

export function isRecord(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A list that iproute2 printed; empty where it is something else. */
export function list(text: string): Fields[] {
  try {
    const parsed: unknown = JSON.parse(text === "" ? "[]" : text);
    return Array.isArray(parsed) ? parsed.filter(isRecord) : [];
  } catch {
    return [];
  }
}
