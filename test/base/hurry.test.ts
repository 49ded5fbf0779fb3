import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";

const module = (name: string): string => JSON.stringify(new URL(`../../src/base/${name}.js`, import.meta.url).href);

/** What a program prints that leads a session of its own, or does not. */
function run(program: string, leads = true): string {
  const node = [process.execPath, "--input-type=module", "-e", program];
  const args = leads ? node : ["sh", "-c", '"$@"; exit $?', "sh", ...node];
  const { stdout, stderr } = spawnSync("setsid", ["--wait", ...args], { encoding: "utf8" });
  assert.equal(stderr, "");
  return stdout.trim();
}

const PRIORITIES = `
  import { readFileSync } from "node:fs";
  import { getPriority } from "node:os";
  import { addon } from ${module("addon")};
  import { hurry } from ${module("hurry")};
  hurry(addon());
  console.log(getPriority(), /nice (\\S+)/.exec(readFileSync("/proc/self/autogroup", "utf8"))?.[1]);
`;

test("a session that the agent leads is as much in a hurry as its packet thread, another's is not", (t) => {
  if (process.getuid?.() !== 0) return t.skip("needs root: a negative nice value");
  if (!existsSync("/proc/self/autogroup")) return t.skip("this kernel does not share time between sessions");
  assert.equal(run(PRIORITIES), "-10 -10");
  assert.equal(run(PRIORITIES, false), "-10 0");
});

const SLICES = `
  import { readdirSync, readFileSync, readlinkSync } from "node:fs";
  import { getPriority } from "node:os";
  import { basename } from "node:path";
  import { Worker } from "node:worker_threads";
  import { addon } from ${module("addon")};
  import { giveWay, hurry } from ${module("hurry")};
  const slice = (thread) => Number(/se.slice\\s*:\\s*(\\d+)/.exec(readFileSync("/proc/self/task/" + thread + "/sched", "utf8"))?.[1]) / 1e6;
  const own = basename(readlinkSync("/proc/thread-self"));
  const before = slice(own);
  giveWay(addon());
  const rest = new Set(readdirSync("/proc/self/task").map(slice));
  const last = readdirSync("/proc/self/task").at(-1);
  const thread = new Worker("setTimeout(() => {}, 60_000)", { eval: true });
  await new Promise((resolve) => thread.once("online", resolve));
  const begun = readdirSync("/proc/self/task").at(-1);
  const inherited = slice(begun);
  hurry(addon());
  console.log(JSON.stringify({ rest: [...rest], inherited, other: begun !== last, back: slice(own) === before, nice: getPriority() }));
  process.exit();
`;

test("every thread asks for long slices, those begun later too; the one with packets for the kernel's own", (t) => {
  if (process.getuid?.() !== 0) return t.skip("needs root: a negative nice value");
  if (!/se\.slice/.test(existsSync("/proc/self/sched") ? readFileSync("/proc/self/sched", "utf8") : ""))
    return t.skip("this kernel has no slices (before Linux 6.12), or does not show them");
  assert.deepEqual(JSON.parse(run(SLICES)), { rest: [100], inherited: 100, other: true, back: true, nice: -10 });
});

test("what the kernel refuses is said by the addon, with the call", () => {
  const program = `
    import { addon } from ${module("addon")};
    const tries = [[2 ** 22 + 1, 0], [0, 0], [1, -1]].map(([thread, slice]) => {
      try { return addon().setSlice(thread, slice) } catch (error) { return [error.code, error.syscall] }
    });
    console.log(JSON.stringify(tries));`;
  assert.deepEqual(JSON.parse(run(program)), [
    ["ESRCH", "sched_getattr"],
    ["ERR_OUT_OF_RANGE", null],
    ["ERR_OUT_OF_RANGE", null],
  ]);
});
