import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ipText } from "../../src/base/address.ts";
import { protocolText } from "../../src/model/packet.ts";
import type { Event } from "../../src/model/event.ts";
import type { Verdict } from "../../src/model/verdict.ts";
import { judge, type Question } from "../../src/policy/evaluate.ts";
import { judgeQuery } from "../../src/policy/queries.ts";
import { readManifests } from "../../src/policy/read.ts";
import { SUGGESTION_CHARS_MAX, suggestionText, suggestRule } from "../../src/policy/suggest.ts";
import { buildView } from "../../src/policy/view.ts";
import { policies, question } from "./arbitrary.ts";

const EMPTY = { mode: "Enforce", policy: null, rule: null, policies: [], nearest: null, source: null, message: null, count: 1 } as const;
const pod = { namespace: "shop", name: "p", labels: {}, serviceAccountName: "s" };

/** As worker/admission.ts writes it. */
function eventOf(list: readonly { id: string }[], q: Question, denial: Verdict & { action: "deny" }): Event {
  const { serverName, application, ja4, ...more } = q.evidence ?? { serverName: undefined, application: undefined };
  const { evasion: _, ...rest } = more as { evasion?: string };
  return {
    ...EMPTY,
    id: "x-1",
    seq: 1,
    time: "2026-11-26T10:00:00.000Z",
    type: "connection",
    verdict: "deny",
    why: denial.why,
    pod,
    policies: list.map(({ id }) => id),
    policy: denial.policy ?? null,
    rule: denial.rule ?? null,
    nearest: denial.nearest ?? null,
    destination: { address: ipText(q.address), port: q.port, protocol: protocolText(q.protocol), names: q.names.map(({ name }) => name) },
    evidence: { dns: q.names, serverName: serverName ?? null, application: application ?? null, ja4: ja4 ?? null, ...rest },
  };
}

/** The policy `shop/added` with the suggested rule alone. */
function policyWith(yaml: string): ReturnType<typeof readManifests> {
  const egress = yaml.replace(/^/gm, "  ").trimEnd();
  return readManifests(
    "p.yaml",
    `apiVersion: namegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: { name: added, namespace: shop }\nspec:\n  mode: Enforce\n  dns: { queries: AllowedOnly }\n  egress:\n${egress}\n`,
  );
}

test("with the suggested rule added, the same connection is allowed, where the first bytes are not the matter", () => {
  let rules = 0;
  fc.assert(
    fc.property(policies, question, (list, q) => {
      const verdict = judge(buildView(list), q);
      if (verdict.action !== "deny") return;
      const suggestion = suggestRule(eventOf(list, q, verdict));
      if (suggestion.kind === "none") {
        assert.ok(
          ["denied-by-rule", "stale-dns", "evasion", "names-disagree", "incomplete"].includes(verdict.why) ||
            /became|proxy/.test(suggestion.why),
          `${verdict.why}: ${suggestion.why}`,
        );
        return;
      }
      rules++;
      const { policies: read, problems } = policyWith(suggestion.yaml);
      assert.deepEqual(problems, [], suggestion.yaml);
      const [added] = read;
      assert.ok(added !== undefined);
      // Old TLS is in no event's evidence; a person decides about it.
      if (q.evidence?.evasion !== undefined) return;
      // A rule for a level that an Admin policy does not reach: it decides first, and has not denied by rule.
      const again = judge(buildView([...list, added]), q);
      assert.equal(again.action, "allow", `${JSON.stringify(again)}\n${suggestion.yaml}`);
    }),
    { numRuns: 4000 },
  );
  assert.ok(rules > 300, `${rules} rules`);
});

const denied = (over: Partial<Event>): Event => ({
  ...EMPTY,
  id: "x-1",
  seq: 1,
  time: "2026-11-26T10:00:00.000Z",
  type: "connection",
  verdict: "deny",
  why: "no-rule",
  pod,
  policies: ["guardrails", "shop/checkout"],
  destination: { address: "203.0.113.7", port: 443, protocol: "TCP", names: ["api.stripe.com"] },
  evidence: { dns: [{ name: "api.stripe.com", via: "asked", fresh: true }], serverName: "api.stripe.com", application: "tls", ja4: null },
  ...over,
});

test("rules as a person would write them", () => {
  assert.deepEqual(suggestRule(denied({})), {
    kind: "rule",
    policy: "shop/checkout",
    yaml: '- name: "allow-api.stripe.com-443"\n  action: Accept\n  to:\n  - domainNames: ["api.stripe.com"]\n  ports:\n  - { protocol: TCP, port: 443 }\n  application: tls\n',
    notes: [],
  });
  const byAddress = suggestRule(
    denied({ evidence: null, destination: { address: "2001:db8::1", port: 0x0800, protocol: "ICMPv6", names: [] } }),
  );
  assert.ok(byAddress.kind === "rule");
  assert.match(byAddress.yaml, /networks: \["2001:db8::1"\]\n {2}ports:\n {2}- \{ protocol: ICMPv6, type: 8, code: 0 \}/);
  assert.deepEqual(policyWith(byAddress.yaml).problems, []);
  const ech = suggestRule(
    denied({
      why: "ech",
      evidence: { dns: [{ name: "a.example", via: "asked", fresh: true }], serverName: null, application: "tls", ja4: null, ech: true },
    }),
  );
  assert.ok(ech.kind === "rule");
  assert.match(ech.yaml, /tls: \{ ech: Allow, missingServerName: Allow \}/);
  assert.equal(suggestRule(denied({ verdict: "allow" })).kind, "none");
  assert.equal(suggestRule(denied({ destination: { address: "203.0.113.7", port: 0, protocol: "47", names: [] } })).kind, "none");
  assert.match((suggestRule(denied({ why: "denied-by-rule" })) as { why: string }).why, /Deny rule/);
});

test("a refused query: with the rule it is let through, and without it is not", () => {
  const suggestion = suggestRule(
    denied({
      type: "dns",
      why: "name-not-allowed",
      evidence: null,
      destination: { address: "10.96.0.10", port: 53, protocol: "UDP", names: ["New.Example.com"] },
    }),
  );
  assert.ok(suggestion.kind === "rule");
  const [added] = policyWith(suggestion.yaml).policies;
  assert.ok(added !== undefined);
  assert.equal(judgeQuery(buildView([added]), "new.example.com" as never).action, "allow");
  assert.equal(judgeQuery(buildView([{ ...added, rules: [] }]), "new.example.com" as never).action, "refuse");
});

test("as an event carries it: whole, short, with its notes as comments, and only for what a rule can allow", () => {
  const text = suggestionText(denied({ evidence: null, destination: { address: "203.0.113.7", port: 443, protocol: "TCP", names: [] } }));
  assert.match(text ?? "", /^# for spec\.egress of shop\/checkout\n# the pod resolved no name .*\n# .*\n- name: "allow-203/);
  assert.deepEqual(policyWith(text ?? "").problems, []);
  const names = Array.from({ length: 64 }, (_, i) => `${"n".repeat(60)}.${"m".repeat(60)}.${i}.${"o".repeat(60)}.example`);
  const evidence = {
    dns: names.map((name) => ({ name, via: "asked" as const, fresh: true })),
    serverName: null,
    application: null,
    ja4: null,
  };
  const long = suggestionText(denied({ evidence }));
  assert.ok(long !== undefined && long.length <= SUGGESTION_CHARS_MAX);
  assert.ok((policyWith(long).policies[0]?.rules[0]?.names.length ?? 0) >= 2);
  assert.equal(suggestionText(denied({ why: "evasion" })), undefined);
  const dns = { address: "198.51.100.53", port: 53, protocol: "UDP", names: ["a.example"] };
  for (const why of ["untrusted-resolver", "dns-over-tls", "dns-over-https", "dns-tunnel"])
    assert.equal(suggestionText(denied({ type: "dns", why, destination: dns })), undefined, why);
});

test("whatever stands in the event, the rule is a rule and nothing else", () => {
  const hostile = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.constantFrom('"]\n- name: x\n  action: Accept', "*", "a\u0000.example", "${x}", "evil.example:443"),
  );
  fc.assert(
    fc.property(hostile, hostile, hostile, fc.nat({ max: 70_000 }), (name, server, application, port) => {
      const suggestion = suggestRule(
        denied({
          destination: { address: "203.0.113.7", port, protocol: "TCP", names: [name] },
          evidence: { dns: [{ name, via: "asked", fresh: true }], serverName: server, application, ja4: null, upgrade: name },
        }),
      );
      if (suggestion.kind === "none") return;
      const { policies: read, problems } = policyWith(suggestion.yaml);
      assert.deepEqual(problems, []);
      assert.equal(read[0]?.rules.length, 1);
      assert.equal(read[0]?.rules[0]?.anyDestination, false);
    }),
    { numRuns: 300 },
  );
});
