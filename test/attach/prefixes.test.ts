import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Cni, pluginsOf, readCni } from "../../src/attach/cni.ts";
import { type Link, LinkTable } from "../../src/attach/link.ts";
import { detectPrefixes } from "../../src/attach/prefixes.ts";
import { link, LO } from "./fake-network.ts";

const HARMLESS = ["azv", "cali", "cbr0", "cni0", "eni", "gke", "knet"];
const UPLINK = link(4, "eth0", { kind: "", peer: 0 });
const DOCKER = [link(5, "docker0", { kind: "bridge", peer: 0 }), link(6, "veth1234567", { master: 5, space: 3 })];
const CNI0 = [link(7, "cni0", { kind: "bridge", peer: 0 }), link(8, "veth12345678", { master: 7, space: 4 })];
const cni = (...plugins: Record<string, unknown>[]): Cni => ({ file: "10-x.conflist", plugins });

const rows: readonly (readonly [
  what: string,
  links: readonly Link[],
  cni: Cni | undefined,
  more: readonly string[],
  why: RegExp | undefined,
])[] = [
  ["nothing known yet", [], undefined, [], undefined],
  ["calico", [link(10, "cali12345678901", { space: 5 })], cni({ type: "calico" }, { type: "portmap" }), [], undefined],
  ["kind (ptp), before its first pod", [], cni({ type: "ptp" }), ["veth"], undefined],
  ["ptp seen by its interfaces alone", [link(10, "vethdeadbeef", { space: 5 })], undefined, ["veth"], undefined],
  [
    "ptp beside docker, whose veths are bridge ports",
    [...DOCKER, link(10, "vethdeadbeef", { space: 5 })],
    cni({ type: "ptp" }),
    ["veth"],
    undefined,
  ],
  ["ptp beside a veth pair of the node itself", [link(10, "veth0", { space: undefined })], cni({ type: "ptp" }), [], /veth0 is no pod's/],
  ["ptp beside somebody's routed container", [link(10, "vethABCDEF", { space: 9 })], cni({ type: "ptp" }), [], /vethABCDEF is no pod's/],
  ["flannel on k3s: behind cni0", [...CNI0, ...DOCKER], cni({ type: "flannel" }), [], undefined],
  ["a bridge of another name", [], cni({ type: "bridge", bridge: "pods0" }), ["pods0"], undefined],
  ["a bridge with the name of something else", [], cni({ type: "bridge", bridge: "eth" }), [], undefined],
  ["docker alone", DOCKER, undefined, [], undefined],
  ["cilium before its first pod", [], cni({ type: "cilium-cni" }), ["lxc"], undefined],
  ["cilium by its interfaces", [link(10, "lxc0123456789ab", { space: 5 })], undefined, ["lxc"], undefined],
  ["LXC's bridge is no pod", [link(10, "lxcbr0", { kind: "bridge", peer: 0 })], undefined, [], undefined],
  ["cilium beside LXC's bridge", [link(10, "lxcbr0", { kind: "bridge", peer: 0 })], cni({ type: "cilium-cni" }), [], /lxcbr0 is no pod's/],
  ["AWS with another prefix", [], cni({ type: "aws-cni", vethPrefix: "pod" }), ["pod"], undefined],
  ["AWS with the prefix of the uplink", [], cni({ type: "aws-cni", vethPrefix: "eth" }), [], undefined],
  ["AWS with a prefix that is none", [], cni({ type: "aws-cni", vethPrefix: "../x" }, { type: 5 as unknown as string }), [], undefined],
];
for (const [what, links, config, more, why] of rows) {
  test(`prefixes: ${what}`, () => {
    const found = detectPrefixes(new LinkTable([LO, UPLINK, ...links]), config);
    assert.deepEqual(found.prefixes, [...HARMLESS, ...more].sort());
    if (why === undefined) assert.deepEqual(found.why, []);
    else assert.match(found.why.join("\n"), why);
  });
}

test("a prefix that something else has is left out: a network card called eni0", () => {
  const found = detectPrefixes(new LinkTable([LO, link(2, "eni0", { kind: "", peer: 0 })]), cni({ type: "calico" }));
  assert.deepEqual(
    found.prefixes,
    HARMLESS.filter((prefix) => prefix !== "eni"),
  );
  assert.match(found.why.join(), /eni0 is no pod's as far as can be seen; set interfacePrefixes/);
});

test("a setting overrides everything, also an empty one; bridges are told", () => {
  const links = new LinkTable([LO, ...DOCKER, ...CNI0]);
  assert.deepEqual(detectPrefixes(links, undefined, ["veth"]), { prefixes: ["veth"], bridges: ["cni0", "docker0"], why: [] });
  assert.deepEqual(detectPrefixes(links, cni({ type: "calico" }), []).prefixes, []);
});

test("the first configuration that can be read counts; links, huge files and other names do not", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "namegate-cni-"));
  t.after(() => rmSync(folder, { recursive: true }));
  assert.equal(readCni(folder), undefined);
  assert.equal(readCni(join(folder, "none")), undefined);
  writeFileSync(join(folder, "00-readme.txt"), '{"type":"ptp"}');
  writeFileSync(join(folder, "01-broken.conf"), "{");
  writeFileSync(join(folder, "02-huge.conf"), `{"type":"ptp","x":"${"x".repeat(300_000)}"}`);
  symlinkSync("05-real.conflist", join(folder, "03-link.conf"));
  mkdirSync(join(folder, "04-folder.conf"));
  writeFileSync(
    join(folder, "05-real.conflist"),
    '{"cniVersion":"0.3.1","name":"k8s-pod-network","plugins":[{"type":"calico"},7,{"type":8},{"type":"portmap"}]}',
  );
  writeFileSync(join(folder, "10-later.conf"), '{"type":"flannel"}');
  assert.deepEqual(readCni(folder), { file: "05-real.conflist", plugins: [{ type: "calico" }, { type: "portmap" }] });
});

test("configurations that are none", () => {
  for (const text of ["", "null", "[]", "7", '{"plugins":7}', '{"plugins":[null,[]]}', '{"name":"x"}', "[".repeat(100_000)])
    assert.deepEqual(pluginsOf(text), [], text.slice(0, 20));
});
