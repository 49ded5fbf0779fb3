import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { check } from "../../src/cli/check.ts";

const FIXTURES = "test/policy/fixtures";

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = "";
  let stderr = "";
  const code = await check(argv, { stdout: { write: (text) => (stdout += text) }, stderr: { write: (text) => (stderr += text) } });
  return { code, stdout, stderr };
}

test("a good file", async () => {
  assert.deepEqual(await run(join(FIXTURES, "shop.yaml")), { code: 0, stdout: "1 file, 3 valid policies, 0 problems\n", stderr: "" });
});

test("a bad file: place, caret and hint", async () => {
  const { code, stdout } = await run(join(FIXTURES, "broken.yaml"));
  assert.equal(code, 1);
  assert.ok(
    stdout.includes(
      `${FIXTURES}/broken.yaml:13:13: spec.mode: \`Enforced\` is not known here\n  13 |       mode: Enforced\n     |             ^\n  hint: did you mean \`Enforce\`?\n`,
    ),
    stdout,
  );
  assert.match(stdout, /\n1 file, 0 valid policies, \d+ problems\n$/);
});

test("json", async () => {
  const { code, stdout } = await run("-o", "json", join(FIXTURES, "broken.yaml"));
  const { valid, problems, policies } = JSON.parse(stdout) as { valid: boolean; problems: { line: number }[]; policies: string[] };
  assert.deepEqual([code, valid, policies, problems[0]?.line], [1, false, [], 11]);
});

test("a folder, and the same policy in two of its files", async () => {
  const folder = mkdtempSync(join(tmpdir(), "namegate-check-"));
  try {
    cpSync(join(FIXTURES, "shop.yaml"), join(folder, "a.yaml"));
    assert.equal((await run(folder)).code, 0);
    cpSync(join(FIXTURES, "shop.yaml"), join(folder, "b.yaml"));
    writeFileSync(join(folder, "notes.txt"), "[");
    const { code, stdout } = await run(folder);
    assert.equal(code, 1);
    assert.match(stdout, /b\.yaml:14:23: metadata\.name: the policy `shop\/checkout` is already in .*a\.yaml:14/);
    assert.match(stdout, /2 files, 3 valid policies, 3 problems/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("usage and unreadable files", async () => {
  assert.equal((await run()).code, 2);
  assert.equal((await run("--what")).code, 2);
  assert.equal((await run("-o", "xml", "x")).code, 2);
  assert.equal((await run("-h")).code, 0);
  const { code, stderr } = await run("no/such/file.yaml");
  assert.equal(code, 2);
  assert.match(stderr, /no\/such\/file\.yaml: ENOENT/);
});
