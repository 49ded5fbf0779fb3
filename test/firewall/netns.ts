import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { skip } from "../support/need.ts";

const INSIDE = "NAMEGATE_TEST_NETNS";

/**
 * True in the process that has a network namespace of its own. Elsewhere it declares one test, which runs this file
 * again in such a process and passes when that does; it is skipped without root, `commands` or the addon.
 */
export function insideNamespace(url: string, commands: readonly string[]): boolean {
  if (process.env[INSIDE] === "1") return true;
  test("in a network namespace", { skip: skip({ root: true, addon: true, commands: ["unshare", ...commands] }), timeout: 120_000 }, (t) => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const run = spawnSync("unshare", ["-n", process.execPath, fileURLToPath(url)], {
      env: { ...env, [INSIDE]: "1" },
      encoding: "utf8",
      timeout: 110_000,
    });
    for (const line of run.stdout.split("\n")) if (/^(# |ℹ )?.*µs|^(# |ℹ )?dump of/.test(line)) t.diagnostic(line.replace(/^(# |ℹ )/, ""));
    if (run.status !== 0) throw new Error(`failed inside: ${run.error?.message ?? ""}\n${run.stdout}\n${run.stderr}`);
  });
  return false;
}

/** Runs a program and returns its output; throws with its complaint. */
export function run(command: string, ...args: string[]): string {
  const done = spawnSync(command, args, { encoding: "utf8", maxBuffer: 64 * 2 ** 20 });
  if (done.status !== 0) throw new Error(`${command} ${args.join(" ")}: ${done.error?.message ?? done.stderr}`);
  return done.stdout;
}
