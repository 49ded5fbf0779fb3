import type { Endpoint, Ip } from "../../base/address.ts";
import type { NamePattern } from "../../base/name.ts";
import type { AlertSettings } from "../../model/alerts.ts";

/** The agent's options as the file of `--config` gives them; undefined: not there. Flags go before it, defaults come behind it. */
export interface Settings {
  /** Standalone: both, or neither. */
  readonly policies?: string | undefined;
  readonly pods?: string | undefined;
  readonly state?: string | undefined;
  readonly socket?: string | undefined;
  /** `ADDR:PORT`, or `off`. */
  readonly metrics?: string | undefined;
  /** false: no page beside the metrics. */
  readonly page?: boolean | undefined;
  readonly logLevel?: LogLevel | undefined;
  readonly iptables?: (typeof IPTABLES)[number] | undefined;
  readonly markMask?: number | undefined;
  readonly queueBase?: number | undefined;
  readonly checkMs?: number | undefined;
  /** 0: no self-test. */
  readonly selfTestMs?: number | undefined;
  /** false: userspace reads every ClientHello. */
  readonly knownHellos?: boolean | undefined;
  readonly upcalls?: number | undefined;
  readonly maxBindings?: number | undefined;
  readonly events?: number | undefined;
  /** Names of DNS-over-HTTPS servers, in place of the list that is built in. */
  readonly dnsOverHttps?: readonly NamePattern[] | undefined;
  readonly clusterNamespace?: string | undefined;
  /** undefined: one JSON event a line on stdout, nothing folded. */
  readonly alerts?: AlertSettings | undefined;
  readonly cluster: ClusterSettings;
}

/** What counts only where pods and policies come from the Kubernetes API. Defaults are filled in, but for what the environment says. */
export interface ClusterSettings {
  /** Default: NODE_NAME of the environment. */
  readonly nodeName: string | undefined;
  readonly kubeconfig: string | undefined;
  /** Label selector of policy ConfigMaps. */
  readonly policySelector: string;
  /** `cluster.local` */
  readonly clusterDomain: string;
  /** Search suffixes that pods may have beside those of the cluster and of the node. */
  readonly searches: readonly string[];
  /** How the host side of pods' interfaces begins; undefined: what the CNI's configuration and the interfaces show. */
  readonly interfacePrefixes: readonly string[] | undefined;
  /** The node's CNI configuration. */
  readonly cniConfigDir: string;
  readonly resolvers: ResolverSettings;
  readonly startup: StartupSettings;
  /** Say on a policy's ConfigMap whether it is accepted. */
  readonly kubernetesEvents: boolean;
}

export interface ResolverSettings {
  /** In place of all that is discovered; undefined: discover. */
  readonly override: readonly Endpoint[] | undefined;
  /** Beside what is discovered. */
  readonly also: readonly Endpoint[];
  /** Where the cluster's DNS Service may stand. Whoever may write Services there decides what is believed. */
  readonly namespaces: readonly string[];
  /** Names of DNS Services, beside the label k8s-app=kube-dns. */
  readonly services: readonly string[];
  /** Trusted where this node has the address itself. */
  readonly nodeLocal: readonly Ip[];
  /** The node's own servers (resolv.conf): trusted while a pod of this node uses them (`dnsPolicy: Default`), always, or never. */
  readonly node: (typeof NODE_SERVERS)[number];
  readonly nodeFile: string;
  /** `Trust`: whoever may create a pod may name a server that is believed. */
  readonly podDnsConfig: (typeof POD_SERVERS)[number];
}

export interface StartupSettings {
  /** How long a starting agent asks the API before it enforces its last good state. */
  readonly apiWaitMs: number;
  /** A node without rules gets them before any list is read, so that every pod's first packet waits. */
  readonly holdUnknownPods: boolean;
  /** The taint that the agent takes from its Node once it is ready; undefined: none. */
  readonly taint: string | undefined;
}

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const IPTABLES = ["auto", "nft", "legacy"] as const;
export const NODE_SERVERS = ["DefaultPods", "Always", "Never"] as const;
export const POD_SERVERS = ["Ignore", "Trust"] as const;
