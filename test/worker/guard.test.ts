import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIp, type Ip, cidrText } from "../../src/base/address.ts";
import { dnsName, type DnsName } from "../../src/base/name.ts";
import type { Policy } from "../../src/model/policy.ts";
import type { Pod } from "../../src/model/snapshot.ts";
import { readManifests } from "../../src/policy/read.ts";
import { Guard, type Rulebook, rulebook } from "../../src/worker/guard.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;
const name = (text: string): DnsName => dnsName(text) as DnsName;
const NOW = 1_800_000_000;
const HTTPS = (6 << 16) | 443;

function pod(): Pod {
  return {
    key: "shop/a",
    uid: "1",
    namespace: "shop",
    name: "a",
    labels: {},
    serviceAccountName: "default",
    interface: "cali1",
    addresses: [ip("10.0.0.1")],
    searches: ["shop.svc.cluster.local"],
  };
}

function policy(id: string, mode: string, egress: object[], dns: object = {}): Policy {
  const document = {
    apiVersion: "namegate.dev/v1alpha1",
    kind: "EgressPolicy",
    metadata: { name: id, namespace: "shop" },
    spec: { mode, dns, egress },
  };
  const { policies, problems } = readManifests("test", JSON.stringify(document));
  assert.deepEqual(problems, []);
  return policies[0] as Policy;
}

const names = (list: string[], extra: object = {}): object => ({
  action: "Accept",
  to: [{ domainNames: list }],
  ports: [{ port: 443 }],
  ...extra,
});
const nets = (list: string[], extra: object = {}): object => ({
  action: "Accept",
  to: [{ networks: list }],
  ports: [{ port: 443 }],
  ...extra,
});
const guard = (...policies: Policy[]): Guard => new Guard(pod(), rulebook(policies) as Rulebook);

test("a Discover policy alone guards nothing, and all count together in Discover", () => {
  const book = rulebook([policy("d", "Discover", [names(["a.example"])])]);
  assert.equal(book, undefined);
  assert.equal(rulebook([policy("d", "Discover", [])], true)?.mode, "Discover");
});

test("what only a Monitor policy allows stays denied, and never gets into the kernel", () => {
  const g = guard(policy("e", "Enforce", [names(["a.example"])]), policy("m", "Monitor", [names(["b.example"]), nets(["192.0.2.0/24"])]));
  assert.deepEqual(g.networks(), []);
  g.learn({ name: name("b.example"), via: "asked", address: ip("198.51.100.1"), ttl: 60 }, NOW);
  assert.deepEqual(g.elements(ip("198.51.100.1"), NOW), []);
  assert.equal(g.decide(6, 443, ip("192.0.2.1"), []).kernel, "deny");
});

test("what a Monitor policy would deny goes through, is asked for each time, and is said", () => {
  const g = guard(
    policy("e", "Enforce", [nets(["192.0.2.0/24"])]),
    policy("m", "Monitor", [{ action: "Deny", to: [{ networks: ["192.0.2.128/25"] }] }]),
  );
  assert.deepEqual(g.networks(), []);
  const decision = g.decide(6, 443, ip("192.0.2.129"), []);
  assert.equal(decision.kernel, "pass");
  assert.equal(decision.wouldDeny?.why, "denied-by-rule");
  assert.equal(decision.wouldDeny?.policy, "shop/m");
});

test("networks without exceptions are preloaded, as pass or inspect", () => {
  const g = guard(policy("e", "Enforce", [nets(["192.0.2.0/24"]), nets(["198.51.100.0/24"], { application: "tls" })]));
  assert.deepEqual(
    g.networks().map(({ cidr, port, kernel }) => [cidrText(cidr), port, kernel]),
    [
      ["192.0.2.0/24", 443, "pass"],
      ["198.51.100.0/24", 443, "inspect"],
    ],
  );
  const monitor = guard(policy("m", "Monitor", [nets(["198.51.100.0/24"], { application: "tls" })]));
  assert.deepEqual(
    monitor.networks().map(({ kernel }) => kernel),
    ["watch"],
  );
});

test("the lifetime of a binding is clamp(TTL, min, max) + grace", () => {
  const g = guard(policy("e", "Enforce", [names(["a.example"])], { minTtl: "10s", maxTtl: "100s", grace: "5s" }));
  for (const [ttl, seconds] of [
    [0, 15],
    [10, 15],
    [50, 55],
    [1000, 105],
  ] as const)
    assert.equal(g.lifetime(name("a.example"), ttl), seconds);
});

test("an element lasts as long as the names behind it agree", () => {
  const g = guard(
    policy("e", "Enforce", [names(["a.example"]), names(["b.example"], { application: "tls" })], { minTtl: "0s", grace: "0s" }),
  );
  const address = ip("198.51.100.1");
  g.learn({ name: name("b.example"), via: "asked", address, ttl: 100 }, NOW);
  assert.deepEqual(g.elements(address, NOW), [{ portKey: HTTPS, kernel: "inspect", expires: NOW + 100 }]);
  g.learn({ name: name("a.example"), via: "asked", address, ttl: 50 }, NOW);
  // a.example needs no inspection, but only for 50 seconds.
  assert.deepEqual(g.elements(address, NOW), [{ portKey: HTTPS, kernel: "pass", expires: NOW + 50 }]);
  assert.deepEqual(g.elements(address, NOW + 51), [{ portKey: HTTPS, kernel: "inspect", expires: NOW + 100 }]);
});

test("a denied name on an address takes back what another name allowed there", () => {
  const g = guard(policy("e", "Enforce", [names(["a.example"]), { action: "Deny", to: [{ domainNames: ["bad.example"] }] }]));
  const address = ip("198.51.100.1");
  g.learn({ name: name("a.example"), via: "asked", address, ttl: 100 }, NOW);
  assert.equal(g.elements(address, NOW)?.length, 1);
  g.learn({ name: name("bad.example"), via: "asked", address, ttl: 100 }, NOW);
  assert.deepEqual(g.elements(address, NOW), []);
});

test("a name heard before any rule had it counts when one does", () => {
  const g = guard(policy("e", "Enforce", [names(["a.example"])]));
  const address = ip("198.51.100.1");
  assert.equal(g.learn({ name: name("new.example"), via: "asked", address, ttl: 100 }, NOW), undefined);
  assert.equal(g.seen(address, NOW)[0]?.name, "new.example");
  const told: string[] = [];
  g.adopt(rulebook([policy("e", "Enforce", [names(["new.example"])])]) as Rulebook, NOW, (learned) => told.push(learned.name));
  assert.deepEqual(told, ["new.example"]);
  assert.equal(g.elements(address, NOW)?.length, 1);
});

test("search suffixes: the query for an allowed name goes through on its way", () => {
  const g = guard(policy("e", "Enforce", [names(["a.example"])], { queries: "AllowedOnly" }));
  assert.equal(g.query(name("a.example")).action, "allow");
  assert.equal(g.query(name("a.example.shop.svc.cluster.local")).action, "allow");
  assert.equal(g.query(name("b.example.shop.svc.cluster.local")).action, "refuse");
  assert.equal(g.query(name("b.example")).action, "refuse");
});

test("no name opens loopback, link-local or multicast: its zone's owner would choose", () => {
  const g = guard(policy("e", "Enforce", [names(["*.example"])]));
  for (const text of ["127.0.0.1", "169.254.169.254", "0.0.0.0", "239.1.1.1", "255.255.255.255", "::1", "::", "fe80::1", "ff02::1"]) {
    g.learn({ name: name("rebind.example"), via: "asked", address: ip(text), ttl: 60 }, NOW);
    assert.deepEqual(g.elements(ip(text), NOW), [], text);
    assert.equal(g.decide(6, 443, ip(text), g.seen(ip(text), NOW)).kernel, "deny");
  }
  g.learn({ name: name("ok.example"), via: "asked", address: ip("10.1.2.3"), ttl: 60 }, NOW);
  assert.equal(g.elements(ip("10.1.2.3"), NOW)?.length, 1);
});
