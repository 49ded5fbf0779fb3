import assert from "node:assert/strict";
import { test } from "node:test";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { newPacket } from "../../src/capture/decode.ts";
import type { EventDraft } from "../../src/model/event.ts";
import { Protocol } from "../../src/model/packet.ts";
import type { DnsLimits, Policy } from "../../src/model/policy.ts";
import { readManifests } from "../../src/policy/read.ts";
import { DNS_LIMITS } from "../../src/policy/view.ts";
import { type Context, newCounters, sayHeldBack } from "../../src/worker/context.ts";
import { rulebook } from "../../src/worker/guard.ts";
import { NameWatch } from "../../src/worker/name-watch.ts";
import type { GuardedPod } from "../../src/worker/pods.ts";
import { Elsewhere } from "../../src/worker/resolvers.ts";
import { query } from "../support/dns.ts";

function policyOf(id: string, mode: string, limits?: Partial<DnsLimits>): Policy {
  const text = `apiVersion: namegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: { name: ${id}, namespace: shop }\nspec: { mode: ${mode} }\n`;
  const [policy] = readManifests("f", text).policies;
  assert.ok(policy !== undefined);
  return limits === undefined ? policy : { ...policy, dns: { ...policy.dns, limits: { ...DNS_LIMITS, ...limits } } };
}

function watching(...policies: Policy[]) {
  const said: EventDraft[] = [];
  const state = { nowMs: 1_000_000 };
  const context = {
    counters: newCounters(),
    nowMs: () => state.nowMs,
    emit: (draft: EventDraft) => said.push(draft),
  } as unknown as Context;
  const book = rulebook(policies);
  assert.ok(book !== undefined);
  const pod = {
    guard: { book },
    pod: { namespace: "shop", name: "p", labels: {}, serviceAccountName: "s", searches: ["shop.svc.cluster.local"] },
    attachment: { interface: "veth0" },
    events: { take: () => true },
    heldBack: 0,
  } as unknown as GuardedPod;
  const packet = newPacket();
  Object.assign(packet, {
    source: parseIp("10.96.0.10") as Ip,
    destination: parseIp("10.0.0.1") as Ip,
    protocol: Protocol.UDP,
    sourcePort: 53,
  });
  const watch = new NameWatch(context, 1);
  const ask = (name: string, type = 1): boolean => {
    const bytes = query(name, { type });
    if (book.refusesData) return watch.query(pod, packet, bytes, 0, bytes.length);
    watch.reply(pod, packet, bytes, 0, bytes.length);
    return true;
  };
  return { said, state, book, ask, watch, counters: context.counters };
}

const words = ({ verdict, policy, exceeded, count }: EventDraft): unknown[] => [verdict, policy, exceeded?.limit, count];

test("without limits anywhere the defaults alert; with some, those of the policies that have them", () => {
  assert.deepEqual(
    watching(policyOf("a", "Enforce"), policyOf("b", "Monitor")).book.limits.map(({ by, becomes }) => [by("names", 1), becomes]),
    [[undefined, "allow"]],
  );
  const { book } = watching(
    policyOf("a", "Enforce", {}),
    policyOf("b", "Monitor", { action: "Refuse" }),
    policyOf("c", "Enforce", { action: "Refuse", names: 7 }),
    policyOf("d", "Enforce"),
    policyOf("e", "Discover", { action: "Refuse" }),
  );
  assert.deepEqual(
    book.limits.map(({ by, becomes, names }) => [by("names", 1), becomes, names]),
    [
      ["shop/c", "deny", 7],
      ["shop/b", "would-deny", 1000],
      ["shop/a", "allow", 1000],
    ],
  );
  // Of those with the same consequence the tightest counts, and is named; a number goes before none.
  const [tight, more] = watching(
    policyOf("a", "Enforce", { names: 50, data: 100, types: [16] }),
    policyOf("b", "Enforce", { names: 20, data: 9000, queries: 5, types: [16, 99] }),
  ).book.limits;
  assert.equal(more, undefined);
  assert.deepEqual([tight?.names, tight?.data, tight?.queries, tight?.nameLength], [20, 100, 5, 200]);
  assert.deepEqual(
    (["names", "data", "queries"] as const).map((limit) => tight?.by(limit, 1)),
    ["shop/b", "shop/a", "shop/b"],
  );
  assert.deepEqual(
    [16, 99, 10].map((type) => [tight?.types.has(type), tight?.by("types", type)]),
    [
      [true, "shop/a"],
      [true, "shop/b"],
      [false, undefined],
    ],
  );
  assert.deepEqual([book.refusesData, book.restrictsQueries, book.restrictsNames], [true, true, false]);
});

test("a sign is said once a minute with its count, and at once when it becomes a refusal", () => {
  const it = watching(policyOf("a", "Enforce", { action: "Refuse", names: 3 }), policyOf("b", "Enforce", { names: 1 }));
  const answers = Array.from({ length: 6 }, (_, i) => it.ask(`n${i}.evil.example.shop.svc.cluster.local`));
  assert.deepEqual(answers, [true, true, true, false, false, false]);
  assert.deepEqual(it.said.map(words), [
    ["allow", "shop/b", "names", 1],
    ["deny", "shop/a", "names", 2],
  ]);
  it.state.nowMs += 59_999;
  it.ask("n0.evil.example");
  assert.equal(it.said.length, 2);
  // Another minute: the names are counted anew, and so is what is said.
  it.state.nowMs += 2;
  for (let i = 0; i < 5; i++) it.ask(`n${i}.evil.example`);
  assert.deepEqual(it.said.slice(2).map(words), [
    ["allow", "shop/b", "names", 4],
    ["deny", "shop/a", "names", 2],
  ]);
  assert.equal(it.counters.dnsTunnelSigns, 10);
});

test("who goes back and forth between two limits makes no more noise", () => {
  const it = watching(policyOf("a", "Enforce", { action: "Refuse", types: [16] }), policyOf("b", "Enforce", { types: [33] }));
  for (let i = 0; i < 50; i++) it.ask("a.evil.example", i % 2 === 0 ? 33 : 16);
  assert.deepEqual(
    it.said.map(({ verdict }) => verdict),
    ["allow", "deny"],
  );
});

test("whose names are no text is shown what can be shown", () => {
  const it = watching(policyOf("a", "Monitor", { action: "Refuse" }));
  it.ask("\u001b[31m\xff.evil.example", 10);
  const [event] = it.said;
  assert.deepEqual([event?.verdict, event?.mode, event?.destination?.names], ["would-deny", "Monitor", []]);
  assert.match(event?.message ?? "", /^[\x20-\x7e]+$/);
  assert.match(event?.message ?? "", /\\x1b\[31m\\xff\.evil\.example; Enforce would refuse$/);
});

test("what was held back of a pod that says no more is said all the same, once", () => {
  const said: EventDraft[] = [];
  const context = { emit: (draft: EventDraft) => said.push(draft), limits: { eventsPerSecond: 50 } } as unknown as Context;
  const pod = {
    pod: { key: "shop/p" },
    guard: { book: { mode: "Enforce", policies: [{ id: "shop/a" }] } },
    heldBack: 17,
  } as unknown as GuardedPod;
  sayHeldBack(context, pod);
  sayHeldBack(context, pod);
  assert.deepEqual(
    said.map(({ type, why, count, policies }) => [type, why, count, policies]),
    [["limit", "events-held-back", 17, ["shop/a"]]],
  );
});

test("use of a server is said at once, then with the count since; one that only goes on is not", () => {
  const elsewhere = new Elsewhere();
  assert.deepEqual(
    [elsewhere.use("k", 0, 1), elsewhere.use("k", 1000, 5), elsewhere.use("k", 59_000, 0), elsewhere.use("k", 60_000, 1)],
    [1, 0, 0, 6],
  );
  assert.deepEqual([elsewhere.use("m", 0, 0), elsewhere.use("m", 120_000, 0), elsewhere.use("m", 4_000_000, 0)], [1, 0, 1]);
  for (let i = 0; i < 1000; i++) elsewhere.use(`${i}`, 0, 1);
  assert.equal(elsewhere.use("k", 61_000, 1), 1, "forgotten: bounded");
  const address = (i: number): Ip => parseIp(`192.0.${i >> 8}.${i & 255}`) as Ip;
  for (let i = 0; i < 1000; i++) elsewhere.learned(address(i));
  assert.deepEqual([elsewhere.knows(address(0)), elsewhere.knows(address(999))], [true, false]);
});
