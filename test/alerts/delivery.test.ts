import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { backoffMs, Delivery, RETRY_LIMITS } from "../../src/alerts/delivery.ts";
import type { BoundedEvent } from "../../src/alerts/formats/bound.ts";
import { RotatedFile } from "../../src/alerts/sinks/rotated-file.ts";
import type { Outcome, Outgoing, Sink } from "../../src/alerts/sinks/sink.ts";
import { Spool } from "../../src/alerts/spool.ts";
import { tempFolder } from "./collectors.ts";

const FAST = { baseMs: 2, capMs: 10, breakAfter: 3, openMs: 40, afterMaxMs: 100 };

interface World {
  readonly spool: Spool;
  readonly delivery: Delivery;
  readonly got: string[];
  readonly tries: number[];
  readonly folder: string;
  add(...ids: string[]): void;
}

/** `answer` decides about each try; ids of what it says is done are in `got`. */
function world(
  t: TestContext,
  answer: (batch: readonly Outgoing[], signal: AbortSignal) => Outcome | Promise<Outcome>,
  timeoutMs = 200,
): World {
  const folder = tempFolder(t);
  const spool = new Spool(folder, 8 * 2 ** 20);
  const got: string[] = [];
  const tries: number[] = [];
  const sink: Sink = {
    send: async (batch, signal) => {
      tries.push(performance.now());
      const outcome = await answer(batch, signal);
      for (const [i, { event }] of batch.entries())
        if (outcome.kind === "done" || (outcome.kind === "each" && outcome.results[i] === "done")) got.push(event.id);
      return outcome;
    },
    close: () => undefined,
  };
  const delivery = new Delivery({
    spool,
    sink,
    batch: { events: 10, bytes: 1e6, lingerMs: 0, timeoutMs },
    deadLetters: new RotatedFile(join(folder, "dead-letters.jsonl"), 1e6, 1),
    render: ({ payload, severity }) =>
      payload.startsWith("{") ? { event: JSON.parse(payload) as BoundedEvent, severity, text: payload } : undefined,
    nowMs: () => Date.parse("2026-11-26T10:00:00Z"),
    random: () => 0.5,
    limits: FAST,
  });
  t.after(() => delivery.stop());
  const add = (...ids: string[]): void => {
    for (const id of ids) spool.add("medium", id.startsWith("!") ? id : JSON.stringify({ id }));
    spool.flush();
    delivery.wake();
  };
  return { spool, delivery, got, tries, folder, add };
}

async function until(what: () => boolean, ms = 5000): Promise<void> {
  for (const end = performance.now() + ms; !what(); ) {
    assert.ok(performance.now() < end, "it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const names = (n: number): string[] => Array.from({ length: n }, (_, i) => `e${i}`);

test("full jitter below a bound that doubles, Retry-After as a floor that is bounded, the breaker on top", () => {
  const of = (n: number, after?: number, random = 1): number => backoffMs(n, after, random, RETRY_LIMITS);
  assert.deepEqual(
    [1, 2, 3, 4].map((n) => of(n)),
    [500, 1000, 2000, 4000],
  );
  assert.equal(of(4, undefined, 0), 0);
  assert.equal(of(5), 30_000 + 8000);
  assert.equal(of(1000), 30_000 + 60_000);
  assert.equal(of(1, 5000, 0), 5000);
  assert.equal(of(1, 1e12, 0), 3_600_000);
});

test("a collector that fails half of its requests gets everything, once and in order", async (t) => {
  let n = 0;
  const w = world(t, () => (n++ % 2 === 0 ? { kind: "retry", why: "500" } : { kind: "done" }));
  w.add(...names(100));
  await until(() => w.got.length === 100);
  assert.deepEqual(w.got, names(100));
  await until(() => w.spool.empty);
  const { sent, failures, breaker, failure } = w.delivery.status();
  assert.deepEqual([sent, failures >= 10, breaker, failure], [100, true, "closed", undefined]);
});

test("the breaker opens after some failures in a row, lets one try through, and closes with the first success", async (t) => {
  let up = false;
  const w = world(t, () => (up ? { kind: "done" } : { kind: "retry", why: "down" }));
  w.add("a");
  await until(() => w.delivery.status().breaker === "open");
  assert.equal(w.delivery.status().failure, "down");
  w.add("b"); // does not shorten the wait
  const before = w.tries.length;
  await new Promise((resolve) => setTimeout(resolve, 15));
  assert.equal(w.tries.length, before);
  await until(() => w.tries.length > before);
  const gaps = w.tries.slice(1).map((at, i) => at - (w.tries[i] as number));
  assert.ok((gaps.at(-1) ?? 0) >= 38, String(gaps));
  up = true;
  await until(() => w.got.length === 2);
  assert.equal(w.delivery.status().breaker, "closed");
});

test("Retry-After is waited for", async (t) => {
  let n = 0;
  const w = world(t, () => (n++ === 0 ? { kind: "retry", why: "429", afterMs: 80 } : { kind: "done" }));
  w.add("a");
  await until(() => w.got.length === 1);
  assert.ok((w.tries[1] as number) - (w.tries[0] as number) >= 78);
});

test("of a batch that is refused only what is refused alone goes to the dead letters, 0600 and with the reason", async (t) => {
  const w = world(t, (batch) =>
    batch.some(({ event }) => event.id === "e7") ? { kind: "refused", why: "400 bad field" } : { kind: "done" },
  );
  w.add(...names(10));
  await until(() => w.spool.empty);
  assert.deepEqual(
    [...w.got].sort(),
    names(10).filter((id) => id !== "e7"),
  );
  const letters = readFileSync(join(w.folder, "dead-letters.jsonl"), "utf8").trimEnd().split("\n");
  assert.equal(letters.length, 1);
  assert.deepEqual(JSON.parse(letters[0] as string), { time: "2026-11-26T10:00:00.000Z", why: "400 bad field", event: '{"id":"e7"}' });
  assert.equal(w.delivery.status().deadLetters, 1);
});

test("a collector that refuses everything gets it ever more slowly, and what comes after it is put right", async (t) => {
  let broken = true;
  const w = world(t, () => (broken ? { kind: "refused", why: "400 The plain HTTP request was sent to HTTPS port" } : { kind: "done" }));
  w.add(...names(500));
  await until(() => w.delivery.status().breaker === "open");
  const { deadLetters, failure } = w.delivery.status();
  assert.ok(deadLetters < 40, `${deadLetters} events were given up`);
  assert.match(failure ?? "", /^it refuses everything: 400 The plain HTTP/);
  broken = false;
  await until(() => w.spool.empty);
  const { sent, deadLetters: dead, breaker } = w.delivery.status();
  assert.deepEqual([sent + dead, dead < 60, breaker], [500, true, "closed"]);
});

test("what comes when all has been refused is sent", async (t) => {
  const w = world(t, ([one]) => (one?.event.id.startsWith("bad") === true ? { kind: "refused", why: "400" } : { kind: "done" }));
  for (let i = 0; i < 25; i++) {
    w.add(`bad${i}`);
    await until(() => w.spool.empty);
  }
  w.add("good");
  await until(() => w.got.includes("good"));
});

test("one by one: what is done is not sent again, what is put off is, what is refused is buried", async (t) => {
  const seen: string[][] = [];
  const w = world(t, (batch) => {
    seen.push(batch.map(({ event }) => event.id));
    const results = batch.map(({ event }) =>
      event.id === "e2" ? { refused: "mapping" } : event.id === "e4" && seen.length === 1 ? ("retry" as const) : ("done" as const),
    );
    return { kind: "each", results, why: "some" };
  });
  w.add(...names(6));
  await until(() => w.spool.empty);
  assert.deepEqual(seen, [names(6), ["e4"]]);
  assert.deepEqual(w.got, ["e0", "e1", "e3", "e5", "e4"]);
  assert.equal(w.delivery.status().deadLetters, 1);
});

test("a sink that never answers, or throws, is a failed try; a late answer changes nothing", async (t) => {
  let n = 0;
  const w = world(
    t,
    () => {
      n++;
      if (n === 1) return new Promise<Outcome>((resolve) => setTimeout(() => resolve({ kind: "done" }), 120));
      if (n === 2) throw new Error("a bug");
      if (n === 3) return new Promise<Outcome>(() => undefined);
      return { kind: "done" };
    },
    50,
  );
  w.add("a");
  await until(() => w.spool.empty);
  assert.equal(w.tries.length, 4);
  assert.equal(w.delivery.status().sent, 1);
  assert.equal(w.delivery.status().failures, 3);
});

test("a collector that resets what is too large for it gets less at a time, in the end", async (t) => {
  const sizes: number[] = [];
  const w = world(t, (batch) => {
    sizes.push(batch.length);
    return batch.length > 3 ? { kind: "retry", why: "ECONNRESET" } : { kind: "done" };
  });
  w.add(...names(10));
  await until(() => w.got.length === 10);
  assert.deepEqual(w.got, names(10));
  assert.deepEqual(sizes.slice(0, 5), [10, 10, 10, 5, 3]);
  await until(() => w.spool.empty);
});

test("what in the spool is no event is buried, and stopping gives up the try under way but no event", async (t) => {
  const w = world(t, () => new Promise<Outcome>(() => undefined), 60_000);
  w.add("!not json", "a", "b");
  await until(() => w.tries.length === 1);
  const from = performance.now();
  await w.delivery.stop();
  assert.ok(performance.now() - from < 1000);
  assert.equal(w.delivery.status().deadLetters, 1);
  const left = w.spool.take(10, 1e6)?.items.map(({ payload }) => payload);
  assert.deepEqual(left, ["!not json", '{"id":"a"}', '{"id":"b"}']);
});
