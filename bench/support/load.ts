import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fault, messageOf } from "../../src/base/fault.ts";
import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { ROOT } from "../../test/support/need.ts";

type Source = "load" | "steady";
const programs = new Map<Source, string>();

/** Compiles a C file of this folder once, into a temporary folder that goes with this process. */
function build(source: Source): string {
  const built = programs.get(source);
  if (built !== undefined) return built;
  const folder = mkdtempSync(join(tmpdir(), "namegate-load-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, source);
  try {
    execFileSync("gcc", ["-O2", "-o", program, join(ROOT, "bench", `${source}.c`)], { stdio: ["ignore", "ignore", "inherit"] });
  } catch (error) {
    throw new Fault(
      "bench-gcc",
      `${source}.c does not compile: ${messageOf(error)}`,
      "install gcc and the headers of libc and Linux",
      error,
    );
  }
  programs.set(source, program);
  return program;
}

/** What `load` prints; which fields there are depends on the command (see load.c, steady.c). Microseconds. */
export type Measured = Readonly<Record<string, number>>;

/** Runs one bounded command of load.c in a namespace of the lab. */
export async function load(lab: Lab, where: string, ...argv: (string | number)[]): Promise<Measured> {
  return JSON.parse(await lab.run(where, [build("load"), ...argv.map(String)], { timeoutMs: 120_000 })) as Measured;
}

/** Starts one bounded command; `done` is what it prints last. */
export function begin(lab: Lab, where: string, source: Source, ...argv: (string | number)[]): { child: Child; done: Promise<Measured> } {
  const child = lab.spawn(where, [build(source), ...argv.map(String)]);
  const done = child.exited.then(() => {
    const last = child.out.at(-1) ?? "";
    if (!last.startsWith("{")) throw new Error(`${source} ${argv.join(" ")}: ${last} ${child.err.join(" ")}`);
    return JSON.parse(last) as Measured;
  });
  return { child, done };
}

/** Starts `answer`, `serve` or `reply` and waits until it listens. */
export async function serving(lab: Lab, where: string, command: "answer" | "serve" | "reply", port: number): Promise<Child> {
  const child = lab.spawn(where, [build("load"), command, String(port)]);
  await child.line((line) => line === "ready");
  return child;
}
