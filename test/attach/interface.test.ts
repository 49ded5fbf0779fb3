import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { grouped, groupOf, setGroup } from "../../src/attach/group.ts";
import { attachmentOf, bridgeNetfilter } from "../../src/attach/interface.ts";
import { InterfaceGroup } from "../../src/model/attachment.ts";

/** A sysfs of two interfaces: a routed veth, and a port of cni0. */
function sysfs(t: { after: (end: () => void) => void }): string {
  const sys = mkdtempSync(join(tmpdir(), "namegate-sys-"));
  t.after(() => rmSync(sys, { recursive: true }));
  for (const [name, index] of [
    ["cali1", 7],
    ["veth2", 8],
  ] as const) {
    mkdirSync(join(sys, "class", "net", name), { recursive: true });
    writeFileSync(join(sys, "class", "net", name, "ifindex"), `${index}\n`);
    writeFileSync(join(sys, "class", "net", name, "netdev_group"), "0\n");
  }
  mkdirSync(join(sys, "class", "net", "veth2", "brport"));
  symlinkSync("../../cni0", join(sys, "class", "net", "veth2", "brport", "bridge"));
  return sys;
}

test("a veth is routed, a bridge port is bridged, anything else is missing", (t) => {
  const sys = sysfs(t);
  assert.deepEqual(attachmentOf("cali1", sys), { kind: "routed", interface: "cali1", index: 7 });
  assert.deepEqual(attachmentOf("veth2", sys), { kind: "bridged", interface: "veth2", index: 8, bridge: "cni0" });
  assert.equal(attachmentOf("cali9", sys).kind, "missing");
});

test("bridged packets are seen only where the sysctl says 1", (t) => {
  const proc = sysfs(t);
  assert.equal(bridgeNetfilter(4, proc), false);
  const folder = join(proc, "sys", "net", "bridge");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "bridge-nf-call-iptables"), "1\n");
  writeFileSync(join(folder, "bridge-nf-call-ip6tables"), "0\n");
  assert.deepEqual([bridgeNetfilter(4, proc), bridgeNetfilter(6, proc)], [true, false]);
});

test("groups: written, found again, and no interface is no problem", (t) => {
  const sys = sysfs(t);
  assert.deepEqual(grouped(sys), []);
  assert.equal(setGroup("cali1", InterfaceGroup.enforce, sys), undefined);
  assert.equal(readFileSync(join(sys, "class", "net", "cali1", "netdev_group"), "utf8"), "20039");
  assert.deepEqual(grouped(sys), ["cali1"]);
  assert.equal(groupOf("cali9", sys), undefined);
  assert.equal(setGroup("cali9", 1, sys), undefined);
});
