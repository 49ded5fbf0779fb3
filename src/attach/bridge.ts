import { join } from "node:path";
import type { Ip } from "../base/address.ts";
import { readBytes, readText } from "./files.ts";
import type { Link, LinkTable } from "./link.ts";
import type { Neighbour } from "./rtnetlink.ts";

/** struct __fdb_entry of linux/if_bridge.h: mac[6], port, is_local, age u32, port_hi, pad, unused u16. */
const ENTRY_BYTES = 16;
/** Entries of one bridge: a large flat network; 1 MB. */
const ENTRIES_MAX = 65_536;

/** sysfs `brforward`: MAC (12 hexadecimal digits) → port number, without the bridge's own addresses. */
export function forwarding(bytes: Buffer): ReadonlyMap<string, number> {
  const ports = new Map<string, number>();
  for (let at = 0; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
    if (bytes[at + 7] !== 0) continue;
    ports.set(bytes.toString("hex", at, at + 6), (bytes[at + 6] as number) | ((bytes[at + 12] as number) << 8));
  }
  return ports;
}

/** Address → MAC → bridge port, from the node's neighbours and its bridges' forwarding tables, each read once. */
export class BridgeTables {
  private readonly sys: string;
  private readonly links: LinkTable;
  private readonly neighbours: ReadonlyMap<Ip, Neighbour>;
  private readonly tables = new Map<number, ReadonlyMap<string, number>>();
  private ports: ReadonlyMap<string, Link> | undefined;

  constructor(sys: string, links: LinkTable, neighbours: readonly Neighbour[]) {
    this.sys = sys;
    this.links = links;
    // An address may be a neighbour on several interfaces; only a bridge tells us a port.
    this.neighbours = new Map(
      neighbours.filter(({ index }) => links.byIndex.get(index)?.kind === "bridge").map((neighbour) => [neighbour.ip, neighbour]),
    );
  }

  portOf(address: Ip): Link | undefined {
    const neighbour = this.neighbours.get(address);
    const port = neighbour === undefined ? undefined : this.table(neighbour.index).get(neighbour.mac);
    return neighbour === undefined || port === undefined ? undefined : this.numbered().get(`${neighbour.index}/${port}`);
  }

  private table(bridge: number): ReadonlyMap<string, number> {
    let table = this.tables.get(bridge);
    if (table === undefined) {
      const name = this.links.byIndex.get(bridge)?.name ?? "";
      table = forwarding(readBytes(join(this.sys, "class", "net", name, "brforward"), ENTRIES_MAX * ENTRY_BYTES) ?? Buffer.alloc(0));
      this.tables.set(bridge, table);
    }
    return table;
  }

  /** `bridge index/port number` → port. */
  private numbered(): ReadonlyMap<string, Link> {
    if (this.ports !== undefined) return this.ports;
    const ports = new Map<string, Link>();
    for (const link of this.links.byIndex.values()) {
      if (this.links.masterOf(link)?.kind !== "bridge") continue;
      const number = Number(readText(join(this.sys, "class", "net", link.name, "brport", "port_no"), 16));
      if (number > 0) ports.set(`${link.master}/${number}`, link);
    }
    this.ports = ports;
    return ports;
  }
}
