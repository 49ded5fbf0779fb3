import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { NetlinkSocket } from "../../src/base/addon.ts";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { ConntrackBatch, ConntrackDump, type ConntrackEntry, type FlowTuple } from "../../src/firewall/conntrack.ts";
import { newEntry } from "../../src/firewall/conntrack-entry.ts";
import { readEntry } from "../../src/firewall/conntrack-read.ts";
import { newMessage, readMessage } from "../../src/base/netlink-read.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;
const FLOW: FlowTuple = {
  protocol: 6,
  origSource: ip("10.0.0.1"),
  origDestination: ip("192.0.2.1"),
  origSourcePort: 4711,
  origDestinationPort: 443,
};
const TUPLE4 =
  "34000180" +
  "14000180" +
  "080001000a000001" +
  "08000200c0000201" +
  "1c000280" +
  "0500010006000000" +
  "0600020012670000" +
  "0600030001bb0000";

/** A kernel that answers each message with `errors(number)`, or nothing for undefined. */
function kernel(errors: (index: number) => number | undefined): NetlinkSocket & { readonly seen: string[] } {
  const seen: string[] = [];
  let index = 0;
  return {
    seen,
    transact(bytes, length, reply) {
      const request = Buffer.from(bytes.slice(0, length));
      let used = 0;
      for (let at = 0; at < length; at += request.readUInt32LE(at)) {
        seen.push(request.subarray(at, at + request.readUInt32LE(at)).toString("hex"));
        const error = errors(index++);
        if (error === undefined) throw Object.assign(new Error("late"), { code: "ETIMEDOUT" });
        const answer = Buffer.alloc(36);
        answer.writeUInt32LE(36, 0);
        answer.writeUInt16LE(2, 4);
        request.copy(answer, 8, at + 8, at + 12);
        answer.writeInt32LE(-error, 16);
        reply.set(answer, used);
        used += 36;
      }
      return used;
    },
    send() {},
    receive() {
      throw Object.assign(new Error("late"), { code: "ETIMEDOUT" });
    },
    close() {},
  };
}

test("a mark is an update without NLM_F_CREATE, cut to its mask; a removal always names its tuple", () => {
  const socket = kernel(() => 0);
  const batch = new ConntrackBatch();
  assert.equal(batch.setMark(FLOW, 0xff, 0x7), 0);
  assert.equal(batch.remove(FLOW, 9), 1);
  assert.deepEqual(batch.commit(socket), { applied: 2, gone: 0, failures: [] });
  const [mark = "", remove = ""] = socket.seen;
  assert.equal(mark.slice(8, 16), "00010500");
  assert.equal(mark.slice(40), `${TUPLE4}0800080000000007` + "0800150000000007");
  assert.equal(remove.slice(8, 16), "02010500");
  assert.equal(remove.slice(40), `${TUPLE4}08000c0000000009`);
});

test("every change gets its answer: applied, gone, refused, in doubt", () => {
  for (const stop of [undefined, 150]) {
    const socket = kernel((i) => (i === stop ? undefined : i % 3 === 0 ? 0 : i % 3 === 1 ? 2 : 1));
    const batch = new ConntrackBatch();
    for (let i = 0; i < 300; i++) batch.setMark({ ...FLOW, origSourcePort: i }, 1, 7);
    const { applied, gone, failures } = batch.commit(socket);
    assert.equal(applied + gone + failures.length, 300);
    assert.equal(batch.count, 0);
    assert.deepEqual(
      new Set(failures.map((f) => f.refusal.code)),
      new Set(stop === undefined ? ["permission"] : ["permission", "no-answer"]),
    );
    assert.equal(new Set(failures.map((f) => f.index)).size, failures.length);
    if (stop === undefined) assert.deepEqual([applied, gone], [100, 100]);
    else for (let i = 150; i < 300; i++) assert.ok(failures.some((f) => f.index === i));
  }
});

/** One CT message of a dump. */
function entryMessage(seq: number, body: string): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32LE(20 + body.length / 2, 0);
  bytes.writeUInt16LE(0x100, 4);
  bytes.writeUInt32LE(seq, 8);
  return Buffer.concat([bytes, Buffer.from(body, "hex")]);
}

function ending(seq: number, type: number, error: number): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32LE(20, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt32LE(seq, 8);
  bytes.writeInt32LE(-error, 16);
  return bytes;
}

/** A socket whose dumps are answered by `answer(seq, request)`. */
function dumping(answer: (seq: number, request: Buffer) => Buffer[]): NetlinkSocket {
  let queue: Buffer[] = [];
  return {
    transact: () => 0,
    send(bytes, length) {
      const request = Buffer.from(bytes.slice(0, length));
      queue = answer(request.readUInt32LE(8), request);
    },
    receive(reply) {
      const next = queue.shift();
      if (next === undefined) throw Object.assign(new Error("late"), { code: "ETIMEDOUT" });
      reply.set(next);
      return next.length;
    },
    close() {},
  };
}

function drain(dump: ConntrackDump): ConntrackEntry[] {
  const entries: ConntrackEntry[] = [];
  while (dump.next((e) => entries.push({ ...e })) === "more");
  return entries;
}

const MARK = (mark: number): string => `08000800${mark.toString(16).padStart(8, "0")}`;

test("a kernel that cannot filter is asked without a filter, and we filter", () => {
  let asked = 0;
  const socket = dumping((seq, request) => {
    asked++;
    if (request.length > 20) return [ending(seq, 2, 95)];
    return [
      Buffer.concat([entryMessage(seq, TUPLE4 + MARK(5)), entryMessage(seq - 1, TUPLE4 + MARK(5)), entryMessage(seq, TUPLE4 + MARK(0x16))]),
      ending(seq, 3, 0),
    ];
  });
  const dump = new ConntrackDump(socket);
  for (const round of [2, 3]) {
    assert.ok(dump.start({ mark: 5, markMask: 7, source: FLOW.origSource }));
    assert.equal(dump.start(), false, "one dump at a time");
    const entries = drain(dump);
    assert.equal(dump.refusal, undefined);
    assert.deepEqual(
      entries.map((e) => [e.mark, e.origSourcePort]),
      [[5, 4711]],
    );
    assert.equal(asked, round);
  }
});

test("a dump that breaks says why, and can be started again", () => {
  let good = false;
  const socket = dumping((seq) => (good ? [entryMessage(seq, TUPLE4), ending(seq, 3, 0)] : [entryMessage(seq, TUPLE4), ending(seq, 3, 1)]));
  const dump = new ConntrackDump(socket);
  dump.start();
  assert.equal(drain(dump).length, 1);
  assert.equal(dump.refusal?.code, "permission");
  good = true;
  assert.ok(dump.start());
  assert.equal(drain(dump).length, 1);
  assert.equal(dump.refusal, undefined);
});

test("whatever bytes come: no throw, and an entry has two addresses of one family", () => {
  const message = newMessage();
  const entry = newEntry();
  const good = entryMessage(
    1,
    `${TUPLE4}${TUPLE4.replace("34000180", "34000280")}${MARK(7)}30000480` + "2c000180" + "0500010003000000".repeat(5),
  );
  const read = (bytes: Buffer): void => {
    for (let at = 0; (at = readMessage(message, bytes, at, bytes.length)) >= 0; ) {
      if (!readEntry(message, entry)) continue;
      assert.equal(entry.origSource.length, entry.family === 4 ? 4 : 16);
      assert.equal(entry.origDestination.length, entry.origSource.length);
    }
  };
  read(good);
  assert.deepEqual([entry.tcpState, entry.mark, entry.replySourcePort], [3, 7, 4711]);
  for (let cut = 0; cut <= good.length; cut++) read(good.subarray(0, cut));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 8 }), (edits) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of edits) bytes[at] = value;
      read(bytes);
    }),
    { numRuns: 2000 },
  );
});
