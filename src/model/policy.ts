import type { Cidr } from "../base/address.ts";
import type { NamePattern } from "../base/name.ts";
import type { FieldName } from "./verdict.ts";

/** Discover touches nothing, Monitor says what it would deny, Enforce denies. In rising order of strictness. */
export type Mode = "Discover" | "Monitor" | "Enforce";
/** Judged in this order; the terms of the Kubernetes network-policy-api. */
export type Tier = "Admin" | "Namespace" | "Baseline";
export type Action = "Accept" | "Deny" | "Pass";

/** `shop/checkout` for an EgressPolicy, `guardrails` (no slash) for a ClusterEgressPolicy. */
export type PolicyId = string;

/** Ports of one IP protocol, first..last inclusive; 0..65535 is any. For ICMP and ICMPv6: type << 8 | code. */
export interface PortMatch {
  readonly protocol: number;
  readonly first: number;
  readonly last: number;
}

export interface Network {
  readonly cidr: Cidr;
  readonly except: readonly Cidr[];
}

export interface Rule {
  /** Unique in its policy; `rule-N` (from 1) where the document gives none. */
  readonly name: string;
  readonly action: Action;
  /** `to` absent: any destination, and both lists below are empty. */
  readonly anyDestination: boolean;
  readonly names: readonly NamePattern[];
  /** Do the targets of CNAME chains of an asked name count as names too? Default Ignore. */
  readonly cnames: "Match" | "Ignore";
  readonly networks: readonly Network[];
  /** Empty: any protocol and any port. */
  readonly ports: readonly PortMatch[];
  /** The evidence wanted; undefined: none. `http` stands for http1, http2 and grpc. */
  readonly application: string | undefined;
  /** What a ClientHello may be like; counts where there is an application. */
  readonly tls: TlsTerms;
  /** What the client must say of itself and its request. */
  readonly identity: readonly IdentityTerm[];
  /** The destination is an HTTP proxy, and may be asked for these only; undefined: it is none. */
  readonly proxy: readonly ProxyTarget[] | undefined;
}

export type Permit = "Allow" | "Deny";

/** Defaults filled in, but for `missingServerName`, whose default depends on the connection (policy/evidence.ts). */
export interface TlsTerms {
  /** An encrypted ClientHello. `Strip`: its keys are taken out of DNS replies, and the outer server name counts. */
  readonly ech: Permit | "Strip";
  readonly missingServerName: Permit | undefined;
  /** SSLv2 and SSLv3. */
  readonly legacy: Permit;
  /** TLS from the first byte where nothing visible tells that the application is inside. */
  readonly opaque: Permit;
}

/** A field of the evidence must be there and equal one of `values`; a `*` at the end stands for any rest. `host`: name patterns. */
export interface IdentityTerm {
  readonly field: FieldName;
  readonly values: readonly string[];
}

export interface ProxyTarget {
  readonly names: readonly NamePattern[];
  /** first..last; empty: any. */
  readonly ports: readonly { readonly first: number; readonly last: number }[];
}

/** As in metav1.LabelSelector; an empty one selects everything. */
export interface LabelSelector {
  readonly matchLabels: Readonly<Record<string, string>>;
  readonly matchExpressions: readonly LabelExpression[];
}
export interface LabelExpression {
  readonly key: string;
  readonly operator: "In" | "NotIn" | "Exists" | "DoesNotExist";
  readonly values: readonly string[];
}

export interface Subject {
  readonly podSelector: LabelSelector;
  /** Cluster policies only; undefined: every namespace. */
  readonly namespaceSelector: LabelSelector | undefined;
  /** undefined: any. */
  readonly serviceAccountNames: readonly string[] | undefined;
}

/** How much names may look like data, defaults filled in. A domain is what somebody may have registered (base/domain.ts). */
export interface DnsLimits {
  /** What becomes of a query beyond a limit: an event, or also REFUSED (in mode Enforce). */
  readonly action: "Alert" | "Refuse";
  /** Of one name, without the pod's search suffix: octets with dots. */
  readonly nameLength: number;
  /** Of one label: octets. */
  readonly labelLength: number;
  /** Of the labels below the domain, where they have ENTROPY_OCTETS or more: bits an octet. */
  readonly entropy: number;
  /** Different names below one domain in a minute. */
  readonly names: number;
  /** What those could carry: octets, by length and entropy. */
  readonly data: number;
  /** Queries below one domain in a minute, the same ones too; undefined: any number. */
  readonly queries: number | undefined;
  /** Record types that are asked for in vain: numbers (IANA). */
  readonly types: readonly number[];
}

export interface DnsSettings {
  readonly queries: "All" | "AllowedOnly";
  readonly minTtlMs: number;
  readonly maxTtlMs: number;
  readonly graceMs: number;
  /** undefined: the policy says nothing about it. */
  readonly limits?: DnsLimits;
}

/** One valid policy document, defaults filled in. Plain data: it crosses to the worker by structured clone. */
export interface Policy {
  readonly id: PolicyId;
  readonly kind: "EgressPolicy" | "ClusterEgressPolicy";
  /** undefined for a ClusterEgressPolicy. */
  readonly namespace: string | undefined;
  readonly name: string;
  readonly tier: Tier;
  /** Lower is judged first within a tier; 0..1000, cluster policies only (else 0). */
  readonly priority: number;
  readonly mode: Mode;
  readonly subject: Subject;
  readonly dns: DnsSettings;
  readonly rules: readonly Rule[];
}

/** A problem found in a document. Lines and columns count from 1. */
export interface Problem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** Where in the document, `spec.egress[0].ports[1].port`. */
  readonly path: string;
  readonly message: string;
  readonly hint: string | undefined;
}
