import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { judge } from "../../src/policy/evaluate.ts";
import { trace } from "../../src/policy/trace.ts";
import { buildView } from "../../src/policy/view.ts";
import { policies, question } from "./arbitrary.ts";

test("the trace tells of every rule, and names the one that judge names", () => {
  fc.assert(
    fc.property(policies, question, (list, q) => {
      const view = buildView(list);
      const verdict = judge(view, q);
      const { rules, of } = trace(view, q, 1000);
      assert.equal(
        of,
        list.reduce((sum, policy) => sum + policy.rules.length, 0),
      );
      assert.equal(rules.length, of);
      const deciders = rules.filter(({ outcome }) => outcome === "decides");
      if (verdict.action === "deny" && verdict.policy === undefined) {
        assert.deepEqual(deciders, []);
        if (verdict.nearest !== undefined) {
          const first = rules.find(({ outcome, action }) => outcome === "no" && action === "Accept");
          assert.deepEqual([first?.policy, first?.rule], [verdict.nearest.policy, verdict.nearest.rule]);
        }
        return;
      }
      assert.equal(deciders.length, 1);
      assert.deepEqual(
        [rules[0]?.outcome, deciders[0]?.policy, deciders[0]?.rule],
        ["decides", (verdict as { policy: string }).policy, (verdict as { rule: string }).rule],
      );
    }),
    { numRuns: 5000 },
  );
});

test("a rule that was asked and did not decide has a clause that failed", () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(policies, question, (list, q) => {
      for (const { outcome, failed } of trace(buildView(list), q, 1000).rules) {
        seen.add(outcome);
        for (const clause of failed) seen.add(clause);
        assert.equal(failed.length > 0, outcome === "no", outcome);
      }
    }),
    { numRuns: 5000, seed: 5 },
  );
  for (const one of ["decides", "passes", "no", "not-asked", "name", "network", "port", "stale", "wrong-server-name", "wrong-protocol"])
    assert.ok(seen.has(one), `${one} is reached`);
});

test("no more than asked for, and short lists", () => {
  const rule = {
    name: "r",
    action: "Accept" as const,
    anyDestination: false,
    names: Array.from({ length: 100 }, (_, i) => `n${i}.example`) as never[],
    cnames: "Ignore" as const,
    networks: [],
    ports: [{ protocol: 6, first: 1, last: 65_535 }],
    application: undefined,
    tls: { ech: "Deny" as const, missingServerName: undefined, legacy: "Deny" as const, opaque: "Deny" as const },
    identity: [],
    proxy: undefined,
  };
  const view = buildView([
    {
      id: "p",
      kind: "ClusterEgressPolicy",
      namespace: undefined,
      name: "p",
      tier: "Admin",
      priority: 1,
      mode: "Enforce",
      subject: { podSelector: { matchLabels: {}, matchExpressions: [] }, namespaceSelector: undefined, serviceAccountNames: undefined },
      dns: { queries: "All", minTtlMs: 0, maxTtlMs: 0, graceMs: 0 },
      rules: Array.from({ length: 50 }, (_, i) => ({ ...rule, name: `r${i}` })),
    },
  ]);
  const { rules, of } = trace(view, { protocol: 17, port: 53, address: "\x01\x02\x03\x04" as never, names: [] }, 20);
  assert.deepEqual(
    [rules.length, of, rules[0]?.wants.names.length, rules[0]?.wants.ports, rules[0]?.failed],
    [20, 50, 8, ["TCP 1-65535"], ["name", "port"]],
  );
});
