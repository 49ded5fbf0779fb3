import type { Endpoint, Ip } from "../base/address.ts";
import type { Policy } from "./policy.ts";

/** `namespace/name`. */
export type PodKey = string;

export interface Pod {
  readonly key: PodKey;
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly serviceAccountName: string;
  /** The host-side interface: a routed veth, or a bridge port; empty: it has not been found. */
  readonly interface: string;
  readonly addresses: readonly Ip[];
  /** DNS search suffixes of its resolv.conf, lower case, no dots at the ends. */
  readonly searches: readonly string[];
}

/** The whole desired state of this node. Immutable; a change makes a new one. */
export interface Snapshot {
  readonly policies: readonly Policy[];
  readonly pods: readonly Pod[];
  /** Trusted DNS servers. */
  readonly resolvers: readonly Endpoint[];
  /** Labels of namespaces, `kubernetes.io/metadata.name` always included. */
  readonly namespaces: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Interface name prefixes of the CNI: a packet from such an interface that belongs to no known pod waits. May be empty. */
  readonly interfacePrefixes: readonly string[];
  /** Nothing is known yet: new connections from such interfaces wait, and those that were there before go on. */
  readonly starting?: boolean;
}
