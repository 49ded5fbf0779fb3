import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { stamper } from "../../src/alerts/stamp.ts";
import type { Event, EventDraft } from "../../src/model/event.ts";
import { type DestinationList, Destinations, type Edge } from "../../src/page/destinations.ts";
import { readDestinations, writeDestinations } from "../../src/page/kept.ts";
import { workloadOf } from "../../src/page/workload.ts";
import { anyEvent } from "../alerts/any-event.ts";

const stamp = stamper("t");
function went(app: string, to: string, verdict: Event["verdict"] = "deny", more: Partial<EventDraft> = {}): Event {
  const pod = { namespace: "shop", name: app, labels: {}, serviceAccountName: "default" };
  const destination = { address: "198.51.100.1", port: 443, protocol: "TCP", names: to === "" ? [] : [to] };
  return stamp({ type: "connection", verdict, why: verdict === "deny" ? "no-rule" : null, pod, destination, ...more }, 0);
}
const edges = (list: DestinationList): Edge[] => list.workloads.flatMap((workload) => workload.edges);
const tos = (table: Destinations): string[] => edges(table.list()).map(({ to }) => to);

test("counts, first and last time, ports and the last verdict of each pair", () => {
  const table = new Destinations(5);
  table.push(went("checkout", "api.stripe.com", "allow", { why: null }), 10);
  table.push(went("checkout", "api.stripe.com", "deny", { count: 3, why: "wrong-port" }), 20);
  table.push(went("checkout", "api.stripe.com", "would-deny", { why: "no-rule" }), 30);
  table.push(went("cart", "", "deny"), 40);
  table.push(went("cart", "x.example", "deny", { type: "dns", why: "name-not-allowed" }), 50);
  const { sinceMs, workloads } = table.list();
  assert.equal(sinceMs, 5);
  assert.deepEqual(
    workloads.map(({ namespace, name }) => `${namespace}/${name}`),
    ["shop/checkout", "shop/cart"],
  );
  assert.deepEqual(workloads[0]?.edges, [
    {
      to: "api.stripe.com",
      ports: ["443/TCP"],
      allow: 1,
      deny: 3,
      wouldDeny: 1,
      firstMs: 10,
      lastMs: 30,
      verdict: "would-deny",
      why: "no-rule",
    },
  ]);
  assert.deepEqual(
    workloads[1]?.edges.map(({ to, ports }) => [to, ports]),
    [
      ["198.51.100.1", ["443/TCP"]],
      ["x.example", ["query"]],
    ],
  );
});

test("where the server name was wrong, it is the destination", () => {
  const table = new Destinations(0);
  const evidence = { dns: [], serverName: "paste.example.net", application: "tls", ja4: null };
  table.push(went("a", "cdn.example.com", "deny", { why: "wrong-server-name", evidence }), 0);
  table.push(went("a", "cdn.example.com", "deny", { why: "wrong-port", evidence }), 0);
  assert.deepEqual(tos(table), ["paste.example.net", "cdn.example.com"]);
});

test("what is no connection and no query of a pod is not counted", () => {
  const table = new Destinations(0);
  for (const event of [
    went("a", "x.example", "info"),
    went("a", "x.example", "deny", { pod: null }),
    went("a", "x.example", "deny", { destination: null }),
    went("a", "x.example", "deny", { type: "spoofed" }),
    went("a", "", "deny", { destination: { address: null, port: null, protocol: null, names: [] } }),
  ])
    table.push(event, 0);
  assert.deepEqual(tos(table), []);
  assert.equal(table.version, 0);
});

test("a workload that tries many destinations displaces its own tries, and nothing that was allowed", () => {
  const table = new Destinations(0);
  table.push(went("victim", "bank.example.com", "deny"), 0);
  table.push(went("attacker", "api.stripe.com", "allow"), 0);
  for (let i = 0; i < 100_000; i++) table.push(went("attacker", `${i}.evil.example`, "deny"), i);
  const { workloads } = table.list();
  const attacker = workloads.find(({ name }) => name === "attacker");
  assert.equal(attacker?.edges.length, 64);
  assert.equal(attacker?.dropped, 100_001 - 64);
  assert.ok(attacker?.edges.some(({ to }) => to === "api.stripe.com"));
  assert.ok(attacker?.edges.some(({ to }) => to === "99999.evil.example"));
  assert.ok(tos(table).includes("bank.example.com"));
});

test("bounded in all: the largest gives way; so are workloads and ports", () => {
  const table = new Destinations(0);
  for (let i = 0; i < 600; i++) for (let j = 0; j < 40; j++) table.push(went(`app${i}`, `${j}.example`, "deny"), i);
  const { workloads } = table.list();
  assert.ok(workloads.length <= 512);
  assert.equal(edges(table.list()).length, 1000);
  for (const { edges: each } of workloads) assert.ok(each.length >= 1);
  const destination = (port: number) => ({ address: "198.51.100.1", port, protocol: "TCP", names: ["x.example"] });
  for (let port = 1; port < 1000; port++) table.push(went("scan", "", "deny", { destination: destination(port) }), 0);
  assert.equal(edges(table.list()).find(({ to, deny }) => to === "x.example" && deny === 999)?.ports.length, 8);
});

test("whatever an event says, the table is bounded and can be kept and read", () => {
  const folder = mkdtempSync(join(tmpdir(), "namegate-destinations-"));
  try {
    const run = stamper("any");
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 30 }), (drafts) => {
        const table = new Destinations(0);
        for (const one of drafts) table.push(run(one as EventDraft, 0), 1);
        assert.equal(writeDestinations(folder, table.list()), undefined);
        assert.deepEqual(readDestinations(folder), JSON.parse(JSON.stringify(table.list())));
      }),
      { numRuns: 50 },
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("first times outlive the agent; a file that is torn, foreign or hostile is begun anew", () => {
  const folder = mkdtempSync(join(tmpdir(), "namegate-destinations-"));
  const file = join(folder, "destinations.json");
  try {
    const first = new Destinations(5);
    first.push(went("a", "x.example", "allow"), 10);
    assert.equal(writeDestinations(folder, first.list()), undefined);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const second = new Destinations(1000, readDestinations(folder));
    assert.equal(second.fresh, 0);
    second.push(went("a", "x.example", "allow"), 2000);
    assert.equal(second.fresh, 0, "known already");
    assert.deepEqual([second.list().sinceMs, edges(second.list())[0]?.firstMs, edges(second.list())[0]?.allow], [5, 10, 2]);
    const good = JSON.stringify({ format: 1, ...first.list() });
    for (const bad of [
      good.slice(0, -5),
      "",
      "null",
      "[]",
      good.replace('"format":1', '"format":2'),
      good.replace('"firstMs":10', '"firstMs":"10"'),
      good.replace('"verdict":"allow"', '"verdict":"info"'),
      good.replace('"ports":["443/TCP"]', '"ports":[1]'),
      good.replace('"edges":[', '"edges":[null,'),
      good.replace('"workloads":[', '"workloads":[null,'),
    ]) {
      assert.notEqual(bad, good);
      writeFileSync(file, bad);
      assert.equal(readDestinations(folder), undefined, bad);
    }
    assert.match(writeDestinations(join(file, "below"), first.list()) ?? "", /destinations\.json/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a pod's workload, as its labels say", () => {
  const rows: [string, Record<string, string>, string][] = [
    ["checkout-7d9f8c6b5-x7k2p", { "pod-template-hash": "7d9f8c6b5" }, "checkout"],
    ["db-0", { "statefulset.kubernetes.io/pod-name": "db-0", "controller-revision-hash": "db-6b7c" }, "db"],
    ["logger-x7k2p", { "controller-revision-hash": "6b7c" }, "logger"],
    ["backup-28712345-x7k2p", { "batch.kubernetes.io/job-name": "backup-28712345" }, "backup"],
    ["migrate-x7k2p", { "job-name": "migrate" }, "migrate"],
    ["checkout", { app: "checkout" }, "checkout"],
    ["checkout-1", {}, "checkout-1"],
    ["a-b", { "pod-template-hash": "other" }, "a-b"],
    ["x", { "job-name": "y" }, "x"],
    ["y", JSON.parse('{"__proto__":"z"}') as Record<string, string>, "y"],
  ];
  for (const [name, labels, wanted] of rows) assert.equal(workloadOf({ name, labels }), wanted, name);
});
