import { NameList } from "../../src/dns/elsewhere.ts";
import { Meter, newBlock } from "../../src/worker/meter.ts";
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { HOLD, NfVerdict, type PacketQueue, RECORD_WORDS, RecordWord } from "../../src/base/addon.ts";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { dnsName, type DnsName } from "../../src/base/name.ts";
import { marks } from "../../src/firewall/marks.ts";
import type { Policy } from "../../src/model/policy.ts";
import { VerdictClass } from "../../src/model/verdict.ts";
import { readManifests } from "../../src/policy/read.ts";
import { type Context, newCounters } from "../../src/worker/context.ts";
import { type Rulebook, rulebook } from "../../src/worker/guard.ts";
import { Inspection } from "../../src/worker/inspection.ts";
import type { Kernel } from "../../src/worker/kernel.ts";
import { PodTable } from "../../src/worker/pod-table.ts";
import { GuardedPod } from "../../src/worker/pods.ts";
import { LIMITS_DEFAULT } from "../../src/worker/protocol.ts";
import { ip4, tcp } from "../capture/build.ts";
import { HELLOS } from "../inspect/hellos.ts";

/** One pod sends more than there is time for, and others must not notice. */

const MARKS = marks();
const NOW = 1_800_000_000;
const SERVER = "198.51.100.1";
const HOG = "10.0.0.1";
const VICTIM = "10.0.0.2";
const BATCH = 64;
const HELLO = new Uint8Array(Buffer.from(HELLOS.openssl13.hex, "hex"));
const FIRST_BYTES = HELLO.subarray(0, 9);

const { policies } = readManifests(
  "test",
  JSON.stringify({
    apiVersion: "namegate.dev/v1alpha1",
    kind: "EgressPolicy",
    metadata: { name: "p", namespace: "shop" },
    spec: {
      mode: "Enforce",
      egress: [
        { action: "Accept", to: [{ domainNames: ["api.example.com"] }], ports: [{ protocol: "TCP", port: 443 }], application: "tls" },
      ],
    },
  }),
);

/** An inspection with two pods, a clock of its own, and a queue that writes down how each packet was settled. */
function room(t: TestContext) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const state = { nowMs: NOW * 1000 };
  const kernel = { marks: MARKS, isResolver: () => false, allow: () => undefined, remember: () => undefined } as unknown as Kernel;
  const pods = new PodTable();
  for (const text of [HOG, VICTIM]) {
    const address = parseIp(text) as Ip;
    const pod = {
      key: `shop/${text}`,
      uid: text,
      namespace: "shop",
      name: text,
      labels: {},
      serviceAccountName: "default",
      interface: text,
      addresses: [address],
      searches: [],
    };
    const book = rulebook(policies as Policy[]) as Rulebook;
    const guarded = new GuardedPod(pod, book, { kind: "missing", interface: text, why: "" }, kernel, LIMITS_DEFAULT);
    guarded.work.spend = () => undefined; // how busy this machine is does not matter here
    guarded.learn({ name: dnsName("api.example.com") as DnsName, via: "asked", address: parseIp(SERVER) as Ip, ttl: 3600 }, NOW);
    pods.set(guarded);
  }
  const context = {
    counters: newCounters(),
    meter: new Meter(newBlock(0)),
    dnsServers: new NameList([]),
    kernel,
    pods,
    limits: LIMITS_DEFAULT,
    nowMs: () => state.nowMs,
    now: () => Math.floor(state.nowMs / 1000),
    emit: () => undefined,
    log: () => undefined,
  } as unknown as Context;
  const inspection = new Inspection(context, { send: () => undefined, frame: () => undefined, close: () => undefined });
  const settled = new Map<number, (readonly [verdict: number, markClass: number])[]>();
  const settle = (id: number, verdict: number, mark: number): void => {
    settled.set(id, [...(settled.get(id) ?? []), [verdict, MARKS.classOf(mark)]]);
  };
  const packets = new Uint8Array(BATCH * 2048);
  const records = new Uint32Array(BATCH * RECORD_WORDS);
  const verdicts = new Uint32Array(BATCH * 2);
  const queue = { packets, records, verdicts, settle, replace: () => undefined } as unknown as PacketQueue;
  let last = 0;
  return {
    inspection,
    context,
    state,
    settled,
    pods,
    /** Returns the packets' ids. */
    batch(list: readonly Uint8Array[], watch = false): number[] {
      const ids = list.map(() => ++last);
      for (const [i, bytes] of list.entries()) {
        packets.set(bytes, i * 2048);
        const record = { id: ids[i] as number, mark: 0, indev: 1, hook: 0, offset: i * 2048, length: bytes.length };
        for (const [name, value] of Object.entries(record)) records[i * RECORD_WORDS + RecordWord[name as "id"]] = value;
      }
      inspection.read(queue, list.length, watch);
      for (const [i, id] of ids.entries())
        if (verdicts[2 * i] !== HOLD) settle(id, verdicts[2 * i] as number, verdicts[2 * i + 1] as number);
      return ids;
    },
    /** As many turns of the event loop. */
    async turns(count: number) {
      for (let i = 0; i < count; i++) {
        await new Promise(setImmediate);
        t.mock.timers.tick(1);
      }
    },
    /** All that is still held comes to its end. */
    async end() {
      await this.turns(400);
      for (let i = 0; i < 400; i++) {
        state.nowMs += 40;
        inspection.sweep();
        await this.turns(2);
      }
      assert.equal(inspection.flows.load.held, 0);
      for (let id = 1; id <= last; id++) assert.equal(settled.get(id)?.length, 1, `packet ${id}`);
    },
  };
}

function first(source: string, port: number, payload: Uint8Array): Uint8Array {
  return ip4({ protocol: 6, source, destination: SERVER }, tcp({ from: port, to: 443, seq: 1000, ack: 5000, flags: 16 }, payload));
}
const drip = (from: number, count = BATCH): Uint8Array[] => Array.from({ length: count }, (_, i) => first(HOG, from + i, FIRST_BYTES));
const CONFIRMED = [NfVerdict.repeat, VerdictClass.confirm] as const;

test("a hello behind a batch of another pod's is read in the same turn, or the next", async (t) => {
  const it = room(t);
  const [early] = it.batch([first(VICTIM, 1, HELLO), ...drip(1000, BATCH - 1)]);
  assert.deepEqual(it.settled.get(early as number), [CONFIRMED]);
  const late = it.batch([...drip(2000, BATCH - 1), first(VICTIM, 2, HELLO)]).at(-1) as number;
  assert.deepEqual(it.settled.get(late), [CONFIRMED], "the other one's wait already");
  await it.end();
});

test("more than there is time for: the one who sends it loses some of it, and all is settled once", async (t) => {
  const it = room(t);
  const hellos: number[] = [];
  for (let i = 0; i < 70; i++) {
    it.batch(drip(1000 + i * BATCH));
    if (i % 8 === 0) hellos.push(...it.batch([first(VICTIM, i + 1, HELLO)]));
    if (i % 10 === 0) await it.turns(1);
  }
  await it.turns(2);
  for (const id of hellos) assert.deepEqual(it.settled.get(id), [CONFIRMED]);
  const { inspectLimited } = it.context.counters;
  assert.ok(inspectLimited > 1000, `${inspectLimited}`);
  await it.end();
  const passed = [...it.settled.values()].filter(([one]) => one?.[1] === VerdictClass.pass);
  assert.equal(passed.length, 0, "nothing went unread");
});

test("Monitor stops nothing: what there is no time for goes on", async (t) => {
  const it = room(t);
  for (let i = 0; i < 60; i++) it.batch(drip(1000 + i * BATCH), true);
  await it.end();
  assert.ok(it.context.counters.inspectLimited > 500);
  for (const [one] of it.settled.values()) assert.equal(one?.[0], NfVerdict.repeat);
});

test("a packet that waits and whose pod has gone is dropped", async (t) => {
  const it = room(t);
  const ids = it.batch([...drip(1000), first(VICTIM, 1, HELLO)].slice(1));
  const waiting = ids.filter((id) => !it.settled.has(id));
  it.pods.delete(it.pods.of(parseIp(HOG) as Ip) as GuardedPod);
  await it.turns(BATCH); // each reads one at least, however slow the machine is
  const dropped = waiting.filter((id) => it.settled.get(id)?.[0]?.[0] === NfVerdict.drop);
  assert.ok(dropped.length >= BATCH - 17, `${dropped.length} of ${waiting.length}`);
});

test("a packet that waited and cannot be judged is dropped", async (t) => {
  const broken = room(t);
  broken.batch(drip(1000));
  broken.inspection.flows.fromClient = () => {
    throw new Error("broken");
  };
  await broken.turns(BATCH);
  assert.ok(broken.context.counters.faults >= BATCH - 17);
  const faulty = [...broken.settled.values()].filter(([one]) => one?.[0] === NfVerdict.drop);
  assert.equal(faulty.length, broken.context.counters.faults);
});

test("a queue that was bound again: what waited is forgotten, and nothing of it is judged", async (t) => {
  const it = room(t);
  it.batch(drip(1000));
  it.inspection.lost();
  const { inspected } = it.context.counters;
  await it.turns(BATCH);
  assert.equal(it.context.counters.inspected, inspected);
});
