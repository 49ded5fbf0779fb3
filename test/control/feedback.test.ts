import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { byConfigMap, delayOf, eventName, Feedback, lotOf, verdictOf } from "../../src/control/feedback.ts";
import { PolicyKeeper, type PolicyState } from "../../src/control/policies.ts";
import { PolicyMaps } from "../../src/control/policy-maps.ts";
import type { PolicyMap } from "../../src/inputs/kubernetes/objects.ts";
import type { Problem } from "../../src/model/policy.ts";
import type { Cluster, EventText } from "../../src/inputs/kubernetes/types.ts";

const map = (name: string, more: Partial<PolicyMap> = {}): PolicyMap => ({
  uid: `uid-${name}`,
  namespace: "shop",
  name,
  resourceVersion: "1",
  created: 0,
  data: {},
  refused: false,
  ...more,
});
const POLICY = `apiVersion: namegate.dev/v1alpha1
kind: EgressPolicy
metadata: { name: NAME }
spec: { mode: Monitor, subject: { podSelector: {} }, egress: [] }
`;
const document = (name: string): string => POLICY.replace("NAME", name);
const state = (file: string, more: Partial<PolicyState> = {}): PolicyState => ({
  id: "shop/p",
  file,
  valid: true,
  problems: [],
  policy: undefined,
  ...more,
});
const problem = (file: string, line: number) => ({ file, line, column: 3, path: "spec.mode", message: "is wrong", hint: "right it" });

test("what is said about a ConfigMap: accepted, or the first problem and the count", () => {
  const file = "configmap/shop/m:a.yaml";
  const say = (states: PolicyState[], loose: Problem[] = []) =>
    verdictOf(byConfigMap(states).get("shop/m") ?? [], byConfigMap(loose).get("shop/m") ?? []);
  assert.equal(say([state("configmap/shop/mm:a.yaml"), state("configmap/m/shop:a.yaml")]), undefined, "another one's");
  assert.deepEqual(say([state(file)]), { reason: "PolicyAccepted", message: "accepted: shop/p (no mode)" });
  const problems = [problem(file, 4), problem(file, 9)];
  assert.deepEqual(say([state(file, { valid: false, problems })], [problem(file, 1), problem("configmap/other/m:a.yaml", 1)]), {
    reason: "PolicyInvalid",
    message: "3 problems. a.yaml:4:3: spec.mode: is wrong (right it)",
  });
});

test("an Event's name is one of each version and verdict, and a name that the API takes", () => {
  const names = [map("m"), map("m", { resourceVersion: "2" }), map("m", { uid: "v" })].flatMap((one) =>
    ["PolicyAccepted", "PolicyInvalid"].map((reason) => eventName(one, reason)),
  );
  assert.equal(new Set(names).size, 6);
  assert.equal(eventName(map("m"), "PolicyAccepted"), names[0]);
  const long = eventName(map(`${"a.".repeat(126)}a`), "PolicyInvalid");
  assert.match(long, /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/);
  assert.ok(long.length <= 253 && !long.includes(".."));
});

test("of any number of nodes a few speak at once, the others late or never, and always somebody", () => {
  for (const nodes of [1, 2, 3, 10, 100, 1000, 5000]) {
    let atOnce = 0;
    let ever = 0;
    const events = 40;
    for (let e = 0; e < events; e++) {
      const delays = Array.from({ length: nodes }, (_, i) => delayOf(lotOf(`node-${i}`, `event-${e}`), nodes)).filter(
        (one) => one !== undefined,
      );
      assert.ok(delays.length > 0, `${nodes} nodes, event ${e}`);
      assert.ok(Math.min(...delays) <= 60_000);
      atOnce += delays.filter((one) => one < 1000).length;
      ever += delays.length;
    }
    assert.ok(atOnce / events <= 5, `${nodes}: ${atOnce / events} at once`);
    assert.ok(ever / events <= Math.min(nodes, 60), `${nodes}: ${ever / events} ever`);
  }
  assert.ok((delayOf(0.9, undefined) as number) > 10_000);
  assert.equal(delayOf(0, undefined), 0);
});

/** Agents of a cluster that share what the API server would have. */
function agents(count: number) {
  const written = new Map<string, EventText>();
  let posts = 0;
  const cluster: Pick<Cluster, "createEvent" | "get"> = {
    createEvent: async (event) => {
      posts++;
      const name = event.name as string;
      if (written.has(name)) return { ok: true, value: "exists" };
      written.set(name, event);
      return { ok: true, value: "created" };
    },
    get: async () => ({ ok: true, value: { items: [{}], metadata: { remainingItemCount: count - 1 } } }),
  };
  const all = Array.from({ length: count }, (_, i) => new Feedback({ cluster, node: `node-${i}`, nowMs: () => 0, log: () => undefined }));
  return { all, written, posts: () => posts };
}

test("one Event for each version, however many agents there are", async () => {
  const maps = Array.from({ length: 4 }, (_, i) => map(`m${i}`));
  const states = maps.map(({ name }) => state(`configmap/shop/${name}:a.yaml`));
  const { all, written, posts } = agents(200);
  await Promise.all(all.map((one) => one.tell(maps, states, [])));
  await Promise.all(all.map((one) => one.tell(maps, states, [])));
  await sleep(1300);
  assert.ok(written.size >= 3, `${written.size} of 4 said within a second (the last may be left to the second ring)`);
  assert.ok([...written.values()].every(({ reason, type }) => reason === "PolicyAccepted" && type === "Normal"));
  assert.ok(posts() <= 40, `${posts()} requests of 200 agents`);
  for (const one of all) one.close();
});

test("nothing is said about a ConfigMap that has gone before anybody spoke", async () => {
  const { all, written } = agents(1);
  const [one] = all as [Feedback];
  await one.tell([map("gone"), map("m")], [state("configmap/shop/gone:a.yaml"), state("configmap/shop/m:a.yaml")], []);
  await one.tell([map("m")], [state("configmap/shop/m:a.yaml")], []);
  await sleep(500);
  assert.deepEqual(
    [...written.values()].map(({ regarding }) => regarding.name),
    ["m"],
  );
  one.close();
});

test("a version that is replaced before anybody spoke is not said; too many are dropped and counted", async () => {
  const { all, written } = agents(1);
  const [one] = all as [Feedback];
  const file = "configmap/shop/m:a.yaml";
  await one.tell([map("m")], [state(file, { valid: false, problems: [problem(file, 1)] })], []);
  await one.tell([map("m", { resourceVersion: "2" })], [state(file)], []);
  await sleep(500);
  assert.deepEqual(
    [...written.values()].map(({ reason }) => reason),
    ["PolicyAccepted"],
  );
  const many = Array.from({ length: 80 }, (_, i) => map(`n${i}`));
  await one.tell(
    many,
    many.map(({ name }) => state(`configmap/shop/${name}:a.yaml`)),
    [],
  );
  await sleep(500);
  assert.equal(written.size + one.dropped, 81);
  assert.ok(one.dropped > 0);
  one.close();
});

test("policies of ConfigMaps: parsed once a version; the older ConfigMap keeps a policy that a newer one claims", () => {
  let clock = 0;
  const maps = new PolicyMaps("namegate", () => clock);
  const one = map("b", { created: 1, data: { "a.yaml": document("p") } });
  const first = maps.read([one]);
  assert.deepEqual(
    first.policies.map(({ id }) => id),
    ["shop/p"],
  );
  assert.equal(maps.read([{ ...one }]), first, "the same version");
  const thief = map("a", { created: 2, data: { "a.yaml": document("p") } });
  const both = maps.read([thief, one]);
  assert.deepEqual(both.policies.length, 1);
  assert.equal(both.problems[0]?.file, "configmap/shop/a:a.yaml");
  assert.match(both.problems[0]?.message ?? "", /already in configmap\/shop\/b:a\.yaml/);
  const cluster = (namespace: string): PolicyMap =>
    map("c", { namespace, data: { "c.yaml": document("guard").replace("EgressPolicy", "ClusterEgressPolicy") } });
  assert.match(maps.read([cluster("shop")]).problems[0]?.message ?? "", /ClusterEgressPolicy in the namespace/);
  assert.deepEqual(
    maps.read([cluster("namegate")]).policies.map(({ id }) => id),
    ["guard"],
  );
  assert.match(maps.read([map("r", { refused: true })]).problems[0]?.message ?? "", /more than \d+ characters/);
  clock = 1;
});

test("a namespace that has used up its share of the control thread waits, and keeps what it had", () => {
  let clock = 0;
  const maps = new PolicyMaps("namegate", () => (clock += 2000)); // each reading seems to take two seconds
  const version = (resourceVersion: string, name: string): PolicyMap => map("m", { resourceVersion, data: { "a.yaml": document(name) } });
  const other = map("o", { namespace: "other", data: { "a.yaml": document("q") } });
  const ids = (...list: PolicyMap[]): string[] =>
    maps
      .read(list)
      .policies.map(({ id }) => id)
      .sort();
  assert.deepEqual(ids(version("1", "p1")), ["shop/p1"]);
  assert.deepEqual(ids(version("2", "p2")), ["shop/p2"]);
  assert.deepEqual(ids(version("3", "p3"), other), ["other/q", "shop/p2"], "the other namespace is not kept waiting");
  assert.equal(maps.deferred, true);
  clock += 120_000;
  assert.deepEqual(ids(version("3", "p3"), other), ["other/q", "shop/p3"]);
  assert.equal(maps.deferred, false);
});

test("a ConfigMap that has not been read yet, or is not read at all, takes nothing away", () => {
  let clock = 0;
  const data = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`k${i}.yaml`, document(`p${i}`)]));
  const list = [map("a", { data: { "a.yaml": document("a") } }), map("b", { data }), map("c", { data: { "c.yaml": document("c") } })];
  const keeper = new PolicyKeeper(undefined);
  const all = keeper.update(new PolicyMaps("namegate", () => clock).read(list));
  assert.equal(all.length, 22);

  // The agent was started again: its first reading of this namespace takes longer than it may have.
  const maps = new PolicyMaps("namegate", () => (clock += 4000));
  assert.deepEqual(
    keeper
      .update(maps.read(list))
      .map(({ id }) => id)
      .sort(),
    all.map(({ id }) => id).sort(),
  );
  assert.equal(maps.deferred, true);
  assert.ok(keeper.states.every(({ valid }) => valid));
  clock += 600_000;
  const cluster = new PolicyMaps("shop", () => (clock += 4000)); // the cluster's own policies wait for nobody
  assert.equal(cluster.read(list).policies.length, 22);

  // The namespace has too much text.
  const refused = keeper.update(new PolicyMaps("shop", () => 0).read([list[0] as PolicyMap, map("b", { data: {}, refused: true })]));
  assert.equal(refused.length, 21, "all keys of b, and a; c is gone");
  assert.equal(keeper.states.filter(({ valid }) => !valid).length, 20);
  const own = byConfigMap(keeper.loose).get("shop/b") ?? [];
  assert.match(verdictOf([], own)?.message ?? "", /^1 problem\. .*more than \d+ characters/);
});
