import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, mkdirSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test, type TestContext } from "node:test";
import { ManifestFolder, watchPath } from "../../src/inputs/files/watch.ts";
import { until } from "../support/lab.ts";

/** Well below the poll of two seconds: only the kernel's events are this fast. */
const AT_ONCE_MS = 1000;

function watched(t: TestContext, path: string): () => Promise<unknown> {
  let count = 0;
  let known = 0;
  const watching = watchPath(path, () => count++);
  t.after(() => watching.close());
  return async () => {
    await until("the change is seen", () => count > known, AT_ONCE_MS);
    // Later events of the same change are not taken for the next one.
    await new Promise((resolve) => setTimeout(resolve, 30));
    known = count;
  };
}

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "namegate-watch-"));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

function replace(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

test("every change in a folder is seen at once: atomic writes, plain writes, removals", async (t) => {
  const dir = folder(t);
  const seen = watched(t, dir);
  const file = join(dir, "a.yaml");
  for (let i = 0; i < 4; i++) {
    replace(file, `${i}`);
    await seen();
    writeFileSync(file, `plain ${i}`);
    await seen();
    rmSync(file);
    await seen();
  }
});

test("every change of a file is seen at once, also when it is replaced each time", async (t) => {
  const dir = folder(t);
  const file = join(dir, "pods.yaml");
  writeFileSync(file, "first");
  const seen = watched(t, file);
  for (let i = 0; i < 4; i++) {
    replace(file, `${i}`);
    await seen();
    writeFileSync(file, `plain ${i}`);
    await seen();
  }
});

test("a folder that is made again is found again, by the poll at the latest", async (t) => {
  const dir = join(folder(t), "policies");
  mkdirSync(dir);
  let count = 0;
  const watching = watchPath(dir, () => count++);
  t.after(() => watching.close());
  rmSync(dir, { recursive: true });
  await until("the removal is seen", () => count > 0, 3000);
  mkdirSync(dir);
  writeFileSync(join(dir, "a.yaml"), "a");
  const before = count;
  await until("the new folder is seen", () => count > before, 3000);
});

test("what is not a plain file is refused and named, and nobody waits for it", { timeout: 5000 }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), "namegate-watch-"));
  t.after(() => rmSync(folder, { recursive: true }));
  execFileSync("mkfifo", [join(folder, "pipe.yaml")]);
  symlinkSync("/dev/zero", join(folder, "device.yaml"));
  mkdirSync(join(folder, "folder.yaml"));
  writeFileSync(join(folder, "huge.yaml"), "");
  truncateSync(join(folder, "huge.yaml"), 2 ** 31);
  writeFileSync(join(folder, "good.yaml"), "a: b");
  const { files, failed } = new ManifestFolder(folder).read();
  assert.deepEqual(
    files.map(({ text }) => text),
    ["a: b"],
  );
  assert.deepEqual(
    failed.map(({ file }) => basename(file)),
    ["device.yaml", "folder.yaml", "huge.yaml", "pipe.yaml"],
  );
});

test("only manifests that were touched are opened again", (t) => {
  const dir = folder(t);
  for (const name of ["a.yaml", "b.yaml"]) writeFileSync(join(dir, name), "one");
  const manifests = new ManifestFolder(dir);
  const first = manifests.read().files;
  writeFileSync(join(dir, "a.yaml"), "two");
  assert.deepEqual(manifests.read().files, first, "nobody said so");
  manifests.touched("a.yaml");
  const second = manifests.read().files;
  assert.equal(second[0]?.text, "two");
  assert.equal(second[1], first[1]);
  writeFileSync(join(dir, "b.yaml"), "three");
  writeFileSync(join(dir, "c.yaml"), "new");
  rmSync(join(dir, "a.yaml"));
  manifests.touched("..data");
  assert.deepEqual(
    manifests.read().files.map(({ text }) => text),
    ["three", "new"],
  );
});
