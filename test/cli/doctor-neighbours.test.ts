import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { conntrackFinding, meshFinding, testedFindings, untrackedFinding, variantsFinding } from "../../src/cli/doctor-neighbours.ts";

const saved = (nft: string, legacy = "") => new Map([["nft", nft] as const, ["legacy", legacy] as const]);

test("rules of both iptables variants", () => {
  const rule = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j KUBE-FORWARD\n-A NG-DENY -j DROP\n-A FORWARD -j NG-DENY\n";
  assert.equal(variantsFinding(saved("", ""), "nft").status, "ok");
  assert.equal(variantsFinding(saved(rule), "nft").status, "ok");
  const both = variantsFinding(saved(rule, rule), "legacy");
  assert.equal(both.status, "warn");
  assert.match(both.found, /1 in iptables-nft, 1 in iptables-legacy; the agent would use legacy/);
});

test("rules that take pods' packets out of conntrack", () => {
  const raw = (...rules: string[]): ReturnType<typeof saved> =>
    saved(`*nat\n-A PREROUTING -j NOTRACK\nCOMMIT\n*raw\n${rules.join("\n")}\nCOMMIT\n`);
  assert.equal(untrackedFinding(saved("")).status, "ok");
  assert.equal(untrackedFinding(raw("-A PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53 -j NOTRACK")).status, "ok");
  assert.equal(untrackedFinding(raw("-A OUTPUT -s 10.0.0.1/32 -j CT --notrack")).status, "ok", "what the node itself sends");
  assert.equal(untrackedFinding(raw("-A NG-RAW-OUT -j CT --notrack")).status, "ok", "ours");
  const bad = untrackedFinding(raw("-A PREROUTING -i cali+ -j CT --notrack", "-A MINE -p udp -j NOTRACK"));
  assert.equal(bad.status, "warn");
  assert.match(bad.found, /: -A PREROUTING -i cali\+ -j CT --notrack\nand 1 more$/);
});

test("Istio's ambient mode", () => {
  assert.equal(meshFinding(saved("*nat\n:ISTIO_OUTPUT - [0:0]\n")).status, "ok");
  const found = meshFinding(saved("", "*nat\n:ISTIO_POSTRT - [0:0]\n-A POSTROUTING -j ISTIO_POSTRT\n"));
  assert.equal(found.status, "warn");
  assert.match(found.found, /15008.*hidden/);
});

test("conntrack is there, or not yet", () => {
  const proc = mkdtempSync(join(tmpdir(), "namegate-proc-"));
  try {
    assert.equal(conntrackFinding(proc).status, "warn");
    mkdirSync(join(proc, "sys", "net", "netfilter"), { recursive: true });
    writeFileSync(join(proc, "sys", "net", "netfilter", "nf_conntrack_max"), "65536\n");
    assert.match(conntrackFinding(proc).found, /^there, 65536 /);
  } finally {
    rmSync(proc, { recursive: true });
  }
});

test("what the agent's canaries found", () => {
  const of = (state: string, more: object = {}): string =>
    testedFindings({ selfTest: { state, why: "IPv4 is bypassed", ...more } })
      .map(({ check, status }) => `${check} ${status}`)
      .join(", ");
  assert.deepEqual(testedFindings(undefined), []);
  assert.deepEqual(testedFindings({}), [], "an older agent");
  assert.equal(of("ok"), "self-test ok, pods' interfaces ok");
  assert.equal(of("failed"), "self-test failed, pods' interfaces ok");
  assert.equal(of("untested"), "self-test warn, pods' interfaces ok");
  assert.equal(of("ok", { warnings: ["a program"] }), "self-test ok, pods' interfaces warn");
  const pods = Array.from({ length: 12 }, (_, i) => ({
    namespace: "shop",
    name: `p${i}`,
    guarded: true,
    enforced: i === 0,
    why: "redirected",
  }));
  const last = testedFindings({ selfTest: { state: "ok" }, pods }).at(-1);
  assert.equal(last?.status, "failed");
  assert.match(last?.found ?? "", /^shop\/p1: redirected\n(.*\n)+and 1 more$/);
  const fixOf = (why: string): string =>
    testedFindings({ selfTest: { state: "ok" }, pods: [{ namespace: "shop", name: "p", guarded: true, enforced: false, why }] }).at(-1)
      ?.fix ?? "";
  assert.match(fixOf("a tc filter takes packets from cali1 past netfilter"), /tc filters/);
  assert.doesNotMatch(fixOf("its net1 is a macvlan on eth0: its packets do not cross this node's netfilter"), /tc filter/);
});
