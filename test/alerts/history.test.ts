import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { test } from "node:test";
import { History } from "../../src/alerts/history.ts";
import { stamper } from "../../src/alerts/stamp.ts";
import { stdoutSink } from "../../src/alerts/stdout.ts";
import { metricsText } from "../../src/metrics/text.ts";

test("every event has every field of the contract, its number and its time", () => {
  const stamp = stamper("run");
  stamp({ type: "agent", verdict: "info" }, 0);
  const event = stamp({ type: "connection", verdict: "deny", why: "no-name" }, 1_800_000_000_123);
  assert.equal(event.id, "run-2");
  assert.equal(event.seq, 2);
  assert.equal(event.time, "2027-01-15T08:00:00.123Z");
  for (const field of ["id", "seq", "time", "type", "verdict", "mode", "why", "pod", "policy", "rule", "destination", "evidence"])
    assert.ok(field in event, field);
});

test("the history is bounded and in order; a follower that stops is let go", () => {
  const stamp = stamper("run");
  const history = new History();
  const seen: number[] = [];
  assert.ok(history.follow((event) => seen.push(event.seq) < 3));
  for (let i = 0; i < 10_050; i++) history.push(stamp({ type: "agent", verdict: "info" }, 0));
  assert.deepEqual(
    history.last(2).map(({ seq }) => seq),
    [10_049, 10_050],
  );
  assert.equal(history.last(100_000).length, 10_000);
  assert.equal(history.last(100_000)[0]?.seq, 51);
  assert.deepEqual(seen, [1, 2, 3]);
});

test("a reader of stdout that does not read loses lines, and they are counted", () => {
  const stuck = new Writable({ write: () => undefined });
  const sink = stdoutSink(stuck);
  for (let i = 0; i < 100; i++) sink.write("x".repeat(200_000));
  assert.ok(sink.lost > 50, String(sink.lost));
});

test("metrics: no status breaks a scrape, and labels are escaped", () => {
  assert.match(metricsText({}), /namegate_ready 0/);
  const text = metricsText({
    ready: true,
    effectiveMode: "Enforce",
    policies: [{ name: 'a"b\\c\nd', valid: false }],
    counters: { upcallsDenied: 3 },
    queues: { reply: { received: 7 } },
  });
  assert.match(text, /^namegate_policy_valid\{policy="a\\"b\\\\c\\nd"\} 0$/m);
  assert.match(text, /^namegate_upcalls_denied_total 3$/m);
  assert.match(text, /^namegate_effective_mode\{mode="Enforce"\} 1$/m);
  assert.match(text, /^namegate_queue_received_total\{queue="reply"\} 7$/m);
});

test("a reader of the history goes on where it was, and sees what it can no longer get", () => {
  const stamp = stamper("run");
  const history = new History();
  const numbers = (seen: number, count: number): number[] => history.after(seen, count).map(({ seq }) => seq);
  assert.deepEqual(numbers(0, 10), []);
  for (let i = 0; i < 5; i++) history.push(stamp({ type: "agent", verdict: "info" }, 0));
  assert.deepEqual(numbers(0, 10), [1, 2, 3, 4, 5]);
  assert.deepEqual(numbers(3, 1), [4]);
  assert.deepEqual(numbers(5, 10), []);
  assert.deepEqual(numbers(99, 10), []);
  for (let i = 5; i < 10_003; i++) history.push(stamp({ type: "agent", verdict: "info" }, 0));
  assert.equal(history.forgotten, 3);
  assert.deepEqual(numbers(0, 2), [4, 5]);
  assert.deepEqual(numbers(9_999, 10), [10_000, 10_001, 10_002, 10_003]);
});
