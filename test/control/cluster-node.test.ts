import assert from "node:assert/strict";
import { test } from "node:test";
import type { Located, PodPlace } from "../../src/attach/place.ts";
import { ipText, parseIp, type Ip } from "../../src/base/address.ts";
import { ClusterNode } from "../../src/control/cluster-node.ts";
import { NO_CONFIG } from "../../src/inputs/config/read.ts";
import type { PodView } from "../../src/inputs/kubernetes/objects.ts";

const FROM = {
  namespaces: {},
  services: [{ addresses: [parseIp("10.96.0.10") as Ip], ports: [53] }],
  facts: { prefixes: ["cali"], local: new Set<Ip>(), resolvConf: { servers: [], searches: [] } },
};

function view(name: string, addresses: string[], more: Partial<PodView> = {}): PodView {
  return {
    uid: `uid-${name}`,
    namespace: "shop",
    name,
    labels: {},
    serviceAccountName: "default",
    hostNetwork: false,
    addresses: addresses.map((one) => parseIp(one) as Ip),
    finished: false,
    deleting: false,
    created: 0,
    dnsPolicy: "ClusterFirst",
    nameservers: [],
    searches: [],
    mirror: undefined,
    ...more,
  };
}

/** Finds what it is told, and counts how often it looked. */
function locator(places: Record<string, Located> = {}) {
  return {
    looks: 0,
    places,
    refresh(_pods: readonly PodPlace[]): undefined {
      this.looks++;
    },
    find(pod: PodPlace): Located {
      return this.places[pod.name] ?? { kind: "found", interface: `cali-${pod.name}`, index: 1, how: "route" };
    },
  };
}

const node = (found: ReturnType<typeof locator>): ClusterNode => new ClusterNode(NO_CONFIG.cluster, found);

test("pods with addresses are in the snapshot; finished ones, and those without, are not", () => {
  const pods = [
    view("a", ["10.0.0.1", "fd00::1"]),
    view("b", []),
    view("c", ["10.0.0.3"], { finished: true }),
    view("d", ["10.0.0.4"], { deleting: true }),
  ];
  const built = node(locator()).build({ ...FROM, pods }, 0);
  assert.deepEqual(
    built.node.pods.map(({ key, interface: iface, addresses }) => [key, iface, addresses.map(ipText)]),
    [
      ["shop/a", "cali-a", ["10.0.0.1", "fd00::1"]],
      ["shop/d", "cali-d", ["10.0.0.4"]],
    ],
  );
  assert.deepEqual(built.outside, []);
});

test("what did not change is the same object, and nobody looks at interfaces again", () => {
  const found = locator();
  const one = node(found);
  const [a, b] = [view("a", ["10.0.0.1"]), view("b", ["10.0.0.2"])];
  const first = one.build({ ...FROM, pods: [a, b] }, 0).node;
  const second = one.build({ ...FROM, pods: [a, { ...b, labels: { x: "y" } }] }, 1).node;
  assert.equal(second.pods[0], first.pods[0]);
  assert.notEqual(second.pods[1], first.pods[1]);
  assert.equal(second.resolvers, first.resolvers);
  assert.equal(found.looks, 1);
  one.build({ ...FROM, pods: [a, b] }, 2, true);
  one.build({ ...FROM, pods: [a] }, 3);
  assert.equal(found.looks, 3);
});

test("an address is one pod's: its successor's while the old one ends, else the younger one's", () => {
  const pods = [
    view("old", ["10.0.0.1"], { deleting: true, created: 9 }),
    view("new", ["10.0.0.1"], { created: 1 }),
    view("elder", ["10.0.0.2", "fd00::2"], { created: 1 }),
    view("younger", ["10.0.0.2"], { created: 2 }),
    view("host", ["10.0.0.1"], { hostNetwork: true, created: 99 }),
  ];
  for (const order of [pods, [...pods].reverse()]) {
    const held = new Map(
      node(locator())
        .build({ ...FROM, pods: order }, 0)
        .node.pods.map(({ name, addresses }) => [name, addresses.map(ipText).join()]),
    );
    assert.deepEqual(
      [held.get("old"), held.get("new"), held.get("elder"), held.get("younger")],
      [undefined, "10.0.0.1", "fd00::2", "10.0.0.2"],
    );
  }
});

test("hostNetwork, an interface that cannot be guarded, and one that is not found in time are outside", () => {
  const found = locator({ vlan: { kind: "unenforceable", why: "macvlan" }, slow: { kind: "later", why: "no process yet" } });
  const one = node(found);
  const pods = [view("host", ["192.0.2.1"], { hostNetwork: true }), view("vlan", ["10.0.0.2"]), view("slow", ["10.0.0.3"])];
  const outside = (nowMs: number): [string, string][] =>
    one.build({ ...FROM, pods }, nowMs).outside.map(({ pod, why }) => [pod.name, why.slice(0, 11)]);
  assert.deepEqual(outside(1000), [
    ["host", "hostNetwork"],
    ["vlan", "macvlan"],
  ]);
  assert.equal(one.incomplete, true);
  assert.deepEqual(outside(10_999).length, 2);
  assert.deepEqual(outside(11_000)[2], ["slow", "no process "]);
  assert.equal(one.incomplete, false, "nobody is in a hurry any more");
  const { node: now } = one.build({ ...FROM, pods }, 11_000);
  assert.deepEqual(
    now.pods.map(({ name, interface: iface }) => [name, iface]),
    [
      ["vlan", ""],
      ["slow", ""],
    ],
    "so that the unguarded are let go",
  );
  found.places = {};
  assert.deepEqual(outside(12_000), [["host", "hostNetwork"]]);
  assert.equal(one.incomplete, false);
});

test("a pod that the API gives no address yet has the one that came out of its interface", () => {
  const one = node(locator());
  const pods = [view("a", ["10.0.0.1"]), view("b", [])];
  const shown = (list = pods): string[] =>
    one.build({ ...FROM, pods: list }, 2).node.pods.map(({ name, addresses }) => `${name} ${addresses.map(ipText).join()}`);
  assert.equal(one.seen(parseIp("10.0.0.9") as Ip, 7, 0), true);
  assert.deepEqual(shown(), ["a 10.0.0.1"], "another interface");
  assert.equal(one.seen(parseIp("10.0.0.1") as Ip, 1, 0), true);
  assert.deepEqual(shown(), ["a 10.0.0.1"], "another pod's, says the API");
  assert.equal(one.seen(parseIp("10.0.0.2") as Ip, 1, 0), true);
  assert.equal(one.seen(parseIp("10.0.0.2") as Ip, 1, 1), false, "known");
  assert.deepEqual(shown(), ["a 10.0.0.1", "b 10.0.0.2"]);
  assert.deepEqual(shown([view("a", ["10.0.0.1"]), view("b", ["10.0.0.3"])]), ["a 10.0.0.1", "b 10.0.0.3"], "what the API says is better");
  for (let i = 0; i < 2000; i++) one.seen(`\0\0${String.fromCharCode(i >> 8, i & 255)}` as Ip, 1, 3);
  assert.deepEqual(shown().length, 2, "bounded");
});

test("the same name with another UID is another pod", () => {
  const one = node(locator());
  const first = one.build({ ...FROM, pods: [view("a", ["10.0.0.1"])] }, 0).node.pods[0];
  const second = one.build({ ...FROM, pods: [view("a", ["10.0.0.1"], { uid: "other" })] }, 1).node.pods[0];
  assert.deepEqual([first?.uid, second?.uid, second?.key], ["uid-a", "other", "shop/a"]);
});

test("a pod whose address the API does not tell for a long time keeps the one that its packets told", () => {
  const one = node(locator());
  const pods = [view("a", [])];
  const build = (nowMs: number): string[] =>
    one.build({ ...FROM, pods }, nowMs, true).node.pods.map(({ addresses }) => addresses.map(ipText).join());
  assert.equal(one.seen(parseIp("10.0.0.9") as Ip, 1, 0), true);
  for (let nowMs = 0; nowMs <= 120_000; nowMs += 10_000) {
    assert.deepEqual(build(nowMs), ["10.0.0.9"], `after ${nowMs} ms`);
    one.seen(parseIp("10.0.1.1") as Ip, 99, nowMs);
  }
  one.build({ ...FROM, pods: [] }, 120_000);
  one.seen(parseIp("10.0.1.2") as Ip, 99, 160_000);
  assert.deepEqual(build(160_000), [], "nobody had it for a while");
});
