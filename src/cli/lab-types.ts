import type { Child, ExecOptions, ExecResult } from "./lab-process.ts";

/**
 * A small cluster node in network namespaces, for the demo and the system tests: a *node* (the router; the agent runs
 * there), *pods* behind routed veths (as Calico and ptp make them) or bridge ports (as flannel does), *servers* outside.
 *
 *     pod ── eth0 ═ cali0 ─┐
 *     pod ── eth0 ═ veth1 ─┴─ cni0 ── node ── srv0 ═ eth0 ── server (any number of addresses)
 *
 * Every namespace, folder and file is named namegate-lab-PID-N-…, so that close() and removeStale() find everything. No packet
 * leaves the namespaces: nothing connects them to the host. Waits are polls with a deadline.
 */
export interface Lab {
  /** `namegate-lab-PID-N-`, both numbers in base 36. */
  readonly prefix: string;
  /** A temporary folder, removed by close(). */
  readonly dir: string;
  readonly pods: readonly LabPod[];
  readonly servers: readonly LabServer[];
  /** The node's own addresses, on its lo. */
  readonly node: { readonly v4: string; readonly v6: string };
  /** `node`, the name of a pod or of a server → the network namespace. */
  ns(name: string): string;
  addPod(options: PodOptions): Promise<LabPod>;
  addServer(options: ServerOptions): Promise<LabServer>;
  /** Deletes a pod: its namespace and with it its interface. */
  removePod(name: string): Promise<void>;
  /** A ClusterIP: DNAT in nat PREROUTING and OUTPUT of the node. `address` decides the family. */
  service(options: ServiceOptions): Promise<void>;
  /** Link-local addresses of the node itself, as NodeLocal DNSCache has; with `notrack` its raw table rules for port 53 too. */
  nodeLocal(addresses: readonly string[], options?: { notrack?: boolean }): Promise<void>;
  /** `address`, `address:port`, `[v6]:port`: for the pods' resolv.conf (port 53 only) and podsFile(). */
  setResolvers(resolvers: readonly string[]): void;
  /** The pods file of `namegate agent --pods`. */
  podsFile(): string;
  /** Writes podsFile() to a file in `dir` (the same one each time) and returns its path. */
  writePodsFile(): string;
  /** Writes a file into `dir` and returns its path. */
  file(name: string, text: string): string;
  exec(where: string, argv: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** exec, and a Fault unless its status is 0. Returns stdout. */
  run(where: string, argv: readonly string[], options?: ExecOptions): Promise<string>;
  /** Starts a program; close() ends it. */
  spawn(where: string, argv: readonly string[], options?: ExecOptions): Child;
  /** Starts a Node program given as ES module text, which finds `args` in process.argv from [1] on. */
  script(where: string, text: string, args?: readonly string[]): Child;
  setSysctl(where: string, values: Readonly<Record<string, string | number>>): Promise<void>;
  /** Ends every process in the lab and removes it. May be called twice. */
  close(): Promise<void>;
}

export interface PodOptions {
  readonly name: string;
  /** Default routed. */
  readonly kind?: "routed" | "bridge";
  /** Default 10.244.0.N (routed) or 10.244.1.N (bridge), N from 11; false for none. */
  readonly v4?: string | false;
  /** Default fd00:10:244::N or fd00:10:244:1::N (hexadecimal); false for none. */
  readonly v6?: string | false;
  /** Host side. Default caliN (routed) or vethN (bridge). */
  readonly interface?: string;
  /** Default shop. */
  readonly namespace?: string;
  /** Default { app: name }. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Default `default`. */
  readonly serviceAccountName?: string;
  readonly uid?: string;
  /** false: a pod that podsFile() does not have. */
  readonly listed?: boolean;
}

export interface LabPod {
  readonly name: string;
  readonly ns: string;
  readonly kind: "routed" | "bridge";
  readonly interface: string;
  readonly v4: string | undefined;
  readonly v6: string | undefined;
  readonly addresses: readonly string[];
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly serviceAccountName: string;
  readonly uid: string;
  readonly listed: boolean;
}

export interface ServerOptions {
  readonly name: string;
  /** Any number, both families; use documentation ranges (198.51.100.0/24, 203.0.113.0/24, 2001:db8::/33). */
  readonly addresses: readonly string[];
}

export interface LabServer {
  readonly name: string;
  readonly ns: string;
  /** The node's side of the link. */
  readonly interface: string;
  readonly addresses: readonly string[];
}

export interface ServiceOptions {
  readonly address: string;
  readonly port: number;
  readonly target: string;
  readonly targetPort: number;
  /** Default both. */
  readonly protocols?: readonly ("udp" | "tcp")[];
}

export interface LabOptions {
  /** The iptables flavour of service() and nodeLocal(): default the system's (`iptables`). */
  readonly iptables?: "iptables" | "iptables-legacy" | "iptables-nft";
  readonly resolvers?: readonly string[];
}
