import assert from "node:assert/strict";
import { test } from "node:test";
import { InterfaceGroups } from "../../src/control/groups.ts";
import { InterfaceGroup } from "../../src/model/attachment.ts";

/** No interface has such a name, so what the node has is never the wanted group already. */
const pod = (name: string, index: number) =>
  ({ attachment: { kind: "routed", interface: `ng-no-${name}`, index }, mode: "Enforce" }) as const;

test("an interface is put into its group once, and again when it is another one of the same name", () => {
  const done: string[] = [];
  const groups = new InterfaceGroups((iface, group) => void done.push(`${iface} ${group}`));
  const update = (...pods: ReturnType<typeof pod>[]): void => {
    groups.release(pods);
    assert.deepEqual([...groups.join(pods)], []);
  };
  update();
  done.length = 0; // what some agent left on this machine
  update(pod("a", 1), pod("b", 2));
  update(pod("a", 1), pod("b", 2));
  assert.deepEqual(done.splice(0), [`ng-no-a ${InterfaceGroup.enforce}`, `ng-no-b ${InterfaceGroup.enforce}`]);
  update(pod("a", 7), pod("b", 2));
  assert.deepEqual(done.splice(0), [`ng-no-a ${InterfaceGroup.enforce}`]);
  update(pod("b", 2));
  assert.deepEqual(done.splice(0), ["ng-no-a 0"]);
});

test("an interface that could not be put into its group stays said, and is tried again", () => {
  const state = { why: undefined as string | undefined, tries: 0 };
  const groups = new InterfaceGroups(() => {
    state.tries++;
    return state.why;
  });
  groups.release([]);
  groups.join([]);
  Object.assign(state, { why: "errno 1", tries: 0 });
  for (let i = 1; i <= 2; i++) {
    groups.release([pod("a", 1)]);
    assert.deepEqual([...groups.join([pod("a", 1)])], [["ng-no-a", "errno 1"]]);
    assert.equal(state.tries, i);
  }
  state.why = undefined;
  assert.deepEqual([...groups.join([pod("a", 1)])], []);
});

test("an interface that somebody took out of its group is put back; one that is gone is left alone", () => {
  const done: string[] = [];
  const groups = new InterfaceGroups((iface, group) => void done.push(`${iface} ${group}`));
  const pods = [pod("a", 1), pod("b", 2), pod("c", 3)];
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
