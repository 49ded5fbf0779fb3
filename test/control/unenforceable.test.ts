import assert from "node:assert/strict";
import { test } from "node:test";
import { Unenforceable } from "../../src/control/unenforceable.ts";

test("a pod that is not enforced for two reasons is said once, with the last of them", () => {
  const said: string[] = [];
  const list = new Unenforceable(
    ({ message }) => said.push(String(message)),
    () => undefined,
  );
  const both = [
    ["shop/a", "its interface has not been found"],
    ["shop/b", undefined],
    ["shop/a", "its net1 is a macvlan on eth0"],
  ] as const;
  for (let i = 0; i < 3; i++) list.set(both);
  assert.deepEqual(said, ["shop/a is NOT ENFORCED: its net1 is a macvlan on eth0"]);
  assert.deepEqual([...list.all], [["shop/a", "its net1 is a macvlan on eth0"]]);
  list.set([["shop/a", undefined]]);
  list.set(both);
  assert.equal(said.length, 2, "again, once it was well");
});
