import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { need, ROOT } from "../support/need.ts";

test("the addon's C under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer", { timeout: 120_000 }, (t) => {
  if (!need(t, { commands: ["gcc", "bash"] })) return;
  const { status, stdout, stderr } = spawnSync("bash", [join(ROOT, "native", "test", "run.sh")], { encoding: "utf8" });
  assert.equal(status, 0, `${stdout}\n${stderr}`);
});
