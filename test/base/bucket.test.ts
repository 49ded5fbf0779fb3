import assert from "node:assert/strict";
import { test } from "node:test";
import { TokenBucket } from "../../src/base/bucket.ts";

test("a clock that is set back costs nobody his share", () => {
  const bucket = new TokenBucket(10, 10);
  let nowMs = 3_600_000;
  while (bucket.take(nowMs));
  nowMs = 0;
  assert.equal(bucket.take(nowMs), false, "nor gives one");
  let taken = 0;
  for (; nowMs < 5000; nowMs += 50) if (bucket.take(nowMs)) taken++;
  assert.ok(taken >= 49 && taken <= 50, String(taken));
});
