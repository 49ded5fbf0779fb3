import fc from "fast-check";
import { parseCidr, parseIp, type Cidr, type Ip } from "../../src/base/address.ts";
import { dnsName, namePattern, type DnsName, type NamePattern } from "../../src/base/name.ts";
import { Protocol } from "../../src/model/packet.ts";
import type { Network, Policy, PortMatch, Rule } from "../../src/model/policy.ts";
import type { Question } from "../../src/policy/evaluate.ts";

/** Random policies and questions from a world so small that they meet often. */

const label = fc.constantFrom("a", "b", "c");
export const name: fc.Arbitrary<DnsName> = fc
  .array(label, { minLength: 1, maxLength: 4 })
  .map((labels) => dnsName(`${labels.join(".")}.x`) as DnsName);
export const pattern: fc.Arbitrary<NamePattern> = fc
  .tuple(fc.boolean(), name)
  .map(([wild, text]) => namePattern(wild ? `*.${text}` : text) as NamePattern);

const octet = fc.constantFrom(0, 1, 127, 128, 254, 255);
export const address: fc.Arbitrary<Ip> = fc
  .tuple(fc.boolean(), octet, octet)
  .map(([six, a, b]) => parseIp(six ? `2001:db8::${a.toString(16)}:${b.toString(16)}` : `10.0.${a}.${b}`) as Ip);
const bits = fc.tuple(
  fc.constantFrom(0, 1, 8, 15, 16, 17, 23, 24, 25, 30, 31, 32),
  fc.constantFrom(0, 32, 96, 104, 111, 112, 113, 120, 121, 127, 128),
);
export const cidr: fc.Arbitrary<Cidr> = fc
  .tuple(fc.boolean(), octet, octet, bits)
  .map(
    ([six, a, b, [four, sixteen]]) =>
      parseCidr(six ? `2001:db8::${a.toString(16)}:${b.toString(16)}/${sixteen}` : `10.0.${a}.${b}/${four}`) as Cidr,
  );
// Exceptions may lie anywhere: what is outside must not matter.
const network: fc.Arbitrary<Network> = fc.record({
  cidr,
  except: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: fc.array(cidr, { maxLength: 3 }) }),
});

const protocol = fc.constantFrom<number>(Protocol.TCP, Protocol.UDP);
const port = fc.constantFrom(53, 80, 443, 65_535);
const portMatch: fc.Arbitrary<PortMatch> = fc.oneof(
  fc.record({ protocol, first: port }).map((p) => ({ ...p, last: p.first })),
  fc.record({ protocol, first: port, last: port }).filter((p) => p.first <= p.last),
  protocol.map((p) => ({ protocol: p, first: 0, last: 65_535 })),
);

export const rule: fc.Arbitrary<Omit<Rule, "name">> = fc
  .record({
    action: fc.constantFrom("Accept" as const, "Accept" as const, "Accept" as const, "Deny" as const, "Pass" as const),
    destination: fc.constantFrom("any", "names", "names", "networks", "both"),
    names: fc.array(pattern, { minLength: 1, maxLength: 3 }),
    cnames: fc.constantFrom("Match" as const, "Ignore" as const),
    networks: fc.array(network, { minLength: 1, maxLength: 3 }),
    ports: fc.array(portMatch, { maxLength: 3 }),
    application: fc.constantFrom(undefined, undefined, "tls", "http", "postgresql"),
  })
  .map(({ destination, ...r }) => ({
    ...r,
    anyDestination: destination === "any",
    names: destination === "names" || destination === "both" ? r.names : [],
    networks: destination === "networks" || destination === "both" ? r.networks : [],
    application: r.action === "Accept" ? r.application : undefined,
    parameters: undefined,
  }));

const policy: fc.Arbitrary<Omit<Policy, "id" | "name">> = fc
  .record({
    tier: fc.constantFrom("Admin" as const, "Namespace" as const, "Baseline" as const),
    priority: fc.constantFrom(1, 2, 3),
    queries: fc.constantFrom("All" as const, "AllowedOnly" as const),
    ttl: fc.constantFrom(1000, 30_000, 60_000),
    rules: fc.array(rule, { maxLength: 4 }),
  })
  .map(({ tier, priority, queries, ttl, rules }) => ({
    kind: tier === "Namespace" ? ("EgressPolicy" as const) : ("ClusterEgressPolicy" as const),
    namespace: tier === "Namespace" ? "shop" : undefined,
    tier,
    priority: tier === "Namespace" ? 0 : priority,
    mode: "Enforce" as const,
    subject: { podSelector: { matchLabels: {}, matchExpressions: [] }, namespaceSelector: undefined, serviceAccountNames: undefined },
    dns: { queries, minTtlMs: ttl, maxTtlMs: ttl * 2, graceMs: ttl * 3 },
    rules: rules
      .map((r) => (r.action === "Pass" && tier !== "Admin" ? { ...r, action: "Deny" as const } : r))
      .map((r, i) => ({ ...r, name: `rule-${i + 1}` })),
  }));

export const policies: fc.Arbitrary<Policy[]> = fc
  .array(policy, { maxLength: 5 })
  .map((list) => list.map((p, i) => ({ ...p, name: `p${i}`, id: p.tier === "Namespace" ? `shop/p${i}` : `p${i}` })));

const seen = fc.record({ name, via: fc.constantFrom("asked" as const, "cname" as const), fresh: fc.boolean() });
const evidence = fc.record({
  application: fc.constantFrom(undefined, "tls", "quic", "http1", "grpc", "postgresql"),
  serverName: fc.oneof(
    fc.constant(undefined),
    name.map((n) => `${n.toUpperCase()}.`),
    name,
    fc.constant("not a name"),
  ),
});
export const question: fc.Arbitrary<Question> = fc.record({
  protocol,
  port: fc.constantFrom(53, 80, 443, 444, 65_535),
  address,
  names: fc.array(seen, { maxLength: 3 }),
  evidence: fc.option(evidence, { nil: undefined }),
});
