import type { Ip } from "../../src/base/address.ts";
import { parseIp } from "../../src/base/address.ts";
import { type Link, LinkTable } from "../../src/attach/link.ts";
import type { Failed, Network } from "../../src/attach/network.ts";
import type { Neighbour } from "../../src/attach/rtnetlink.ts";

export function link(index: number, name: string, more: Partial<Link> = {}): Link {
  return { index, name, kind: "veth", loopback: false, master: 0, peer: 2, space: undefined, group: 0, ...more };
}

export const LO = link(1, "lo", { kind: "", loopback: true, peer: 0 });
/** The number of the node's own namespace, once something in a pod leads back to it. */
export const OWN = 900;

export function ip(text: string): Ip {
  const parsed = parseIp(text);
  if (parsed === undefined) throw new Error(text);
  return parsed;
}

/** A node's network as maps; what the locator asks is counted. */
export class FakeNetwork implements Network {
  readonly host: Link[] = [LO];
  /** pid → the number of its namespace. */
  readonly spaces = new Map<number, number>([[process.pid, OWN]]);
  /** pid → the number that it has only when one is asked for. */
  readonly hidden = new Map<number, number>();
  readonly insides = new Map<number, readonly Link[]>();
  readonly routes = new Map<Ip, number>();
  table: Neighbour[] = [];
  broken: string | undefined;
  asked = { links: 0, space: 0, inside: 0, route: 0 };

  /** A veth of the node into the namespace `space`, where it is eth0. */
  veth(index: number, name: string, space: number, more: Partial<Link> = {}): Link {
    const made = link(index, name, { space, ...more });
    this.host.push(made);
    this.insides.set(space, [
      LO,
      ...(this.insides.get(space) ?? []).filter((other) => !other.loopback),
      link(made.peer, "eth0", { peer: index, space: OWN }),
    ]);
    return made;
  }

  remove(name: string): void {
    this.host.splice(
      this.host.findIndex((one) => one.name === name),
      1,
    );
  }

  links(): LinkTable | Failed {
    this.asked.links++;
    return this.broken === undefined ? new LinkTable(this.host.map((one) => ({ ...one }))) : { bad: this.broken };
  }

  inside(space: number): readonly Link[] | Failed {
    this.asked.inside++;
    return this.insides.get(space) ?? { bad: "EINVAL" };
  }

  spaceOf(pid: number): number | undefined {
    this.asked.space++;
    return this.spaces.get(pid);
  }

  numbered(pid: number): number | undefined {
    return this.spaces.get(pid) ?? this.hidden.get(pid);
  }

  routeTo(address: Ip): number | undefined {
    this.asked.route++;
    return this.routes.get(address);
  }

  neighbours(): readonly Neighbour[] | Failed {
    return this.table;
  }
}
