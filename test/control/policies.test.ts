import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parseIp, type Ip } from "../../src/base/address.ts";
import { Changes } from "../../src/control/changes.ts";
import { PolicyKeeper } from "../../src/control/policies.ts";
import type { Pod, Snapshot } from "../../src/model/snapshot.ts";
import { mergeDocuments, readManifests, type ReadResult } from "../../src/policy/read.ts";

const doc = (name: string, mode: string, domain = "a.example"): string =>
  `apiVersion: namegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: { name: ${name}, namespace: shop }\nspec:\n  mode: ${mode}\n  egress: [ { action: Accept, to: [ { domainNames: [ ${domain} ] } ] } ]\n`;
const read = (...files: [string, string][]) => mergeDocuments(files.map(([file, text]) => readManifests(file, text)));

test("an invalid document keeps its last good version, and a restart does too", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "namegate-test-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const keeper = new PolicyKeeper(folder);
  assert.deepEqual(
    keeper.update(read(["a.yaml", doc("one", "Enforce")])).map(({ id }) => id),
    ["shop/one"],
  );
  keeper.save();
  const bad = read(["a.yaml", doc("one", "Enforc")]);
  for (const next of [keeper, new PolicyKeeper(folder)]) {
    assert.deepEqual(
      next.update(bad).map(({ id, mode }) => [id, mode]),
      [["shop/one", "Enforce"]],
    );
    assert.deepEqual(
      next.states.map(({ id, valid, problems }) => [id, valid, problems.length]),
      [["shop/one", false, 1]],
    );
  }
  assert.equal(statSync(join(folder, "policies.json")).mode & 0o777, 0o600);
});

test("a state that another version of the agent has written is left alone", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "namegate-test-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const bad = read(["a.yaml", doc("one", "Enforc")]);
  for (const text of [
    '[{"file":"a.yaml","policy":{"id":"shop/one"}}]',
    '{"format":0,"good":[{"file":"a.yaml","policy":{"id":"shop/one"}}]}',
    '{"format":1}',
    "null",
    "{",
  ]) {
    writeFileSync(join(folder, "policies.json"), text);
    assert.deepEqual(new PolicyKeeper(folder).update(bad), [], text);
  }
});

test("a document that never was valid is not in force; one that is gone is gone", () => {
  const keeper = new PolicyKeeper(undefined);
  assert.deepEqual(keeper.update(read(["a.yaml", doc("one", "Enforc")])), []);
  keeper.update(read(["a.yaml", doc("one", "Enforce")]));
  assert.deepEqual(keeper.update(read()), []);
  assert.deepEqual(keeper.states, []);
});

test("a file that is no YAML any more keeps all of its policies", () => {
  const keeper = new PolicyKeeper(undefined);
  keeper.update(read(["a.yaml", `${doc("one", "Enforce")}---\n${doc("two", "Monitor")}`], ["b.yaml", doc("three", "Enforce")]));
  const kept = keeper.update(read(["a.yaml", "a: [ b\n: }"], ["b.yaml", doc("three", "Enforce", "b.example")]));
  assert.deepEqual(kept.map(({ id }) => id).sort(), ["shop/one", "shop/three", "shop/two"]);
  assert.deepEqual(
    keeper.states
      .filter(({ valid }) => !valid)
      .map(({ id }) => id)
      .sort(),
    ["shop/one", "shop/two"],
  );
});

test("problems belong to their document", () => {
  const keeper = new PolicyKeeper(undefined);
  keeper.update(read(["a.yaml", `${doc("one", "Enforce")}---\n${doc("two", "Monitr")}`]));
  assert.deepEqual(
    keeper.states.map(({ id, valid, problems }) => [id, valid, problems.length]),
    [
      ["shop/one", true, 0],
      ["shop/two", false, 1],
    ],
  );
  assert.deepEqual(keeper.loose, []);
});

test("only what changed is told", () => {
  const pod = (name: string, labels: Record<string, string> = {}): Pod => ({
    key: `shop/${name}`,
    uid: name,
    namespace: "shop",
    name,
    labels,
    serviceAccountName: "default",
    interface: `veth${name}`,
    addresses: [parseIp(`10.0.0.${name.charCodeAt(0)}`) as Ip],
    searches: [],
  });
  const snapshot = (policies: Snapshot["policies"], pods: readonly Pod[]): Snapshot => ({
    policies,
    pods,
    resolvers: [],
    namespaces: {},
    interfacePrefixes: [],
  });
  const attach = (name: string) => ({ kind: "routed" as const, interface: name, index: 1 });
  const [one] = read(["a.yaml", doc("one", "Enforce")]).policies;
  const [other] = read(["a.yaml", doc("one", "Monitor")]).policies;
  assert.ok(one && other);
  const changes = new Changes();
  const first = changes.next(snapshot([one], [pod("a"), pod("b")]), attach);
  assert.deepEqual([first?.policies.length, first?.pods.length, first?.resolvers], [1, 2, []]);
  assert.equal(changes.next(snapshot([one], [pod("a"), pod("b")]), attach), undefined);
  const relabelled = changes.next(snapshot([one], [pod("a", { x: "1" }), pod("b")]), attach);
  assert.deepEqual(
    relabelled?.pods.map((u) => u.pod.name),
    ["a"],
  );
  const changed = changes.next(snapshot([other], [pod("a", { x: "1" }), pod("b")]), attach);
  assert.deepEqual([changed?.policies.length, changed?.pods.length], [1, 2]);
  const gone = changes.next(snapshot([], [pod("b")]), attach);
  assert.deepEqual([gone?.removedPolicies, gone?.removedPods, gone?.pods.map((u) => u.pod.name)], [["shop/one"], ["shop/a"], ["b"]]);
});

test("what ConfigMaps hold costs no more than there is of it", () => {
  // 20 000 documents with a problem each, in as many files: looked at pair by pair these are 400 million steps.
  const size = 20_000;
  const files = Array.from({ length: size }, (_, i) => `configmap/evil/m:k${i}.yaml`);
  let looked = 0;
  const problems = files.map((file) => ({
    get file() {
      looked++;
      return file;
    },
    line: 1,
    column: 1,
    path: "",
    message: "no",
    hint: undefined,
  }));
  const documents = files.map((file, i) => ({ id: `evil/p${i}`, file, line: 1, column: 1, valid: false }));
  new PolicyKeeper(undefined).update({ policies: [], problems, documents } as unknown as ReadResult);
  assert.ok(looked < 10 * size, `${looked} looks`);
});
