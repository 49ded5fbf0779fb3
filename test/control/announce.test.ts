import assert from "node:assert/strict";
import { test } from "node:test";
import { announcer } from "../../src/control/announce.ts";
import { PolicyKeeper } from "../../src/control/policies.ts";
import { originOf } from "../../src/control/policy-maps.ts";
import { policyMapView } from "../../src/inputs/kubernetes/objects.ts";
import type { EventDraft, PolicyOrigin } from "../../src/model/event.ts";
import type { Snapshot } from "../../src/model/snapshot.ts";
import { readManifests } from "../../src/policy/read.ts";

const ORIGIN: PolicyOrigin = {
  source: "a.yaml",
  digest: "sha256:00",
  version: "7",
  by: "kubectl-edit (Update)",
  at: "2026-11-26T10:00:00.000Z",
};
const SNAPSHOT: Snapshot = { policies: [], pods: [], resolvers: [], namespaces: {}, interfacePrefixes: [] };
const RULE = "{ name: stripe, action: Accept, to: [ { domainNames: [ api.stripe.com ] } ] }";

function doc(mode: string, rules: readonly string[] = [RULE], dns = "{}"): string {
  return `apiVersion: namegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: { name: one, namespace: shop }\nspec:\n  mode: ${mode}\n  dns: ${dns}\n  egress: [ ${rules.join(", ")} ]\n`;
}

/** What is said of one state after the other. */
function walk(keeper: PolicyKeeper, before = keeper.inForce): (text: string | undefined) => EventDraft[] {
  let said: EventDraft[] = [];
  const tell = announcer({ emit: (draft) => said.push(draft), resolverHint: "", origin: () => ORIGIN, before });
  return (text) => {
    said = [];
    keeper.update(text === undefined ? { policies: [], problems: [], documents: [] } : readManifests("a.yaml", text));
    tell(keeper.states, keeper.loose, SNAPSHOT);
    return said;
  };
}

const words = (drafts: readonly EventDraft[]): unknown[] => drafts.map(({ why, change }) => [why, ...(change?.what ?? [])]);

test("accepted, changed, invalid, removed: once each, with who and what", () => {
  const next = walk(new PolicyKeeper(undefined));
  assert.deepEqual(words(next(doc("Monitor"))), [["policy-accepted"]]);
  assert.deepEqual(next(doc("Monitor")), []);
  const raised = next(doc("Enforce"));
  assert.deepEqual(words(raised), [
    ["policy-changed", "mode: Monitor → Enforce"],
    ["policy-mode-raised", "mode: Monitor → Enforce"],
  ]);
  assert.deepEqual(
    [raised[0]?.change?.by, raised[0]?.change?.at, raised[0]?.mode],
    ["kubectl-edit (Update)", "2026-11-26T10:00:00.000Z", "Enforce"],
  );
  assert.match(raised[0]?.message ?? "", /written by kubectl-edit \(Update\) at 2026/);
  const other = "{ name: other, action: Deny, to: [ { networks: [ 192.0.2.0/24 ] } ] }";
  assert.deepEqual(words(next(doc("Enforce", [RULE.replace("api.stripe.com", '"*.stripe.com"'), other], "{ queries: AllowedOnly }"))), [
    ["policy-changed", "dns.queries: All → AllowedOnly", "rule stripe: names changed", "rule other: added (Deny)"],
  ]);
  assert.deepEqual(words(next(doc("Enforc"))), [["policy-invalid"]]);
  assert.deepEqual(next(doc("Enforc")), []);
  // Valid again: what counts is the last version that was in force.
  assert.deepEqual(words(next(doc("Monitor", [other], "{ queries: AllowedOnly }"))), [
    ["policy-changed", "mode: Enforce → Monitor", "rule stripe: removed (Accept)"],
    ["policy-mode-lowered", "mode: Enforce → Monitor"],
  ]);
  const gone = next(undefined);
  assert.deepEqual([words(gone), gone[0]?.policy, gone[0]?.mode], [[["policy-removed"]], "shop/one", "Monitor"]);
  assert.deepEqual(next(undefined), []);
});

test("what changed while no agent ran is said when one starts", () => {
  const old = new PolicyKeeper(undefined);
  old.update(readManifests("a.yaml", doc("Enforce")));
  const { inForce } = old;
  assert.deepEqual(words(walk(new PolicyKeeper(undefined), inForce)(doc("Enforce"))), [["policy-accepted"]]);
  assert.deepEqual(words(walk(new PolicyKeeper(undefined), inForce)(doc("Discover"))), [
    ["policy-changed", "mode: Enforce → Discover"],
    ["policy-mode-lowered", "mode: Enforce → Discover"],
  ]);
  assert.deepEqual(words(walk(new PolicyKeeper(undefined), inForce)(undefined)), [["policy-removed"]]);
});

test("a thousand rules are named in a few words", () => {
  const next = walk(new PolicyKeeper(undefined));
  next(doc("Enforce"));
  const many = Array.from({ length: 900 }, (_, i) => RULE.replace("stripe", `r${i}`));
  const [changed] = next(doc("Enforce", many));
  assert.equal(changed?.change?.what.length, 20);
  assert.equal(changed.change.what.at(-1), "and 882 more");
});

test("managedFields: the last manager of the data, and nothing that could paint", () => {
  const view = (managedFields: unknown): PolicyOrigin => {
    const metadata = { name: "m", namespace: "shop", resourceVersion: "42", managedFields };
    const map = policyMapView({ metadata, data: { "a.yaml": "x" } });
    assert.ok(map !== undefined);
    return originOf("configmap/shop/m:a.yaml", new Map([["shop/m", map]]));
  };
  const entry = (manager: unknown, time: unknown, fieldsV1: unknown = { "f:data": {} }): object => ({
    manager,
    operation: "Update",
    time,
    fieldsV1,
  });
  assert.deepEqual(
    view([
      entry("helm", "2026-11-26T09:00:00Z"),
      entry("kubectl-edit\u001b[31m\n", "2026-11-26T10:00:00Z"),
      entry("labeler", "2026-11-26T11:00:00Z", { "f:metadata": {} }),
    ]),
    {
      source: "configmap/shop/m:a.yaml",
      digest: "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", // of "x"
      version: "42",
      by: "kubectl-edit?[31m? (Update)",
      at: "2026-11-26T10:00:00.000Z",
    },
  );
  for (const hostile of [undefined, 1, "x", [null], [entry(1, 1)], [entry("x".repeat(129), "")], [entry("m", "", "f:data")], [[]]])
    assert.equal(view(hostile).by, null);
  assert.deepEqual([view([entry("m", {})]).by, view([entry("m", {})]).at], ["m (Update)", null]);
  assert.equal(view(Array(100_000).fill(entry("m", "2026-11-26T10:00:00Z"))).by, "m (Update)");
  assert.deepEqual(originOf("configmap/shop/gone:a.yaml", new Map()), {
    source: "configmap/shop/gone:a.yaml",
    digest: null,
    version: null,
    by: null,
    at: null,
  });
});
