import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { addon } from "../../src/base/addon.ts";
import { need } from "../support/need.ts";

/** The addon's face of maps and programs: whatever it is given, it answers or throws. */

const NEEDS = { root: true, addon: true };
const OPTIONS = { name: "ng_test", keyBytes: 4, valueBytes: 8, entries: 2, preallocated: 0 } as const;
/** r0 = 7; exit */
const SEVEN = new Uint8Array(Buffer.from("b7000000070000009500000000000000", "hex"));
const coded =
  (code: string) =>
  (error: unknown): boolean =>
    (error as NodeJS.ErrnoException).code === code;

test("a map takes keys and values of its own sizes only, says when it is full, and is closed once", (t) => {
  if (!need(t, NEEDS)) return;
  const map = new (addon().BpfMap)(OPTIONS);
  const key = Buffer.alloc(4);
  const value = Buffer.alloc(8, 5);
  assert.equal(map.get(key, value), false);
  assert.equal(map.next(key), false);
  map.put(key, value);
  map.put(Buffer.of(1, 0, 0, 0), value);
  assert.throws(() => map.put(Buffer.of(2, 0, 0, 0), value), coded("E2BIG"));
  for (const wrong of [Buffer.alloc(3), Buffer.alloc(5), new Uint8Array(0)]) {
    assert.throws(() => map.get(wrong, value), coded("ERR_OUT_OF_RANGE"));
    assert.throws(() => map.put(wrong, value), coded("ERR_OUT_OF_RANGE"));
    assert.throws(() => map.delete(wrong), coded("ERR_OUT_OF_RANGE"));
    assert.throws(() => map.next(wrong), coded("ERR_OUT_OF_RANGE"));
    assert.throws(() => map.next(key, wrong), coded("ERR_OUT_OF_RANGE"));
    assert.throws(() => map.get(key, wrong), coded("ERR_OUT_OF_RANGE"));
  }
  for (const wrong of [undefined, "abcd", [0, 0, 0, 0], new Uint32Array(1)])
    assert.throws(() => map.delete(wrong as unknown as Uint8Array), coded("ERR_INVALID_ARG_TYPE"));
  const seen = new Set<string>();
  for (let more = map.next(key); more; more = map.next(key, key)) seen.add(key.toString("hex"));
  assert.deepEqual([...seen].sort(), ["00000000", "01000000"]);
  assert.equal(map.delete(Buffer.alloc(4)), true);
  assert.equal(map.delete(Buffer.alloc(4)), false);
  map.close();
  map.close();
  assert.equal(map.fd, -1);
  for (const use of [() => map.get(key, value), () => map.put(key, value), () => map.delete(key), () => map.next(key)])
    assert.throws(use, coded("EBADF"));
  assert.throws(() => map.pin("/x"), /BPF_OBJ_PIN/u);
});

test("what is no map and no program is refused, with a reason", (t) => {
  if (!need(t, NEEDS)) return;
  const { BpfMap, BpfProgram } = addon();
  assert.throws(() => new BpfMap({ ...OPTIONS, keyBytes: 5000 }), coded("ERR_OUT_OF_RANGE"));
  assert.throws(() => new BpfMap({ ...OPTIONS, name: "x".repeat(64) }), coded("ERR_INVALID_ARG_TYPE"));
  assert.throws(() => new BpfMap({ ...OPTIONS, keyBytes: 0 }), coded("EINVAL"));
  assert.throws(() => new BpfMap({ path: "/no/such/pin" }), coded("ENOENT"));
  assert.throws(() => new BpfMap({ path: "/\0" }), coded("ERR_INVALID_ARG_TYPE"));
  assert.throws(() => new BpfProgram({ path: "x".repeat(256) }), coded("ERR_INVALID_ARG_TYPE"));
  const load = (instructions: Uint8Array) => new BpfProgram({ name: "ng_test", license: "Apache-2.0", instructions });
  for (const wrong of [new Uint8Array(0), SEVEN.subarray(0, 8), SEVEN.subarray(0, 15)]) assert.throws(() => load(wrong), /BPF_PROG_LOAD/u);
  const program = load(SEVEN);
  assert.equal(program.run(Buffer.alloc(20, 0x45)), 7);
  for (const size of [0, 4097]) assert.throws(() => program.run(Buffer.alloc(size, 0x45)), coded("EMSGSIZE"));
  const folder = mkdtempSync(join(tmpdir(), "ng-bpf-"));
  t.after(() => rmSync(folder, { recursive: true }));
  assert.throws(() => program.pin(join(folder, "seven")), /BPF_OBJ_PIN/u);
  program.close();
  program.close();
  assert.throws(() => program.run(Buffer.alloc(20, 0x45)), coded("EBADF"));
});
