#!/usr/bin/env node
import { exit } from "node:process";
import { kubectlCommand } from "./cli/kubectl.ts";
import { messageOf } from "./base/fault.ts";
import { Usage } from "./cli/usage.ts";

/** The entry of `kubectl namegate` (kubectl runs `kubectl-namegate` from the PATH); bundled, it is one file. */
async function main(): Promise<number> {
  try {
    return await kubectlCommand(process.argv.slice(2), process);
  } catch (error) {
    const asked = error instanceof Usage && error.asked;
    (asked ? process.stdout : process.stderr).write(
      `${error instanceof Usage ? error.message.trimEnd() : `kubectl namegate: ${messageOf(error)}`}\n`,
    );
    if (error instanceof Error && "fix" in error) process.stderr.write(`  fix: ${String(error.fix)}\n`);
    return asked ? 0 : 2;
  }
}

process.stdout.on("error", () => exit(0)); // a reader that goes away (`| head`)
void main().then((status) => {
  process.exitCode = status;
});
