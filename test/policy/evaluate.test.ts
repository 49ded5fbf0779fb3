import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIp, type Ip } from "../../src/base/address.ts";
import { dnsName, namePattern, patternMatches, type DnsName, type NamePattern } from "../../src/base/name.ts";
import { applications } from "../../src/inspect/registry.ts";
import type { Policy } from "../../src/model/policy.ts";
import type { Pod } from "../../src/model/snapshot.ts";
import { LEGACY_TLS, NAMES_DISAGREE, type Evidence, type Verdict } from "../../src/model/verdict.ts";
import { APPLICATIONS } from "../../src/policy/application.ts";
import { NETWORK_ELEMENTS_MAX, networkElements } from "../../src/policy/elements.ts";
import { judge, type Question } from "../../src/policy/evaluate.ts";
import { hasName, nameSet } from "../../src/policy/names.ts";
import { judgeQuery, NAME_PORTS_MAX, portsForName, stripsEch } from "../../src/policy/queries.ts";
import { judgeTarget } from "../../src/policy/proxy.ts";
import { readManifests } from "../../src/policy/read.ts";
import { policySchema } from "../../src/policy/schema.ts";
import { selectPolicies, selects } from "../../src/policy/select.ts";
import { buildView, type CompiledRule, ruleOf } from "../../src/policy/view.ts";

const n = (text: string): DnsName => dnsName(text) as DnsName;
const ip = (text: string): Ip => parseIp(text) as Ip;

/** Policies of `spec` bodies: `admin 10`, `baseline 10`, or a namespace policy. */
function policies(...specs: string[]): Policy[] {
  const text = specs.map((spec, i) => {
    const kind = spec.includes("tier:") || spec.includes("namespaceSelector") ? "ClusterEgressPolicy" : "EgressPolicy";
    return `apiVersion: namegate.dev/v1alpha1\nkind: ${kind}\nmetadata: { name: p${i} }\nspec:\n  mode: Enforce\n${spec}`;
  });
  const { policies: read, problems } = readManifests("test", text.join("\n---\n"));
  assert.deepEqual(problems, []);
  return read;
}

type Ask = {
  address?: string;
  port?: number;
  protocol?: number;
  names?: string[];
  cnames?: string[];
  stale?: string[];
  evidence?: Partial<Evidence>;
};

function question({ address = "192.0.2.1", port = 443, protocol = 6, names = [], cnames = [], stale = [], evidence }: Ask): Question {
  return {
    protocol,
    port,
    address: ip(address),
    names: [
      ...names.map((name) => ({ name: n(name), via: "asked" as const, fresh: true })),
      ...cnames.map((name) => ({ name: n(name), via: "cname" as const, fresh: true })),
      ...stale.map((name) => ({ name: n(name), via: "asked" as const, fresh: false })),
    ],
    evidence: evidence === undefined ? undefined : { application: undefined, serverName: undefined, ...evidence },
  };
}

function short(verdict: Verdict): string {
  if (verdict.action === "allow") return `allow ${verdict.policy}/${verdict.rule}`;
  if (verdict.action === "inspect") return `inspect ${verdict.rule} ${verdict.missing}`;
  const near = verdict.nearest === undefined ? "" : ` ${verdict.nearest.rule} ${verdict.nearest.clause}`;
  return `deny ${verdict.why}${verdict.rule === undefined ? "" : ` ${verdict.policy}/${verdict.rule}`}${near}`;
}

test("wildcards: one or more labels below, never the name itself", () => {
  const rows: [string, string, boolean][] = [
    ["*.x.com", "a.x.com", true],
    ["*.x.com", "a.b.x.com", true],
    ["*.x.com", "x.com", false],
    ["*.x.com", "ax.com", false],
    ["*.x.com", "a.x.com.evil.org", false],
    ["x.com", "x.com", true],
    ["x.com", "a.x.com", false],
    ["*.com", "x.com", true],
    ["*.com", "com", false],
    ["*.svc.cluster.local", "db.shop.svc.cluster.local", true],
  ];
  for (const [pattern, name, matches] of rows) {
    const parsed = namePattern(pattern) as NamePattern;
    assert.equal(hasName(nameSet([parsed]), n(name)), matches, `${pattern} ${name}`);
    assert.equal(patternMatches(parsed, n(name)), matches, `${pattern} ${name}, slowly`);
  }
});

const SHOP = `
  egress:
  - name: stripe
    action: Accept
    to: [ { domainNames: [ "*.stripe.com" ] } ]
    ports: [ { port: 443 }, { protocol: UDP, port: 443 } ]
    application: tls
  - name: db
    action: Accept
    to: [ { domainNames: [ db.example.com ], cnames: Match } ]
    ports: [ { port: 5432 } ]
    application: postgresql
  - name: internal
    action: Accept
    to: [ { networks: [ { cidr: 10.0.0.0/8, except: [ 10.96.0.0/12 ] }, "2001:db8::/32" ] } ]
    ports: [ { port: 8000, endPort: 8010 } ]
  - name: never
    action: Deny
    to: [ { domainNames: [ "*.oracle.com" ] }, { networks: [ 198.51.100.0/24 ] } ]`;

test("one policy: what a person would ask", () => {
  const view = buildView(policies(SHOP));
  const tls = (serverName: string | undefined): Partial<Evidence> => ({ application: "tls", serverName });
  const rows: [string, Ask, string][] = [
    ["before the hello", { names: ["api.stripe.com"] }, "inspect stripe server-name"],
    ["the right hello", { names: ["api.stripe.com"], evidence: tls("API.stripe.com") }, "allow default/p0/stripe"],
    ["another name of the same rule", { names: ["api.stripe.com"], evidence: tls("js.stripe.com") }, "allow default/p0/stripe"],
    ["another name", { names: ["api.stripe.com"], evidence: tls("evil.example") }, "deny wrong-server-name stripe server-name"],
    ["no name", { names: ["api.stripe.com"], evidence: tls(undefined) }, "deny no-server-name stripe server-name"],
    ["ssh on 443", { names: ["api.stripe.com"], evidence: { application: "ssh" } }, "deny wrong-protocol stripe application"],
    ["nothing recognised", { names: ["api.stripe.com"], evidence: {} }, "deny wrong-protocol stripe application"],
    [
      "QUIC beside TLS",
      { protocol: 17, names: ["api.stripe.com"], evidence: { application: "quic", serverName: "api.stripe.com" } },
      "allow default/p0/stripe",
    ],
    [
      "QUIC over TCP",
      { names: ["api.stripe.com"], evidence: { application: "quic", serverName: "api.stripe.com" } },
      "deny wrong-protocol stripe application",
    ],
    ["the parent", { names: ["stripe.com"] }, "deny wrong-name stripe name"],
    ["by address", {}, "deny no-name stripe name"],
    ["old answer", { stale: ["api.stripe.com"] }, "deny stale-dns stripe stale"],
    ["wrong port", { port: 80, names: ["api.stripe.com"] }, "deny wrong-port stripe port"],
    ["nothing at all", { port: 9 }, "deny no-rule"],
    ["cname ignored", { cnames: ["api.stripe.com"] }, "deny wrong-name stripe name"],
    ["cname matched", { port: 5432, cnames: ["db.example.com"] }, "inspect db protocol"],
    ["database", { port: 5432, names: ["db.example.com"], evidence: { application: "postgresql" } }, "allow default/p0/db"],
    ["network", { address: "10.1.2.3", port: 8000 }, "allow default/p0/internal"],
    ["end of range", { address: "2001:db8::1", port: 8010 }, "allow default/p0/internal"],
    ["behind the range", { address: "10.1.2.3", port: 8011 }, "deny wrong-port internal port"],
    ["exception", { address: "10.97.0.1", port: 8000 }, "deny no-rule"],
    ["behind the exception", { address: "10.112.0.0", port: 8000 }, "allow default/p0/internal"],
    ["denied network", { address: "198.51.100.7", names: ["api.stripe.com"] }, "deny denied-by-rule default/p0/never"],
    ["denied name", { names: ["api.stripe.com", "x.oracle.com"] }, "deny denied-by-rule default/p0/never"],
    ["denied cname", { names: ["api.stripe.com"], cnames: ["x.oracle.com"] }, "deny denied-by-rule default/p0/never"],
    ["denied server name", { address: "10.1.1.1", port: 8000, evidence: tls("x.oracle.com") }, "deny denied-by-rule default/p0/never"],
    ["old denied name", { names: ["api.stripe.com"], stale: ["x.oracle.com"] }, "inspect stripe server-name"],
  ];
  for (const [what, ask, expected] of rows) assert.equal(short(judge(view, question(ask))), expected, what);
});

test("tiers and priorities", () => {
  const any = (action: string, name: string): string => `\n  egress: [ { name: ${name}, action: ${action} } ]`;
  const admin = (priority: number, action: string): string => `  tier: Admin\n  priority: ${priority}${any(action, `a${priority}`)}`;
  const base = (action: string): string => `  tier: Baseline${any(action, "base")}`;
  const rows: [string, string[], string][] = [
    ["no policy accepts", [`  egress: []`], "deny no-rule"],
    ["namespace", [any("Accept", "ns")], "allow default/p0/ns"],
    ["any Deny beats any Accept of the namespace", [any("Accept", "yes"), any("Deny", "no")], "deny denied-by-rule default/p1/no"],
    ["Admin Accept beats namespace Deny", [any("Deny", "no"), admin(1, "Accept")], "allow p1/a1"],
    ["lower priority first", [admin(2, "Deny"), admin(1, "Accept")], "allow p1/a1"],
    ["at one priority Deny first", [admin(1, "Accept"), admin(1, "Deny")], "deny denied-by-rule p1/a1"],
    ["at one priority Accept before Pass", [admin(1, "Pass"), admin(1, "Accept")], "allow p1/a1"],
    ["Pass skips later Admin rules", [admin(1, "Pass"), admin(2, "Deny"), any("Accept", "ns")], "allow default/p2/ns"],
    ["Pass does not allow", [admin(1, "Pass")], "deny no-rule"],
    ["Baseline allows what nobody decided", [`  egress: []`, base("Accept")], "allow p1/base"],
    ["the namespace comes before Baseline", [any("Accept", "ns"), base("Deny")], "allow default/p0/ns"],
  ];
  for (const [what, specs, expected] of rows) assert.equal(short(judge(buildView(policies(...specs)), question({}))), expected, what);
});

test("a plain Accept of the same level spares the inspection; the rules do not mix their names", () => {
  const rule = (name: string, host: string, application?: string): string =>
    `\n  - { name: ${name}, action: Accept, to: [ { domainNames: [ ${host} ] } ], ports: [ { port: 443 } ]${application === undefined ? "" : `, application: ${application}`} }`;
  const plain = buildView(policies(`  egress:${rule("checked", "a.example", "tls")}${rule("plain", "a.example")}`));
  assert.equal(short(judge(plain, question({ names: ["a.example"] }))), "allow default/p0/plain");
  const two = buildView(policies(`  egress:${rule("one", "a.example", "tls")}${rule("two", "b.example", "tls")}`));
  assert.equal(
    short(judge(two, question({ names: ["a.example"], evidence: { application: "tls", serverName: "b.example" } }))),
    "deny wrong-server-name one server-name",
  );
  assert.equal(
    short(judge(two, question({ names: ["a.example", "b.example"], evidence: { application: "tls", serverName: "b.example" } }))),
    "allow default/p0/two",
  );
});

const rule = (text: string): string => `  egress: [ { name: r, action: Accept, to: [ { domainNames: [ db.example ] } ], ${text} } ]`;
/** What one rule for db.example on any port says to this evidence of a connection to it. */
function answer(text: string, evidence: Partial<Evidence>, protocol = 6): string {
  const whole = text.includes("to:") ? `  egress: [ { name: r, action: Accept, ${text} } ]` : rule(text);
  return short(judge(buildView(policies(whole)), question({ protocol, names: ["db.example"], evidence })));
}
const allow = "allow default/p0/r";
const no = (why: string, clause: string): string => `deny ${why} r ${clause}`;

test("ClientHellos: encrypted, nameless, legacy, evasive", () => {
  const hello = { application: "tls", serverName: "db.example" };
  const nameless = { application: "tls" };
  const ssl = { ...hello, version: "SSL 3.0", evasion: `${LEGACY_TLS}: SSL 3.0` };
  const network = "to: [ { networks: [ 192.0.2.0/24 ] } ], application: tls";
  const rows: [string, string, Partial<Evidence>, string][] = [
    ["as it should be", "application: tls", { ...hello, ech: false }, allow],
    ["ECH by default", "application: tls", { ...hello, ech: true }, no("ech", "server-name")],
    ["ECH that is allowed", "application: tls, tls: { ech: Allow }", { ...hello, ech: true }, allow],
    ["ECH whose keys are taken away: GREASE", "application: tls, tls: { ech: Strip }", { ...hello, ech: true }, allow],
    [
      "… its outer name counts",
      "application: tls, tls: { ech: Strip }",
      { ...hello, serverName: "cdn.example", ech: true },
      no("wrong-server-name", "server-name"),
    ],
    ["ECH to a network", network, { ...hello, ech: true }, no("ech", "server-name")],
    ["no name", "application: tls", nameless, no("no-server-name", "server-name")],
    ["no name, allowed", "application: tls, tls: { missingServerName: Allow }", nameless, allow],
    [
      "a wrong name is not a missing one",
      "application: tls, tls: { missingServerName: Allow }",
      { ...nameless, serverName: "x.example" },
      no("wrong-server-name", "server-name"),
    ],
    ["no name, to a network", network, nameless, allow],
    ["no name, to a network that wants one", `${network}, tls: { missingServerName: Deny }`, nameless, no("no-server-name", "server-name")],
    ["SSL 3.0", "application: tls", ssl, no("wrong-protocol", "application")],
    ["SSL 3.0, allowed", "application: tls, tls: { legacy: Allow }", ssl, allow],
    ["an evasion", "application: tls", { ...hello, evasion: "a decoy" }, no("evasion", "application")],
    ["an evasion of nobody knows what", "application: tls", { evasion: "a decoy" }, no("evasion", "application")],
    ["an evasion where nothing is wanted", "ports: [ { port: 443 } ]", { evasion: "a decoy" }, allow],
    [
      "two names",
      "application: http",
      { ...hello, application: "http1", evasion: `${NAMES_DISAGREE}: x` },
      no("names-disagree", "server-name"),
    ],
    [
      "QUIC of an unknown version",
      "application: quic",
      { application: "quic", version: "0x1a2a3a4a" },
      no("no-server-name", "server-name"),
    ],
  ];
  for (const [what, text, evidence, expected] of rows) assert.equal(answer(text, evidence, text.includes("quic") ? 17 : 6), expected, what);
});

test("applications inside TLS, and TLS inside applications", () => {
  const tls = { application: "tls", serverName: "db.example" };
  const pg = { application: "postgresql", upgrade: "tls", alpn: [] };
  const rows: [string, string, Partial<Evidence>, string][] = [
    ["SSLRequest without a server name", "application: postgresql", pg, allow],
    ["… with the right one", "application: postgresql", { ...pg, serverName: "db.example" }, allow],
    ["… with a wrong one", "application: postgresql", { ...pg, serverName: "x.example" }, no("wrong-server-name", "server-name")],
    ["… where one is wanted", "application: postgresql, tls: { missingServerName: Deny }", pg, no("no-server-name", "server-name")],
    ["… with ECH", "application: postgresql", { ...pg, ech: true }, no("ech", "server-name")],
    ["… in SSL 3.0", "application: postgresql", { ...pg, evasion: `${LEGACY_TLS}: SSL 3.0` }, no("wrong-protocol", "application")],
    ["direct TLS", "application: postgresql", { ...tls, alpn: ["postgresql"] }, allow],
    [
      "direct TLS without a name",
      "application: postgresql",
      { application: "tls", alpn: ["postgresql"] },
      no("no-server-name", "server-name"),
    ],
    [
      "direct TLS that may become another",
      "application: postgresql",
      { ...tls, alpn: ["postgresql", "h2"] },
      no("wrong-protocol", "application"),
    ],
    ["TDS 8.0", "application: mssql", { ...tls, alpn: ["tds/8.0"] }, allow],
    ["opaque TLS", "application: kafka", tls, no("wrong-protocol", "application")],
    ["opaque TLS, allowed", "application: kafka, tls: { opaque: Allow }", tls, allow],
    [
      "opaque TLS to another",
      "application: kafka, tls: { opaque: Allow }",
      { ...tls, serverName: "x.example" },
      no("wrong-server-name", "server-name"),
    ],
    ["HTTPS is tls", "application: http", { ...tls, alpn: ["http/1.1"] }, no("wrong-protocol", "application")],
    ["a WebSocket is no http", "application: http", { ...tls, application: "websocket" }, no("wrong-protocol", "application")],
    ["a WebSocket in HTTP/2", "application: websocket", { ...tls, application: "http2", upgrade: "websocket" }, allow],
    ["a WebSocket", "application: websocket", { ...tls, application: "websocket" }, allow],
    ["an upgrade to who knows", "application: http", { ...tls, application: "http1", upgrade: "tcp" }, no("wrong-protocol", "application")],
    ["an upgrade to HTTP/2", "application: http", { ...tls, application: "http1", upgrade: "h2c" }, allow],
    ["EHLO and questions are no server names", "application: dns", { application: "dns", serverName: "x.example" }, allow],
  ];
  for (const [what, text, evidence, expected] of rows) assert.equal(answer(text, evidence), expected, what);
});

test("who the client says it is", () => {
  const pg = "application: postgresql, postgresql: { users: [ app, 'svc-*' ], databases: [ orders ] }";
  const as = (fields: Evidence["fields"], application = "postgresql"): Partial<Evidence> => ({
    application,
    serverName: "db.example",
    ...(fields === undefined ? {} : { fields }),
  });
  const wrong = no("wrong-identity", "identity");
  const web = (lists: string): string => `application: http, http: { ${lists} }`;
  const get = (path: string): Partial<Evidence> => as({ method: "GET", path, host: "DB.example:8080" }, "http1");
  const rows: [string, string, Partial<Evidence>, string][] = [
    ["a user of the list", pg, as({ user: "app", database: "orders" }), allow],
    ["a prefix", pg, as({ user: "svc-7", database: "orders" }), allow],
    ["another user", pg, as({ user: "admin", database: "orders" }), wrong],
    ["another database", pg, as({ user: "app", database: "Orders" }), wrong],
    ["a user that nobody can see", pg, { application: "postgresql", upgrade: "tls" }, wrong],
    [
      "letters that are not ASCII",
      "application: mysql, mysql: { users: [ 'jörg\\x' ] }",
      as({ user: "j\\xc3\\xb6rg\\x5cx" }, "mysql"),
      allow,
    ],
    ["a value that was cut", "application: mysql, mysql: { users: [ 'a*' ] }", as({ user: "a".repeat(255) }, "mysql"), allow],
    ["redis before SELECT", "application: redis, redis: { databases: [ 0 ] }", as(undefined, "redis"), allow],
    ["redis behind SELECT", "application: redis, redis: { databases: [ 0 ] }", as({ database: "3" }, "redis"), wrong],
    ["mssql's program", "application: mssql, mssql: { applications: [ report ] }", as({ application: "report" }, "mssql"), allow],
    ["a method", web("methods: [ GET ]"), get("/"), allow],
    ["another method", web("methods: [ POST ]"), get("/"), wrong],
    ["gRPC is a POST", web("methods: [ POST ]"), as({ method: "Get", path: "/a.B/Get" }, "grpc"), allow],
    ["a gRPC service", "application: grpc, grpc: { services: [ 'shop.*' ] }", as({ service: "shop.Orders", method: "Get" }, "grpc"), allow],
    ["a path", web("paths: [ /health ]"), get("/health"), allow],
    ["… with a query", web("paths: [ /health ]"), get("/health?x=/../y"), allow],
    ["… below it", web("paths: [ /health ]"), get("/health/x"), wrong],
    ["a path of a prefix", web("paths: [ '/v1/*' ]"), get("/v1/a/b"), allow],
    ["dot segments", web("paths: [ '/v1/*' ]"), get("/v1/../admin"), wrong],
    ["encoded ones", web("paths: [ '/v1/*' ]"), get("/v1/%2E./admin"), wrong],
    ["doubly encoded ones", web("paths: [ '/v1/*' ]"), get("/v1/%252e%252e/admin"), wrong],
    ["with a parameter", web("paths: [ '/v1/*' ]"), get("/v1/..;x=1/admin"), wrong],
    ["a backslash", web("paths: [ '/v1/*' ]"), get("/v1/..\\x5cadmin"), wrong],
    ["a path that was cut", web("paths: [ '/v1/*' ]"), get(`/v1/${"a".repeat(251)}`), wrong],
    ["any path", web("paths: [ '/*' ]"), get("/v1/../admin"), allow],
    ["a host", web("hosts: [ '*.example' ]"), get("/"), allow],
    ["another host", web("hosts: [ x.example ]"), get("/"), wrong],
    ["an address", web("hosts: [ '2001:db8::1' ]"), as({ host: "[2001:DB8:0::1]:80" }, "http1"), allow],
  ];
  for (const [what, text, evidence, expected] of rows) assert.equal(answer(text, evidence), expected, what);
});

test("a proxy is judged by what it is asked for", () => {
  const targets = "[ { domainNames: [ news.example, '*.news.example' ], ports: [ { port: 443 } ] }, { domainNames: [ open.example ] } ]";
  const proxy = `application: http, http: { proxy: { targets: ${targets} } }`;
  const ask = (target: string | undefined, serverName = target?.split(":")[0]): Partial<Evidence> => ({
    application: "http1",
    serverName,
    fields: target === undefined ? {} : { target },
  });
  const rows: [string, Partial<Evidence>, string][] = [
    ["a name of the list", ask("www.news.example:443"), allow],
    ["… on another port", ask("www.news.example:22"), no("wrong-server-name", "server-name")],
    ["… on any port", ask("open.example:8080"), allow],
    ["another name", ask("evil.example:443"), no("wrong-server-name", "server-name")],
    ["an address", ask("192.0.2.9:443", undefined), no("wrong-server-name", "server-name")],
    ["the proxy itself", ask(undefined, "db.example"), no("no-server-name", "server-name")],
    ["TLS inside of the tunnel", { ...ask("www.news.example:443"), upgrade: "tls" }, allow],
    ["… for a name of the same entry", { ...ask("www.news.example:443", "cdn.news.example"), upgrade: "tls" }, allow],
    ["… for another", { ...ask("www.news.example:443", "open.example"), upgrade: "tls" }, no("wrong-server-name", "server-name")],
    ["… for none", { ...ask("www.news.example:443"), serverName: undefined, upgrade: "tls" }, no("no-server-name", "server-name")],
    ["no TLS inside", { ...ask("www.news.example:443"), upgrade: "unknown" }, no("wrong-protocol", "application")],
  ];
  for (const [what, evidence, expected] of rows) assert.equal(answer(proxy, evidence), expected, what);
  const view = buildView(policies(rule(proxy), "  egress: [ { name: d, action: Deny, to: [ { domainNames: [ '*.news.example' ] } ] } ]"));
  const denied = judge(view, question({ names: ["db.example"], evidence: ask("www.news.example:443", undefined) }));
  assert.equal(short(denied), "deny denied-by-rule default/p1/d", "a Deny rule counts behind a proxy too");
  const of = ruleOf(view, { policy: "default/p0", rule: "r" }) as CompiledRule;
  assert.deepEqual([judgeTarget(of, "News.Example.", 443), judgeTarget(of, "news.example", 80)], [true, false]);
});

test("names whose ECH keys are taken out of replies", () => {
  const view = buildView(
    policies(
      "  egress: [ { action: Accept, to: [ { domainNames: [ a.example ] } ], application: tls, tls: { ech: Strip } }, { action: Accept, to: [ { domainNames: [ '*.example' ] } ], application: tls } ]",
    ),
  );
  const rows: [string, boolean][] = [
    ["a.example", true],
    ["_8443._https.a.example", true],
    ["_dns.a.example", true],
    ["b.example", false],
    ["x._https.a.example", false],
  ];
  for (const [name, strips] of rows) assert.equal(stripsEch(view, n(name)), strips, name);
});

test("queries", () => {
  const only = "  dns: { queries: AllowedOnly }";
  const view = buildView(policies(`${only}${SHOP}`));
  assert.deepEqual(judgeQuery(view, n("api.stripe.com")), { action: "allow" });
  const refused = { action: "refuse", why: "name-not-allowed" };
  assert.deepEqual(judgeQuery(view, n("evil.example")), { ...refused, nearest: undefined });
  // Another name of a domain that a rule has: misspelt, or new.
  for (const [name, rule] of [
    ["db2.example.com", "db"],
    ["stripe.com", "stripe"],
  ] as const)
    assert.deepEqual(judgeQuery(view, n(name)), { ...refused, nearest: { policy: "default/p0", rule, clause: "name" } });
  assert.deepEqual(judgeQuery(view, n("x.oracle.com")), { action: "refuse", why: "denied-by-rule", policy: "default/p0", rule: "never" });
  const open = buildView(policies(`${only}\n  egress: [ { action: Accept, ports: [ { port: 443 } ] } ]`));
  assert.deepEqual(judgeQuery(open, n("evil.example")), { action: "allow" });
  assert.deepEqual(portsForName(view, n("db.example.com"), "cname"), [(6 << 16) | 5432]);
  assert.deepEqual(portsForName(view, n("api.stripe.com"), "cname"), []);
});

test("bounds: ports of a name, elements of a view", () => {
  const ports = Array.from({ length: 100 }, (_, i) => `{ port: ${i + 1} }`).join(", ");
  const many = buildView(policies(`  egress: [ { action: Accept, to: [ { domainNames: [ a.example ] } ], ports: [ ${ports} ] } ]`));
  assert.equal(portsForName(many, n("a.example"), "asked").length, NAME_PORTS_MAX);
  const networks = Array.from({ length: 2000 }, (_, i) => `10.${i >> 8}.${i & 255}.0/24`).join(", ");
  const wide = buildView(policies(`  egress: [ { action: Accept, to: [ { networks: [ ${networks} ] } ], ports: [ { port: 443 } ] } ]`));
  assert.equal(networkElements(wide).length, NETWORK_ELEMENTS_MAX);
});

test("a Deny of other networks does not keep a network out of the kernel; one that overlaps, or a name, does", () => {
  const accept = "{ action: Accept, to: [ { networks: [ 10.0.0.0/8 ] } ], ports: [ { port: 443 } ] }";
  const count = (deny: string): number => networkElements(buildView(policies(`  egress: [ ${accept}, { action: Deny, ${deny} } ]`))).length;
  assert.equal(count("to: [ { networks: [ 169.254.169.254 ] } ]"), 1);
  assert.equal(count("ports: [ { port: 80 } ]"), 1);
  assert.equal(count("to: [ { networks: [ 10.1.0.0/16 ] } ]"), 0);
  assert.equal(count("to: [ { networks: [ 0.0.0.0/0 ] } ]"), 0);
  assert.equal(count("to: [ { domainNames: [ evil.example ] } ]"), 0);
});

test("50 000 names and networks are judged in microseconds", () => {
  const names = Array.from({ length: 25_000 }, (_, i) => `"*.n${i}.example"`).join(",");
  const networks = Array.from({ length: 25_000 }, (_, i) => `10.${i >> 8}.${i & 255}.0/25`).join(",");
  const view = buildView(policies(`  egress: [ { action: Accept, to: [ { domainNames: [${names}] }, { networks: [${networks}] } ] } ]`));
  const asked = question({ address: "10.200.0.1", names: ["a.b.c.d.e.f.g.n77777.example"] });
  const start = performance.now();
  for (let i = 0; i < 10_000; i++) judge(view, asked);
  const microseconds = (performance.now() - start) / 10;
  assert.ok(microseconds < 200, `${microseconds} µs a question`);
});

test("who is selected", () => {
  const pod = {
    key: "default/a",
    namespace: "default",
    name: "a",
    labels: { app: "a", tier: "web" },
    serviceAccountName: "sa",
  } as unknown as Pod;
  const rows: [string, boolean][] = [
    ["", true],
    ["  subject: { podSelector: {} }", true],
    ["  subject: { podSelector: { matchLabels: { app: a } } }", true],
    ["  subject: { podSelector: { matchLabels: { app: b } } }", false],
    ["  subject: { podSelector: { matchLabels: { app: a, toString: x } } }", false],
    ["  subject: { podSelector: { matchExpressions: [ { key: app, operator: In, values: [ a, b ] } ] } }", true],
    ["  subject: { podSelector: { matchExpressions: [ { key: other, operator: NotIn, values: [ a ] } ] } }", true],
    ["  subject: { podSelector: { matchExpressions: [ { key: app, operator: NotIn, values: [ a ] } ] } }", false],
    ["  subject: { podSelector: { matchExpressions: [ { key: constructor, operator: Exists } ] } }", false],
    ["  subject: { podSelector: { matchExpressions: [ { key: app, operator: DoesNotExist } ] } }", false],
    ["  subject: { serviceAccountNames: [ sa ] }", true],
    ["  subject: { serviceAccountNames: [ other ] }", false],
    ["  tier: Admin\n  subject: { namespaceSelector: { matchLabels: { team: x } } }", true],
    ["  tier: Admin\n  subject: { namespaceSelector: { matchLabels: { team: y } } }", false],
  ];
  for (const [spec, expected] of rows) assert.equal(selects(policies(spec)[0] as Policy, pod, { team: "x" }), expected, spec);
  const list = policies(
    "  tier: Baseline",
    "",
    "  tier: Admin\n  priority: 7",
    "  tier: Admin\n  priority: 3",
    "  subject: { serviceAccountNames: [ x ] }",
  );
  assert.deepEqual(
    selectPolicies(list, pod, {}).map(({ id }) => id),
    ["p3", "p2", "default/p1", "p0"],
  );
  assert.deepEqual(
    selectPolicies(list, { ...pod, namespace: "other" }, {}).map(({ id }) => id),
    ["p3", "p2", "p0"],
  );
});

test("schema and evaluator know the same applications", () => {
  assert.deepEqual(policySchema.definitions.rule.properties.application.enum, [...APPLICATIONS.keys()]);
});

test("a rule can ask for what can be read, and for nothing else", () => {
  assert.deepEqual([...APPLICATIONS.keys()].sort(), applications().sort());
});
