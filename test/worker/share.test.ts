import assert from "node:assert/strict";
import { test } from "node:test";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { TokenBucket } from "../../src/base/bucket.ts";
import { dnsName, type DnsName } from "../../src/base/name.ts";
import { learn } from "../../src/dns/reply.ts";
import type { Learned } from "../../src/model/binding.ts";
import { newPacket } from "../../src/capture/decode.ts";
import type { Packet } from "../../src/model/packet.ts";
import type { Policy } from "../../src/model/policy.ts";
import { readManifests } from "../../src/policy/read.ts";
import { type Rulebook, rulebook } from "../../src/worker/guard.ts";
import type { Kernel } from "../../src/worker/kernel.ts";
import { settleOwed } from "../../src/worker/owed.ts";
import { PodTable } from "../../src/worker/pod-table.ts";
import { GuardedPod } from "../../src/worker/pods.ts";
import { LIMITS_DEFAULT } from "../../src/worker/protocol.ts";
import { encode, labels } from "../dns/encode.ts";

/** One pod that wants all of the packet thread or of its tables leaves the others theirs. */

const NOW = 1_800_000_000;
const name = (text: string): DnsName => dnsName(text) as DnsName;
const far = (n: number): Ip => parseIp(`198.${18 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`) as Ip;

function policy(rules: number, ports: number): Policy {
  const port = Array.from({ length: ports }, (_, i) => ({ port: 1000 + 2 * i }));
  const egress = Array.from({ length: rules }, (_, i) => ({
    action: "Accept",
    to: [{ domainNames: [i === 0 ? "*.evil.example" : `n${i}.example`] }],
    ports: port,
  }));
  const { policies, problems } = readManifests(
    "test",
    JSON.stringify({
      apiVersion: "namegate.dev/v1alpha1",
      kind: "EgressPolicy",
      metadata: { name: "p", namespace: "shop" },
      spec: { mode: "Enforce", egress },
    }),
  );
  assert.deepEqual(problems, []);
  return policies[0] as Policy;
}

function node(limit: number): {
  table: PodTable;
  readonly add: (name: string, policy: Policy) => GuardedPod;
  readonly elements: () => number;
  readonly kernel: Kernel;
} {
  const held = new Set<string>();
  const kernel = {
    commit: () => undefined,
    allow: (pod: Ip, address: Ip, port: number) => held.add(`${pod}${address}${port}`),
    isResolver: () => false,
    unallow: (pod: Ip, address: Ip, port: number) => held.delete(`${pod}${address}${port}`),
    remember: () => undefined,
    forget: () => undefined,
  } as unknown as Kernel;
  const table = new PodTable();
  return {
    table,
    kernel,
    elements: () => held.size,
    add(podName, one) {
      const address = parseIp(`10.0.0.${table.byKey.size + 1}`) as Ip;
      const pod = {
        key: `shop/${podName}`,
        uid: podName,
        namespace: "shop",
        name: podName,
        labels: {},
        serviceAccountName: "default",
        interface: podName,
        addresses: [address],
        searches: [],
      };
      const guarded = new GuardedPod(
        pod,
        rulebook([one]) as Rulebook,
        { kind: "missing", interface: podName, why: "" },
        kernel,
        LIMITS_DEFAULT,
        (now) => table.makeRoom(limit, now),
      );
      table.set(guarded);
      return guarded;
    },
  };
}

const bind = (pod: GuardedPod, host: string, n: number): boolean =>
  pod.learn({ name: name(`${host}.evil.example`), via: "asked", address: far(n), ttl: 60 }, NOW) !== "refused";

test("a pod that has filled the node's bindings makes room for others, also when the oldest are in use", () => {
  const { table, add } = node(1000);
  const [hog, victim] = [add("hog", policy(1, 1)), add("victim", policy(1, 1))];
  for (let n = 0; n < 1000; n++) assert.ok(bind(hog, `h${n % 10}`, n));
  for (let n = 0; n < 100; n++) hog.guard.names.use(far(n), NOW, NOW + 60);
  // 32 entries are looked at each time; those in use step back.
  const learned = Array.from({ length: 8 }, (_, n) => bind(victim, "v", 2000 + n));
  assert.deepEqual(learned.slice(4), [true, true, true, true]);
  assert.ok(table.bindings() <= 1000);
  for (let n = 0; n < 100; n++) assert.ok(hog.guard.names.get(far(n)) !== undefined, "a live connection's binding stays");
  const before = victim.guard.names.size;
  assert.ok(bind(victim, "v", 2007), "what is known already needs no room");
  assert.equal(victim.guard.names.size, before);
});

test("one pod's names take at most a sixteenth of the kernel's decisions", () => {
  const { add, elements } = node(100_000);
  const hog = add("hog", policy(1, 64));
  for (let n = 0; n < 1000; n++) bind(hog, "h", n);
  assert.ok(elements() > 30_000 && elements() <= 32_768, `${elements()}`);
  for (let n = 0; n < 1000; n++) bind(hog, "h", 5000 + n); // the name is full: each takes the place of an old one
  assert.ok(elements() > 30_000 && elements() <= 32_768, `${elements()}`);
});

test("many names of one address, many ports and many rules cost no time when a reply comes", () => {
  const { add } = node(100_000);
  const hog = add("hog", policy(200, 64));
  const from = performance.now();
  for (let k = 0; k < 64; k++) bind(hog, `h${k}`, 1);
  // 64 names × 64 ports × 65 decisions × 200 rules a name were 5 s; now the address is asked for at the first packet.
  assert.ok(performance.now() - from < 1000);
  assert.deepEqual(hog.guard.elements(far(1), NOW), []);
  assert.equal(hog.guard.decide(6, 1000, far(1), hog.guard.seen(far(1), NOW)).kernel, "pass");
});

test("addresses that there was no time for are told to the kernel when there is, pod by pod, and not for ever", () => {
  const { table, add, kernel, elements } = node(100_000);
  const [hog, victim] = [add("hog", policy(1, 1)), add("victim", policy(1, 1))];
  const late = (pod: GuardedPod, n: number): boolean =>
    pod.learn({ name: name("x.evil.example"), via: "asked", address: far(n), ttl: 300 }, NOW, performance.now() - 1) !== "refused";
  for (let n = 0; n < 3; n++) assert.ok(late(hog, n));
  assert.ok(late(victim, 0));
  assert.deepEqual([elements(), hog.owed.size, victim.owed.size], [0, 3, 1]);
  let nowMs = NOW * 1000;
  const context = { pods: table, kernel, nowMs: () => nowMs, now: () => NOW };
  hog.work.has(nowMs);
  hog.work.spend(1000);
  let next = 0;
  // A round has few milliseconds, and this machine may be busy.
  const settle = (pod: GuardedPod): void => {
    for (let round = 0; round < 100 && pod.owed.size > 0; round++) next = settleOwed(context, next);
  };
  settle(victim);
  assert.deepEqual([elements(), hog.owed.size, victim.owed.size], [1, 3, 0], "it has had its share of this second");
  nowMs += 60_000;
  settle(hog);
  assert.deepEqual([elements(), hog.owed.size], [4, 0]);

  late(hog, 9);
  for (let tries = 0; tries < 10; tries++) hog.owed.next((address) => hog.settle(address, NOW, performance.now() - 1));
  assert.deepEqual([elements(), hog.owed.size], [4, 0], "what always takes too long is asked for");
  assert.ok(late(hog, 9) && hog.owed.size === 0, "nothing new");
  for (let n = 0; n < 5000; n++) late(victim, n);
  assert.ok(victim.owed.size <= 4096);
});

test("a policy change of a pod with many names lets packets in between", () => {
  const { add } = node(100_000);
  const hog = add("hog", policy(1, 1));
  for (let n = 0; n < 1000; n++) bind(hog, `h${n}`, n);
  const steps = [...hog.update(rulebook([policy(1, 2)]) as Rulebook, hog.attachment, () => false, NOW, hog.pod)].length;
  assert.ok(steps > 10, `${steps} turns`);
  assert.equal(hog.guard.names.get(far(999))?.told.length, 2, "both ports, at the end");
});

test("a reply with a long chain and many addresses teaches a bounded number of pairs", () => {
  const chain = Array.from({ length: 16 }, (_, i) => ({
    name: labels(`c${i}.evil.example`),
    type: 5,
    data: { name: labels(`c${i + 1}.evil.example`) },
  }));
  const addresses = Array.from({ length: 900 }, (_, n) => ({
    name: labels("c16.evil.example"),
    type: 1,
    data: Uint8Array.from([198, 18, n >> 8, n & 255]),
  }));
  const bytes = encode({ questions: [{ name: labels("c0.evil.example"), type: 1 }], answers: [...chain, ...addresses] });
  const out: Learned[] = [];
  const outcome = learn(bytes, 0, bytes.length, out);
  assert.equal(outcome.kind, "learned");
  assert.ok(out.length > 1500 && out.length <= 2000, `${out.length}`);
  assert.ok(outcome.excess > 0);
});

test("a pod that opens thousands of connections to a resolver loses only its own", () => {
  const { add } = node(1000);
  const [hog, victim] = [add("hog", policy(1, 1)), add("victim", policy(1, 1))];
  const syn = (sourcePort: number): Packet => ({ ...newPacket(), protocol: 6, sourcePort, destinationPort: 53, tcpFlags: 2, sequence: 1 });
  const got: number[] = [];
  const bytes = Uint8Array.from([0, 3, 7, 8, 9]);
  const piece = (sequence: number, from: number, to: number): Packet => ({
    ...syn(9),
    tcpFlags: 16,
    sequence,
    bytes,
    payloadStart: from,
    payloadEnd: to,
  });
  victim.queryStreams.feed(syn(9), 1, () => undefined);
  assert.equal(
    victim.queryStreams.feed(piece(2, 0, 2), 2, () => undefined),
    "partial",
  );
  for (let port = 1; port <= 5000; port++) hog.queryStreams.feed(syn(port), 3, () => undefined);
  assert.ok(hog.queryStreams.connections <= 512);
  assert.equal(
    victim.queryStreams.feed(piece(4, 2, 5), 4, (all, start, end) => got.push(...all.subarray(start, end))),
    "complete",
  );
  assert.deepEqual(got, [7, 8, 9]);
});

test("a bucket of work runs into debt and comes out of it with time", () => {
  const bucket = new TokenBucket(700, 50);
  assert.ok(bucket.has(1000));
  bucket.spend(400);
  assert.ok(!bucket.has(1000));
  assert.ok(!bucket.has(1400));
  assert.ok(bucket.has(1600));
});

test("pods are visited in turn, each once in a round, also while some come and go", () => {
  const { table, add } = node(1000);
  const visited: string[] = [];
  const third = (): void => table.inTurn(1 / 3, ({ pod }) => void visited.push(pod.name));
  third(); // nobody is there
  for (const podName of ["a", "b", "c", "d", "e", "f"]) add(podName, policy(1, 1));
  for (let i = 0; i < 3; i++) third();
  assert.deepEqual(visited.splice(0), ["a", "b", "c", "d", "e", "f"]);
  third();
  table.delete(table.byKey.get("shop/c" as never) as GuardedPod);
  add("g", policy(1, 1));
  for (let i = 0; i < 3; i++) third();
  assert.deepEqual(visited, ["a", "b", "d", "e", "f", "g", "a", "b"]);
});

test("a clock that is set back does not starve a bucket", () => {
  const bucket = new TokenBucket(1, 1);
  assert.ok(bucket.take(3_600_000));
  assert.ok(!bucket.take(0));
  assert.ok(bucket.take(1000));
  assert.ok(!bucket.take(900));
  assert.ok(!bucket.take(1100), "what is a little late gives nothing");
});
