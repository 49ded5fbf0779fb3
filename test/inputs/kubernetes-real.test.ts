import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { after, before, suite, test } from "node:test";
import { until } from "../../src/cli/lab-process.ts";
import { systemClock } from "../../src/inputs/kubernetes/clock.ts";
import { openCluster } from "../../src/inputs/kubernetes/cluster.ts";
import { findCredentials } from "../../src/inputs/kubernetes/credentials.ts";
import { nextPlan, readList } from "../../src/inputs/kubernetes/list.ts";
import { httpsTransport } from "../../src/inputs/kubernetes/transport.ts";
import type { Cluster, EventText, RawObject, Reflector } from "../../src/inputs/kubernetes/types.ts";
import { readWatch } from "../../src/inputs/kubernetes/watch.ts";
import { contract } from "./contract.ts";
import { API_SERVER, type ApiServer, startApiServer, type User } from "../support/apiserver.ts";
import { skip } from "../support/need.ts";

const now = (): number => performance.now();
const PODS = 3000;
const AT_ONCE = 40;
const NODE = "node-1";

const project = ({ metadata }: RawObject): { version: string | undefined; labels: unknown } => ({
  version: metadata.resourceVersion,
  labels: metadata.labels,
});
type Kept = ReturnType<typeof project>;

suite("against a real kube-apiserver", { skip: skip(API_SERVER) }, () => {
  let server: ApiServer;
  const clusters: Cluster[] = [];
  before(async () => {
    server = await startApiServer();
    await server.must("POST", "/api/v1/namespaces", { metadata: { name: "shop" } });
    await server.must("POST", "/api/v1/namespaces", { metadata: { name: "namegate" } });
  });
  after(async () => {
    for (const cluster of clusters) cluster.close();
    await server.stop();
  });

  const open = async (user: User): Promise<Cluster> => {
    const cluster = await openCluster({ env: {}, kubeconfig: server.kubeconfig(user), now });
    clusters.push(cluster);
    return cluster;
  };
  const target = (path: string) => {
    const source = findCredentials({ env: {}, kubeconfig: server.kubeconfig("admin") });
    return { transport: httpsTransport(source, now, "test"), clock: systemClock(now), path, selectors: {}, counters: { lists: 0 } };
  };
  const stop = new AbortController().signal;
  const synced = (reflector: Reflector<unknown>) => until(`${reflector.path} is read`, () => reflector.synced, 15_000);

  test("3 000 pods: cached in one piece, in pages, and one node's; changes are seen within a moment", async (t) => {
    const nodes = ["node-1", ...Array.from({ length: 29 }, (_, i) => `other-${i}`)];
    const make = async (from: number): Promise<void> => {
      for (let i = from; i < PODS; i += AT_ONCE) {
        const node = nodes[i % nodes.length] as string;
        await server.createPod({ namespace: "shop", name: `p${i}`, node, labels: { app: `a${i % 7}` } });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, (_, from) => make(from)));
    const cluster = await open("admin");
    const delay = monitorEventLoopDelay({ resolution: 1 });
    let changes = 0;
    for (const list of ["paged", "cached"] as const) {
      const reflector = cluster.reflect<Kept>({ path: "/api/v1/pods", list, project, onChange: () => changes++ });
      delay.reset();
      delay.enable();
      const began = now();
      reflector.start();
      await synced(reflector);
      delay.disable();
      assert.equal(reflector.items.size, PODS);
      assert.equal(reflector.counters.lists, list === "paged" ? PODS / 500 : 1);
      const stall = (delay.max / 1e6).toFixed(0);
      t.diagnostic(`${list}: ${PODS} pods in ${(now() - began).toFixed(0)} ms, longest stall of the event loop ${stall} ms`);
      reflector.stop();
    }
    const fieldSelector = `spec.nodeName=${NODE}`;
    const ours = cluster.reflect<Kept>({
      path: "/api/v1/pods",
      fieldSelector,
      labelSelector: "app=a0",
      project,
      onChange: () => changes++,
    });
    ours.start();
    await synced(ours);
    const expected = Array.from({ length: PODS }, (_, i) => i).filter((i) => i % 30 === 0 && i % 7 === 0);
    assert.deepEqual([...ours.items.keys()].sort(), expected.map((i) => `shop/p${i}`).sort());

    const before = now();
    await server.createPod({ namespace: "shop", name: "late", node: NODE, labels: { app: "a0" } });
    await until("it is seen", () => ours.items.has("shop/late"));
    t.diagnostic(`a pod is seen ${(now() - before).toFixed(0)} ms after its creation was asked for`);
    await server.must("PATCH", "/api/v1/namespaces/shop/pods/late", { metadata: { labels: { app: "a1" } } });
    await until("relabelled, it is gone", () => !ours.items.has("shop/late"));
    await server.must("DELETE", "/api/v1/namespaces/shop/pods/p0?gracePeriodSeconds=0");
    await until("deleted, it is gone", () => !ours.items.has("shop/p0"));
    assert.deepEqual(ours.counters.errors, {});
    ours.stop();
  });

  test("the contract that the fake must keep", async () => {
    const cluster = await open("admin");
    const path = "/api/v1/namespaces/shop/configmaps";
    await contract({
      path,
      put: async (name, labels) => {
        const map = { metadata: { name, labels } };
        if ((await server.request("POST", path, map)).status === 409) await server.must("PUT", `${path}/${name}`, map);
      },
      remove: async (name) => void (await server.must("DELETE", `${path}/${name}`)),
      reflect: (options) => cluster.reflect(options),
    });
  });

  test("kill -9 of the API server: what is known stays, it goes on from there without a list, and nothing is lost", async () => {
    const cluster = await open("admin");
    const maps = cluster.reflect<Kept>({ path: "/api/v1/namespaces/shop/configmaps", project, onChange: () => {} });
    await server.must("POST", "/api/v1/namespaces/shop/configmaps", { metadata: { name: "one" } });
    maps.start();
    await synced(maps);
    await until("it watches", () => maps.counters.watches === 1);
    await server.must("POST", "/api/v1/namespaces/shop/configmaps", { metadata: { name: "two" } });
    await until("two is seen", () => maps.items.has("shop/two"));
    await server.kill();
    await until("the cut is seen", () => maps.counters.lastError !== undefined);
    const refused = await cluster.get("/api/v1/nodes");
    assert.ok(!refused.ok);
    assert.match(refused.fault.message, /connection refused/);
    assert.deepEqual([...maps.items.keys()], ["shop/one", "shop/two"]);
    await server.restart();
    await server.must("POST", "/api/v1/namespaces/shop/configmaps", { metadata: { name: "three" } });
    await server.must("DELETE", "/api/v1/namespaces/shop/configmaps/one");
    await until("it has caught up", () => [...maps.items.keys()].join() === "shop/two,shop/three", 40_000);
    assert.equal(maps.counters.lists, 1);
    assert.ok(maps.counters.watches < 15, `${maps.counters.watches} watches`);
    assert.equal(maps.counters.lastError, undefined);
    maps.stop();
  });

  test("without permission: the message names it, the Role that is granted is enough, and it comes by itself", async () => {
    const cluster = await open("agent");
    const services = cluster.reflect<Kept>({ path: "/api/v1/namespaces/shop/services", project, onChange: () => {} });
    services.start();
    await until("it is refused", () => services.counters.errors.forbidden === 1);
    const refused = await cluster.get("/api/v1/namespaces/shop/services");
    assert.ok(!refused.ok);
    assert.equal(refused.fault.code, "kubernetes-forbidden");
    assert.match(
      refused.fault.message,
      /^list services in shop: 403 services is forbidden: User "system:serviceaccount:namegate:namegate" cannot list/,
    );
    assert.equal(refused.fault.fix, 'grant it with a Role in shop: { apiGroups: [""], resources: ["services"], verbs: ["list"] }');
    await server.grant("agent", [{ apiGroups: [""], resources: ["services"], verbs: ["list"] }]);
    await synced(services);
    await until("the watch is refused", () => services.counters.lastError?.startsWith("watch services in shop: 403") === true);
    await server.grant("agent", [{ apiGroups: [""], resources: ["services"], verbs: ["list", "watch"] }]);
    await server.must("POST", "/api/v1/namespaces/shop/services", { metadata: { name: "dns" }, spec: { ports: [{ port: 53 }] } });
    await until("it watches", () => services.items.has("shop/dns"), 40_000);
    services.stop();
  });

  test("a service account's own token, rotated", async () => {
    const path = "/api/v1/namespaces/namegate/serviceaccounts";
    await server.must("POST", path, { metadata: { name: "namegate" } });
    const fresh = async (): Promise<string> => {
      const made = await server.must("POST", `${path}/namegate/token`, { spec: { expirationSeconds: 600 } });
      return (made.status as { token: string }).token;
    };
    await server.grant("agent", [{ apiGroups: [""], resources: ["nodes"], verbs: ["list"] }]);
    const folder = join(server.dir, "account");
    mkdirSync(folder);
    writeFileSync(join(folder, "ca.crt"), readFileSync(server.caFile));
    writeFileSync(join(folder, "token"), "expired");
    const env = { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(server.port) };
    let time = 0;
    const cluster = await openCluster({ env, serviceAccount: folder, now: () => time });
    clusters.push(cluster);
    const refused = await cluster.get("/api/v1/nodes");
    assert.ok(!refused.ok && refused.fault.kind === "unauthorized");
    writeFileSync(join(folder, "token"), await fresh());
    time = 15_000;
    const answer = await cluster.get("/api/v1/nodes");
    assert.ok(answer.ok, answer.ok ? "" : answer.fault.message);
  });

  test("what the fake claims of versions is so: too old is an ERROR event in a 200, from the future is 504 and then paged", async () => {
    const what = target("/api/v1/namespaces/shop/configmaps");
    const sink = { put: () => {}, remove: () => {}, alive: () => {} };
    const old = await readWatch(what, "1", Math.random, stop, sink);
    assert.equal(old?.kind, "gone");
    assert.match(old?.message ?? "", /the watch says 410 too old resource version/);
    const future = await readList(what, "cached", "999999999", stop, () => {});
    assert.ok(!future.ok);
    assert.equal(future.fault.status, 504);
    assert.equal(nextPlan("cached", future.fault), "paged");
    assert.ok((await readList(what, "paged", "999999999", stop, () => {})).ok);
    what.transport.close();
  });

  test("writes: an Event is made once under its name; a taint is taken away and nothing else", async () => {
    await server.grant("agent", [
      { apiGroups: [""], resources: ["events"], verbs: ["create"] },
      { apiGroups: [""], resources: ["nodes"], verbs: ["get", "patch"] },
    ]);
    const cluster = await open("agent");
    const map = await server.must("GET", "/api/v1/namespaces/shop/configmaps/two");
    const regarding = { apiVersion: "v1", kind: "ConfigMap", name: "two", namespace: "shop", uid: (map.metadata as { uid: string }).uid };
    const event: EventText = { regarding, type: "Warning", reason: "PolicyInvalid", message: "x".repeat(3000), node: NODE, at: 1e12 };
    assert.deepEqual(await cluster.createEvent({ ...event, name: "two.policy" }), { ok: true, value: "created" });
    assert.deepEqual(await cluster.createEvent({ ...event, name: "two.policy" }), { ok: true, value: "exists" });
    assert.deepEqual(await cluster.createEvent(event), { ok: true, value: "created" });
    const events = (await server.must("GET", "/api/v1/namespaces/shop/events")).items as Record<string, unknown>[];
    assert.deepEqual(
      events.map(({ reason, message, lastTimestamp }) => [reason, String(message).length, lastTimestamp]),
      [
        ["PolicyInvalid", 1024, "2001-09-09T01:46:40Z"],
        ["PolicyInvalid", 1024, "2001-09-09T01:46:40Z"],
      ],
    );

    const key = "namegate.dev/agent-not-ready";
    const taints = [
      { key: "a", effect: "NoSchedule" },
      { key, effect: "NoSchedule" },
      { key, effect: "NoExecute", value: "x" },
      { key: "b", effect: "NoSchedule" },
    ];
    await server.must("POST", "/api/v1/nodes", { metadata: { name: NODE }, spec: { taints } });
    const present = async (): Promise<unknown> => {
      const node = await server.must("GET", `/api/v1/nodes/${NODE}`);
      return (node.spec as { taints: { key: string }[] }).taints
        .map((taint) => taint.key)
        .filter((name) => !name.includes("kubernetes.io"));
    };
    assert.deepEqual(await cluster.removeTaint(NODE, key), { ok: true, value: "removed" });
    assert.deepEqual(await present(), ["a", "b"]);
    assert.deepEqual(await cluster.removeTaint(NODE, key), { ok: true, value: "absent" });
    const none = await cluster.removeTaint("no-such-node", key);
    assert.ok(!none.ok && none.fault.kind === "not-found");

    const stale = [{ op: "test", path: "/spec/taints/0", value: { key: "other" } }];
    const conflict = await cluster.patch(`/api/v1/nodes/${NODE}`, stale, "application/json-patch+json");
    assert.ok(!conflict.ok && conflict.fault.kind === "conflict", "somebody else was faster");
  });
});
