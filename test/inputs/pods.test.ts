import assert from "node:assert/strict";
import { test } from "node:test";
import { ipText } from "../../src/base/address.ts";
import { parseEndpoint, readPods } from "../../src/inputs/files/pods.ts";

const GOOD = `
resolvers: [ "10.96.0.10:53", "fd00:10:96::a" ]
pods:
- namespace: shop
  name: checkout-0
  labels: { app: checkout }
  serviceAccountName: checkout
  interface: veth1a2b3c
  addresses: [ 10.244.0.11, "fd00:10:244::b" ]
`;

test("the pods file of the design page", () => {
  const { pods, problems } = readPods("pods.yaml", GOOD);
  assert.deepEqual(problems, []);
  assert.deepEqual(
    pods?.resolvers.map(({ address, port }) => `${ipText(address)} ${port}`),
    ["10.96.0.10 53", "fd00:10:96::a 53"],
  );
  const [pod] = pods?.pods ?? [];
  assert.equal(pod?.key, "shop/checkout-0");
  assert.equal(pod?.uid, "shop/checkout-0");
  assert.deepEqual(pod?.addresses.map(ipText), ["10.244.0.11", "fd00:10:244::b"]);
  assert.deepEqual(pod?.searches, ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
  assert.deepEqual({ ...pods?.namespaces["shop"] }, { "kubernetes.io/metadata.name": "shop" });
});

const BAD: readonly [string, string, RegExp, number][] = [
  ["not YAML", "pods: [", /./, 1],
  ["not a mapping", "- a", /not a mapping/, 1],
  ["unknown field", "pod: []", /unknown field `pod`/, 1],
  ["unknown field of a pod", GOOD.replace("labels:", "lables:"), /unknown field `lables`/, 6],
  ["no interface", GOOD.replace("  interface: veth1a2b3c\n", ""), /`interface` is missing/, 4],
  ["a name too long for an interface", GOOD.replace("veth1a2b3c", "veth1a2b3c4d5e6f"), /not an interface name/, 8],
  ["a path as interface", GOOD.replace("veth1a2b3c", '"../x"'), /not an interface name/, 8],
  ["a bad address", GOOD.replace("10.244.0.11", "10.244.0.256"), /not an IP address/, 9],
  ["a prefix", GOOD.replace("10.244.0.11", "10.244.0.11/32"), /not an IP address/, 9],
  ["a bad resolver", GOOD.replace("10.96.0.10:53", "dns:53"), /not an address and port/, 2],
  ["one address twice", GOOD.replace('"fd00:10:244::b"', "10.244.0.11"), /has this address too/, 9],
  ["labels that are no strings", GOOD.replace("app: checkout", "app: 1"), /must be a string/, 6],
];
for (const [what, text, message, line] of BAD) {
  test(`${what}: said with its place, and no half list`, () => {
    const { pods, problems } = readPods("pods.yaml", text);
    assert.equal(pods, undefined);
    assert.ok(
      problems.some((one) => message.test(one.message) && one.line === line),
      JSON.stringify(problems),
    );
  });
}

test("every problem at once", () => {
  const { problems } = readPods("p", "resolvers: [ x ]\npods:\n- { namespace: a, name: b, interface: ' ', addresses: [ y ] }\n");
  assert.equal(problems.length, 3);
});

test("endpoints", () => {
  for (const bad of ["", "1.2.3.4:0", "1.2.3.4:65536", "[1.2.3.4]:53x", "fd00::a:53x", "host:53"])
    assert.equal(parseEndpoint(bad), undefined, bad);
  assert.equal(parseEndpoint("[fd00::a]:5353")?.port, 5353);
});
