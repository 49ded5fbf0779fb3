import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { RuleUsage } from "../../src/control/usage.ts";
import { digest } from "../../src/control/sealed.ts";
import type { Policy } from "../../src/model/policy.ts";
import { readManifests } from "../../src/policy/read.ts";
import { Meter, RULES_MAX } from "../../src/worker/meter.ts";
import { policy } from "../support/agent.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = Date.UTC(2026, 0, 1);
const rule = (name: string | undefined, domain: string, action = "Accept"): object => ({
  ...(name === undefined ? {} : { name }),
  action,
  to: [{ domainNames: [domain] }],
  ports: [{ protocol: "TCP", port: 443 }],
});

function policyOf(rules: readonly object[], mode = "Enforce", name = "checkout"): Policy {
  const read = readManifests("m", policy(name, { mode, subject: { podSelector: {} }, egress: rules }));
  assert.deepEqual(read.problems, []);
  return read.policies[0] as Policy;
}

/** An agent's life: usage, and the packet thread's meter over the same memory. */
function life(folder: string, nowMs: number, boot = "boot-1") {
  const usage = new RuleUsage(folder, boot, nowMs);
  const meter = new Meter(usage.block);
  meter.nowMs = nowMs;
  const adopt = (policies: readonly Policy[], ms: number): void => {
    usage.adopt(policies, ms);
    for (const slots of usage.slots(policies)) meter.know(slots);
    usage.settle();
  };
  return { usage, meter, adopt };
}

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "namegate-usage-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

const brief = (usage: RuleUsage, cutMs: number) =>
  usage.unused(cutMs, undefined).map(({ rule: name, hits, conclusive }) => [name, hits, conclusive]);

test("hits and last hits over a restart; unused says what is conclusive", (t) => {
  const folder = folderFor(t);
  const checkout = policyOf([rule("a", "a.example"), rule("b", "b.example"), rule("c", "c.example", "Deny")]);
  const first = life(folder, START);
  first.adopt([checkout], START);
  first.meter.nowMs = START + HOUR;
  first.meter.used("shop/checkout", "a", "allow", 5);
  first.meter.denied("denied-by-rule", "shop/checkout", "c", "deny");
  first.meter.denied("no-rule", undefined, undefined, "deny");
  assert.deepEqual(brief(first.usage, START), [["b", 0, true]]);
  assert.equal(first.usage.save(START + 2 * HOUR), undefined);
  assert.equal(statSync(join(folder, "usage.json")).mode & 0o777, 0o600);

  const at = START + 2 * HOUR + 60_000;
  const second = life(folder, at);
  assert.equal(second.usage.refused, undefined);
  second.adopt([checkout], at);
  assert.deepEqual(
    second.usage.rules("shop/checkout").map(({ name, hits, lastHit, observedSince }) => [name, hits, lastHit, observedSince]),
    [
      ["a", 5, "2026-01-01T01:00:00.000Z", "2026-01-01T00:00:00.000Z"],
      ["b", 0, null, "2026-01-01T00:00:00.000Z"],
      ["c", 1, "2026-01-01T01:00:00.000Z", "2026-01-01T00:00:00.000Z"],
    ],
  );
  assert.deepEqual(brief(second.usage, START + 2 * HOUR), [
    ["a", 5, true],
    ["b", 0, true],
    ["c", 1, true],
  ]);
  assert.deepEqual(brief(second.usage, START - 30 * DAY), [["b", 0, false]], "nobody has looked for so long");
});

test("an agent that was away for long has not observed; after a reboot there was nothing to observe", (t) => {
  for (const [boot, since] of [
    ["boot-1", START + DAY],
    ["boot-2", START],
  ] as const) {
    const folder = folderFor(t);
    const checkout = policyOf([rule("a", "a.example")]);
    const first = life(folder, START);
    first.adopt([checkout], START);
    first.usage.save(START + HOUR);
    const second = life(folder, START + DAY, boot);
    second.adopt([checkout], START + DAY);
    assert.equal(Date.parse(second.usage.rules("shop/checkout")[0]?.observedSince ?? ""), since, boot);
  }
});

test("what an earlier agent's elements had counted counts for a rule that was long unused, and not twice", (t) => {
  const folder = folderFor(t);
  const checkout = policyOf([rule("recent", "a.example"), rule("never", "b.example")]);
  const first = life(folder, START);
  first.adopt([checkout], START);
  first.meter.used("shop/checkout", "recent", "allow", 3);
  first.usage.save(START + 60_000);
  const at = START + 120_000;
  const second = life(folder, at);
  second.adopt([checkout], at);
  second.meter.takingOver = true;
  second.meter.used("shop/checkout", "recent", "allow", 3);
  second.meter.used("shop/checkout", "never", "allow", 2);
  second.meter.takingOver = false;
  const uses = (): unknown => second.usage.rules("shop/checkout").map(({ name, hits, lastHit }) => [name, hits, lastHit]);
  assert.deepEqual(uses(), [
    ["recent", 3, "2026-01-01T00:00:00.000Z"],
    ["never", 2, "2026-01-01T00:02:00.000Z"],
  ]);
  second.meter.nowMs = at + 1000;
  second.meter.used("shop/checkout", "recent", "allow");
  assert.deepEqual(uses(), [
    ["recent", 4, "2026-01-01T00:02:01.000Z"],
    ["never", 2, "2026-01-01T00:02:00.000Z"],
  ]);
});

test("a named rule stays itself when it changes; one without a name while it says the same, wherever it stands", (t) => {
  const { usage, meter, adopt } = life(folderFor(t), START);
  adopt([policyOf([rule("named", "a.example"), rule(undefined, "b.example")])], START);
  meter.used("shop/checkout", "named", "allow", 7);
  meter.used("shop/checkout", "rule-2", "allow", 9);
  adopt([policyOf([rule(undefined, "new.example"), rule("named", "other.example"), rule(undefined, "b.example")])], START + HOUR);
  assert.deepEqual(
    usage.rules("shop/checkout").map(({ name, hits }) => [name, hits]),
    [
      ["rule-1", 0],
      ["named", 7],
      ["rule-3", 9],
    ],
  );
  meter.used("shop/checkout", "rule-3", "allow");
  assert.equal(usage.rules("shop/checkout")[2]?.hits, 10);
});

test("another mode is another time series, and the same rule", (t) => {
  const { usage, meter, adopt } = life(folderFor(t), START);
  const rules = [rule("a", "a.example")];
  adopt([policyOf(rules, "Monitor")], START);
  meter.used("shop/checkout", "a", "allow", 4);
  adopt([policyOf(rules, "Enforce")], START);
  meter.used("shop/checkout", "a", "allow", 1);
  assert.equal(usage.rules("shop/checkout")[0]?.hits, 5);
  const own = usage.verdicts().filter(({ policy: id }) => id !== undefined);
  assert.deepEqual(own, [{ policy: "shop/checkout", rule: "a", mode: "Enforce", verdict: "allow", count: 1 }]);
});

test("a slot is given to another rule only once nobody counts into it for the old one", (t) => {
  const { usage, meter, adopt } = life(folderFor(t), START);
  adopt([policyOf([rule("old", "a.example")])], START);
  meter.used("shop/checkout", "old", "allow", 2);
  usage.adopt([policyOf([rule("new", "b.example")])], START);
  meter.used("shop/checkout", "old", "allow", 2); // it has not heard yet
  assert.equal(usage.rules("shop/checkout")[0]?.hits, 0);
  usage.settle();
  adopt([policyOf([rule("new", "b.example"), rule("third", "c.example")])], START);
  meter.used("shop/checkout", "third", "allow");
  adopt([policyOf([rule("old", "a.example"), rule("new", "b.example"), rule("third", "c.example")])], START);
  assert.deepEqual(
    usage.rules("shop/checkout").map(({ name, hits }) => [name, hits]),
    [
      ["old", 4],
      ["new", 0],
      ["third", 1],
    ],
  );
});

test("Pass rules are not said to be unused, Discover's uses count", (t) => {
  const { usage, adopt } = life(folderFor(t), START);
  const cluster = readManifests(
    "m",
    policy(
      "guard",
      {
        mode: "Discover",
        tier: "Admin",
        subject: {},
        egress: [rule("through", "a.example", "Pass"), rule("used", "b.example"), rule("not", "c.example")],
      },
      { kind: "ClusterEgressPolicy", namespace: "namegate-system" },
    ),
  ).policies as Policy[];
  adopt(cluster, START);
  usage.discovered({ action: "allow", policy: "guard", rule: "used" }, START + 1000);
  usage.discovered({ action: "deny", why: "no-rule", policy: undefined, rule: undefined, nearest: undefined }, START);
  assert.deepEqual(brief(usage, START), [["not", 0, true]]);
  assert.equal(usage.rules("guard")[0]?.hits, null);
  assert.equal(usage.denials("no-rule", "would-deny"), 1);
  assert.deepEqual(
    usage.verdicts().filter(({ count }) => count > 0),
    [
      { policy: "guard", rule: "used", mode: "Discover", verdict: "allow", count: 1 },
      { policy: undefined, rule: undefined, mode: "Discover", verdict: "would-deny", count: 1 },
    ],
  );
});

test("more rules than can be counted: the others are counted together, and that is said", (t) => {
  const folder = folderFor(t);
  const { usage, meter, adopt } = life(folder, START);
  const many = Array.from({ length: 90 }, (_, i) =>
    policyOf(
      Array.from({ length: 100 }, (_r, k) => rule(`r${k}`, `a${k}.example`)),
      "Enforce",
      `p${i}`,
    ),
  );
  adopt(many, START);
  assert.equal(usage.uncounted, 9000 - RULES_MAX);
  meter.used("shop/p89", "r99", "allow", 3);
  meter.used("shop/p0", "r0", "allow", 2);
  assert.equal(usage.rules("shop/p0")[0]?.hits, 2);
  usage.save(START);
  assert.ok(statSync(join(folder, "usage.json")).size < 1_000_000);
  adopt([policyOf([rule("a", "a.example")])], START + 1); // the slots of the others are given back only now
  adopt([policyOf([rule("a", "a.example"), rule("b", "b.example")])], START + 2);
  assert.equal(usage.uncounted, 0);
  meter.used("shop/checkout", "a", "allow");
  assert.equal(usage.rules("shop/checkout")[0]?.hits, 1, "there is room again");
});

test("a file that is torn, altered, of another format or nonsense costs the memory and no more", (t) => {
  const folder = folderFor(t);
  const file = join(folder, "usage.json");
  const { usage, adopt } = life(folder, START);
  adopt([policyOf([rule("a", "a.example")])], START);
  usage.save(START);
  const good = readFileSync(file, "utf8");
  const sealed = (body: string): string => `${digest(body)}\n${body}`;
  for (const [text, why] of [
    [good.slice(0, -1), /checksum/],
    [good.replace('"a"', '"b"'), /checksum/],
    ["", /checksum/],
    [sealed("not json"), /not JSON/],
    [sealed("null"), /format/],
    [sealed('{"format":7,"rules":[]}'), /format 7/],
  ] as const) {
    writeFileSync(file, text);
    assert.match(new RuleUsage(folder, "", START).refused ?? "", why);
  }
  const rows = [
    [1, 2],
    null,
    ["p", "k", "n", -1, 0, 0, 0],
    ["p", "k", "n", 2.5, 0, 0, 0],
    ["shop/checkout", "a", "a", 3, START + DAY, -5, "x"],
  ];
  writeFileSync(file, sealed(JSON.stringify({ format: 1, boot: "boot-1", savedMs: START, sinceMs: START, rules: rows })));
  const next = life(folder, START + 1000);
  assert.equal(next.usage.refused, undefined);
  next.adopt([policyOf([rule("a", "a.example")])], START + 1000);
  const [a] = next.usage.rules("shop/checkout");
  assert.equal(a?.hits, 3);
  assert.equal(Date.parse(a?.lastHit ?? ""), START + 1000, "a time to come is none");
});

test("the file is written when a rule is first used, then once a minute while there are uses, and as a sign of life", (t) => {
  const folder = folderFor(t);
  const { usage, meter, adopt } = life(folder, START);
  adopt([policyOf([rule("a", "a.example")])], START);
  const file = join(folder, "usage.json");
  const writes = (seconds: number): number[] => {
    const at: number[] = [];
    let last = "";
    for (let s = 1; s <= seconds; s++) {
      assert.equal(usage.tick(START + s * 1000), undefined);
      let now = "";
      try {
        now = readFileSync(file, "utf8");
      } catch {
        // not there yet
      }
      if (now !== last) at.push(s);
      last = now;
      if (s === 10) meter.used("shop/checkout", "a", "allow");
      if (s >= 20 && s <= 140) meter.used("shop/checkout", "a", "allow", 100);
    }
    return at;
  };
  assert.deepEqual(writes(600), [11, 71, 131, 191, 491]);
});
