import assert from "node:assert/strict";
import { test } from "node:test";
import { marks } from "../../src/firewall/marks.ts";
import type { Counters } from "../../src/worker/context.ts";
import { rehearse, ROUNDS } from "../../src/worker/rehearsal.ts";

test("what is played is what packets do: each lookup teaches, each hello passes and is confirmed, each stranger is denied", (t) => {
  // A clock that leaves the played pod its share of the thread, however slow the machine is.
  let ms = 1_800_000_000_000;
  const nowMs = (): number => (ms += 100);
  const play = rehearse({ kernel: { marks: marks() }, now: () => Math.floor(ms / 1000), nowMs });
  const took: number[] = [];
  let counters: Counters | undefined;
  for (;;) {
    const from = performance.now();
    const step = play.next();
    took.push(performance.now() - from);
    if (step.done !== true) continue;
    counters = step.value;
    break;
  }
  const mean = (list: readonly number[]): string => ((1000 * list.reduce((sum, one) => sum + one, 0)) / list.length).toFixed(0);
  t.diagnostic(
    `the first round ${mean(took.slice(0, 1))} µs, the next nine ${mean(took.slice(1, 10))}, the last hundred ${mean(took.slice(-100))}`,
  );
  assert.deepEqual(Object.fromEntries(Object.entries(counters).filter(([name, count]) => count > 0 && name !== "eventsHeldBack")), {
    replies: ROUNDS,
    learned: ROUNDS,
    upcalls: ROUNDS,
    upcallsDenied: ROUNDS,
    inspected: ROUNDS,
    inspectConfirmed: ROUNDS,
  });
});
