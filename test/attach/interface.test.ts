import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { grouped, groupOf, groupSetter } from "../../src/attach/group.ts";
import type { NetlinkSocket } from "../../src/base/addon.ts";
import { attachmentIn, attachmentOf, bridgeNetfilter } from "../../src/attach/interface.ts";
import { LinkTable } from "../../src/attach/link.ts";
import { InterfaceGroup } from "../../src/model/attachment.ts";
import { link } from "./fake-network.ts";

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
  assert.deepEqual(attachmentOf("", sys), { kind: "missing", interface: "", why: "its interface has not been found yet" });
});

test("a dump of the links says the same of an interface, and nothing of one that it does not have", (t) => {
  const sys = sysfs(t);
  const links = new LinkTable([
    link(7, "cali1"),
    link(3, "cni0", { kind: "bridge" }),
    link(8, "veth2", { master: 3 }),
    link(9, "eth1", { master: 4 }),
  ]);
  for (const name of ["cali1", "veth2"]) assert.deepEqual(attachmentIn(links, name), attachmentOf(name, sys));
  assert.deepEqual(attachmentIn(links, "eth1"), { kind: "routed", interface: "eth1", index: 9 });
  for (const name of ["cali9", ""]) assert.equal(attachmentIn(links, name), undefined);
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

test("groups: found, and no interface is no group", (t) => {
  const sys = sysfs(t);
  assert.deepEqual(grouped(sys), []);
  writeFileSync(join(sys, "class", "net", "cali1", "netdev_group"), `${InterfaceGroup.enforce}\n`);
  assert.deepEqual(grouped(sys), ["cali1"]);
  assert.equal(groupOf("cali1", sys), 20039);
  assert.equal(groupOf("cali9", sys), undefined);
});

test("a group is written over netlink; no interface is no problem, no privilege is one", () => {
  const sent: string[] = [];
  /** The kernel's answer to every request: this errno. */
  const answering = (errno: number): NetlinkSocket => ({
    transact: (request, length, reply) => {
      sent.push(Buffer.from(request.subarray(0, length)).toString("hex"));
      const out = Buffer.from(reply.buffer, reply.byteOffset, reply.length);
      out.writeUInt32LE(36, 0);
      out.writeUInt16LE(2, 4); // NLMSG_ERROR
      Buffer.from(request.subarray(8, 12)).copy(out, 8); // its number
      out.writeInt32LE(-errno, 16);
      return 36;
    },
    send: () => assert.fail("no dump"),
    receive: () => assert.fail("no dump"),
    close: () => undefined,
  });
  assert.equal(groupSetter(answering(0))("cali1", InterfaceGroup.enforce), undefined);
  // RTM_SETLINK, request and ack; ifinfomsg of zeros; IFLA_IFNAME "cali1"; IFLA_GROUP 20039.
  const parts = /^34000000(1300)(0500)[0-9a-f]{8}0{8}(0{32})(0a000300)(63616c693100)0000(08001b00)(474e0000)$/.exec(sent[0] ?? "");
  assert.ok(parts !== null, sent[0]);
  assert.equal(groupSetter(answering(19))("cali9", 1), undefined);
  assert.equal(groupSetter(answering(1))("cali1", 1), "errno 1 from the kernel (CAP_NET_ADMIN is missing)");
});
