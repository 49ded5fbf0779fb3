import assert from "node:assert/strict";
import { test } from "node:test";
import { Folder } from "../../src/alerts/fold.ts";
import { stamper } from "../../src/alerts/stamp.ts";
import type { Event, EventDraft } from "../../src/model/event.ts";
import { DRAFTS } from "./events.ts";

const SETTINGS = { windowMs: 60_000, podPerSecond: 20, nodePerSecond: 500 };

function world(settings = SETTINGS) {
  const out: Event[] = [];
  const stamp = stamper("r");
  const at = { now: Date.parse("2026-11-26T10:00:00Z") };
  const folder: Folder = new Folder(settings, { out: (event) => out.push(event), say: (draft) => emit(draft) });
  const emit = (draft: EventDraft): void => folder.push(stamp(draft, at.now), at.now);
  const lines = (): string[] =>
    out
      .splice(0)
      .map(
        ({ why, pod, count, folded }) =>
          `${pod?.name ?? "-"} ${why} ${count}${folded === undefined ? "" : ` ${folded.first.slice(14, 19)}-${folded.last.slice(14, 19)}`}`,
      );
  return { at, folder, emit, out, lines };
}

const denial = (pod: string, address = "203.0.113.7", port = 443): EventDraft => ({
  ...(DRAFTS["denied"] as EventDraft),
  pod: { namespace: "shop", name: pod, labels: {}, serviceAccountName: "s" },
  destination: { address, port, protocol: "TCP", names: [] },
  count: 1,
  folded: undefined as never,
});
const plain = (draft: EventDraft): EventDraft =>
  Object.fromEntries(Object.entries(draft).filter(([, value]) => value !== undefined)) as unknown as EventDraft;

test("the first at once, its repeats as one line a window with count, first and last; then it is forgotten", () => {
  const { at, folder, emit, lines } = world();
  emit(plain(denial("a")));
  assert.deepEqual(lines(), ["a wrong-port 1"]);
  for (let i = 0; i < 30; i++) {
    at.now += 1000;
    emit(plain(denial("a")));
    folder.tick(at.now);
  }
  assert.deepEqual(lines(), []);
  for (let i = 0; i < 31; i++) folder.tick((at.now += 1000));
  assert.deepEqual(lines(), ["a wrong-port 30 00:01-00:30"]);
  at.now += 1000;
  emit(plain({ ...denial("a"), count: 5 })); // goes on: no line of its own
  folder.tick((at.now += 60_000));
  assert.deepEqual(lines(), ["a wrong-port 5 01:02-01:02"]);
  folder.tick((at.now += 60_000));
  assert.equal(folder.entries, 0);
  emit(plain(denial("a")));
  assert.deepEqual(lines(), ["a wrong-port 1"]);
  emit(plain(denial("a")));
  folder.flush(at.now);
  assert.equal(lines().length, 1);
});

test("what differs in more than the source port is another event", () => {
  const { emit, lines } = world();
  emit(plain(denial("a")));
  emit(plain({ ...denial("a"), source: { address: "10.0.0.1", port: 9, interface: null } }));
  emit(plain(denial("a", "203.0.113.8")));
  emit(plain(denial("a", "203.0.113.7", 444)));
  emit(plain(denial("b")));
  emit(plain({ ...denial("a"), verdict: "would-deny" }));
  const dns = DRAFTS["refusedQuery"] as EventDraft;
  emit(dns);
  emit({ ...dns, destination: { ...(dns.destination as object), names: ["other.example"] } as never });
  emit(dns);
  assert.equal(lines().length, 7);
});

test("nothing is lost between lines: counts add up to what came in", () => {
  const { at, folder, emit, out } = world();
  let sent = 0;
  for (let i = 0; i < 5000; i++) {
    emit(plain(denial(`p${i % 3}`, `203.0.113.${i % 100}`)));
    sent++;
    if (i % 50 === 0) folder.tick((at.now += 700));
  }
  folder.flush(at.now);
  const all = out.reduce((sum, { count }) => sum + count, 0);
  assert.equal(all, sent);
  assert.ok(out.length < 2500, `${out.length} lines`);
});

test("a million distinct denials of one pod in a minute: it is limited and named, others are unaffected, state is bounded", {
  timeout: 20_000,
}, () => {
  const { at, folder, emit, out } = world();
  const before = process.memoryUsage().heapUsed;
  const draft = plain(denial("noisy"));
  const others = new Map<string, number>();
  for (let i = 0; i < 1_000_000; i++) {
    const destination = { address: `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`, port: 443, protocol: "TCP", names: [] };
    emit({ ...draft, destination });
    if (i % 16_667 !== 0) continue;
    at.now += 1000;
    folder.tick(at.now);
    const second = i / 16_667;
    for (const quiet of ["b", "c", "d"]) emit(plain(denial(quiet, `192.0.2.${second}`)));
    emit({ type: "rules", verdict: "info", why: "rules-restored", message: "restored" });
    // A line of a quiet pod is there before anything else happens.
    for (const event of out.slice(-4)) others.set(event.pod?.name ?? "agent", (others.get(event.pod?.name ?? "agent") ?? 0) + 1);
  }
  folder.flush(at.now);
  assert.deepEqual(
    [...others],
    [
      ["b", 60],
      ["c", 60],
      ["d", 60],
      ["agent", 60],
    ],
  );
  const noisy = out.filter(({ pod }) => pod?.name === "noisy");
  const named = noisy.filter(({ why }) => why === "alerts-limited");
  assert.ok(named.length >= 6 && named.length <= 8, `${named.length} lines name it`);
  assert.match(named[0]?.message ?? "", /^shop\/noisy: \d+ events were counted/);
  assert.ok(noisy.length <= 60 * 20 + 100 + named.length, `${noisy.length} lines`);
  assert.equal(
    noisy.reduce((sum, { count }) => sum + count, 0),
    1_000_000,
  );
  assert.ok(folder.entries <= 8192);
  out.length = 0;
  assert.ok(process.memoryUsage().heapUsed - before < 200 * 2 ** 20);
});

test("when all pods together are over the node's share, what is severe still has room", () => {
  const { emit, out } = world({ windowMs: 60_000, podPerSecond: 20, nodePerSecond: 10 });
  for (let i = 0; i < 300; i++) emit(plain({ ...denial(`p${i}`), verdict: "allow", why: null }));
  const info = out.splice(0).length;
  assert.ok(info > 0 && info <= 25, `${info} of info`);
  for (let i = 0; i < 300; i++) emit(plain(denial(`q${i}`)));
  const medium = out.splice(0).length;
  assert.ok(medium > 10, `${medium} of medium`);
  for (let i = 0; i < 300; i++) emit(plain({ ...denial(`r${i}`), why: "evasion" }));
  const critical = out.splice(0).length;
  assert.ok(critical > 5 && info + medium + critical <= 51, `${critical} critical`);
});

test("a tenant who writes thousands of policies fills nobody's collector; the cluster's own are always told", () => {
  const { at, folder, emit, out } = world();
  const policy = (id: string | null, i = 0): EventDraft => ({
    type: "policy",
    verdict: "info",
    why: id === null ? "input-invalid" : "policy-invalid",
    policy: id,
    message: `${id} ${i}`,
  });
  for (let i = 0; i < 5000; i++) emit(policy(`evil/p${i}`, i));
  for (let i = 0; i < 5000; i++) emit(policy(null, i));
  assert.equal(out.length, 2 * 5 * SETTINGS.podPerSecond);
  for (let i = 0; i < 300; i++) emit(policy(`guard-${i}`));
  emit(policy("shop/checkout"));
  assert.equal(out.splice(0).length, 200 + 300 + 1);
  folder.tick((at.now += 1000));
  assert.deepEqual(
    out.map(({ why, count, message }) => [why, count, message?.split(":")[0]]),
    [
      ["alerts-limited", 4900, "events without a pod (policies of evil)"],
      ["alerts-limited", 4900, "events without a pod (policies of files)"],
    ],
  );
});

test("more pods than are remembered share one state, and a window of 0 folds nothing", () => {
  const { emit, out, folder } = world({ windowMs: 60_000, podPerSecond: 1000, nodePerSecond: 100_000 });
  for (let i = 0; i < 20_000; i++) emit(plain(denial(`p${i}`)));
  assert.ok(folder.entries <= 8192, String(folder.entries));
  assert.ok(out.length > 1024);
  const unfolded = world({ ...SETTINGS, windowMs: 0 });
  for (let i = 0; i < 10; i++) unfolded.emit(plain(denial("a")));
  assert.equal(unfolded.out.length, 10);
});
