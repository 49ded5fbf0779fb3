import assert from "node:assert/strict";
import { test } from "node:test";
import { InterfaceGroups } from "../../src/control/groups.ts";
import { InterfaceGroup } from "../../src/model/attachment.ts";

/** No interface has such a name, so what the node has is never the wanted group already. */
const pod = (name: string, index: number) => [`ng-no-${name}`, { index, mode: "Enforce" }] as const;
const gone = (name: string) => [`ng-no-${name}`, undefined] as const;

test("an interface is put into its group once, and again when it is another one of the same name", () => {
  const done: string[] = [];
  const groups = new InterfaceGroups((iface, group) => void done.push(`${iface} ${group}`));
  const update = (...changes: (ReturnType<typeof pod> | ReturnType<typeof gone>)[]): void => {
    groups.release(new Map(changes));
    assert.deepEqual([...groups.join(new Map(changes))], []);
  };
  update();
  done.length = 0; // what some agent left on this machine
  update(pod("a", 1), pod("b", 2));
  update(pod("a", 1), pod("b", 2));
  assert.deepEqual(done.splice(0), [`ng-no-a ${InterfaceGroup.enforce}`, `ng-no-b ${InterfaceGroup.enforce}`]);
  update(pod("a", 7), pod("b", 2));
  assert.deepEqual(done.splice(0), [`ng-no-a ${InterfaceGroup.enforce}`]);
  update(gone("a"));
  update(gone("a"));
  assert.deepEqual(done.splice(0), ["ng-no-a 0"]);
});

test("an interface that could not be put into its group stays said, and is tried again", () => {
  const state = { why: undefined as string | undefined, tries: 0 };
  const groups = new InterfaceGroups(() => {
    state.tries++;
    return state.why;
  });
  const none = new Map();
  groups.release(none);
  groups.join(none);
  Object.assign(state, { why: "errno 1", tries: 0 });
  for (const [i, changes] of [new Map([pod("a", 1)]), none].entries()) {
    groups.release(changes);
    assert.deepEqual([...groups.join(changes)], [["ng-no-a", "errno 1"]]);
    assert.equal(state.tries, i + 1);
  }
  state.why = undefined;
  assert.deepEqual([...groups.join(none)], []);
});

test("an interface that somebody took out of its group is put back; one that is gone is left alone", () => {
  const done: string[] = [];
  const groups = new InterfaceGroups((iface, group) => void done.push(`${iface} ${group}`));
  const pods = new Map([pod("a", 1), pod("b", 2), pod("c", 3)]);
  assert.deepEqual(
    groups.check(() => 0),
    [],
    "before anything is wanted",
  );
  groups.release(pods);
  groups.join(pods);
  done.length = 0;
  const found = new Map([
    ["ng-no-a", 0],
    ["ng-no-b", InterfaceGroup.enforce],
  ]);
  assert.deepEqual(
    groups.check((iface) => found.get(iface)),
    ["ng-no-a"],
  );
  assert.deepEqual(done, [`ng-no-a ${InterfaceGroup.enforce}`]);
});
