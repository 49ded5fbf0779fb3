import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { NetlinkSocket } from "../../src/base/addon.ts";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { type Element, Ipset, IpsetBatch, IpsetDump } from "../../src/firewall/ipset.ts";
import { readHeader } from "../../src/firewall/ipset-header.ts";
import { newDumpedElement, readElements, readFailedLine } from "../../src/firewall/ipset-read.ts";
import { newMessage, readMessage } from "../../src/base/netlink-read.ts";
import { FakeSocket } from "./fake-ipset.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;
const MARK = { mark: 1, markMask: 7 };

/** What `batch.commit` sends, hex. */
function sent(fill: (batch: IpsetBatch) => void): string[] {
  const socket = new FakeSocket(() => 0);
  const batch = new IpsetBatch();
  fill(batch);
  batch.commit(socket);
  return socket.requests;
}

/**
 * The attributes of one element as `ipset 7.17` sends them for the same command (strace), the outer DATA header and the
 * line number (0 there) cut off.
 */
const GOLDEN: readonly { readonly say: string; readonly element: Element; readonly bytes: string }[] = [
  {
    say: "10.1.2.3/32,veth0 skbmark 0x1/0x7",
    element: { address: ip("10.1.2.3"), bits: 32, iface: "veth0", ...MARK },
    bytes: "0c000180080001400a01020305000300200000000a00170076657468300000000c001b400000000100000007",
  },
  {
    say: "0.0.0.0/0,veth0 skbmark 0x4/0x7",
    element: { address: ip("0.0.0.0"), bits: 0, iface: "veth0", mark: 4, markMask: 7 },
    bytes: "0c000180080001400000000005000300000000000a00170076657468300000000c001b400000000400000007",
  },
  {
    say: "0.0.0.0/0,cali wildcard skbmark 0x5/0x7",
    element: { address: ip("0.0.0.0"), bits: 0, iface: "cali", wildcard: true, mark: 5, markMask: 7 },
    bytes: "0c0001800800014000000000050003000000000008000840000000800900170063616c69000000000c001b400000000500000007",
  },
  {
    say: "::/0,veth0 skbmark 0x4/0x7",
    element: { address: ip("::"), bits: 0, iface: "veth0", mark: 4, markMask: 7 },
    bytes: "18000180140002400000000000000000000000000000000005000300000000000a00170076657468300000000c001b400000000400000007",
  },
  {
    say: "10.0.0.1,udp:53",
    element: { address: ip("10.0.0.1"), protocol: 17, port: 53 },
    bytes: "0c000180080001400a0000010600044000350000050007001100000" + "0",
  },
  {
    say: "192.0.2.1,tcp:443,10.0.0.1 timeout 300 skbmark 0x1/0x7 comment hello",
    element: { address: ip("192.0.2.1"), protocol: 6, port: 443, address2: ip("10.0.0.1"), timeout: 300, ...MARK, comment: "hello" },
    bytes:
      "0c00018008000140c00002010600044001bb0000080006400000012c05000700060000000c001480080001400a0000010a001a0068656c6c6f0000000c001b400000000100000007",
  },
  {
    say: "2001:db8::1,tcp:443,fd00::1 timeout 300 skbmark 0x1/0x7",
    element: { address: ip("2001:db8::1"), protocol: 6, port: 443, address2: ip("fd00::1"), timeout: 300, ...MARK },
    bytes:
      "180001801400024020010db80000000000000000000000010600044001bb0000080006400000012c05000700060000001800148014000240fd0000000000000000000000000000010c001b400000000100000007",
  },
  {
    say: "192.0.2.1,icmp:echo-request,10.0.0.1 timeout 2147483",
    element: { address: ip("192.0.2.1"), protocol: 1, port: 8 << 8, address2: ip("10.0.0.1"), timeout: 9_999_999 },
    bytes: "0c00018008000140c00002010600044008000000080006400020c49b05000700010000000c001480080001400a000001",
  },
  {
    say: "10.0.0.1,tcp:443,192.0.2.0/24 skbmark 0x1/0x7",
    element: { address: ip("10.0.0.1"), protocol: 6, port: 443, address2: ip("192.0.2.0"), bits2: 24, ...MARK },
    bytes: "0c000180080001400a0000010600044001bb000005000700060000000c00148008000140c000020005001500180000000c001b400000000100000007",
  },
  {
    say: "fd00::1,tcp:443,2001:db8::/32 skbmark 0x1/0x7",
    element: { address: ip("fd00::1"), protocol: 6, port: 443, address2: ip("2001:db8::"), bits2: 32, ...MARK },
    bytes:
      "1800018014000240fd0000000000000000000000000000010600044001bb00000500070006000000180014801400024020010db800000000000000000000000005001500200000000c001b400000000100000007",
  },
];

for (const { say, element, bytes } of GOLDEN) {
  test(`an element is written as the ipset tool writes it: ${say}`, () => {
    const [request = ""] = sent((batch) => batch.add("t", element));
    assert.ok(request.includes(`${bytes}0800094000000001`), request);
  });
}

test("a batch is the message that `ipset -exist restore` sends, but for the sequence number", () => {
  const [request = ""] = sent((batch) => {
    for (const last of [1, 2, 1, 3]) batch.add("t-ip4", { address: ip(`10.0.0.${last}`) });
  });
  const tool =
    "94000000090605000000000000000000" +
    "02000000" +
    "0500010007000000" +
    "0a000200742d697034000000" +
    "0800094000000000" +
    "64000880" +
    "180007800c000180080001400a0000010800094000000001180007800c000180080001400a0000020800094000000002" +
    "180007800c000180080001400a0000010800094000000003180007800c000180080001400a0000030800094000000004";
  assert.equal(request.slice(0, 16) + "00000000" + request.slice(24), tool);
});

test("addIpPortIp writes what add writes", () => {
  const element = { address: ip("192.0.2.1"), protocol: 6, port: 443, address2: ip("10.0.0.1"), timeout: 300, ...MARK, comment: "grüße" };
  const [a = ""] = sent((batch) => batch.add("t", element));
  const [b = ""] = sent((batch) => batch.addIpPortIp("t", element.address, 6, 443, element.address2, 300, 1, 7, "grüße"));
  assert.equal(a.slice(24), b.slice(24));
  const [c = ""] = sent((batch) => batch.add("t", { ...element, zero: true }));
  const [d = ""] = sent((batch) => batch.addIpPortIp("t", element.address, 6, 443, element.address2, 300, 1, 7, "grüße", true));
  assert.equal(c.slice(24), d.slice(24));
  assert.ok(c.includes("0c0019400000000000000000"), "IPSET_ATTR_PACKETS, 64 bits of zero in network order");
});

test("what cannot be an element is refused before it is sent", () => {
  const batch = new IpsetBatch();
  const address = ip("10.0.0.1");
  const rows: Element[] = [
    { address: "" as Ip },
    { address, bits: 33 },
    { address, address2: ip("::1") },
    { address, bits2: 1 },
    { address, port: 1 },
    { address, protocol: 256 },
    { address, protocol: 6, port: 65_536 },
    { address, iface: "" },
    { address, iface: "sixteen-letters!" },
    { address, iface: "a b" },
    { address, comment: "x".repeat(256) },
    { address, comment: "ü".repeat(128) },
    { address, comment: 'a"b' },
    { address, comment: "a\0b" },
  ];
  for (const element of rows) assert.equal(batch.add("t", element), -1, JSON.stringify(element));
  assert.equal(batch.add("", { address }), -1);
  assert.equal(batch.add("x".repeat(32), { address }), -1);
  assert.equal(batch.count, 0);
  assert.equal(batch.add("t", { address, comment: "ü".repeat(127) }), 0);
  assert.equal(batch.count, 1);
});

/** Walks: any mix of adds and deletes, any elements refused; the fake kernel stops at the first of a message as the real one does. */
test("each element gets its own answer, and the last word about it stays the last", () => {
  const op = fc.record({
    set: fc.constantFrom("a", "b", "missing"),
    add: fc.boolean(),
    last: fc.integer({ min: 0, max: 9 }),
    timeout: fc.integer({ min: 1, max: 99 }),
  });
  fc.assert(
    fc.property(
      fc.array(op, { maxLength: 600, size: "max" }),
      fc.uniqueArray(fc.integer({ min: 0, max: 9 }), { maxLength: 3 }),
      fc.boolean(),
      (mixed, bad, adds) => {
        // Adds only, of one set: several messages to the same set travel together.
        const ops = adds ? mixed.map((o) => ({ ...o, set: "a", add: true })) : mixed;
        const socket = new FakeSocket((set, octet) => (set === "missing" ? 2 : bad.includes(octet) ? 4352 : 0));
        const batch = new IpsetBatch();
        const wanted = new Map<string, number>();
        const failing = new Set<number>();
        for (const { set, add, last, timeout } of ops) {
          const element = { address: String.fromCharCode(10, 0, 0, last) as Ip, timeout };
          const index = add ? batch.add(set, element) : batch.del(set, { address: element.address });
          if (set === "missing" || (add && bad.includes(last))) failing.add(index);
          else if (add) wanted.set(`${set} ${last}`, timeout);
          else wanted.delete(`${set} ${last}`);
        }
        const result = batch.commit(socket);
        assert.deepEqual(new Set(result.failures.map((f) => f.index)), failing);
        assert.equal(result.failures.length, failing.size);
        assert.equal(result.applied, ops.length - failing.size);
        for (const { index, refusal } of result.failures) assert.equal(refusal.code, ops[index]?.set === "missing" ? "no-set" : "full");
        assert.deepEqual(socket.state, wanted);
        assert.equal(batch.count, 0);
      },
    ),
    { numRuns: 200 },
  );
});

test("ten thousand elements travel in bounded messages and sends", () => {
  const socket = new FakeSocket(() => 0);
  const batch = new IpsetBatch();
  for (let i = 0; i < 10_000; i++) {
    batch.addIpPortIp("a", String.fromCharCode(10, 0, i >> 8, i & 255) as Ip, 6, 443, ip("10.9.9.9"), 60, 1, 7, "x".repeat(i % 256));
  }
  assert.deepEqual(batch.commit(socket), { applied: 10_000, failures: [] });
  for (const request of socket.requests) assert.ok(request.length / 2 <= 48 * 1024);
  assert.ok(socket.messageBytesMax <= 13 * 1024);
});

test("a call that fails leaves nothing in doubt unsaid, and stops", () => {
  for (const failing of [0, 1]) {
    let calls = 0;
    const kernel = new FakeSocket(() => 0);
    const socket = {
      transact(request: Uint8Array, length: number, reply: Uint8Array, acks: number): number {
        if (calls++ === failing) throw Object.assign(new Error("timed out"), { code: "ETIMEDOUT" });
        return kernel.transact(request, length, reply, acks);
      },
    } as unknown as NetlinkSocket;
    const batch = new IpsetBatch();
    for (let i = 0; i < 20_000; i++) batch.add("a", { address: String.fromCharCode(10, 0, i >> 8, i & 255) as Ip });
    batch.del("a", { address: ip("10.0.0.0") });
    const { applied, failures } = batch.commit(socket);
    assert.equal(calls, failing + 1);
    assert.equal(applied + failures.length, 20_001);
    assert.ok(failing === 0 ? applied === 0 : applied > 0 && applied < 20_000);
    assert.equal(failures[0]?.refusal.code, "no-answer");
    assert.match(failures[0]?.refusal.text ?? "", /ETIMEDOUT/);
  }
});

test("whatever bytes come: no throw, no endless loop", () => {
  const message = newMessage();
  const element = newDumpedElement();
  const read = (bytes: Buffer): void => {
    for (let at = 0, n = 0; (at = readMessage(message, bytes, at, bytes.length)) >= 0; n++) {
      assert.ok(n <= bytes.length / 16);
      readElements(message, element, (e) => assert.ok(e.address.length === 4 || e.address.length === 16));
      readHeader(message);
      readFailedLine(message);
    }
  };
  const good = Buffer.from(
    "58010000070602000100000000000000020000000500010007000000" +
      "0d000200742d616c6c6f773400000000" +
      "b4000880" +
      "4c0007800c00018008000100c00002010c001480080001000a00000106000440080000000500070001000000080006400020c49a0c00184000000000000000000c001940000000000000000064000780" +
      "0c00018008000100c00002010c001480080001000a0000010600044001bb00000500070006000000080006400000012b0c00184000000000000000000c00194000000000000000000a001a0068656c6c6f0000000c001b400000000100000007",
    "hex",
  );
  good.writeUInt32LE(good.length, 0);
  for (let cut = 0; cut <= good.length; cut++) read(good.subarray(0, cut));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => read(Buffer.from(bytes))));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 8 }), (edits) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of edits) bytes[at] = value;
      read(bytes);
    }),
    { numRuns: 2000 },
  );
  let seen = 0;
  readMessage(message, good, 0, good.length);
  readElements(message, element, () => seen++);
  assert.equal(seen, 2);
  assert.equal(element.comment, "hello");
});

test("control and dump end on hostile answers", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 5 }), (answers) => {
      let at = 0;
      const give = (reply: Uint8Array): number => {
        const answer = answers[at++];
        if (answer === undefined) throw Object.assign(new Error("timed out"), { code: "ETIMEDOUT" });
        reply.set(answer);
        return answer.length;
      };
      const socket: NetlinkSocket = { transact: (_r, _l, reply) => give(reply), receive: give, send() {}, close() {} };
      const ipset = new Ipset(socket);
      assert.equal((ipset.create({ name: "x", type: "hash:ip", family: 4 }) ?? { code: "" }).code.length > 0, true);
      at = 0;
      ipset.list();
      at = 0;
      const dump = new IpsetDump(socket);
      assert.ok(dump.start("x"));
      while (dump.next(() => {}) === "more");
    }),
  );
});
