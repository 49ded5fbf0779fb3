import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { buildStatus, type StatusInput } from "../../src/control/status.ts";
import { POLICY_SERIES_MAX, RULE_SERIES_MAX } from "../../src/metrics/measures.ts";
import { metricsText } from "../../src/metrics/text.ts";
import type { Policy } from "../../src/model/policy.ts";
import type { Pod } from "../../src/model/snapshot.ts";
import { readManifests } from "../../src/policy/read.ts";
import { policy } from "../support/agent.ts";
import { parseExposition } from "../support/exposition.ts";
import { FULL_MEASURES, FULL_STATUS } from "../support/measures.ts";
import { CHECKOUT } from "../support/shop.ts";

const [checkout] = readManifests("m", policy("checkout", CHECKOUT)).policies as [Policy];
const pod = (name: string, app: string): Pod => ({
  key: `shop/${name}`,
  uid: name,
  namespace: "shop",
  name,
  labels: { app },
  serviceAccountName: "default",
  interface: "",
  addresses: [],
  searches: [],
});
const INPUT: StatusInput = {
  ready: true,
  enforcing: true,
  variant: "nft",
  startedMs: 0,
  states: [{ id: checkout.id, file: "", valid: false, problems: [], policy: checkout }],
  rules: () => [],
  loose: [],
  pods: [{ pod: pod("a", "checkout"), attachment: { kind: "routed", interface: "cali1", index: 1 }, policies: [checkout.id] }],
  outside: [
    { pod: pod("host", "checkout"), why: "hostNetwork" },
    { pod: pod("other", "other"), why: "hostNetwork" },
  ],
  namespaces: {},
  inputs: [
    { resource: "pods", synced: true, staleMs: 1234, items: 2 },
    { resource: "services/kube-system", synced: false, staleMs: Infinity, items: 0, error: "forbidden" },
  ],
  kept: "the API is away",
  selfTest: { state: "ok", why: null, at: null, podsSeen: 1, warnings: [] },
  unenforceable: new Map(),
  worker: undefined,
  dropped: {},
  repairs: 0,
  knownHellos: { inKernel: false, why: "a test" },
  events: 0,
  alerts: undefined,
  lastUpdate: undefined,
};

test("status: pods that cannot be guarded beside the others, inputs, and what is enforced in their place", () => {
  const status = JSON.parse(JSON.stringify(buildStatus(INPUT))) as {
    pods: { name: string; guarded: boolean; enforced: boolean; why?: string; policies: string[] }[];
    inputs: unknown;
    kept: string;
  };
  assert.deepEqual(
    status.pods.map(({ name, guarded, enforced, why, policies }) => [name, guarded, enforced, why, policies.length]),
    [
      ["a", true, true, undefined, 1],
      ["host", true, false, "hostNetwork", 1],
      ["other", false, false, "hostNetwork", 0],
    ],
  );
  assert.deepEqual(status.inputs, [
    { resource: "pods", synced: true, staleSeconds: 1.2, items: 2 },
    { resource: "services/kube-system", synced: false, staleSeconds: null, items: 0, error: "forbidden" },
  ]);
  assert.equal(status.kept, "the API is away");
});

test("a pod that is known, and whose interface is not, is listed once with the reason", () => {
  const lost = { ...pod("lost", "checkout"), addresses: [] };
  const attachment = { kind: "missing", interface: "", why: "" } as const;
  const input = {
    ...INPUT,
    pods: [{ pod: lost, attachment, policies: [checkout.id] }],
    outside: [{ pod: lost, why: "macvlan" }],
    unenforceable: new Map([["shop/lost", "macvlan"]]),
  };
  const { pods } = buildStatus(input) as { pods: { name: string; enforced: boolean; why?: string }[] };
  assert.deepEqual(
    pods.map(({ name, enforced, why }) => [name, enforced, why]),
    [["lost", false, "macvlan"]],
  );
});

test("metrics are in the text format, also for what has never been read", () => {
  const lines = metricsText(buildStatus(INPUT)).split("\n");
  for (const wanted of [
    'namegate_policy_valid{policy="shop/checkout"} 0',
    'namegate_informer_stale_seconds{resource="pods"} 1.2',
    'namegate_informer_stale_seconds{resource="services/kube-system"} +Inf',
    'namegate_informer_synced{resource="services/kube-system"} 0',
    'namegate_pods{enforced="true"} 1',
    'namegate_pods{enforced="false"} 1',
  ])
    assert.ok(lines.includes(wanted), wanted);
  for (const line of lines)
    assert.match(
      line,
      /^$|^# (HELP|TYPE) |^namegate_[a-z0-9_]+(\{[a-z]+="([^"\\\n]|\\.)*"(,[a-z]+="([^"\\\n]|\\.)*")*\})? ([-+]?\d+(\.\d+)?|\+Inf)$/,
    );
});

test("everything at once is strictly the text format", () => {
  const families = parseExposition(metricsText(FULL_STATUS, FULL_MEASURES));
  assert.ok(families.size > 40);
});

test("whatever stands in a name is a value of a label and no more", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (policyName, rule) => {
      const families = parseExposition(
        metricsText(
          {
            ...FULL_STATUS,
            policies: [{ name: policyName, valid: true, rules: [{ name: rule, hits: 0, lastHit: null }] }],
          },
          { ...FULL_MEASURES, verdicts: [{ policy: policyName, rule, mode: "Enforce", verdict: "allow", count: 1 }] },
        ),
      );
      assert.deepEqual(families.get("namegate_rule_last_hit_timestamp_seconds")?.samples[0]?.labels, { policy: policyName, rule });
      assert.equal(families.get("namegate_verdicts_total")?.samples[0]?.labels["policy"], policyName);
    }),
  );
});

test("time series are bounded: further rules and policies are counted together", () => {
  const count = RULE_SERIES_MAX + 10;
  const policies = Array.from({ length: count }, (_, i) => ({
    name: `shop/p${i}`,
    valid: i !== count - 1,
    rules: [{ name: "r", hits: 1, lastHit: null }],
  }));
  const verdicts = policies.map(({ name }) => ({ policy: name, rule: "r", mode: "Enforce", verdict: "allow", count: 1 }));
  const denied = { policy: undefined, rule: undefined, mode: "Enforce", verdict: "deny", count: 5 };
  const families = parseExposition(
    metricsText(
      { ...FULL_STATUS, policies },
      { ...FULL_MEASURES, verdicts: [...verdicts, denied], otherVerdicts: [{ verdict: "allow", count: 7 }] },
    ),
  );
  const verdictSamples = families.get("namegate_verdicts_total")?.samples ?? [];
  assert.equal(verdictSamples.length, RULE_SERIES_MAX + 2);
  assert.deepEqual(
    verdictSamples.slice(-2).map(({ labels, value }) => [labels["policy"], labels["verdict"], value]),
    [
      ["(none)", "deny", 5],
      ["(other)", "allow", 17],
    ],
  );
  assert.equal(families.get("namegate_rule_last_hit_timestamp_seconds")?.samples.length, RULE_SERIES_MAX);
  const valid = families.get("namegate_policy_valid")?.samples ?? [];
  assert.equal(valid.length, POLICY_SERIES_MAX + 1);
  assert.deepEqual(valid.at(-1), { name: "namegate_policy_valid", labels: { policy: "(other)" }, value: 0 });
});
