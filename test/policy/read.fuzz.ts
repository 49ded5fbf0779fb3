/**
 * Mutated manifests through the policy reader. Nothing may throw or take long, every problem has a place, and a document
 * with a problem gives no policy. For an hour: FUZZ_SECONDS=3600 npm run fuzz -- policy
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readManifests } from "../../src/policy/read.ts";
import { rulebook } from "../../src/worker/guard.ts";
import { ROOT } from "../support/need.ts";
import { randomFrom } from "../dns/encode.ts";

const FIXTURES = join(ROOT, "test", "policy", "fixtures");
const SEEDS = readdirSync(FIXTURES)
  .filter((name) => name.endsWith(".yaml"))
  .map((name) => readFileSync(join(FIXTURES, name), "utf8"));
const PIECES = [
  "",
  " ",
  "\n",
  "\t",
  ":",
  "- ",
  "[",
  "]",
  "{",
  "}",
  "|",
  ">",
  "&a ",
  "*a ",
  "!!js ",
  '"',
  "'",
  "#",
  "---\n",
  "\0",
  "é",
  "\ud800",
  "__proto__: 1\n",
  "constructor: {}\n",
  "? ",
  "<<: ",
  "0x10",
  "1e309",
  "*.",
  "..",
  "/33",
  "::",
  "999999999999",
  "Enforce",
  "Deny",
  "null",
  "~",
];
/** A manifest of a few kilobytes takes milliseconds; a pause of the machine is told from slow code by trying again. */
const SLOW_MS = 500;

const seed = Number(process.argv[2] ?? Date.now() >>> 0);
const random = randomFrom(seed);
const below = (n: number): number => random() % n;
const end = performance.now() + Number(process.env["FUZZ_SECONDS"] ?? 10) * 1000;
const count = { iterations: 0, policies: 0, problems: 0, slowestMs: 0 };

while (performance.now() < end) {
  count.iterations++;
  let text = SEEDS[below(SEEDS.length)] as string;
  for (let edits = 1 + below(4); edits > 0; edits--) {
    const at = below(text.length + 1);
    const from = below(text.length + 1);
    const insert = below(3) === 0 ? text.slice(from, from + below(80)) : (PIECES[below(PIECES.length)] as string);
    text = text.slice(0, at) + insert + text.slice(at + (below(2) === 0 ? 0 : below(30)));
  }
  try {
    let tookMs = Infinity;
    for (let tries = 0; tries < 3 && tookMs > SLOW_MS; tries++) {
      const before = performance.now();
      const { policies, problems, documents } = readManifests("fuzz.yaml", text);
      tookMs = Math.min(tookMs, performance.now() - before);
      count.policies += policies.length;
      count.problems += problems.length;
      const lines = text.split("\n").length;
      for (const { line, column, message } of problems)
        assert.ok(line >= 1 && line <= lines && column >= 1 && message !== "", `${line}:${column} ${message}`);
      for (const { id, valid } of documents)
        assert.equal(
          valid,
          policies.some((policy) => policy.id === id),
          id,
        );
      rulebook(policies); // whatever is valid compiles
    }
    count.slowestMs = Math.max(count.slowestMs, tookMs);
    assert.ok(tookMs < SLOW_MS, `${tookMs} ms`);
  } catch (error) {
    throw new Error(`seed ${seed}, iteration ${count.iterations}:\n${JSON.stringify(text)}`, { cause: error });
  }
}
console.log({ seed, ...count });
