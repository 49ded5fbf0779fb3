import assert from "node:assert/strict";
import { test } from "node:test";
import type { Run } from "../../src/inspect/inspector.ts";
import { readUpgrade, withUpgrade } from "../../src/inspect/upgrade.ts";
import { HELLOS } from "./hellos.ts";

const { hex, ja4, alpn, serverName } = HELLOS.pg17;
const hello = Buffer.from(hex, "hex");
const BEFORE = 8;
const evidence = { application: "postgresql", serverName: undefined, fields: { method: "SSLRequest" } } as const;

/** Eight bytes of another protocol and the first `count` of the hello, with other bytes around them. */
function run(count: number, closed = false): Run {
  const bytes = Buffer.concat([Buffer.from("xyz"), Buffer.alloc(BEFORE, 1), hello, Buffer.from("\x16\x03")]);
  return { bytes, start: 3, end: 3 + BEFORE + count, ends: [], closed };
}

test("a ClientHello behind other bytes is read; need counts from the run's start", () => {
  const upgraded = { upgrade: "tls", serverName, alpn, ja4, ech: false };
  assert.deepEqual(readUpgrade(run(hello.length), BEFORE), upgraded);
  assert.deepEqual(withUpgrade(evidence, run(hello.length), BEFORE), { ...evidence, ...upgraded });
  for (let count = 0; count < hello.length; count++) {
    const reading = readUpgrade(run(count), BEFORE);
    assert.ok("need" in reading && reading.need > BEFORE + count && reading.need <= BEFORE + hello.length, `${count}`);
  }
  assert.deepEqual(withUpgrade(evidence, run(0), BEFORE), { need: BEFORE + 6, of: "client", application: "postgresql" });
});

test("no more to come: never a need", () => {
  assert.ok("bad" in readUpgrade(run(0, true), BEFORE));
  assert.equal(withUpgrade(evidence, run(0, true), BEFORE), evidence);
  const reading = withUpgrade(evidence, run(9, true), BEFORE);
  assert.ok("bad" in reading && reading.application === "postgresql");
});

test("bytes that are no TLS", () => {
  assert.ok("bad" in readUpgrade(run(20), BEFORE + 1));
  const reading = withUpgrade(evidence, run(20), BEFORE + 1);
  assert.ok("bad" in reading && reading.application === "postgresql");
});
