import assert from "node:assert/strict";
import { test } from "node:test";
import { effectiveMode, modeWatch } from "../../src/control/effective.ts";
import { metricsText } from "../../src/metrics/text.ts";

test("what is in force of what is asked for", () => {
  assert.equal(effectiveMode("Enforce", true), "Enforce");
  assert.equal(effectiveMode("Enforce", false), "None");
  assert.equal(effectiveMode("Monitor", false), "None");
  assert.equal(effectiveMode("Discover", false), "Discover");
  assert.equal(effectiveMode("None", true), "None");
});

test("every change of the effective mode is an event, and nothing else is", () => {
  const said: string[] = [];
  const look = modeWatch(({ type, why, message }) => said.push(`${type} ${why} ${message}`));
  look("None", "None", "no rules are installed");
  look("Enforce", "Enforce", undefined);
  look("Enforce", "Enforce", undefined);
  look("Enforce", "None", "IPv6 is bypassed");
  look("Enforce", "None", "IPv4 is bypassed");
  look("Monitor", "Monitor", undefined);
  look("Discover", "Discover", "no rules are installed");
  assert.deepEqual(said, [
    "agent effective-mode effective mode None → Enforce",
    "agent effective-mode-lowered effective mode Enforce → None, though policies ask for Enforce: IPv6 is bypassed",
    "agent effective-mode effective mode None → Monitor",
    "agent effective-mode-lowered effective mode Monitor → Discover",
  ]);
});

test("metrics: exactly one mode is in effect, and pods that are not enforced are counted", () => {
  const text = metricsText({
    mode: "Enforce",
    effectiveMode: "None",
    selfTest: { state: "failed" },
    pods: [
      { guarded: true, enforced: false },
      { guarded: true, enforced: true },
      { guarded: false, enforced: false },
    ],
  });
  assert.deepEqual(
    text.split("\n").filter((line) => /^namegate_(effective_mode|self_test_passed|pods_not)/.test(line)),
    [
      'namegate_effective_mode{mode="None"} 1',
      'namegate_effective_mode{mode="Discover"} 0',
      'namegate_effective_mode{mode="Monitor"} 0',
      'namegate_effective_mode{mode="Enforce"} 0',
      "namegate_self_test_passed 0",
      "namegate_pods_not_enforced 1",
    ],
  );
});
