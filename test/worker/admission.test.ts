import assert from "node:assert/strict";
import { test } from "node:test";
import { NfVerdict } from "../../src/base/addon.ts";
import { CANARY_POD } from "../../src/model/canary.ts";
import type { Policy } from "../../src/model/policy.ts";
import { SourceClass } from "../../src/model/verdict.ts";
import { canaryFrame } from "../../src/selftest/frame.ts";
import { type Rulebook, rulebook } from "../../src/worker/guard.ts";
import { GuardedPod } from "../../src/worker/pods.ts";
import { LIMITS_DEFAULT } from "../../src/worker/protocol.ts";
import { datagram, desk, ip, podOf, policyOf, RESOLVER, syn } from "./desk.ts";

const ELSEWHERE = ip("203.0.113.9");

function guarded(it: ReturnType<typeof desk>, name: string, address: string, index: number, mode: Policy["mode"] = "Enforce") {
  const attachment = { kind: "routed", interface: `cali-${name}`, index } as const;
  const pod = podOf(name, [address], attachment.interface);
  const one = new GuardedPod(pod, rulebook([policyOf("p", mode)]) as Rulebook, attachment, it.kernel, LIMITS_DEFAULT);
  it.context.pods.set(one);
  return one;
}

test("a query that came just before its pod was known goes to its resolver, and is no denied connection", () => {
  for (const [pod, mode] of [
    ["10.0.0.1", "Enforce"],
    ["fd00::1", "Enforce"],
    ["10.0.0.1", "Monitor"],
  ] as const) {
    const it = desk();
    guarded(it, "checkout", pod, 7, mode);
    const resolver = pod.includes(":") ? undefined : RESOLVER;
    if (resolver === undefined) it.kernel.isResolver = () => true;
    const to = resolver ?? ip("fd00:96::a");
    for (const state of [SourceClass.unknown, SourceClass.starting])
      assert.deepEqual(it.admitted(datagram(ip(pod), to, 53), state, 7), { verdict: NfVerdict.repeat, mark: 0 });
    assert.deepEqual(it.events, []);
  }
});

test("it does not go round for ever where the kernel never learns of the pod", () => {
  const it = desk();
  guarded(it, "checkout", "10.0.0.1", 7);
  const query = datagram(ip("10.0.0.1"), RESOLVER, 53);
  const verdicts = Array.from({ length: 3000 }, () => it.admitted(query, SourceClass.unknown, 7).verdict);
  assert.ok(verdicts.filter((one) => one === NfVerdict.repeat).length <= 1000);
  assert.equal(verdicts.at(-1), NfVerdict.drop);
});

test("Monitor stops nothing: a further address of its pod goes on, but not one of a guarded pod", () => {
  const it = desk();
  guarded(it, "watched", "10.0.0.1", 7, "Monitor");
  guarded(it, "checkout", "10.0.0.2", 8);
  const from = (source: string, index: number): number => it.admitted(syn(ip(source), ELSEWHERE, 443), SourceClass.unknown, index).verdict;
  assert.equal(from("10.9.9.9", 7), NfVerdict.accept);
  assert.equal(from("fd00::99", 7), NfVerdict.accept);
  assert.equal(from("10.0.0.2", 7), NfVerdict.drop, "the address of another pod is stolen");
  assert.equal(from("10.9.9.9", 8), NfVerdict.drop, "Enforce: its pod has one address");
});

test("a pod that sends canaries makes nobody else's go unseen", () => {
  const it = desk();
  guarded(it, "evil", "10.0.0.1", 7);
  guarded(it, "checkout", "10.0.0.2", 8);
  const canary = (source: string | undefined, n: number): Uint8Array => {
    const nonce = new Uint8Array(16);
    new DataView(nonce.buffer).setUint32(0, n);
    return canaryFrame([2, 0, 0, 0, 0, 1], source === undefined ? CANARY_POD[4] : ip(source), nonce).subarray(14);
  };
  for (let n = 0; n < 10_000; n++) assert.equal(it.admitted(canary("10.0.0.1", n), 0, 7).verdict, NfVerdict.drop);
  assert.ok(it.canaries.length <= 100, `${it.canaries.length} were told`);
  const before = it.canaries.length;
  it.admitted(canary("10.0.0.2", 1), 0, 8);
  it.admitted(canary(undefined, 2), 0, 9);
  assert.equal(it.canaries.length - before, 2);
  it.admitted(canary("10.7.7.7", 3), 0, 9);
  assert.equal(it.canaries.length - before, 2, "nobody's");
});
