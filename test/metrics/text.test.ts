import assert from "node:assert/strict";
import { test } from "node:test";
import { buildStatus, type StatusInput } from "../../src/control/status.ts";
import { metricsText } from "../../src/metrics/text.ts";
import type { Policy } from "../../src/model/policy.ts";
import type { Pod } from "../../src/model/snapshot.ts";
import { readManifests } from "../../src/policy/read.ts";
import { policy } from "../support/agent.ts";
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
