import assert from "node:assert/strict";
import { test } from "node:test";
import { ipText } from "../../src/base/address.ts";
import type { Attachment } from "../../src/model/attachment.ts";
import type { Policy } from "../../src/model/policy.ts";
import { SourceClass } from "../../src/model/verdict.ts";
import type { Comparison } from "../../src/worker/compare.ts";
import { Desired } from "../../src/worker/desired.ts";
import type { Live } from "../../src/worker/live.ts";
import type { PodUpdate, Update } from "../../src/worker/protocol.ts";
import { desk, ip, podOf, policyOf } from "./desk.ts";

const INDEX: Readonly<Record<string, number>> = { cali1: 1, cali2: 2 };

function thread() {
  const it = desk();
  const desired = new Desired({
    context: it.context,
    live: { judge: () => undefined, release: () => undefined, tick: () => undefined } as unknown as Live,
    comparison: { restore: () => 0, runNow: () => undefined } as unknown as Comparison,
    unknown: it.unknown,
    groups: true,
    gone: () => undefined,
    applied: () => done(),
  });
  let id = 0;
  let done = (): void => undefined;
  /** Resolves when the kernel has it. */
  const apply = (more: Partial<Update>): Promise<void> => {
    const applied = new Promise<void>((resolve) => (done = resolve));
    desired.apply({
      kind: "update",
      id: ++id,
      policies: [],
      removedPolicies: [],
      pods: [],
      removedPods: [],
      resolvers: undefined,
      interfacePrefixes: undefined,
      starting: false,
      ...more,
    });
    return applied;
  };
  /** `address interface class` of what tells sources apart. */
  const sources = (): string[] =>
    [...it.fixed]
      .filter(([key, { bits }]) => key.startsWith("src") && bits !== 0)
      .map(([, { address, iface, mark }]) => `${ipText(address)} ${iface} ${mark}`)
      .sort();
  const guards = (): string[] => [...it.fixed].flatMap(([key, { address }]) => (key.startsWith("guard") ? [ipText(address)] : [])).sort();
  return { ...it, apply, sources, guards };
}

function told(name: string, addresses: string[], iface: string, policies: string[] = [], bridge?: string): PodUpdate {
  const place: Attachment =
    bridge === undefined
      ? { kind: "routed", interface: iface, index: INDEX[iface] as number }
      : { kind: "bridged", interface: iface, index: INDEX[iface] as number, bridge };
  return { pod: podOf(name, addresses, iface), attachment: place, policies };
}

test("an address that goes from one unguarded pod to another in one update is the second one's, whoever is told first", async () => {
  for (const bridge of [undefined, "cni0"])
    for (const turn of [false, true]) {
      const it = thread();
      const one = (a: string[], b: string[]): PodUpdate[] => {
        const pods = [told("a", a, "cali1", [], bridge), told("b", b, "cali2", [], bridge)];
        return turn ? pods.reverse() : pods;
      };
      await it.apply({ interfacePrefixes: ["cali", "cni0"], pods: one(["10.0.0.1", "fd00::1"], ["10.0.0.2", "fd00::2"]) });
      await it.apply({ pods: one(["10.0.0.2", "fd00::1"], ["10.0.0.1", "fd00::2"]) });
      const [first, second] = bridge === undefined ? ["cali1", "cali2"] : [bridge, bridge];
      assert.deepEqual(
        it.sources(),
        [
          `10.0.0.1 ${second} ${SourceClass.unguarded}`,
          `10.0.0.2 ${first} ${SourceClass.unguarded}`,
          `fd00::1 ${first} ${SourceClass.unguarded}`,
          `fd00::2 ${second} ${SourceClass.unguarded}`,
        ].sort(),
      );
      assert.deepEqual(it.guards(), ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]);
      assert.ok(it.context.pods.isFree(ip("10.0.0.1"), 2) && it.context.pods.isFree(ip("10.0.0.2"), 1));
      await it.apply({ removedPods: ["shop/a", "shop/b"] });
      assert.deepEqual([it.sources(), it.guards()], [[], []]);
      assert.deepEqual([it.context.pods.isFreeInterface(1), it.context.pods.isFreeInterface(2)], [false, false]);
    }
});

test("an address that goes from an unguarded pod on a bridge to a guarded one keeps its element", async () => {
  const it = thread();
  const policy: Policy = policyOf("p", "Enforce");
  await it.apply({ interfacePrefixes: ["cni0"], policies: [policy], pods: [told("a", ["10.0.0.1", "10.0.0.3"], "cali1", [], "cni0")] });
  await it.apply({
    pods: [told("b", ["10.0.0.1"], "cali2", [policy.id], "cni0"), told("a", ["10.0.0.3"], "cali1", [], "cni0")],
  });
  assert.deepEqual(it.sources(), [`10.0.0.1 cni0 ${SourceClass.enforce}`, `10.0.0.3 cni0 ${SourceClass.unguarded}`]);
});

test("what a prefix covers is covered at every moment: an element that stays is changed, not made anew", async () => {
  const it = thread();
  await it.apply({ interfacePrefixes: ["cali", "knet"], starting: true });
  it.done.length = 0;
  await it.apply({ interfacePrefixes: ["cali", "veth"] });
  assert.deepEqual(
    it.done.filter((one) => one.startsWith("remove")),
    ["remove src knet", "remove src knet"],
  );
  const marks = new Set([...it.fixed.values()].filter(({ bits }) => bits === 0).map(({ iface, mark }) => `${iface} ${mark}`));
  assert.deepEqual([...marks].sort(), [`cali ${SourceClass.unknown}`, `veth ${SourceClass.unknown}`]);
});
