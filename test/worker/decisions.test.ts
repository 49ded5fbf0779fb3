import assert from "node:assert/strict";
import { test } from "node:test";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { Decisions } from "../../src/worker/decisions.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;
const [A, B] = [ip("192.0.2.1"), ip("2001:db8::1")];

test("remembers until the second in which the kernel forgets", () => {
  const table = new Decisions(10);
  assert.equal(table.put(A, 443, 5), true);
  assert.deepEqual([table.has(A, 443, 4), table.has(A, 443, 5), table.has(A, 80, 4), table.has(B, 443, 4)], [true, false, false, false]);
  table.sweep(4);
  assert.equal(table.size, 1);
  table.sweep(5);
  assert.equal(table.size, 0);
});

test("is bounded; what is there already can always be renewed", () => {
  const table = new Decisions(2);
  assert.deepEqual([table.put(A, 1, 5), table.put(B, 1, 5), table.put(A, 2, 5), table.put(A, 1, 9)], [true, true, false, true]);
  assert.equal(table.size, 2);
  assert.ok(table.has(A, 1, 8));
});

test("forgets one address, or all, and names what it forgets", () => {
  const table = new Decisions(10);
  for (const [address, port] of [
    [A, 1],
    [A, 2],
    [B, 1],
    [B, 3],
  ] as const)
    table.put(address, port, 5);
  const undone: unknown[] = [];
  table.forget(A, (address, port) => undone.push([address, port]));
  table.forget(A, () => assert.fail("nothing is left"));
  assert.deepEqual(
    [undone, table.size],
    [
      [
        [A, 1],
        [A, 2],
      ],
      2,
    ],
  );
  table.clear((address, port) => undone.push([address, port]));
  assert.deepEqual(
    [undone.slice(2), table.size],
    [
      [
        [B, 1],
        [B, 3],
      ],
      0,
    ],
  );
});
