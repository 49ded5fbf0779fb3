import assert from "node:assert/strict";
import { test } from "node:test";
import { fuzz, targets } from "./inspectors.fuzz.ts";

for (const target of targets()) {
  test(`${target.application === "*" ? "all inspectors" : target.application}: mutated golden cases`, () => {
    assert.ok(fuzz(target, 1, (iterations) => iterations >= 300) > 0);
  });
}
