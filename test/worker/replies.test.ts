import assert from "node:assert/strict";
import { test } from "node:test";
import { NfVerdict, type PacketQueue, RECORD_WORDS, RecordWord } from "../../src/base/addon.ts";
import { newPacket } from "../../src/capture/decode.ts";
import { udpReply } from "../../src/dns/packets.ts";
import { rulebook } from "../../src/worker/guard.ts";
import { NameWatch } from "../../src/worker/name-watch.ts";
import { GuardedPod } from "../../src/worker/pods.ts";
import { LIMITS_DEFAULT } from "../../src/worker/protocol.ts";
import { Replies } from "../../src/worker/replies.ts";
import { encode, labels } from "../dns/encode.ts";
import { desk, ip, podOf, policyOf, RESOLVER } from "./desk.ts";

const POD = ip("10.244.0.7");
const TTL = 60;

/** A pod that is told that api.example.com has an address; `done` is what happens, in its order. */
function told() {
  const { context, clock, events } = desk();
  const done: string[] = [];
  const note = (what: string) => () => void done.push(what);
  Object.assign(context.kernel, { allow: note("allow"), remember: note("remember"), commit: note("commit") });
  const book = rulebook([policyOf("api", "Enforce")]);
  assert.ok(book);
  const pod = podOf("a", ["10.244.0.7"], "veth7");
  const guarded = new GuardedPod(pod, book, { kind: "routed", interface: "veth7", index: 7 }, context.kernel, LIMITS_DEFAULT);
  context.pods.set(guarded);
  const replies = new Replies(context, new NameWatch(context, 1));
  const packets = new Uint8Array(4096);
  const records = new Uint32Array(2 * RECORD_WORDS);
  const verdicts = new Uint32Array(4);
  const queue = { packets, records, verdicts, release: note("released"), replace: () => undefined } as unknown as PacketQueue;
  /** What happens with one batch of replies about these hosts. */
  const hold = (...hosts: string[]): string[] => {
    let at = 0;
    for (const [i, host] of hosts.entries()) {
      const question = { name: labels(host), type: 1 };
      const dns = encode({ questions: [question], answers: [{ ...question, ttl: TTL, data: Uint8Array.of(198, 51, 100, 1) }] });
      const query = { ...newPacket(), source: POD, sourcePort: 40_000, destination: RESOLVER, destinationPort: 53 };
      const packet = udpReply(query, dns) as Uint8Array;
      packets.set(packet, at);
      records[i * RECORD_WORDS + RecordWord.offset] = at;
      records[i * RECORD_WORDS + RecordWord.length] = packet.length;
      verdicts[2 * i] = NfVerdict.drop;
      at += packet.length;
    }
    done.length = 0;
    replies.hold(queue, hosts.length);
    assert.ok(hosts.every((_, i) => verdicts[2 * i] === NfVerdict.accept));
    return [...done];
  };
  return { hold, clock, guarded, context, events };
}

test("a name that is new is in the kernel before its reply is released", () => {
  const { hold } = told();
  assert.deepEqual(hold("api.example.com"), ["remember", "allow", "commit", "released", "commit"]);
});

test("one that the kernel has is released first, and lasts longer then; one that is about to run out is not", () => {
  const { hold, clock, guarded } = told();
  const expires = (): number => guarded.guard.names.get(ip("198.51.100.1"))?.firstTold?.expires as number;
  hold("api.example.com");
  const first = expires();
  assert.deepEqual(hold("api.example.com"), ["commit", "released", "commit"], "nothing has changed");
  clock.nowMs += 5000;
  assert.deepEqual(hold("api.example.com"), ["commit", "released", "remember", "allow", "commit"]);
  assert.equal(expires(), first + 5);
  clock.nowMs = (expires() - 1) * 1000;
  assert.deepEqual(hold("api.example.com"), ["remember", "allow", "commit", "released", "commit"]);
  clock.nowMs = (expires() + 1) * 1000;
  assert.deepEqual(hold("api.example.com"), ["remember", "allow", "commit", "released", "commit"]);
});

test("each reply of a batch is remembered as what it was, though it is looked at when all are on their way", () => {
  const { hold, guarded, context } = told();
  hold("api.example.com", "other.example.com");
  assert.deepEqual(
    ["api.example.com", "other.example.com"].map((name) => guarded.heard.get(name as never)?.answered?.ttl),
    [TTL, TTL],
  );
  assert.equal(context.counters.replies, 2);
  assert.equal(context.counters.faults, 0);
});

test("a fault when a reply is on its way is counted, and spoils nothing", () => {
  const { hold, guarded, context } = told();
  Object.assign(guarded.heard, {
    take: () => {
      throw new Error("a mistake");
    },
  });
  assert.deepEqual(hold("api.example.com"), ["remember", "allow", "commit", "released", "commit"]);
  assert.equal(context.counters.faults, 1);
});
