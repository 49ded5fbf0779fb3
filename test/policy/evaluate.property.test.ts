import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { inCidr, type Ip } from "../../src/base/address.ts";
import { patternMatches } from "../../src/base/name.ts";
import { networkElements } from "../../src/policy/elements.ts";
import { judge, mayTake } from "../../src/policy/evaluate.ts";
import { dnsSettingsFor, judgeQuery, mentions, portsForName, restrictsQueries } from "../../src/policy/queries.ts";
import { hasAddress, addressRanges } from "../../src/policy/ranges.ts";
import { buildView } from "../../src/policy/view.ts";
import { address, cidr, name, policies, question } from "./arbitrary.ts";
import { slowJudge, slowQuery, type SlowAnswer } from "./slow.ts";
import type { Verdict } from "../../src/model/verdict.ts";

const RUNS = { numRuns: 3000 };

function slowForm(verdict: Verdict): SlowAnswer {
  if (verdict.action === "deny" && verdict.why !== "denied-by-rule") return { action: "deny", why: verdict.why, nearest: verdict.nearest };
  const { policy, rule } = verdict as { policy: string; rule: string };
  return { action: verdict.action === "deny" ? "denied-by-rule" : verdict.action, policy, rule };
}

test("judge is the slow evaluator", () => {
  fc.assert(
    fc.property(policies, fc.array(question, { minLength: 1, maxLength: 8 }), (list, questions) => {
      const view = buildView(list);
      for (const q of questions) assert.deepEqual(slowForm(judge(view, q)), slowJudge(list, q));
    }),
    RUNS,
  );
});

test("what judge allows with evidence, mayTake expects", () => {
  fc.assert(
    fc.property(policies, question, (list, q) => {
      const view = buildView(list);
      const before = judge(view, { ...q, evidence: undefined });
      if (before.action !== "inspect" || q.evidence?.application === undefined) return;
      if (judge(view, q).action === "allow") assert.deepEqual(mayTake(view, q, [q.evidence.application]), [q.evidence.application]);
    }),
    RUNS,
  );
});

test("the random questions reach every reason", () => {
  const reached = new Set<string>();
  fc.assert(
    fc.property(policies, question, (list, q) => {
      const verdict = judge(buildView(list), q);
      reached.add(verdict.action === "deny" ? verdict.why : verdict.action);
    }),
    { numRuns: 10_000, seed: 7 },
  );
  const all = [
    "allow",
    "denied-by-rule",
    "ech",
    "evasion",
    "inspect",
    "names-disagree",
    "no-name",
    "no-rule",
    "no-server-name",
    "stale-dns",
    "wrong-identity",
    "wrong-name",
    "wrong-port",
    "wrong-protocol",
    "wrong-server-name",
  ];
  assert.deepEqual([...reached].sort(), all);
});

test("ranges hold the addresses of the networks and no other", () => {
  const networks = fc.array(fc.record({ cidr, except: fc.array(cidr, { maxLength: 3 }) }), { maxLength: 5 });
  fc.assert(
    fc.property(networks, fc.array(address, { minLength: 1, maxLength: 10 }), (list, addresses) => {
      const ranges = addressRanges(list);
      for (const ip of addresses) {
        const slow = list.some((n) => inCidr(ip, n.cidr) && !n.except.some((hole) => inCidr(ip, hole)));
        assert.equal(hasAddress(ranges, ip), slow);
      }
    }),
    RUNS,
  );
});

/** An address of the network, its host bits taken from `noise`. */
function inside(ip: Ip, bits: number, noise: readonly number[]): Ip {
  const octets = Array.from(ip, (char, i) => {
    const mask = Math.min(8, Math.max(0, bits - i * 8));
    return char.charCodeAt(0) | ((noise[i] as number) & (0xff >> mask));
  });
  return String.fromCharCode(...octets) as Ip;
}

test("networkElements: any address, any names, the same answer", () => {
  const noise = fc.array(fc.array(fc.integer({ min: 0, max: 255 }), { minLength: 16, maxLength: 16 }), { minLength: 3, maxLength: 3 });
  let elementsSeen = 0;
  fc.assert(
    fc.property(policies, question, noise, (list, q, noises) => {
      const view = buildView(list);
      for (const element of networkElements(view)) {
        elementsSeen++;
        for (const bytes of noises) {
          const ip = inside(element.cidr.ip, element.cidr.bits, bytes);
          const verdict = judge(view, { protocol: element.protocol, port: element.port, address: ip, names: q.names });
          assert.equal(verdict.action, element.verdict === "pass" ? "allow" : "inspect");
          if (verdict.action === "inspect") assert.equal(verdict.application, element.application);
        }
      }
    }),
    RUNS,
  );
  assert.ok(elementsSeen > 500, `only ${elementsSeen} elements were looked at`);
});

test("judgeQuery is the slow one, and restrictsQueries never hides a refusal", () => {
  fc.assert(
    fc.property(policies, name, (list, asked) => {
      const view = buildView(list);
      const verdict = judgeQuery(view, asked);
      assert.equal(verdict.action === "refuse" ? verdict.why : "allow", slowQuery(list, asked));
      if (verdict.action === "refuse") assert.ok(view.policies.some((policy) => restrictsQueries({ ...policy, mode: "Enforce" })));
    }),
    RUNS,
  );
});

test("a query that a Deny rule refuses has no connection that only names could allow", () => {
  fc.assert(
    fc.property(policies, question, name, (list, q, asked) => {
      const view = buildView(list);
      const verdict = judgeQuery(view, asked);
      if (verdict.action === "allow" || verdict.why !== "denied-by-rule") return;
      const networks = list.some((p) => p.rules.some((r) => r.networks.length > 0));
      if (networks) return;
      const answer = judge(view, { ...q, names: [{ name: asked, via: "asked", fresh: true }] });
      assert.equal(answer.action, "deny");
    }),
    RUNS,
  );
});

test("portsForName, mentions and dnsSettingsFor follow the patterns", () => {
  const via = fc.constantFrom("asked" as const, "cname" as const);
  fc.assert(
    fc.property(policies, name, via, (list, asked, way) => {
      const view = buildView(list);
      const having = list.flatMap((p) => p.rules).filter((r) => r.names.some((p) => patternMatches(p, asked)));
      const known = having.filter((r) => way === "asked" || r.cnames === "Match" || r.action === "Deny");
      assert.equal(mentions(view, asked, way), known.length > 0);
      const ports = new Set<number>();
      for (const { ports: matches } of known.filter((r) => r.action === "Accept")) {
        for (const { protocol, first, last } of matches)
          if (last - first < 16) for (let p = first; p <= last; p++) ports.add(protocol * 65_536 + p);
      }
      const found = portsForName(view, asked, way);
      assert.equal(new Set(found).size, found.length);
      assert.deepEqual(new Set(found), ports);
      const patient = list.filter((p) => p.rules.some((r) => having.includes(r))).map((p) => p.dns.minTtlMs);
      const least = patient.length === 0 ? 30_000 : Math.max(...patient);
      assert.equal(dnsSettingsFor(view, asked).minTtlMs, least);
      assert.equal(dnsSettingsFor(view, asked).graceMs, patient.length === 0 ? 30_000 : least * 3);
    }),
    RUNS,
  );
});
