import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { HOLD, NfVerdict, type PacketQueue } from "../../src/base/addon.ts";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { newPacket } from "../../src/capture/decode.ts";
import { marks } from "../../src/firewall/marks.ts";
import { SourceClass } from "../../src/model/verdict.ts";
import { type Context, type Held, newCounters } from "../../src/worker/context.ts";
import { Meter, newBlock } from "../../src/worker/meter.ts";
import { PodTable } from "../../src/worker/pod-table.ts";
import { type GuardedPod } from "../../src/worker/pods.ts";
import { UnknownPods } from "../../src/worker/unknown.ts";

const MARKS = marks();
const A = parseIp("10.0.0.1") as Ip;
const B = parseIp("10.0.0.2") as Ip;
const UNKNOWN = MARKS.put(0x80, SourceClass.unknown);

/** UnknownPods with a queue that writes down what is settled, and a clock of its own. */
function room(t: TestContext) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const settled: [id: number, verdict: number, mark: number][] = [];
  const said: Ip[] = [];
  const state = { nowMs: 1000, mayGo: true };
  const pods = new PodTable();
  const guarded = new Set<Ip>();
  pods.of = (address) => (guarded.has(address) ? ({} as GuardedPod) : undefined);
  const context = {
    counters: newCounters(),
    meter: new Meter(newBlock()),
    kernel: { marks: MARKS, isResolver: () => true },
    pods,
    nowMs: () => state.nowMs,
  } as unknown as Context;
  const queue = { settle: (...one: [number, number, number]) => void settled.push(one) } as unknown as PacketQueue;
  const unknown = new UnknownPods(context, { mayGo: () => state.mayGo }, (source) => said.push(source));
  const ip4 = (source: Ip): Uint8Array => {
    const bytes = new Uint8Array(28);
    bytes.set([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17]);
    for (let i = 0; i < 4; i++) bytes[12 + i] = source.charCodeAt(i);
    return bytes;
  };
  let id = 0;
  const take = (source: Ip, indev = 7): number => {
    const packet = Object.assign(newPacket(), { bytes: ip4(source), start: 0, end: 28, source });
    const answer = { verdict: NfVerdict.drop as number, mark: UNKNOWN };
    unknown.take(queue, { packet, index: 0, id: ++id, mark: UNKNOWN, indev, physindev: 0 } as Held, answer);
    return answer.verdict;
  };
  const pass = (ms: number): void => {
    for (let left = ms; left > 0; left -= 100) {
      state.nowMs += Math.min(100, left);
      t.mock.timers.tick(Math.min(100, left));
    }
  };
  return { unknown, take, pass, settled, said, state, pods, guarded, counters: context.counters };
}

test("a stranger's packets are held, and go through the chains again when the kernel knows him", (t) => {
  const it = room(t);
  assert.deepEqual([it.take(A), it.take(B), it.take(A)], [HOLD, HOLD, HOLD]);
  assert.deepEqual(it.said, [A, B], "each is said once");
  it.unknown.release([A]);
  const repeat = MARKS.put(UNKNOWN, 0);
  assert.equal(repeat, 0x80, "our bits are clear, others' are as they were");
  assert.deepEqual(it.settled, [
    [1, NfVerdict.repeat, repeat],
    [3, NfVerdict.repeat, repeat],
  ]);
  it.pass(3000);
  assert.deepEqual(it.settled.slice(2), [[2, NfVerdict.drop, UNKNOWN]], "whom nobody claims is dropped, once");
  assert.deepEqual([it.counters.unknownReleased, it.counters.unknownDropped], [2, 1]);
});

test("each is settled exactly once and in time, whatever comes when", (t) => {
  const it = room(t);
  for (let i = 0; i < 100; i++) {
    it.take(i % 3 === 0 ? A : B, i % 5);
    it.pass(70);
    if (i % 17 === 0) it.unknown.release([A, B]);
    if (i % 11 === 0) it.unknown.release([A]);
  }
  it.pass(1700);
  const ids = it.settled.map(([one]) => one);
  assert.equal(new Set(ids).size, 100);
  assert.equal(ids.length, 100);
});

test("no interface has more than its share, and all together no more than there is room for", (t) => {
  const it = room(t);
  const verdicts = Array.from({ length: 200 }, () => it.take(A, 1));
  assert.equal(verdicts.filter((one) => one === HOLD).length, 128);
  assert.equal(it.take(B, 2), HOLD, "another interface has its own");
  let held = 129;
  for (let iface = 3; iface < 40; iface++) for (let i = 0; i < 128; i++) if (it.take(B, iface) === HOLD) held++;
  assert.equal(held, 2048);
  it.pass(1700);
  assert.equal(it.settled.length, 2048);
  assert.equal(it.take(A, 1), HOLD, "the room is there again");
});

test("a packet that the kernel took for unknown a moment too early goes back to it, but not for ever", (t) => {
  const it = room(t);
  it.pods.setFree(A, { kind: "missing", interface: "", why: "not found" });
  assert.equal(it.take(A, 7), NfVerdict.repeat);
  assert.equal(it.take(B, 7), HOLD);
  const verdicts = Array.from({ length: 2000 }, () => it.take(A, 7));
  assert.equal(verdicts.filter((one) => one === NfVerdict.repeat).length, 999);
});

test("other addresses of a pod that nobody guards are its own business, but for those of guarded pods", (t) => {
  const it = room(t);
  const attachment = { kind: "routed", interface: "cali1", index: 7 } as const;
  it.pods.setFree(A, attachment);
  assert.deepEqual([it.take(A, 7), it.take(A, 8), it.take(B, 7)], [NfVerdict.repeat, HOLD, NfVerdict.accept]);
  it.guarded.add(B);
  assert.equal(it.take(B, 7), HOLD);
  it.guarded.delete(B);
  it.pods.setFree(A, attachment);
  it.pods.setFree(A, undefined);
  assert.equal(it.take(B, 7), HOLD, "it is gone, however often it was told");
});

test("a held query that the pod's policy does not allow does not go on", (t) => {
  const it = room(t);
  it.guarded.add(A);
  it.state.mayGo = false;
  it.take(A);
  it.unknown.release([A]);
  assert.equal(it.settled[0]?.[1], NfVerdict.drop);
});
