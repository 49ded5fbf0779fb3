import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Ip, ipText, parseIp } from "../../src/base/address.ts";
import { type DnsName, dnsName } from "../../src/base/name.ts";
import type { Policy } from "../../src/model/policy.ts";
import type { Pod } from "../../src/model/snapshot.ts";
import type { Question } from "../../src/policy/evaluate.ts";
import { type Context, newCounters } from "../../src/worker/context.ts";
import { explain, type WhatIf } from "../../src/worker/explain.ts";
import { type Rulebook, rulebook } from "../../src/worker/guard.ts";
import type { Kernel } from "../../src/worker/kernel.ts";
import { PodTable } from "../../src/worker/pod-table.ts";
import { GuardedPod } from "../../src/worker/pods.ts";
import { LIMITS_DEFAULT } from "../../src/worker/protocol.ts";
import { policies, question } from "../policy/arbitrary.ts";

const NOW = 1_800_000_000;
const POD: Pod = {
  key: "shop/a",
  uid: "1",
  namespace: "shop",
  name: "a",
  labels: {},
  serviceAccountName: "default",
  interface: "cali1",
  addresses: ["10.244.0.1", "fd00::1"].map((text) => parseIp(text) as Ip),
  searches: ["shop.svc.x"],
};
/** Whatever is told to it is a change. */
const refuses = (what: string) => (): never => assert.fail(`the kernel was told: ${what}`);

function world(list: readonly Policy[], teach: boolean): { context: Context; pod: GuardedPod; changes: () => string } | undefined {
  const book = rulebook(list);
  if (book === undefined) return undefined;
  const quiet = Object.fromEntries(
    ["allow", "unallow", "remember", "forget", "deny", "undeny", "commit"].map((what) => [what, () => undefined]),
  );
  const strict = Object.fromEntries(
    ["allow", "unallow", "remember", "forget", "deny", "undeny", "commit"].map((what) => [what, refuses(what)]),
  );
  const kernel = { ...quiet, isResolver: () => false } as unknown as Kernel;
  const pods = new PodTable();
  const pod = new GuardedPod(POD, book as Rulebook, { kind: "routed", interface: "cali1", index: 7 }, kernel, LIMITS_DEFAULT);
  pods.set(pod);
  const context = {
    kernel,
    pods,
    limits: LIMITS_DEFAULT,
    counters: newCounters(),
    nowMs: () => NOW * 1000,
    now: () => NOW,
    emit: refuses("an event"),
    log: () => undefined,
  } as unknown as Context;
  if (teach) {
    for (const [i, text] of ["a.x", "b.a.x", "c.x", "a.b.c.x"].entries())
      for (const address of [`10.0.${i}.1`, "10.0.127.128", "2001:db8::7f:80"])
        pod.learn(
          { name: dnsName(text) as DnsName, via: i % 2 === 0 ? "asked" : "cname", address: parseIp(address) as Ip, ttl: 60 },
          NOW - 1,
        );
  }
  Object.assign(kernel, strict);
  const changes = (): string =>
    JSON.stringify([[...pod.guard.names.entries()], pod.guard.names.bindings, context.counters, [...pod.ruleHits]]);
  return { context, pod, changes };
}

const asked = (q: Question): WhatIf => ({
  pod: POD.key,
  protocol: q.protocol,
  port: q.port,
  name: undefined,
  address: q.address,
  evidence: q.evidence,
  names: undefined,
});

test("explain says what the packet thread would decide, by address, by name and with an event's names, and changes nothing", () => {
  let denied = 0;
  fc.assert(
    fc.property(policies, question, fc.boolean(), fc.boolean(), (list, q, monitor, teach) => {
      const mixed = list.map((policy, i) => (monitor && i % 2 === 0 ? { ...policy, mode: "Monitor" as const } : policy));
      const it = world(mixed, teach);
      if (it === undefined) return;
      const before = it.changes();
      const { guard } = it.pod;
      const rows: readonly (readonly [WhatIf, Question["names"]])[] = [
        [asked(q), guard.seen(q.address, NOW)],
        [{ ...asked(q), names: q.names }, q.names],
        ...["a.x", "c.x", "b.c.a.x"].map((text): readonly [WhatIf, Question["names"]] => [
          { ...asked(q), address: undefined, name: dnsName(text) as DnsName },
          [],
        ]),
      ];
      for (const [what, names] of rows) {
        const answer = explain(it.context, what);
        assert.ok(answer !== undefined && answer.cases.length > 0);
        for (const one of answer.cases) {
          const address = parseIp(one.address) as Ip;
          const seen =
            what.address !== undefined
              ? names
              : one.assumed
                ? [{ name: what.name as DnsName, via: "asked" as const, fresh: true }]
                : guard.seen(address, NOW);
          const { verdict, wouldDeny } = guard.decide(q.protocol, q.port, address, seen, q.evidence);
          const said = wouldDeny ?? verdict;
          assert.equal(one.verdict, said.action === "deny" && wouldDeny !== undefined ? "would-deny" : said.action);
          assert.deepEqual([one.policy, one.rule], [said.policy ?? null, said.rule ?? null]);
          if (said.action === "deny") {
            denied++;
            assert.deepEqual([one.why, one.nearest], [said.why, said.nearest ?? null]);
          }
        }
        const [first] = answer.cases;
        const decides = answer.rules.find(({ outcome }) => outcome === "decides");
        assert.deepEqual(
          [decides?.policy ?? null, decides?.rule ?? null],
          [first?.policy, first?.rule],
          "the rules are about the first case",
        );
      }
      assert.equal(it.changes(), before);
    }),
    { numRuns: 500 },
  );
  assert.ok(denied > 100);
});

test("a pod that is not guarded; a name with the pod's search suffix; many addresses", () => {
  const open = world([{ ...policyWith(["*.x"]) }], true);
  assert.ok(open !== undefined);
  const { context, pod } = open;
  const what: WhatIf = {
    pod: POD.key,
    protocol: 6,
    port: 443,
    name: dnsName("db") as DnsName,
    address: undefined,
    evidence: undefined,
    names: undefined,
  };
  assert.equal(explain(context, { ...what, pod: "shop/other" }), undefined);
  Object.assign(context.kernel, { remember: () => undefined, allow: () => undefined, commit: () => undefined });
  for (let i = 0; i < 50; i++)
    pod.learn({ name: dnsName("db.shop.svc.x") as DnsName, via: "asked", address: parseIp(`10.1.0.${i}`) as Ip, ttl: 60 }, NOW);
  const answer = explain(context, what);
  assert.equal(answer?.name, "db.shop.svc.x");
  assert.equal(answer.cases[0]?.verdict, "allow");
  assert.ok(answer.cases.length <= 8 && answer.more > 0);
  assert.equal(answer.cases[0].address, ipText(parseIp("10.1.0.49") as Ip), "the one used last");
});

function policyWith(names: readonly string[]): Policy {
  return {
    id: "shop/p",
    kind: "EgressPolicy",
    namespace: "shop",
    name: "p",
    tier: "Namespace",
    priority: 0,
    mode: "Enforce",
    subject: { podSelector: { matchLabels: {}, matchExpressions: [] }, namespaceSelector: undefined, serviceAccountNames: undefined },
    dns: { queries: "All", minTtlMs: 30_000, maxTtlMs: 3_600_000, graceMs: 30_000 },
    rules: [
      {
        name: "r",
        action: "Accept",
        anyDestination: false,
        names: names as Policy["rules"][number]["names"],
        cnames: "Ignore",
        networks: [],
        ports: [],
        application: undefined,
        tls: { ech: "Deny", missingServerName: undefined, legacy: "Deny", opaque: "Deny" },
        identity: [],
        proxy: undefined,
      },
    ],
  };
}
