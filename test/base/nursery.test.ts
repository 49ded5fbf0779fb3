import assert from "node:assert/strict";
import { test } from "node:test";
import { getHeapSpaceStatistics } from "node:v8";
import { Worker } from "node:worker_threads";
import { smallNursery } from "../../src/base/nursery.ts";

const MB = 1024 * 1024;
/** Objects that live for a while: what makes V8 want a larger nursery. */
const OBJECTS = 2_000_000;
const ALIVE = 100_000;

test("the nursery stays small, also when another thread has been started", async () => {
  smallNursery();
  const worker = new Worker("setInterval(() => {}, 1000)", { eval: true });
  await new Promise<void>((resolve) => {
    worker.once("online", () => {
      smallNursery();
      resolve();
    });
  });
  let alive: { readonly text: string }[] = [];
  for (let i = 0; i < OBJECTS; i++) if (alive.push({ text: `x${i}` }) > ALIVE) alive = [];
  const nursery = getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space");
  await worker.terminate();
  assert.ok(nursery !== undefined && nursery.physical_space_size <= 4 * MB, `${(nursery?.physical_space_size ?? 0) / MB} MB`);
});
