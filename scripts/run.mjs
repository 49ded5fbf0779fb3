// Runs what dist/ holds: the tests, the benchmarks or the fuzzers. Build first (scripts/setup.mjs).
//
//   node scripts/run.mjs test [TEXT…]    unit tests, then (as root) system tests; with TEXT only files whose path has one
//   node scripts/run.mjs bench [TEXT…]   each dist/bench/*.bench.js in turn
//   node scripts/run.mjs fuzz [TEXT…]    each dist/test/**/*.fuzz.js in turn, FUZZ_SECONDS (default 60) in all
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const FAILED_FILES = fileURLToPath(new URL("failed-files.mjs", import.meta.url));
/** More than this is no accident. */
const AGAIN_MAX = 3;
const MINUTE = 60_000;
/** One test file may take this long, all that are started together that long. */
const LIMITS = { unit: { file: 4 * MINUTE, all: 10 * MINUTE }, system: { file: 5 * MINUTE, all: 15 * MINUTE } };

/**
 * System tests whose files begin like one of these may run beside another such file: each has network namespaces, folders and ports
 * of its own, and none looks at milliseconds, floods, or counts on a processor. Any other file is alone on the machine.
 */
const BESIDE_OTHERS = [
  "capabilities",
  "cli.",
  "clients-",
  "cluster",
  "coexist-",
  "daemonset",
  "demo",
  "dns-addresses",
  "dns-elsewhere",
  "dns-repair",
  "dns-replies",
  "dns-trust",
  "dns-tunnel",
  "ech",
  "enforce",
  "evasion",
  "explain",
  "inspect",
  "lab",
  "modes",
  "page",
  "picked",
  "policy-rules",
  "prefixes",
  "proxy",
  "rules",
  "self-test",
].map((start) => join("system", start));
const mayShare = (file) => BESIDE_OTHERS.some((start) => file.includes(start));

const [mode, ...only] = process.argv.slice(2);
const chosen = (file) => only.length === 0 || only.some((text) => file.includes(text));

function found(folder, ending) {
  const path = join(ROOT, "dist", folder);
  if (!existsSync(path)) return [];
  const files = readdirSync(path, { recursive: true, encoding: "utf8" });
  return files
    .filter((file) => file.endsWith(ending))
    .map((file) => relative(ROOT, join(path, file)))
    .filter(chosen)
    .sort();
}

/** The exit status; 1 when it had to be ended after `limitMs`. A process group of its own, so that all of it ends. */
function node(args, limitMs, env = {}) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: ROOT,
      stdio: ["ignore", "inherit", "inherit"],
      detached: true,
      env: { ...process.env, ...env },
    });
    const end = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch {
        // it has ended
      }
    };
    const timer = setTimeout(() => {
      console.error(`run: not done after ${limitMs / MINUTE} minutes: ended`);
      end("SIGTERM");
      setTimeout(() => end("SIGKILL"), 5000).unref();
    }, limitMs);
    const pass = (signal) => end(signal);
    for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, pass);
    child.on("error", () => resolve(1));
    child.on("exit", (status) => {
      clearTimeout(timer);
      for (const signal of ["SIGINT", "SIGTERM"]) process.off(signal, pass);
      resolve(status ?? 1);
    });
  });
}

function tests(files, concurrency, limits, failed) {
  const reporter = ["--test-reporter=spec", "--test-reporter-destination=stdout"];
  if (failed !== undefined) reporter.push(`--test-reporter=${FAILED_FILES}`, `--test-reporter-destination=${failed}`);
  return node(
    ["--enable-source-maps", "--test", ...reporter, `--test-concurrency=${concurrency}`, `--test-timeout=${limits.file}`, ...files],
    limits.all,
  );
}

/** Source maps are on: what fails is told as the file that it was written in. */
const sourceOf = (file) => file.replace(/^dist\//, "").replace(/\.js$/, ".ts");

/**
 * First those that are alone, then the others, two at a time. They share a machine with whatever else it does: a file in which something
 * failed is run once more, alone, and that is said. What fails twice has failed.
 */
async function systemTests(files) {
  const folder = mkdtempSync(join(tmpdir(), "namegate-run-"));
  try {
    let status = 0;
    let said = "";
    const alone = files.filter((file) => !mayShare(file));
    const beside = files.filter(mayShare);
    for (const [some, concurrency] of [
      [alone, 1],
      [beside, 2],
    ]) {
      if (some.length === 0) continue;
      console.log(`run: ${some.length} files of system tests, ${concurrency} at a time`);
      const list = join(folder, `failed-${concurrency}`);
      status = (await tests(some, concurrency, LIMITS.system, list)) || status;
      said += readFileSync(list, "utf8");
    }
    const failed = files.filter((file) => said.includes(`/${sourceOf(file)}\n`));
    if (status === 0 || failed.length === 0 || failed.length > AGAIN_MAX) return status;
    console.log(`run: something failed in ${failed.length} of ${files.length} files; ONCE MORE, alone: ${failed.join(" ")}`);
    return await tests(failed, 1, LIMITS.system);
  } catch (error) {
    console.error(`run: ${error.message}`);
    return 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function test() {
  const all = found("test", ".test.js");
  const system = all.filter((file) => file.split(sep).includes("system"));
  const unit = all.filter((file) => !system.includes(file));
  if (all.length === 0) {
    console.error(`run: no tests${only.length > 0 ? ` with ${only.join(" or ")} in their path` : ""}\nfix: npm run build, or other words`);
    return 2;
  }
  let status = 0;
  if (unit.length > 0) {
    console.log(`run: ${unit.length} files of unit tests`);
    status = await tests(unit, Math.min(4, availableParallelism()), LIMITS.unit);
  }
  if (system.length === 0) return status;
  if (process.getuid() !== 0) {
    console.log(
      `run: ${system.length} files of system tests NOT run: they make network namespaces and need root. All of them: sudo npm test`,
    );
    return process.env.CI === "true" ? 1 : status;
  }
  return (await systemTests(system)) || status;
}

/** Runs each file alone; the first bad status is the answer. */
async function each(files, kind, env, limitMs = 10 * MINUTE) {
  if (files.length === 0) console.log(`run: there are no ${kind} files`);
  let status = 0;
  for (const file of files) {
    console.log(`run: ${file}`);
    status = (await node(["--expose-gc", "--enable-source-maps", file], limitMs, env)) || status;
  }
  return status;
}

switch (mode) {
  case "test":
    process.exitCode = await test();
    break;
  case "bench":
    process.exitCode = await each(found("bench", ".bench.js"), "bench");
    break;
  case "fuzz": {
    const files = found("test", ".fuzz.js");
    const seconds = Math.max(1, Math.floor(Number(process.env.FUZZ_SECONDS ?? 60) / Math.max(1, files.length)));
    process.exitCode = await each(files, "fuzz", { FUZZ_SECONDS: String(seconds) }, seconds * 1000 + MINUTE);
    break;
  }
  default:
    console.error(`run: no mode ${mode}\nfix: one of test, bench, fuzz`);
    process.exitCode = 2;
}
