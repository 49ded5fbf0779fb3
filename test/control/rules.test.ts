import assert from "node:assert/strict";
import { test } from "node:test";
import { RuleGuard } from "../../src/control/rules.ts";
import type { Iptables } from "../../src/firewall/iptables.ts";
import type { FoundDrift, PodRules } from "../../src/firewall/keeper.ts";
import { marks } from "../../src/firewall/marks.ts";
import { ALL_MATCHES } from "../../src/firewall/rules.ts";

const PODS: PodRules = { bridged: [], queries: false };
const DRIFT: FoundDrift = { family: 4, table: "raw", chain: "PREROUTING", kind: "missing-jump", detail: "no jump to NG-RAW" };

/** A RuleGuard whose keeper writes down what it is asked for, and fails when told. */
function guard() {
  const done: string[] = [];
  const state = { fails: false, drift: [] as FoundDrift[], generation: 1, nowMs: 0 };
  const work = (what: string): Promise<void> => {
    done.push(what);
    return state.fails ? Promise.reject(new Error("the xtables lock is held")) : Promise.resolve();
  };
  const keeper = {
    install: () => work("install"),
    change: () => work("change"),
    check: () => work("check").then(() => state.drift),
    restore: () => work("restore"),
  };
  const rules = new RuleGuard(
    { variant: "nft" } as Iptables,
    { marks: marks(), queueBase: 4040, matches: ALL_MATCHES },
    { emit: () => undefined, log: () => undefined, generation: () => state.generation, nowMs: () => state.nowMs },
  );
  Object.assign(rules, { keeper });
  return { rules, state, done };
}

test("a change that failed is made good by the next check, though nobody else has changed the rules meanwhile", async () => {
  const { rules, state, done } = guard();
  await rules.install(PODS);
  await rules.check();
  await rules.check();
  assert.deepEqual(done.splice(0), ["install", "check"], "unchanged rules are looked at once");
  state.fails = true;
  await assert.rejects(rules.change({ bridged: [], queries: true }), /lock/);
  state.fails = false;
  state.drift = [DRIFT];
  await rules.check();
  assert.deepEqual(done, ["change", "check", "restore"]);
});

test("looks that are asked for while one is under way are that one", async () => {
  const { rules, state, done } = guard();
  await rules.install(PODS);
  state.drift = [DRIFT];
  await Promise.all([rules.check(), rules.check(), rules.check()]);
  assert.deepEqual(done.splice(0), ["install", "check", "restore"]);
  await rules.check();
  assert.deepEqual(done, ["check", "restore"]);
});
