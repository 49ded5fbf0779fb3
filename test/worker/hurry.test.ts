import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";

const HURRY = new URL("../../src/worker/hurry.js", import.meta.url).href;
const PROGRAM = `
  import { readFileSync } from "node:fs";
  import { getPriority } from "node:os";
  import { hurry } from ${JSON.stringify(HURRY)};
  hurry();
  console.log(getPriority(), /nice (\\S+)/.exec(readFileSync("/proc/self/autogroup", "utf8"))?.[1]);
`;

/** What a program says of its priority and its session's, leading a session of its own or not. */
function priorities(leads: boolean): string {
  const node = [process.execPath, "--input-type=module", "-e", PROGRAM];
  const [command, ...args] = (leads ? ["setsid", "--wait", ...node] : ["setsid", "--wait", "sh", "-c", '"$@"; exit $?', "sh", ...node]) as [
    string,
    ...string[],
  ];
  return spawnSync(command, args, { encoding: "utf8" }).stdout.trim();
}

test("a session that the agent leads is as much in a hurry as its packet thread, another's is not", (t) => {
  if (process.getuid?.() !== 0) return t.skip("needs root: a negative nice value");
  if (!existsSync("/proc/self/autogroup")) return t.skip("this kernel does not share time between sessions");
  assert.equal(priorities(true), "-10 -10");
  assert.equal(priorities(false), "-10 0");
});
