import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ipText, parseIp, type Ip } from "../../src/base/address.ts";
import { dnsServiceView, namespaceView, podView, type PodView, policyMapView } from "../../src/inputs/kubernetes/objects.ts";
import { readResolvConf } from "../../src/inputs/kubernetes/resolv-conf.ts";
import { resolversOf, RESOLVERS_MAX, type ResolverSources, searchesOf } from "../../src/inputs/kubernetes/resolvers.ts";
import { TextBudget } from "../../src/inputs/kubernetes/text-budget.ts";
import type { RawObject } from "../../src/inputs/kubernetes/types.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;
const pod = (more: Record<string, unknown> = {}, metadata: Record<string, unknown> = {}): PodView =>
  podView({ metadata: { name: "p", namespace: "shop", uid: "u", ...metadata }, ...more } as RawObject) as PodView;

test("a pod's projection", () => {
  const view = pod(
    {
      spec: {
        serviceAccountName: "robot",
        dnsPolicy: "None",
        dnsConfig: { nameservers: ["9.9.9.9", "x", "fd00::9"], searches: ["Corp.Example.", "a b"] },
      },
      status: { phase: "Running", podIP: "10.0.0.9", podIPs: [{ ip: "10.0.0.1" }, { ip: "fd00::1" }, { ip: "10.0.0.1" }] },
    },
    { labels: { b: "2", a: "1" }, creationTimestamp: "2026-11-01T00:00:00Z", annotations: { "kubernetes.io/config.mirror": "abc" } },
  );
  assert.deepEqual(
    { ...view, labels: { ...view.labels } },
    {
      uid: "u",
      namespace: "shop",
      name: "p",
      labels: {
        a: "1",
        b: "2",
      },
      serviceAccountName: "robot",
      hostNetwork: false,
      addresses: [ip("10.0.0.1"), ip("fd00::1")],
      finished: false,
      deleting: false,
      created: Date.parse("2026-11-01T00:00:00Z"),
      dnsPolicy: "None",
      nameservers: [ip("9.9.9.9"), ip("fd00::9")],
      searches: ["corp.example"],
      mirror: "abc",
    },
  );
  assert.deepEqual(pod({ status: { podIP: "10.0.0.9" } }).addresses, [ip("10.0.0.9")], "a server that only has podIP");
  assert.equal(pod().serviceAccountName, "default");
  assert.equal(pod().dnsPolicy, "ClusterFirst");
  assert.equal(pod({ spec: { hostNetwork: true } }).dnsPolicy, "Default", "as the kubelet does");
  assert.equal(pod({ spec: { hostNetwork: true, dnsPolicy: "ClusterFirstWithHostNet" } }).dnsPolicy, "ClusterFirstWithHostNet");
  for (const phase of ["Succeeded", "Failed"]) assert.equal(pod({ status: { phase } }).finished, true);
  assert.equal(pod({}, { deletionTimestamp: "2026-11-01T00:00:00Z" }).deleting, true);
  assert.equal(podView({ metadata: { name: "p" } }), undefined, "a pod has a namespace");
});

test("no label is lost, whatever it is called and however many there are", () => {
  const labels = JSON.parse(
    `{"__proto__":"x","constructor":"y",${Array.from({ length: 5000 }, (_, i) => `"l${i}":"v"`).join()}}`,
  ) as object;
  const view = pod({}, { labels });
  assert.equal(Object.keys(view.labels).length, 5002);
  assert.equal(Object.hasOwn(view.labels, "__proto__"), true);
  assert.equal(Object.hasOwn(pod().labels, "constructor"), false);
});

test("a namespace carries its own name, and nobody else's", () => {
  const labels = { team: "a", "kubernetes.io/metadata.name": "kube-system" };
  assert.deepEqual({ ...namespaceView({ metadata: { name: "shop", labels } }) }, { team: "a", "kubernetes.io/metadata.name": "shop" });
});

test("of a ConfigMap the keys that are documents, or were meant to be", () => {
  const view = policyMapView({
    metadata: { name: "m", namespace: "shop", uid: "u", resourceVersion: "7" },
    data: { "a.yaml": "1", "b.yml": "2", "c.txt": "3", "d.yaml": 4 },
  });
  assert.deepEqual({ ...view?.data }, { "a.yaml": "1", "b.yml": "2" });
  assert.equal(view?.resourceVersion, "7");
});

test("a DNS Service by label or name, with its addresses and the ports of names", () => {
  const service = (name: string, labels: object, spec: object) =>
    dnsServiceView({ metadata: { name, namespace: "kube-system", labels } }, ["dns-default"]) === undefined
      ? dnsServiceView({ metadata: { name, namespace: "kube-system", labels }, spec } as RawObject, ["dns-default"])
      : assert.fail("without a spec there is none");
  const ports = [
    { name: "dns", port: 53, protocol: "UDP" },
    { name: "dns-tcp", port: 53, protocol: "TCP" },
    { name: "metrics", port: 9153 },
  ];
  const found = service("x", { "k8s-app": "kube-dns" }, { clusterIP: "10.96.0.10", clusterIPs: ["10.96.0.10", "fd00::a"], ports });
  assert.deepEqual(found, { addresses: [ip("10.96.0.10"), ip("fd00::a")], ports: [53] });
  assert.deepEqual(service("dns-default", {}, { clusterIP: "172.30.0.10", ports })?.addresses, [ip("172.30.0.10")], "OpenShift, 1.19");
  assert.equal(service("x", {}, { clusterIP: "10.96.0.10", ports }), undefined, "another Service");
  assert.equal(service("x", { "k8s-app": "kube-dns" }, { clusterIP: "None", ports }), undefined, "headless");
  assert.equal(service("x", { "k8s-app": "kube-dns" }, { clusterIP: "10.96.0.10", ports: [{ name: "metrics", port: 9153 }] }), undefined);
});

test("whatever an object is like, a projection does not throw", () => {
  const anything = fc.anything({ withNullPrototype: true, maxDepth: 4 });
  fc.assert(
    fc.property(
      fc.dictionary(fc.constantFrom("labels", "uid", "annotations", "creationTimestamp", "resourceVersion"), anything),
      anything,
      anything,
      anything,
      (metadata, spec, status, data) => {
        const raw = { metadata: { ...metadata, name: "n", namespace: "s" }, spec, status, data } as RawObject;
        for (const view of [podView, namespaceView, policyMapView, (one: RawObject) => dnsServiceView(one, ["n"])]) view(raw);
        const view = podView(raw);
        assert.ok(
          view !== undefined && view.addresses.length <= 16 && Object.values(view.labels).every((value) => typeof value === "string"),
        );
      },
    ),
    { numRuns: 500 },
  );
});

test("resolv.conf: servers but for the loopback, the last search line, comments", () => {
  const found = readResolvConf(
    "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2 # vpc\nnameserver ::1\nnameserver fd00::2\nsearch a.example\nsearch EC2.internal b.example.\noptions ndots:5\n",
  );
  assert.deepEqual(
    [found.servers.map(ipText), found.searches],
    [
      ["10.0.0.2", "fd00::2"],
      ["ec2.internal", "b.example"],
    ],
  );
  assert.equal(readResolvConf("nameserver 10.0.0.1\n".repeat(100)).servers.length, 16);
});

const NODE = { servers: [ip("10.0.0.2")], searches: ["ec2.internal"] };
const SOURCES: ResolverSources = {
  override: undefined,
  also: [],
  services: [
    {
      addresses: [ip("10.96.0.10")],
      ports: [53],
    },
  ],
  nodeLocal: [ip("169.254.20.10")],
  local: new Set<Ip>(),
  node: "DefaultPods",
  resolvConf: NODE,
  podDnsConfig: "Ignore",
  pods: [],
};
const shown = (from: Partial<ResolverSources>): string[] =>
  resolversOf({ ...SOURCES, ...from }).map(({ address, port }) => `${ipText(address)}:${port}`);

test("which servers are believed", () => {
  const evil = pod({ spec: { dnsPolicy: "None", dnsConfig: { nameservers: ["6.6.6.6"] } } });
  const byDefault = pod({ spec: { dnsPolicy: "Default" } });
  assert.deepEqual(shown({}), ["10.96.0.10:53"]);
  assert.deepEqual(shown({ local: new Set([ip("169.254.20.10")]) }), ["10.96.0.10:53", "169.254.20.10:53"], "NodeLocal DNSCache is here");
  assert.deepEqual(shown({ pods: [evil] }), ["10.96.0.10:53"], "a pod's author names nobody who is believed");
  assert.deepEqual(shown({ pods: [evil], podDnsConfig: "Trust" }), ["10.96.0.10:53", "6.6.6.6:53"], "unless the operator says so");
  assert.deepEqual(shown({ pods: [byDefault] }), ["10.96.0.10:53", "10.0.0.2:53"]);
  assert.deepEqual(shown({ pods: [byDefault], node: "Never" }), ["10.96.0.10:53"]);
  assert.deepEqual(shown({ node: "Always" }), ["10.96.0.10:53", "10.0.0.2:53"]);
  assert.deepEqual(
    shown({ pods: [pod({ spec: { hostNetwork: true } })] }),
    ["10.96.0.10:53"],
    "the node's own network is nobody's business",
  );
  assert.deepEqual(shown({ pods: [{ ...byDefault, finished: true }] }), ["10.96.0.10:53"]);
  assert.deepEqual(shown({ also: [{ address: ip("10.1.1.1"), port: 5353 }] }), ["10.1.1.1:5353", "10.96.0.10:53"]);
  assert.deepEqual(shown({ override: [{ address: ip("10.1.1.1"), port: 53 }], pods: [byDefault] }), ["10.1.1.1:53"]);
  const many = Array.from({ length: 300 }, (_, i) => pod({ spec: { dnsConfig: { nameservers: [`6.6.${i >> 8}.${i & 255}`] } } }));
  const found = shown({ pods: many, podDnsConfig: "Trust" });
  assert.deepEqual([found.length, found[0]], [RESOLVERS_MAX, "10.96.0.10:53"], "and never push out the cluster's own");
});

test("search suffixes: an author's own count only inside the cluster domain, or where the node or the operator has them", () => {
  const of = (spec: object, allowed: string[] = []): readonly string[] =>
    searchesOf(pod({ spec }), { clusterDomain: "cluster.local", node: NODE.searches, allowed });
  const cluster = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "ec2.internal"];
  assert.deepEqual(of({}), cluster);
  const dnsConfig = { searches: ["attacker.example", "other.svc.cluster.local", "ec2.internal", "xcluster.local", "corp.example"] };
  assert.deepEqual(of({ dnsConfig }), [...cluster, "other.svc.cluster.local"]);
  assert.deepEqual(of({ dnsConfig }, ["corp.example"]), [...cluster, "other.svc.cluster.local", "corp.example"]);
  assert.deepEqual(of({ dnsConfig, dnsPolicy: "None" }), ["other.svc.cluster.local", "ec2.internal"]);
  assert.deepEqual(of({ dnsPolicy: "Default" }), ["ec2.internal"]);
});

test("a namespace with too much text keeps what was there before; room that is given back is there again", () => {
  const budget = new TextBudget({ namespace: 100, cluster: 300, little: 20 });
  const map = (namespace: string, name: string, chars: number) => ({
    uid: "u",
    namespace,
    name,
    resourceVersion: "1",
    created: 0,
    refused: false,
    data: { "a.yaml": "x".repeat(chars) },
  });
  assert.deepEqual(budget.admit(map("a", "one", 60)).refused, false);
  const over = budget.admit(map("a", "two", 60));
  assert.deepEqual([over.refused, over.data], [true, {}]);
  assert.deepEqual(budget.admit(map("b", "two", 60)).refused, false, "another namespace has its own");
  assert.deepEqual(budget.admit(map("a", "one", 90)).refused, false, "it grows in its own room");
  budget.keep(new Set(["b/two"]));
  assert.deepEqual(budget.admit(map("a", "two", 60)).refused, false);

  // b and a have 132 with their keys; two more namespaces use up what the cluster has.
  for (const namespace of ["c", "d"]) assert.equal(budget.admit(map(namespace, "one", 77)).refused, false);
  assert.equal(budget.admit(map("e", "one", 60)).refused, true);
  assert.equal(budget.admit(map("e", "one", 10)).refused, false, "a little is always there for everybody");
  assert.equal(budget.admit(map("c", "one", 78)).refused, true, "nobody grows");
  assert.equal(budget.admit(map("e", "two", 60)).refused, false, "and what it gave up is another's");
});
