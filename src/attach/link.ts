/** A network interface as RTM_NEWLINK describes it (linux/if_link.h). */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** IFLA_INFO_KIND: `veth`, `bridge`, `macvlan`; empty for hardware and loopback. */
  readonly kind: string;
  readonly loopback: boolean;
  /** The bridge, bond or vrf whose port it is; 0: none. */
  readonly master: number;
  /** A veth's other end, a macvlan's parent: its index in its own namespace; 0: none. */
  readonly peer: number;
  /** Where `peer` is, as this node numbers network namespaces (IFLA_LINK_NETNSID); undefined: beside the interface itself. */
  readonly space: number | undefined;
  /** IFLA_GROUP. */
  readonly group: number;
}

/** Kinds with an end on the node whose packets enter the node's stack there, as from any interface. */
const PAIRS: ReadonlySet<string> = new Set(["veth", "netkit"]);

/** Does it lead into another network namespace: is it the host side of a pod (or of a container of another kind)? */
export function leadsAway(link: Link): boolean {
  return PAIRS.has(link.kind) && link.space !== undefined && link.space >= 0;
}

/** The node's own interfaces at one moment. */
export class LinkTable {
  readonly byIndex = new Map<number, Link>();
  readonly byName = new Map<string, Link>();
  private readonly bySpace = new Map<number, Link[]>();

  constructor(links: Iterable<Link>) {
    for (const link of links) {
      this.byIndex.set(link.index, link);
      this.byName.set(link.name, link);
      if (!leadsAway(link) || link.space === undefined) continue;
      const others = this.bySpace.get(link.space);
      if (others === undefined) this.bySpace.set(link.space, [link]);
      else others.push(link);
    }
  }

  /** The host sides of this namespace's interfaces, lowest index first. */
  into(space: number): readonly Link[] {
    return (this.bySpace.get(space) ?? []).toSorted((a, b) => a.index - b.index);
  }

  masterOf(link: Link): Link | undefined {
    return link.master === 0 ? undefined : this.byIndex.get(link.master);
  }
}
