import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { parseIp, type Ip } from "../../src/base/address.ts";
import { KeptWriter, readKept } from "../../src/control/kept.ts";
import type { Snapshot } from "../../src/model/snapshot.ts";
import { readManifests } from "../../src/policy/read.ts";
import { policy } from "../support/agent.ts";
import { CHECKOUT } from "../support/shop.ts";

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "namegate-kept-"));
  t.after(() => rmSync(made, { recursive: true }));
  return made;
}

const SNAPSHOT: Snapshot = {
  policies: readManifests("m", policy("checkout", CHECKOUT)).policies,
  pods: [
    {
      ...{ key: "shop/p", uid: "u", namespace: "shop", name: "p", labels: { app: "x" }, serviceAccountName: "default", interface: "cali1" },
      ...{ addresses: [parseIp("10.255.128.1") as Ip, parseIp("fd00::ffff") as Ip], searches: ["a.b"] },
    },
  ],
  resolvers: [{ address: parseIp("10.96.0.10") as Ip, port: 53 }],
  namespaces: { shop: { "kubernetes.io/metadata.name": "shop" } },
  interfacePrefixes: ["cali"],
};

test("what is written is read, octet for octet, and is nobody else's to read", (t) => {
  const state = folder(t);
  assert.equal(readKept(state, "node-1", "boot"), undefined, "none yet");
  assert.equal(new KeptWriter(join(state, "deep"), "node-1", "boot").write(SNAPSHOT, 5), undefined);
  assert.deepEqual(
    JSON.parse(JSON.stringify(readKept(join(state, "deep"), "node-1", "boot"))),
    JSON.parse(JSON.stringify({ snapshot: SNAPSHOT, savedMs: 5 })),
  );
  assert.equal(statSync(join(state, "deep", "snapshot.json")).mode & 0o777, 0o600);
});

test("after a reboot the pods are others", (t) => {
  const state = folder(t);
  new KeptWriter(state, "node-1", "boot").write(SNAPSHOT, 5);
  const kept = readKept(state, "node-1", "next boot");
  assert.ok(kept !== undefined && "snapshot" in kept);
  assert.deepEqual([kept.snapshot.pods, kept.snapshot.policies.length, kept.snapshot.resolvers.length], [[], 1, 1]);
});

test("a state that has not changed is not written again", (t) => {
  const state = folder(t);
  const writer = new KeptWriter(state, "node-1", "boot");
  writer.write(SNAPSHOT, 5);
  writer.write({ ...SNAPSHOT }, 6);
  const kept = readKept(state, "node-1", "boot");
  assert.equal(kept !== undefined && "savedMs" in kept && kept.savedMs, 5);
  writer.write({ ...SNAPSHOT, pods: [] }, 7);
  const next = readKept(state, "node-1", "boot");
  assert.equal(next !== undefined && "savedMs" in next && next.savedMs, 7);
});

test("torn, altered, foreign, of another format, writable by others: refused with the reason", (t) => {
  const state = folder(t);
  new KeptWriter(state, "node-1", "boot").write(SNAPSHOT, 5);
  const file = join(state, "snapshot.json");
  const good = readFileSync(file, "utf8");
  const why = (node = "node-1"): string => {
    const found = readKept(state, node, "boot");
    return found !== undefined && "refused" in found ? found.refused : assert.fail("it was taken");
  };
  for (const at of [0, 1, 40, 64, 65, good.length >> 1, good.length - 1]) {
    writeFileSync(file, good.slice(0, at));
    assert.match(why(), /torn|not a snapshot/, `cut at ${at}`);
  }
  writeFileSync(file, good.replace("cali1", "cali2"));
  assert.match(why(), /checksum/);
  writeFileSync(file, good);
  assert.match(why("node-2"), /is of the node "node-1", this is node-2/);
  chmodSync(file, 0o622);
  assert.match(why(), /somebody else/);
  chmodSync(file, 0o600);
  const other = folder(t);
  const writer = new KeptWriter(other, "node-1", "boot");
  for (const wrong of [null, [], { pods: [] }, { ...SNAPSHOT, policies: 7 }]) {
    writer.write(wrong as unknown as Snapshot, 1);
    const found = readKept(other, "node-1", "boot");
    assert.ok(found !== undefined && "refused" in found && /not a snapshot/.test(found.refused), JSON.stringify(wrong));
  }
});

test("a folder that cannot be made is said", (t) => {
  const file = join(folder(t), "file");
  writeFileSync(file, "");
  assert.match(new KeptWriter(join(file, "state"), "n", "b").write(SNAPSHOT, 1) ?? "", /snapshot\.json: /);
});
