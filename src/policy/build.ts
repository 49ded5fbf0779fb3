import type { Cidr } from "../base/address.ts";
import type { NamePattern } from "../base/name.ts";
import { recordType } from "../base/record-type.ts";
import { Protocol } from "../model/packet.ts";
import type {
  Action,
  DnsLimits,
  IdentityTerm,
  LabelExpression,
  LabelSelector,
  Mode,
  Network,
  Policy,
  PortMatch,
  ProxyTarget,
  Rule,
  Tier,
  TlsTerms,
} from "../model/policy.ts";
import { IDENTITY } from "./identity.ts";
import type { Kind } from "./schema.ts";
import { readCidr, readDuration, readName } from "./values.ts";
import { DNS_DEFAULTS, DNS_LIMITS } from "./view.ts";

/** Where a policy without a priority stands among 0..1000. */
const PRIORITY_DEFAULT = 500;

/** What a rule without `tls` says, or with one that leaves a field out. */
export const TLS_DEFAULTS: TlsTerms = { ech: "Deny", missingServerName: undefined, legacy: "Deny", opaque: "Deny" };

// The shape of a document that schema and semantics have accepted.
interface DestinationDocument {
  domainNames?: string[];
  cnames?: "Match" | "Ignore";
  networks?: (string | { cidr: string; except?: string[] })[];
}
interface PortDocument {
  protocol?: keyof typeof Protocol;
  port?: number;
  endPort?: number;
  type?: number;
  code?: number;
}
interface RuleDocument extends Record<string, unknown> {
  name?: string;
  action: Action;
  to?: DestinationDocument[];
  ports?: PortDocument[];
  application?: string;
  tls?: Partial<TlsTerms>;
}
interface ProxyDocument {
  targets: { domainNames: string[]; ports?: { port: number; endPort?: number }[] }[];
}
interface SelectorDocument {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: LabelExpression["operator"]; values?: string[] }[];
}
interface LimitsDocument extends Partial<Omit<DnsLimits, "types">> {
  types?: string[];
}
interface PolicyDocument {
  metadata: { name: string };
  spec: {
    mode: Mode;
    tier?: "Admin" | "Baseline";
    priority?: number;
    subject?: { podSelector?: SelectorDocument; namespaceSelector?: SelectorDocument; serviceAccountNames?: string[] };
    dns?: { queries?: "All" | "AllowedOnly"; minTtl?: string; maxTtl?: string; grace?: string; limits?: LimitsDocument };
    egress?: RuleDocument[];
  };
}

export function policyId(kind: Kind, namespace: string, name: string): string {
  return kind === "EgressPolicy" ? `${namespace}/${name}` : name;
}

/** Makes a Policy of a document without problems; only such a document may come here. `namespace` is its ConfigMap's. */
export function buildPolicy(kind: Kind, namespace: string, document: unknown): Policy {
  const { metadata, spec } = document as PolicyDocument;
  const cluster = kind === "ClusterEgressPolicy";
  const { subject = {}, dns = {} } = spec;
  const tier: Tier = cluster ? (spec.tier ?? "Admin") : "Namespace";
  return {
    id: policyId(kind, namespace, metadata.name),
    kind,
    namespace: cluster ? undefined : namespace,
    name: metadata.name,
    tier,
    priority: cluster ? (spec.priority ?? PRIORITY_DEFAULT) : 0,
    mode: spec.mode,
    subject: {
      podSelector: selector(subject.podSelector ?? {}),
      namespaceSelector: subject.namespaceSelector === undefined ? undefined : selector(subject.namespaceSelector),
      serviceAccountNames: subject.serviceAccountNames,
    },
    dns: {
      queries: dns.queries ?? DNS_DEFAULTS.queries,
      minTtlMs: duration(dns.minTtl, DNS_DEFAULTS.minTtlMs),
      maxTtlMs: duration(dns.maxTtl, DNS_DEFAULTS.maxTtlMs),
      graceMs: duration(dns.grace, DNS_DEFAULTS.graceMs),
      ...(dns.limits !== undefined && { limits: buildLimits(dns.limits) }),
    },
    rules: (spec.egress ?? []).map((rule, i) => buildRule(rule, i)),
  };
}

function selector(document: SelectorDocument): LabelSelector {
  return {
    matchLabels: { ...document.matchLabels },
    matchExpressions: (document.matchExpressions ?? []).map(({ key, operator, values }) => ({ key, operator, values: values ?? [] })),
  };
}

function buildLimits({ types, ...given }: LimitsDocument): DnsLimits {
  return { ...DNS_LIMITS, ...given, types: types?.map((type) => recordType(type) as number) ?? DNS_LIMITS.types };
}

function duration(text: string | undefined, otherwise: number): number {
  return text === undefined ? otherwise : (readDuration(text) as number);
}

function buildRule(rule: RuleDocument, index: number): Rule {
  const to = rule.to ?? [];
  const block = Object.keys(IDENTITY).find((name) => rule[name] !== undefined);
  const lists = block === undefined ? {} : (rule[block] as Record<string, unknown>);
  return {
    name: rule.name ?? `rule-${index + 1}`,
    action: rule.action,
    anyDestination: rule.to === undefined,
    names: [...new Set(to.flatMap(({ domainNames = [] }) => domainNames.map((name) => readName(name) as NamePattern)))],
    cnames: to.some(({ cnames }) => cnames === "Match") ? "Match" : "Ignore",
    networks: to.flatMap(({ networks = [] }) => networks.map(buildNetwork)),
    ports: (rule.ports ?? []).map(buildPort),
    application: rule.application,
    tls: {
      ech: rule.tls?.ech ?? TLS_DEFAULTS.ech,
      missingServerName: rule.tls?.missingServerName,
      legacy: rule.tls?.legacy ?? TLS_DEFAULTS.legacy,
      opaque: rule.tls?.opaque ?? TLS_DEFAULTS.opaque,
    },
    identity: block === undefined ? [] : buildIdentity(block, lists),
    proxy: (lists["proxy"] as ProxyDocument | undefined)?.targets.map(buildTarget),
  };
}

function buildIdentity(block: string, lists: Readonly<Record<string, unknown>>): IdentityTerm[] {
  return Object.entries(IDENTITY[block] ?? {}).flatMap(([list, field]) => {
    const values = lists[list] as (string | number)[] | undefined;
    return values === undefined ? [] : [{ field, values: [...new Set(values.map((value) => String(value)))] }];
  });
}

function buildTarget({ domainNames, ports = [] }: ProxyDocument["targets"][number]): ProxyTarget {
  return {
    names: domainNames.map((name) => readName(name) as NamePattern),
    ports: ports.map(({ port, endPort }) => ({ first: port, last: endPort ?? port })),
  };
}

function buildNetwork(network: string | { cidr: string; except?: string[] }): Network {
  if (typeof network === "string") return { cidr: readCidr(network) as Cidr, except: [] };
  return { cidr: readCidr(network.cidr) as Cidr, except: (network.except ?? []).map((cidr) => readCidr(cidr) as Cidr) };
}

function buildPort({ protocol = "TCP", port, endPort, type, code }: PortDocument): PortMatch {
  const match = (first: number, last: number): PortMatch => ({ protocol: Protocol[protocol], first, last });
  if (type !== undefined) return match((type << 8) | (code ?? 0), (type << 8) | (code ?? 255));
  return port === undefined ? match(0, 65_535) : match(port, endPort ?? port);
}
