import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { RotatedFile } from "../../src/alerts/sinks/rotated-file.ts";
import { tempFolder } from "./collectors.ts";

test("lines go to one file, 0600, which begins anew when it is full; the oldest goes", (t) => {
  const folder = tempFolder(t);
  const path = join(folder, "deep", "events.log");
  const file = new RotatedFile(path, 1000, 3);
  for (let i = 0; i < 100; i++) file.write([`line ${i} ${"x".repeat(80)}`]);
  file.close();
  const names = readdirSync(join(folder, "deep")).sort();
  assert.deepEqual(names, ["events.log", "events.log.1", "events.log.2", "events.log.3"]);
  const all = ["events.log.3", "events.log.2", "events.log.1", "events.log"].flatMap((name) => {
    const at = join(folder, "deep", name);
    assert.equal(statSync(at).mode & 0o777, 0o600, name);
    assert.ok(statSync(at).size <= 1000);
    return readFileSync(at, "utf8").trimEnd().split("\n");
  });
  const numbers = all.map((line) => Number(line.split(" ")[1]));
  assert.deepEqual(
    numbers,
    Array.from({ length: numbers.length }, (_, i) => 100 - numbers.length + i),
  );
  assert.deepEqual([file.written, file.lost], [100, 0]);
});

test("a file that is there goes on, with the right mode; one larger than the bound is rotated", (t) => {
  const folder = tempFolder(t);
  const path = join(folder, "events.log");
  writeFileSync(path, "before\n", { mode: 0o644 });
  const file = new RotatedFile(path, 100, 1);
  file.write(["after"]);
  assert.equal(readFileSync(path, "utf8"), "before\nafter\n");
  assert.equal(statSync(path).mode & 0o777, 0o600);
  file.write(["y".repeat(200)]);
  file.write(["next"]);
  assert.equal(readFileSync(path, "utf8"), "next\n");
});

test("no link is followed, and what cannot be written is counted", (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, "shadow"), "");
  symlinkSync(join(folder, "shadow"), join(folder, "events.log"));
  const file = new RotatedFile(join(folder, "events.log"), 1000, 1);
  file.write(["a", "b"]);
  assert.deepEqual([file.written, file.lost], [0, 2]);
  assert.match(file.failure ?? "", /ELOOP/);
  assert.equal(readFileSync(join(folder, "shadow"), "utf8"), "");
});
