import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { addon } from "../../src/base/addon.ts";
import { HELLO_PROGRAMS, pinHellos, unpinHellos } from "../../src/firewall/hellos.ts";
import { need } from "../support/need.ts";

/** The test itself, in namespaces of its own: no other agent's pins are touched, and mounts go with it. */
const INSIDE = "NAMEGATE_TEST_INSIDE";

test("pins: made once, found again, made anew when one is missing; uninstall leaves another agent's, and else nothing", (t) => {
  if (!need(t, { root: true, addon: true, commands: ["clang", "unshare", "mount"] })) return;
  if (process.env[INSIDE] === undefined) {
    const text = execFileSync("unshare", ["--mount", "--net", process.execPath, fileURLToPath(import.meta.url)], {
      env: { ...process.env, [INSIDE]: "1", NODE_TEST_CONTEXT: undefined },
      encoding: "utf8",
    });
    assert.match(text, /^# pass 1|ℹ pass 1/mu, text);
    return;
  }
  const run = mkdtempSync(join(tmpdir(), "ng-pins-"));
  t.after(() => rmSync(run, { recursive: true }));
  if (existsSync("/sys/fs/bpf")) execFileSync("mount", ["-t", "tmpfs", "none", "/sys/fs/bpf"]); // no machine's own
  const pinned = (): string => {
    const found = pinHellos(addon(), run);
    assert.ok("folder" in found, "why" in found ? found.why : "");
    assert.deepEqual(readdirSync(found.folder).sort(), [...HELLO_PROGRAMS, "flows", "known"].sort());
    return found.folder;
  };
  const folder = pinned();
  assert.equal(pinned(), folder);
  unlinkSync(join(folder, "early"));
  assert.equal(pinned(), folder);
  const older = folder.replace(/[^-]*$/u, "0123456789ab");
  mkdirSync(older);
  assert.equal(pinned(), folder);
  assert.equal(existsSync(older), false, "those of another version");
  const other = join(run, "bpf", "namegate-1-0123456789ab");
  mkdirSync(other);
  unpinHellos(run);
  assert.deepEqual(
    readdirSync(join(run, "bpf")).filter((name) => name.startsWith("namegate")),
    ["namegate-1-0123456789ab"],
  );
  rmdirSync(other);
  unpinHellos(run);
  assert.deepEqual(readdirSync(run), []);
  writeFileSync(join(run, "bpf"), "");
  assert.ok("why" in pinHellos(addon(), run));
});
