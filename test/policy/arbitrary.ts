import fc from "fast-check";
import { parseCidr, parseIp, type Cidr, type Ip } from "../../src/base/address.ts";
import { dnsName, namePattern, type DnsName, type NamePattern } from "../../src/base/name.ts";
import { Protocol } from "../../src/model/packet.ts";
import type { IdentityTerm, Network, Policy, PortMatch, ProxyTarget, Rule, TlsTerms } from "../../src/model/policy.ts";
import { LEGACY_TLS, NAMES_DISAGREE, type Evidence } from "../../src/model/verdict.ts";
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

const permit = fc.constantFrom("Allow" as const, "Deny" as const);
const tls: fc.Arbitrary<TlsTerms> = fc.record({
  ech: fc.constantFrom("Deny" as const, "Allow" as const, "Strip" as const),
  missingServerName: fc.constantFrom(undefined, undefined, "Allow" as const, "Deny" as const),
  legacy: permit,
  opaque: permit,
});
const user: fc.Arbitrary<IdentityTerm> = fc.constantFrom(["app"], ["svc-*"], ["app", "a\\b"]).map((values) => ({ field: "user", values }));
const database: fc.Arbitrary<IdentityTerm> = fc.constantFrom(["0"], ["orders", "0"]).map((values) => ({ field: "database", values }));
const path: fc.Arbitrary<IdentityTerm> = fc.constantFrom(["/v1/*"], ["/a", "/b"]).map((values) => ({ field: "path", values }));
const some = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(arbitrary, { maxLength: 1 });
const terms: Readonly<Record<string, fc.Arbitrary<IdentityTerm[]>>> = {
  postgresql: fc.tuple(some(user), some(database)).map((lists) => lists.flat()),
  redis: fc.tuple(some(user), some(database)).map((lists) => lists.flat()),
  http: some(path),
};
const proxy: fc.Arbitrary<ProxyTarget[]> = fc.array(
  fc.record({ names: fc.array(pattern, { minLength: 1, maxLength: 2 }), ports: fc.constantFrom([], [{ first: 443, last: 443 }]) }),
  { minLength: 1, maxLength: 2 },
);
const application = fc.constantFrom(undefined, undefined, "tls", "tls", "http", "postgresql", "redis").chain((wanted) =>
  fc.record({
    application: fc.constant(wanted),
    tls,
    identity: terms[wanted ?? ""] ?? fc.constant([]),
    proxy:
      wanted === "http"
        ? fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: proxy })
        : fc.constant(undefined),
  }),
);

export const rule: fc.Arbitrary<Omit<Rule, "name">> = fc
  .record({
    action: fc.constantFrom("Accept" as const, "Accept" as const, "Accept" as const, "Deny" as const, "Pass" as const),
    destination: fc.constantFrom("any", "names", "names", "networks", "both"),
    names: fc.array(pattern, { minLength: 1, maxLength: 3 }),
    cnames: fc.constantFrom("Match" as const, "Ignore" as const),
    networks: fc.array(network, { minLength: 1, maxLength: 3 }),
    ports: fc.array(portMatch, { maxLength: 3 }),
    evidence: application,
  })
  .map(({ destination, evidence: wanted, ...r }) => ({
    ...r,
    ...wanted,
    anyDestination: destination === "any",
    names: destination === "names" || destination === "both" ? r.names : [],
    networks: destination === "networks" || destination === "both" ? r.networks : [],
    application: r.action === "Accept" ? wanted.application : undefined,
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
const field = {
  user: fc.constantFrom("app", "svc-1", "a\\x5cb", "default"),
  database: fc.constantFrom("orders", "0", "1"),
  path: fc.constantFrom("/a", "/a?b", "/v1/x", "/v1/../x", "/v1/%2E%2e/x", "/c"),
  target: fc.tuple(name, fc.constantFrom(":443", ":80", "")).map((parts) => parts.join("")),
};
const rare = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
const evidence: fc.Arbitrary<Evidence> = fc
  .record({
    application: fc.constantFrom(undefined, "tls", "tls", "quic", "http1", "grpc", "postgresql", "redis"),
    serverName: fc.oneof(
      fc.constant(undefined),
      name.map((n) => `${n.toUpperCase()}.`),
      name,
      fc.constant("not a name"),
    ),
    ech: rare(fc.constant(true)),
    alpn: rare(fc.constantFrom([], ["h2"], ["postgresql"], ["postgresql", "h2"])),
    upgrade: rare(fc.constantFrom("tls", "tls", "h2c", "tcp")),
    evasion: rare(fc.constantFrom("a decoy", `${NAMES_DISAGREE}: two`, `${LEGACY_TLS}: SSL 3.0`)),
    fields: rare(fc.record(field, { requiredKeys: [] })),
  })
  .map(defined);
/** Without the keys that are undefined. */
function defined({ application: seen, serverName, ...rest }: { [key in keyof Evidence]: Evidence[key] | undefined }): Evidence {
  const there = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  return { application: seen, serverName, ...there };
}
export const question: fc.Arbitrary<Question> = fc.record({
  protocol,
  port: fc.constantFrom(53, 80, 443, 444, 65_535),
  address,
  names: fc.array(seen, { maxLength: 3 }),
  evidence: fc.option(evidence, { nil: undefined }),
});
