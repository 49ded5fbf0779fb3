import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { interfaceOf } from "../../src/worker/interfaces.ts";

test("an interface is found beside one that goes away meanwhile, and beside files that are none", (t) => {
  const sys = mkdtempSync(join(tmpdir(), "namegate-sys-"));
  t.after(() => rmSync(sys, { recursive: true }));
  const net = join(sys, "class", "net");
  mkdirSync(join(net, "aaa-gone"), { recursive: true });
  writeFileSync(join(net, "bonding_masters"), "");
  for (const name of ["cali1", "zzz"]) {
    mkdirSync(join(net, name));
    writeFileSync(join(net, name, "ifindex"), name === "cali1" ? "7\n" : "8\n");
  }
  assert.deepEqual([interfaceOf(7, sys), interfaceOf(8, sys), interfaceOf(9, sys)], ["cali1", "zzz", null]);
  assert.equal(interfaceOf(7, join(sys, "nowhere")), null);
});
