import assert from "node:assert/strict";
import { test } from "node:test";
import { heapTrimmer } from "../../src/base/collect.ts";

const MB = 1024 * 1024;

test("a heap is collected when it has grown, not too often, and not for what is alive", () => {
  let used = 20 * MB;
  let alive = 20 * MB;
  const collected: number[] = [];
  let now = 0;
  const trim = heapTrimmer(
    () => used,
    () => {
      collected.push(now);
      used = alive;
    },
  );
  const at = (ms: number, bytes: number): void => {
    now = ms;
    used = bytes;
    trim(ms);
  };
  at(0, 31 * MB);
  assert.deepEqual(collected, []);
  at(1000, 33 * MB);
  assert.deepEqual(collected, [], "it has just looked");
  at(5000, 33 * MB);
  assert.deepEqual(collected, [5000]);
  at(10_000, 40 * MB);
  assert.deepEqual(collected, [5000], "not before its time");
  alive = 40 * MB;
  at(15_000, 45 * MB);
  at(30_000, 50 * MB);
  assert.deepEqual(collected, [5000, 15_000], "40 MB are alive now");
  at(36_000, 25 * MB); // V8 did it
  at(41_000, 36 * MB);
  at(46_000, 38 * MB);
  assert.deepEqual(collected, [5000, 15_000, 46_000]);
});
