import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv } from "ajv";
import fc from "fast-check";
import { parse, stringify } from "yaml";
import { cidrText } from "../../src/base/address.ts";
import { TLS_DEFAULTS } from "../../src/policy/build.ts";
import { mergeDocuments, PROBLEMS_MAX, readConfigMap, readManifests, type ReadResult } from "../../src/policy/read.ts";
import { policySchema } from "../../src/policy/schema.ts";
import { DNS_LIMITS } from "../../src/policy/view.ts";

const fixture = (name: string): string => readFileSync(join("test/policy/fixtures", name), "utf8");

const bare = (spec: string, kind = "EgressPolicy"): string =>
  `apiVersion: namegate.dev/v1alpha1\nkind: ${kind}\nmetadata: { name: p }\nspec:\n  mode: Enforce\n${spec}\n`;
const rule = (text: string): string => bare(`  egress:\n  - { action: Accept, ${text} }`);
const inConfigMap = (data: string, namespace = "shop"): string =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c, namespace: ${namespace}, labels: { namegate.dev/policy: "true" } }\ndata:\n${data}`;
const indent = (text: string, by: string): string =>
  text
    .split("\n")
    .map((line) => (line === "" ? "" : by + line))
    .join("\n");
const said = ({ problems }: ReadResult): string[] =>
  problems.map((p) => `${p.line}:${p.column} ${p.path}: ${p.message}${p.hint === undefined ? "" : ` (${p.hint})`}`);

test("the example of the design page, with a cluster policy, among other manifests", () => {
  const { policies, problems, documents } = readManifests("shop.yaml", fixture("shop.yaml"), { clusterNamespace: "namegate" });
  assert.deepEqual(problems, []);
  assert.deepEqual(
    documents.map(({ id, line, valid }) => [id, line, valid]),
    [
      ["shop/checkout", 14, true],
      ["shop/everyone", 39, true],
      ["guardrails", 59, true],
    ],
  );
  const [checkout, everyone, guardrails] = policies;
  assert.deepEqual(checkout?.dns, { queries: "AllowedOnly", minTtlMs: 30_000, maxTtlMs: 3_600_000, graceMs: 300_000 });
  assert.deepEqual(checkout?.rules[1]?.names, ["orders-db.example.com"]);
  assert.deepEqual(checkout?.rules[1]?.identity, [
    { field: "user", values: ["checkout"] },
    { field: "database", values: ["orders"] },
  ]);
  assert.deepEqual(checkout?.rules[1]?.tls, TLS_DEFAULTS);
  assert.deepEqual(checkout?.subject.serviceAccountNames, ["checkout"]);
  assert.equal(everyone?.rules[0]?.name, "rule-1");
  assert.deepEqual(
    everyone?.rules[0]?.networks.map(({ cidr, except }) => [cidrText(cidr), except.map(cidrText)]),
    [
      ["10.0.0.0/8", ["10.96.0.0/12"]],
      ["2001:db8::/32", []],
    ],
  );
  assert.deepEqual(everyone?.rules[0]?.ports, [
    { protocol: 6, first: 8000, last: 8010 },
    { protocol: 1, first: 0x800, last: 0x8ff },
    { protocol: 58, first: 0x8000, last: 0x8000 },
    { protocol: 132, first: 0, last: 65_535 },
  ]);
  assert.deepEqual([guardrails?.tier, guardrails?.priority, guardrails?.namespace], ["Admin", 10, undefined]);
  assert.deepEqual(structuredClone(policies), policies);
});

test("every problem at once, each at its place", () => {
  const result = readManifests("broken.yaml", fixture("broken.yaml"));
  assert.deepEqual(result.policies, []);
  assert.deepEqual(
    result.documents.map(({ id, valid }) => [id, valid]),
    [["shop/broken", false]],
  );
  assert.deepEqual(said(result), fixture("broken.expected").trimEnd().split("\n"));
});

test("rules and values", () => {
  const rows: [text: string, problem: RegExp | undefined][] = [
    [rule("to: [ { domainNames: [ A.Example. ] } ]"), undefined],
    [rule("to: [ { domainNames: [ *.example.com ] } ]"), /without quotes is an alias \(put it in quotes: "\*\.example\.com"\)/],
    [rule("to: [ { domainNames: [ *, x ] } ]"), /needs quotes/],
    [rule("to: [ { domainNames: [ _dmarc.example.com ] } ]"), undefined],
    [rule("to: [ { domainNames: [ x ], cnames: match } ]"), /did you mean `Match`/],
    [rule("to: [ { domainNames: [ x ] }, { domainNames: [ y ], cnames: Match } ]"), /not the same in all/],
    [rule("to: [ { networks: [ 10.0.0.0/8 ], cnames: Match } ]"), /needs `domainNames`/],
    [rule("to: [ {} ]"), /neither/],
    [rule("to: []"), /could mean anywhere or nowhere/],
    [rule("ports: []"), /any port or none/],
    [rule("to: [ { networks: [ { cidr: 10.0.0.0/8, except: [ 10.0.0.0/8 ] } ] } ]"), /all of/],
    [rule("to: [ { networks: [ { cidr: 10.0.0.0/8, except: [ 10.0.0.0/7 ] } ] } ]"), /not inside/],
    [rule("to: [ { networks: [ { except: [ 10.0.0.0/8 ] } ] } ]"), /`cidr` is missing/],
    [rule("to: [ { networks: [ '::ffff:10.0.0.0/104' ] } ]"), /prefix length/],
    [rule("to: [ { domainNames: [ .example.com ] } ]"), /did you mean `\*\.example\.com`/],
    [rule("to: [ { domainNames: [ 'example.com:443' ] } ]"), /under `ports`/],
    [rule(`to: [ { domainNames: [ ${"a".repeat(64)}.example ] } ]`), /more than 63/],
    [rule("to: { domainNames: [ x ] }"), /must be a list, not an object \(put `- `/],
    [rule("ports: [ { protocol: TCP } ]"), undefined],
    [rule("ports: [ { endPort: 80 } ]"), /needs a `port`/],
    [rule("ports: [ { port: 0 } ]"), /0 is not in 1\.\.65535/],
    [rule("ports: [ { port: 80, type: 8 } ]"), /only ICMP/],
    [rule("ports: [ { protocol: ICMP, code: 0 } ]"), /needs a `type`/],
    [rule("application: tls"), undefined],
    [rule("application: tls, ports: [ { port: 443 }, { protocol: UDP, port: 443 } ]"), undefined],
    [rule("application: tls, ports: [ { protocol: UDP, port: 443 } ]"), /use application: quic/],
    [rule("application: http, ports: [ { protocol: UDP, port: 443 } ]"), /HTTP\/3/],
    [rule("application: quic, ports: [ { port: 443 } ]"), /use protocol: UDP/],
    [rule("application: postgres"), /did you mean `postgresql`/],
    [rule("application: mysql, postgresql: { users: [ x ] }"), /needs `application: postgresql`/],
    [rule("postgresql: { users: [ x ] }"), /needs `application: postgresql`/],
    [rule("application: postgresql, postgresql: { users: x }"), /must be a list.*write \[ x \]/],
    [rule("application: redis, redis: { databases: [ 0, 3 ] }"), undefined],
    [rule("application: redis, redis: { databases: [ '0' ] }"), /must be a whole number.*remove the quotes/],
    [rule("application: http2, http: { methods: [ GET ], paths: [ '/v1/*' ], hosts: [ '*.example', 192.0.2.1 ] }"), undefined],
    [rule("application: http, http: { methods: [ get ] }"), /methods are upper case: `GET`/],
    [rule("application: http, http: { paths: [ v1 ] }"), /paths begin with a slash: `\/v1`/],
    [rule("application: http, http: { paths: [ '/a?b' ] }"), /without it/],
    [rule("application: http, http: { hosts: [ 'a.example:80' ] }"), /under `ports`/],
    [rule("application: kafka, kafka: { clientIds: [ 'a*b' ] }"), /a `\*` at the end stands for any rest/],
    [rule("application: grpc, http: { paths: [ /a ] }"), /`http` needs `application: http`/],
    [rule("application: http, http: { proxy: { targets: [ { domainNames: [ a.example ], ports: [ { port: 443 } ] } ] } }"), undefined],
    [rule("application: http, http: { proxy: { targets: [ { ports: [ { port: 443 } ] } ] } }"), /`domainNames` is missing/],
    [rule("application: http, http: { proxy: { targets: [ { domainNames: [ 10.0.0.1 ] } ] } }"), /is an address/],
    [
      rule("application: http, http: { proxy: { targets: [ { domainNames: [ a ], ports: [ { port: 9, endPort: 8 } ] } ] } }"),
      /less than port 9/,
    ],
    [rule("application: tls, tls: { ech: Allow, missingServerName: Allow, legacy: Deny }"), undefined],
    [rule("application: tls, tls: { ech: strip }"), /did you mean `Strip`/],
    [rule("application: tls, tls: { ech: Strip }"), /needs `domainNames`/],
    [rule("application: tls, to: [ { domainNames: [ a.example ] } ], tls: { ech: Strip }"), undefined],
    [rule("application: tls, tls: { opaque: Allow }"), /nothing that could be inside/],
    [rule("application: tls, tls: {}"), /is empty/],
    [rule("application: kafka, tls: { opaque: Allow }"), undefined],
    [rule("application: kafka, kafka: { clientIds: [ a ] }, tls: { opaque: Allow }"), /cannot be seen inside TLS \(make two rules/],
    [rule("application: ssh, tls: { ech: Allow }"), /ssh is not spoken inside TLS/],
    [rule("tls: { ech: Allow }"), /`tls` needs an `application`/],
    [bare("  egress: [ { action: Deny, application: tls } ]"), /Deny rule cannot/],
    [bare("  egress: [ { action: Pass } ]"), /only for Admin/],
    [bare("  tier: Baseline\n  egress: [ { action: Pass } ]", "ClusterEgressPolicy"), /only for Admin/],
    [bare("  egress: [ { action: Pass } ]", "ClusterEgressPolicy"), undefined],
    [bare("  priority: 1001", "ClusterEgressPolicy"), /not in 0\.\.1000/],
    [bare("  priority: 5"), /only a ClusterEgressPolicy has it/],
    [bare("  egress: [ { name: rule-2, action: Deny }, { action: Deny } ]"), /rule 1 has the name `rule-2` too/],
    [bare("  dns: { minTtl: 2h }"), /minTtl is more than maxTtl.*default/],
    [bare("  dns: { minTtl: 1h30m, maxTtl: 2h, grace: 500ms }"), undefined],
    [bare("  dns: { grace: 30 }"), /add a unit: 30s/],
    [bare(`  dns: { limits: { action: Refuse, names: 500, entropy: 4.5, types: [ "NULL", TXT, TYPE65399 ] } }`), undefined],
    [bare("  dns: { limits: {} }"), undefined],
    [bare("  dns: { limits: { types: [ NULL ] } }"), /write the record type in quotes: "NULL"/],
    [bare("  dns: { limits: { action: Deny } }"), /use Alert or Refuse/],
    [bare("  dns: { limits: { types: [ txt ] } }"), /`txt` is no record type.*did you mean `TXT`/],
    [bare("  dns: { limits: { types: [ TYPE65536 ] } }"), /is no record type/],
    [bare("  dns: { limits: { names: 10001 } }"), /not in 1\.\.10000/],
    [bare("  dns: { limits: { name: 1 } }"), /did you mean `names`/],
    [bare("  dns: { limits: { entropy: high } }"), /must be a number/],
    [bare("  egress:"), /not nothing/],
    [bare("  subject: { podSelector: { matchExpressions: [ { key: a, operator: In } ] } }"), /In needs `values`/],
    [bare("  subject: { podSelector: { matchExpressions: [ { key: a, operator: Exists, values: [ x ] } ] } }"), /Exists has no `values`/],
    [bare("  subject: { podSelector: { matchLabels: { app: 1 } } }"), /put it in quotes: "1"/],
    [bare("  subject: { podSelector: { matchLabels: { -app: x } } }"), /not a label key/],
    [bare("  mode: Enforce"), /the same key twice/],
    [bare("  __proto__: { mode: Discover }"), /unknown field `__proto__`/],
    [bare("  constructor: {}"), /unknown field `constructor`/],
    [bare("  egress: &e []\n  dns: *e"), /aliases/],
    [bare("  egress: ["), /not YAML/],
    [bare("", "EgressPolice"), /did you mean `EgressPolicy`/],
    [bare("", "NetworkPolicy"), /no kind of policy/],
    [bare("").replace("v1alpha1", "v1"), /did you mean `namegate.dev\/v1alpha1`/],
    [bare("").replace("name: p", "name: P"), /not of the right form/],
  ];
  for (const [text, problem] of rows) {
    const result = readManifests("f", text);
    if (problem === undefined) assert.deepEqual([said(result), result.policies.length], [[], 1], text);
    else
      assert.deepEqual(
        [result.policies.length, said(result).filter((line) => problem.test(line)).length >= 1],
        [0, true],
        `${text}\n${said(result).join("\n")}`,
      );
  }
});

test("dns.limits: what is left out has the default, and without the section there is none", () => {
  const limits = (text: string): unknown => readManifests("f", bare(`  dns: ${text}`)).policies[0]?.dns.limits;
  assert.equal(limits("{}"), undefined);
  assert.deepEqual(limits("{ limits: {} }"), DNS_LIMITS);
  assert.deepEqual(limits("{ limits: { action: Refuse, queries: 9, types: [ TXT, TYPE300 ] } }"), {
    ...DNS_LIMITS,
    action: "Refuse",
    queries: 9,
    types: [16, 300],
  });
  assert.deepEqual(limits("{ limits: { types: [] } }"), { ...DNS_LIMITS, types: [] });
});

test("one slip, one problem", () => {
  for (const text of [
    rule("application: postgres"),
    rule("to: []"),
    rule("to: [ { domainNames: [ *.x ] } ]"),
    rule("ports: [ { protocol: ICMP, port: 1 } ]"),
    rule("postgresql: { users: [ x ] }"),
    rule("tls: { ech: Allow }"),
    rule("application: http, http: { proxy: { targets: [ { domainNames: [ '*' ] } ] } }"),
    bare("  egress: [ { action: Pass } ]"),
    rule("to: [ { domainNames: [ '*' ] } ]"),
    bare("  egress: [ { action: Deny, application: tls } ]"),
  ]) {
    assert.equal(readManifests("f", text).problems.length, 1, `${text}${said(readManifests("f", text)).join("\n")}`);
  }
});

test("places in block scalars, in other scalars, in lists", () => {
  const bad = "apiVersion: namegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: { name: p }\nspec:\n  mode: Off\n";
  const at = (text: string): string => said(readManifests("f", text))[0] as string;
  assert.match(at(inConfigMap(`  a.yaml: |\n${indent(bad, "    ")}`)), /^10:13 spec\.mode: /);
  assert.match(at(inConfigMap(`  a.yaml: | # comment\n\n\n${indent(bad, "        ")}`)), /^12:17 spec\.mode: /);
  assert.match(at(inConfigMap(`  a.yaml: |2-\n${indent(bad, "      ")}`.replace("|2-", "|4-"))), /^10:15 spec\.mode: /);
  assert.match(at(inConfigMap(`  a.yaml: |\n${indent(bad, "    ")}`).replaceAll("\n", "\r\n")), /^10:13 spec\.mode: /);
  assert.match(at(inConfigMap(`  a.yaml: ${JSON.stringify(bad)}\n`)), /^5:3 spec\.mode: .*\(line 5, column 9 of `a\.yaml`\)/);
  assert.match(
    at(`kind: List\napiVersion: v1\nitems:\n- ${indent(inConfigMap(`  a.yaml: |\n${indent(bad, "    ")}`), "  ").slice(2)}`),
    /^13:15 spec\.mode: /,
  );
  assert.match(
    at(
      JSON.stringify({
        apiVersion: "v1",
        kind: "List",
        items: [
          {
            apiVersion: "v1",
            kind: "ConfigMap",
            metadata: { name: "x", labels: { "namegate.dev/policy": "true" } },
            data: { "a.yaml": bad },
          },
        ],
      }),
    ),
    /^1:\d+ spec\.mode: .*line 5, column 9/,
  );
});

test("what is read and what is passed over", () => {
  const good = bare("");
  const block = `  a.yaml: |\n${indent(good, "    ")}`;
  const ids = (text: string, clusterNamespace?: string): string[] =>
    readManifests("f", text, { clusterNamespace }).policies.map(({ id }) => id);
  assert.deepEqual(ids(inConfigMap(block)), ["shop/p"]);
  assert.deepEqual(ids(inConfigMap(block).replace(", namespace: shop", "")), ["default/p"]);
  assert.deepEqual(ids(inConfigMap(block).replace("namegate.dev/policy", "other")), []);
  assert.deepEqual(ids(inConfigMap(block).replace("a.yaml", "a.txt")), []);
  assert.deepEqual(ids(good), ["default/p"]);
  assert.deepEqual(ids(good.replace("name: p", "name: p, namespace: x")), ["x/p"]);
  assert.match(said(readManifests("f", inConfigMap(block).replace("a.yaml", "a.yml"))).join(), /would not be read \(name it `a\.yaml`\)/);
  assert.match(said(readManifests("f", inConfigMap(block).replace('"true"', "true"))).join(), /put it in quotes/);
  const cluster = inConfigMap(block.replace("EgressPolicy", "ClusterEgressPolicy"));
  assert.deepEqual(ids(cluster), ["p"]);
  assert.deepEqual(ids(cluster, "shop"), ["p"]);
  assert.match(said(readManifests("f", cluster, { clusterNamespace: "namegate" })).join(), /only ConfigMaps of `namegate`/);
  // Nor may it push out the real one.
  const real = cluster.replace("namespace: shop", "namespace: namegate");
  const merged = mergeDocuments([cluster, real].map((text) => readManifests("f", text, { clusterNamespace: "namegate" })));
  assert.deepEqual([merged.policies.map(({ id }) => id), merged.problems.length], [["p"], 1]);
});

test("duplicate policies, in a file and across files", () => {
  const twice = readManifests("f", `${bare("")}---\n${bare("")}`);
  assert.deepEqual(
    [twice.policies.length, said(twice)],
    [1, ["10:19 metadata.name: the policy `default/p` is already in f:3 (remove one, or rename it)"]],
  );
  const merged = mergeDocuments([
    readManifests("a", bare("")),
    readManifests("b", bare("")),
    readManifests("c", bare("").replace("name: p", "name: q")),
  ]);
  assert.deepEqual(
    merged.policies.map(({ id }) => id),
    ["default/p", "default/q"],
  );
  assert.deepEqual(
    merged.problems.map(({ file, message }) => [file, message]),
    [["b", "the policy `default/p` is already in a:3"]],
  );
  assert.deepEqual(
    merged.documents.map(({ file, valid }) => [file, valid]),
    [
      ["a", true],
      ["b", false],
      ["c", true],
    ],
  );
});

test("a ConfigMap as the API gives it", () => {
  const metadata = { name: "c", namespace: "shop" };
  const { policies, problems } = readConfigMap({ metadata, data: { "a.yaml": bare(""), "b.yaml": bare("  mod: 1"), note: ":" } });
  assert.deepEqual(
    policies.map(({ id }) => id),
    ["shop/p"],
  );
  assert.deepEqual(
    problems.map((p) => `${p.file}:${p.line}:${p.column} ${p.path}`),
    ["configmap/shop/c:b.yaml:6:3 spec.mod", "configmap/shop/c:b.yaml:3:19 metadata.name"],
  );
});

test("a ConfigMap that would take seconds to parse is refused, without being parsed", () => {
  const metadata = { name: "c", namespace: "shop" };
  for (const hostile of ["{}", "]", "---\n", "- a\n", "a,", '"', "a: "]) {
    const text = hostile.repeat(2 ** 20 / hostile.length);
    const { policies, problems } = readConfigMap({ metadata, data: { "a.yaml": bare(""), "b.yaml": text, "c.yaml": bare("") } });
    assert.equal(policies.length, 1, "what comes before it");
    assert.deepEqual(
      problems.map(({ file, line }) => `${file}:${line}`),
      ["configmap/shop/c:b.yaml:1", "configmap/shop/c:c.yaml:1"],
    );
    assert.match(problems[0]?.message ?? "", /more than 65536 line breaks and punctuation marks/);
  }
  const many = Array.from({ length: 12_000 }, (_, i) => `# - host-${i}.example.com`).join("\n"); // 4 marks each
  assert.deepEqual(readConfigMap({ metadata, data: { "a.yaml": `${bare("")}${many}` } }).problems, [], "a long policy is none of these");
  const inManifest = JSON.stringify({
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { ...metadata, labels: { "namegate.dev/policy": "true" } },
    data: { "a.yaml": "{}".repeat(40_000) },
  });
  assert.match(readManifests("m.yaml", inManifest).problems[0]?.message ?? "", /more than 65536/);
});

test("hostile texts are refused in bounded time", () => {
  const deep = `${bare("").trimEnd()}\n  egress: ${"[".repeat(100_000)}`;
  const wide = bare(Array.from({ length: 60_000 }, (_, i) => `  k${i}: 1`).join("\n"));
  const laughs = bare(`  a: &a [ x, x ]\n${Array.from({ length: 20 }, (_, i) => `  b${i}: &b${i} [ *a, *a ]`).join("\n")}`);
  for (const text of [
    deep,
    wide,
    laughs,
    "x".repeat(2e6),
    "- ".repeat(100_000),
    "\0\ud800\uffff: [",
    "%YAML 9\n---\n",
    inConfigMap(Array.from({ length: 30_000 }, (_, i) => `  k${i}.yaml: x`).join("\n")),
  ]) {
    const start = performance.now();
    const result = readManifests("f", text);
    assert.deepEqual(result.policies, []);
    assert.ok(result.problems.length <= PROBLEMS_MAX + 1);
    assert.ok(performance.now() - start < 10_000, `${text.slice(0, 20)} took ${performance.now() - start} ms`);
  }
  assert.equal(({} as Record<string, unknown>)["mode"], undefined);
});

// Mutations: a valid document with a value, a key or some characters replaced.
const valid = fixture("shop.yaml")
  .split(/^---$/m)
  .flatMap((text) => Object.entries((parse(text, { merge: false }) as { data?: Record<string, string> }).data ?? {}))
  .filter(([key]) => key === "checkout.yaml" || key === "guardrails.yaml")
  .flatMap(([, text]) => text.split(/^---$/m));
const junk = fc.constantFrom<unknown>(
  null,
  0,
  -1,
  443,
  70_000,
  1.5,
  true,
  "",
  "x",
  "*",
  "Accept",
  "Deny",
  "Pass",
  "tls",
  "quic",
  "UDP",
  "ICMP",
  "10.0.0.0/8",
  "10.0.0.1/8",
  "a.example",
  "30s",
  "1d",
  [],
  {},
  ["x"],
  { x: 1 },
  [[]],
  { domainNames: ["x"] },
  { port: 1 },
);

function mutate(value: unknown, steps: readonly number[], replacement: unknown, how: number): unknown {
  const [step = 0, ...rest] = steps;
  if (typeof value !== "object" || value === null || (rest.length === 0 && how === 0)) return replacement;
  const keys = Object.keys(value);
  const key = keys[step % Math.max(1, keys.length)];
  const copy = (Array.isArray(value) ? [...value] : { ...value }) as Record<string, unknown>;
  if (rest.length === 0 && how === 1) copy[Array.isArray(value) ? String(value.length) : "extra"] = replacement;
  else if (key === undefined) return replacement;
  else if (rest.length === 0 && Array.isArray(copy)) copy.splice(Number(key), 1);
  else if (rest.length === 0) delete copy[key];
  else copy[key] = mutate(copy[key], rest, replacement, how);
  return copy;
}

const mutant = fc
  .record({
    base: fc.constantFrom(...valid.map((text) => parse(text) as unknown)),
    changes: fc.array(fc.tuple(fc.array(fc.nat(20), { minLength: 1, maxLength: 9 }), junk, fc.nat(2)), { maxLength: 3 }),
  })
  .map(({ base, changes }) => changes.reduce<unknown>((value, [steps, replacement, how]) => mutate(value, steps, replacement, how), base));

function sane(text: string, result: ReadResult): void {
  const lines = text.split("\n").length;
  for (const p of result.problems)
    assert.ok(
      p.line >= 1 && p.column >= 1 && p.line <= lines && p.message !== "" && !p.message.includes("failed on this file"),
      JSON.stringify(p),
    );
  for (const { id, valid: ok } of result.documents)
    assert.equal(
      result.policies.some((policy) => policy.id === id),
      ok,
    );
}

test("reader and schema agree, whatever the document", () => {
  const ajv = new Ajv({ strict: false });
  const validate = ajv.compile(policySchema);
  let accepted = 0;
  let refused = 0;
  fc.assert(
    fc.property(mutant, (document) => {
      const text = stringify(
        {
          apiVersion: "v1",
          kind: "ConfigMap",
          metadata: { name: "c", namespace: "shop", labels: { "namegate.dev/policy": "true" } },
          data: { "a.yaml": stringify(document) },
        },
        { aliasDuplicateObjects: false, lineWidth: 0 },
      );
      const result = readManifests("f", text);
      sane(text, result);
      if (result.policies.length > 0) {
        accepted++;
        assert.ok(validate(document), JSON.stringify(validate.errors));
        assert.deepEqual(result.problems, []);
      } else {
        refused++;
        assert.ok(result.problems.length > 0 || document === null, "refused without a word");
        assert.ok(!result.problems.some(({ message }) => message === "does not fit the schema"), text);
      }
    }),
    { numRuns: 1500 },
  );
  assert.ok(accepted > 100 && refused > 300, `${accepted} accepted, ${refused} refused`);
});

test("fuzz: text with holes and noise", () => {
  const texts = [fixture("shop.yaml"), fixture("broken.yaml")];
  const noise = fc.constantFrom(
    "",
    " ",
    "\n",
    "\t",
    ":",
    "-",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "|",
    ">",
    "&a ",
    "*a ",
    "!x ",
    '"',
    "'",
    "#",
    "---\n",
    "%",
    "\0",
    "é",
    "\u{1f600}",
    "\ud800",
    "__proto__: 1\n",
    "? ",
  );
  fc.assert(
    fc.property(
      fc.constantFrom(...texts),
      fc.array(fc.tuple(fc.nat(5000), fc.nat(12), noise), { minLength: 1, maxLength: 3 }),
      (text, edits) => {
        for (const [where, length, insert] of edits) {
          const at = where % text.length;
          text = text.slice(0, at) + insert + text.slice(at + length);
        }
        sane(text, readManifests("f", text));
      },
    ),
    { numRuns: 800 },
  );
});

test("a name with control characters claims no id that a terminal would be shown", () => {
  const document = JSON.stringify({
    apiVersion: "namegate.dev/v1alpha1",
    kind: "EgressPolicy",
    metadata: { name: "x\u001b[2J\nshop/other: accepted" },
    spec: { egress: [] },
  });
  const { documents, problems, policies } = readManifests(
    "f",
    JSON.stringify({
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "c", namespace: "shop", labels: { "namegate.dev/policy": "true" } },
      data: { "a.yaml": document },
    }),
  );
  assert.deepEqual([documents, policies], [[], []]);
  assert.ok(problems.length > 0);
  for (const { message } of problems)
    assert.ok(
      [...message].every((c) => c >= " "),
      message,
    );
});
