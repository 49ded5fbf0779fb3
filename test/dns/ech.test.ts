import assert from "node:assert/strict";
import { test } from "node:test";
import { checksum, sumPseudoHeader, sumWords } from "../../src/base/checksum.ts";
import { parseIp, type Ip } from "../../src/base/address.ts";
import type { DnsName } from "../../src/base/name.ts";
import { mayHaveEch, stripEch } from "../../src/dns/ech.ts";
import { Message, Type } from "../../src/dns/message.ts";
import { decodeIp, newPacket } from "../../src/capture/decode.ts";
import { udpReply } from "../../src/dns/packets.ts";
import { learn } from "../../src/dns/reply.ts";
import { Patches, resealed } from "../../src/dns/rewrite.ts";
import { type Packet, Protocol } from "../../src/model/packet.ts";
import { a, ask, cname, encode, param, randomFrom, svcb, type TestMessage, type TestRecord } from "./encode.ts";

const only =
  (...names: string[]) =>
  (name: DnsName): boolean =>
    names.includes(name);
const KEYS = [0xfe, 0x0d, 1, 2, 3];
const before = [...param(1, 2, 0x68, 0x32), ...param(4, 192, 0, 2, 1)];
const after = param(6, ...new Array<number>(16).fill(7));
const filler = (octets: number): number[] => param(65534, ...new Array<number>(octets).fill(0));

/** The parameters of each HTTPS and SVCB record that a reader still finds, in hexadecimal. */
function services(bytes: Uint8Array): string[] {
  const message = new Message();
  assert.ok(message.open(bytes, 0, bytes.length) && message.question());
  const found: string[] = [];
  for (let left = message.answers + message.authorities + message.additionals; left > 0; left--) {
    assert.ok(message.record());
    if (message.type !== Type.HTTPS && message.type !== Type.SVCB) continue;
    let at = message.data + 2;
    while (bytes[at] !== 0) at += 1 + (bytes[at] as number);
    found.push(Buffer.from(bytes.subarray(at + 1, message.dataEnd)).toString("hex"));
  }
  return found;
}
const hex = (octets: readonly number[]): string => Buffer.from(octets).toString("hex");

function stripped(message: TestMessage, ...names: string[]): { count: number; bytes: Uint8Array; services: string[] } {
  const bytes = encode(message);
  const length = bytes.length;
  const count = stripEch(bytes, 0, bytes.length, only(...names));
  assert.equal(bytes.length, length);
  return { count, bytes, services: services(bytes) };
}

test("the keys go, everything else stays, and so does the length", () => {
  const message: TestMessage = {
    questions: ask("a.test", 65),
    flags: 0x81a0,
    answers: [
      svcb("a.test", 1, "svc.test", [...before, ...param(5, ...KEYS), ...after]),
      svcb("a.test", 2, "", [...before, ...after]),
      a("a.test", [192, 0, 2, 9]),
    ],
    additionals: [a("svc.test", [192, 0, 2, 8]), svcb("other.test", 1, "", param(5, ...KEYS))],
  };
  const { count, bytes, services: left } = stripped(message, "a.test");
  assert.equal(count, 2);
  assert.deepEqual(left, [hex([...before, ...after, ...filler(5)]), hex([...before, ...after]), hex(filler(5))]);
  assert.equal(Buffer.from(bytes).includes(Buffer.from(KEYS)), false, "not one octet of them is left");
  assert.equal((bytes[3] as number) & 0x20, 0, "AD");
  const learned: { address: Ip }[] = [];
  const outcome = learn(bytes, 0, bytes.length, learned as never[]);
  assert.deepEqual([outcome.kind, outcome.ech, learned.length], ["learned", false, 5]);
  assert.equal(stripEch(bytes, 0, bytes.length, only("a.test")), 0, "once is enough");
});

test("whose records, and which", () => {
  const ech = (name: string, type = 65): TestRecord[] => [svcb(name, 1, "", param(5, ...KEYS), 300, type)];
  const rows: [string, TestMessage, string[], number][] = [
    ["the asked name", { questions: ask("a.test", 65), answers: ech("a.test") }, ["a.test"], 1],
    ["SVCB", { questions: ask("a.test", 64), answers: ech("a.test", 64) }, ["a.test"], 1],
    ["another name", { questions: ask("b.test", 65), answers: ech("b.test") }, ["a.test"], 0],
    [
      "behind a CNAME of the asked name",
      { questions: ask("a.test", 65), answers: [cname("a.test", "b.test"), ...ech("b.test")] },
      ["a.test"],
      1,
    ],
    ["the owner, where another was asked for", { questions: ask("b.test", 65), answers: ech("a.test") }, ["a.test"], 1],
    ["in the authority section", { questions: ask("a.test", 65), authorities: ech("a.test") }, ["a.test"], 1],
    ["a query", { questions: ask("a.test", 65), flags: 0x0100, answers: ech("a.test") }, ["a.test"], 0],
    ["two questions", { questions: [...ask("a.test", 65), ...ask("a.test", 65)], answers: ech("a.test") }, ["a.test"], 0],
    ["of another class", { questions: ask("a.test", 65), answers: [{ ...(ech("a.test")[0] as TestRecord), class: 3 }] }, ["a.test"], 0],
  ];
  for (const [what, message, names, expected] of rows) {
    const bytes = encode(message);
    const sent = bytes.slice();
    assert.equal(stripEch(bytes, 0, bytes.length, only(...names)), expected, what);
    if (expected === 0) assert.deepEqual(bytes, sent, what);
  }
});

test("a record that needs the keys is one that no client can use", () => {
  const mandatory = stripped(
    {
      questions: ask("a.test", 65),
      answers: [svcb("a.test", 1, "", [...param(0, 0, 4, 0, 5, 0, 6), ...param(4, 1, 2, 3, 4), ...param(5, 9), ...after])],
    },
    "a.test",
  );
  assert.deepEqual(mandatory.services, [hex([...param(0, 0, 4, 0, 6, 0xff, 0xfe), ...param(4, 1, 2, 3, 4), ...after, ...filler(1)])]);
  const rows: [string, number[]][] = [
    ["the place of the filler is taken", [...param(5, ...KEYS), ...param(65534)]],
    ["malformed: out of order", [...param(5, ...KEYS), ...param(4, 1, 2, 3, 4)]],
    ["malformed: empty keys", param(5)],
  ];
  for (const [what, params] of rows) {
    const { services: left, count } = stripped({ questions: ask("a.test", 65), answers: [svcb("a.test", 1, "", params)] }, "a.test");
    assert.deepEqual([count, left], [1, []], what);
  }
});

test("what is not whole yet: only what goes beyond the question of such a query waits", () => {
  const whole = encode({ questions: ask("a.test", 65), answers: [svcb("a.test", 1, "", param(5, ...KEYS))] });
  const question = encode({ questions: ask("a.test", 65) }).length;
  for (let end = 0; end <= whole.length; end++) assert.equal(mayHaveEch(whole, 0, end, only("a.test")), end > question, String(end));
  assert.equal(mayHaveEch(whole, 0, whole.length, only("b.test")), false);
  const other = encode({ questions: ask("a.test", 1), answers: [a("a.test", [1, 2, 3, 4])] });
  assert.equal(mayHaveEch(other, 0, other.length, only("a.test")), false);
});

test("hostile replies: no throw, the same length, nothing outside touched, no keys left that a reader would find", () => {
  const random = randomFrom(11);
  const below = (limit: number): number => random() % limit;
  const seeds = [
    encode({ questions: ask("a.test", 65), answers: [svcb("a.test", 1, "s.test", [...before, ...param(5, ...KEYS), ...after])] }),
    encode({
      questions: ask("a.test", 65),
      answers: [cname("a.test", "b.test"), svcb("b.test", 1, "", [...param(0, 0, 5), ...param(5, 9, 9)]), svcb("b.test", 0, "c.test", [])],
      additionals: [svcb("c.test", 1, "", param(5, ...KEYS)), a("c.test", [1, 2, 3, 4])],
    }),
  ];
  let changed = 0;
  for (let i = 0; i < 20_000; i++) {
    const base = seeds[below(seeds.length)] as Uint8Array;
    const work = new Uint8Array(base.length + 20).fill(0xaa);
    work.set(base, 10);
    for (let k = below(4); k > 0; k--) work[10 + below(base.length)] = below(2) === 0 ? below(256) : below(8);
    const end = below(4) === 0 ? 10 + below(base.length) : 10 + base.length;
    const outside = (): string => hex([...work.subarray(0, 10), ...work.subarray(end)]);
    const around = outside();
    if (stripEch(work, 10, end, () => true) > 0) changed++;
    assert.equal(outside(), around);
    assert.equal(learn(work, 10, end, []).ech, false);
  }
  assert.ok(changed > 5000, String(changed));
});

const POD = parseIp("2001:db8::7") as Ip;
const RESOLVER = parseIp("2001:db8::53") as Ip;

test("a UDP packet with a changed payload has a right checksum; one that is not all here is left alone", () => {
  for (const [pod, resolver] of [
    [POD, RESOLVER],
    [parseIp("10.0.0.7") as Ip, parseIp("10.96.0.10") as Ip],
  ] as const) {
    const dns = encode({ questions: ask("a.test", 65), answers: [svcb("a.test", 1, "", param(5, ...KEYS))] });
    const query = { ...newPacket(), source: pod, destination: resolver, sourcePort: 4000, destinationPort: 53 };
    const bytes = udpReply(query, dns) as Uint8Array;
    const packet = newPacket();
    assert.ok(decodeIp(bytes, 0, bytes.length, packet));
    assert.equal(stripEch(bytes, packet.payloadStart, packet.payloadEnd, only("a.test")), 1);
    bytes[packet.transport + 6] = 0; // as offload leaves it
    const whole = resealed(packet) as Uint8Array;
    assert.equal(whole.length, bytes.length);
    const length = packet.end - packet.transport;
    const sum = sumPseudoHeader(resolver, pod, Protocol.UDP, length);
    assert.equal(checksum(sumWords(whole, packet.transport, packet.end, sum)), 0);
    assert.equal(resealed({ ...packet, end: packet.end - 1 }), undefined);
    assert.equal(resealed({ ...packet, fragment: true }), undefined);
  }
});

test("a message that was changed is changed in every segment that has a part of it", () => {
  const sent = Uint8Array.from({ length: 40 }, (_, i) => i);
  const wanted = sent.map((octet, i) => (i >= 10 && i < 30 ? 255 - octet : octet));
  const first = 0xfffffff0; // sequence numbers go round
  const segment = (from: number, to: number, port = 4000): Packet => ({
    ...newPacket(),
    source: RESOLVER,
    destination: POD,
    sourcePort: 53,
    destinationPort: port,
    protocol: Protocol.TCP,
    bytes: sent.slice(from, to),
    payloadStart: 0,
    payloadEnd: to - from,
    sequence: (first + from) >>> 0,
  });
  const patches = new Patches();
  patches.add(segment(0, 40), (first + 10) >>> 0, wanted.slice(10, 30));
  for (let from = 0; from < 40; from++) {
    for (let to = from; to <= 40; to++) {
      const packet = segment(from, to);
      assert.equal(patches.apply(packet), Math.max(from, 10) < Math.min(to, 30), `${from} ${to}`);
      assert.deepEqual(packet.bytes, wanted.slice(from, to));
    }
  }
  assert.equal(patches.apply(segment(0, 40, 4001)), false, "another connection");
  assert.deepEqual(
    [1, 2, 3, 4].map(() => patches.mayWait(segment(0, 40))),
    [true, true, true, false],
    "not for ever",
  );
  for (let i = 0; i < 40; i++) patches.add(segment(0, 40), first + 1000 * i + 100, new Uint8Array(65_000));
  assert.equal(patches.apply(segment(0, 40)), false, "bounded: the oldest are forgotten");
});
