import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fault, messageOf } from "../../src/base/fault.ts";
import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { ROOT } from "../../test/support/need.ts";

let program: string | undefined;

/** Compiles load.c once, into a temporary folder that goes with this process. */
function build(): string {
  if (program !== undefined) return program;
  const folder = mkdtempSync(join(tmpdir(), "namegate-load-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  program = join(folder, "load");
  try {
    execFileSync("gcc", ["-O2", "-o", program, join(ROOT, "bench", "load.c")], { stdio: ["ignore", "ignore", "inherit"] });
  } catch (error) {
    throw new Fault("bench-gcc", `load.c does not compile: ${messageOf(error)}`, "install gcc and the headers of libc and Linux", error);
  }
  return program;
}

/** What `load` prints; which fields there are depends on the command (see load.c). Microseconds. */
export type Measured = Readonly<Record<string, number>>;

/** Runs one bounded command of load.c in a namespace of the lab. */
export async function load(lab: Lab, where: string, ...argv: (string | number)[]): Promise<Measured> {
  return JSON.parse(await lab.run(where, [build(), ...argv.map(String)], { timeoutMs: 120_000 })) as Measured;
}

/** Starts `answer`, `serve` or `reply` and waits until it listens. */
export async function serving(lab: Lab, where: string, command: "answer" | "serve" | "reply", port: number): Promise<Child> {
  const child = lab.spawn(where, [build(), command, String(port)]);
  await child.line((line) => line === "ready");
  return child;
}
