import assert from "node:assert/strict";
import { test } from "node:test";
import { announcer } from "../../src/control/announce.ts";
import { Unenforceable } from "../../src/control/unenforceable.ts";
import type { EventDraft } from "../../src/model/event.ts";
import type { Snapshot } from "../../src/model/snapshot.ts";
import { policyOf } from "../worker/desk.ts";

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

test("a resolver that was found is no policy that was removed", () => {
  const events: EventDraft[] = [];
  const tell = announcer((draft) => events.push(draft), "name one");
  const policy = policyOf("p", "Enforce");
  const states = [{ id: policy.id, file: "f", valid: true, problems: [], policy }];
  const snapshot = { policies: [policy], pods: [], resolvers: [], namespaces: {}, interfacePrefixes: [] } satisfies Snapshot;
  tell(states, [], snapshot);
  tell(states, [], snapshot);
  assert.deepEqual(
    events.map(({ why }) => why),
    ["policy-accepted", "no-resolver"],
  );
  tell(states, [], { ...snapshot, resolvers: [{ address: "\n`\0\n" as never, port: 53 }] });
  assert.equal(events.length, 2);
  tell([], [], { ...snapshot, policies: [] });
  assert.deepEqual([events.length, events[2]?.why, events[2]?.policy], [3, "policy-removed", policy.id]);
});
