import assert from "node:assert/strict";
import { test } from "node:test";
import dnsPacket from "dns-packet";
import { readQuery, refused, type Query } from "../../src/dns/query.ts";
import { a, ask, encode, labels, type TestMessage, type TestRecord } from "./encode.ts";

const opt = (dnssecOk = false, name: readonly string[] = []): TestRecord => ({
  name,
  type: 41,
  class: 1232,
  ttl: dnssecOk ? 0x8000 : 0,
  data: Uint8Array.of(0, 10, 0, 2, 7, 7),
});
const query = (message: Partial<TestMessage> = {}): TestMessage => ({ id: 0xbeef, flags: 0x0100, questions: ask("a.test"), ...message });

/** Read from inside other bytes. */
function read(bytes: Uint8Array): Query | string {
  const padded = new Uint8Array(bytes.length + 9).fill(0xaa);
  padded.set(bytes, 4);
  const result = readQuery(padded, 4, 4 + bytes.length);
  return "bad" in result ? result.bad : { ...result, questionEnd: result.questionEnd - 4 };
}

test("good queries", () => {
  assert.deepEqual(read(encode(query())), {
    id: 0xbeef,
    flags: 0x0100,
    opcode: 0,
    rd: true,
    qname: "a.test",
    qtype: 1,
    qclass: 1,
    edns: false,
    dnssecOk: false,
    questionEnd: 24,
  });
  const rows: [string, TestMessage, Partial<Query>][] = [
    ["0x20", query({ questions: ask("A.tEsT", 28) }), { qname: "a.test" as never, qtype: 28 }],
    ["EDNS", query({ additionals: [opt()] }), { edns: true, dnssecOk: false }],
    ["EDNS with DO", query({ additionals: [opt(true)] }), { edns: true, dnssecOk: true }],
    [
      "EDNS and TSIG",
      query({ additionals: [opt(), { name: labels("key"), type: 250, class: 255, data: new Uint8Array(4) }] }),
      { edns: true },
    ],
    ["no RD", query({ flags: 0 }), { rd: false }],
    ["UPDATE", query({ flags: 0x2800 }), { opcode: 5 }],
    ["the root", query({ questions: [{ name: [], type: 2 }] }), { qname: undefined, qtype: 2 }],
    ["dot in a label", query({ questions: [{ name: ["a.b", "test"], type: 1 }] }), { qname: undefined }],
    ["class CH", query({ questions: [{ name: labels("version.bind"), type: 16, class: 3 }] }), { qclass: 3 }],
  ];
  for (const [what, message, expected] of rows) {
    const got = read(encode(message));
    assert.ok(typeof got === "object", `${what}: ${String(got)}`);
    for (const [key, value] of Object.entries(expected)) assert.equal(got[key as keyof Query], value, `${what}: ${key}`);
  }
});

test("bad queries", () => {
  const good = encode(query());
  const rows: [string, Uint8Array, RegExp][] = [
    ["a reply", encode(query({ flags: 0x8100 })), /reply/],
    ["no question", encode(query({ questions: [] })), /one question/],
    ["two questions", encode(query({ questions: [...ask("a.test"), ...ask("b.test")] })), /one question/],
    ["an answer", encode(query({ answers: [a("a.test", [1, 2, 3, 4])] })), /records/],
    ["an authority", encode(query({ authorities: [a("a.test", [1, 2, 3, 4])] })), /records/],
    ["9 additional records", encode(query({ additionals: new Array<TestRecord>(9).fill(a("a", [1, 2, 3, 4])) })), /too many/],
    ["two OPT", encode(query({ additionals: [opt(), opt()] })), /OPT/],
    ["OPT with a name", encode(query({ additionals: [opt(false, ["a"])] })), /OPT/],
    ["a forward pointer", Uint8Array.of(...good.subarray(0, 12), 0xc0, 18, 0, 1, 0, 1, 1, 97, 0), /question/],
    ["octets behind", Uint8Array.of(...good, 0), /after/],
  ];
  for (const [what, bytes, expected] of rows) assert.match(String(read(bytes)), expected, what);
  const full = encode(query({ additionals: [opt()] }));
  for (let end = 0; end < full.length; end++) assert.equal(typeof read(full.subarray(0, end)), "string", `cut at ${end}`);
});

test("REFUSED: id, opcode, RD and the question as it was", () => {
  const bytes = encode(query({ questions: ask("wWw.ExAmPlE.com", 65) }));
  const reply = refused(bytes, 0, bytes.length);
  assert.ok(reply !== undefined);
  assert.deepEqual([...reply.subarray(0, 12)], [0xbe, 0xef, 0x81, 0x85, 0, 1, 0, 0, 0, 0, 0, 0]);
  assert.deepEqual(reply.subarray(12), bytes.subarray(12));
  const decoded = dnsPacket.decode(Buffer.from(reply)) as dnsPacket.DecodedPacket & { rcode: string };
  assert.deepEqual(
    [decoded.id, decoded.type, decoded.rcode, decoded.questions?.[0]?.name],
    [0xbeef, "response", "REFUSED", "wWw.ExAmPlE.com"],
  );
  const padded = new Uint8Array(bytes.length + 7);
  padded.set(bytes, 7);
  assert.deepEqual(refused(padded, 7, padded.length), reply, "wherever it stands");
  const update = encode(query({ flags: 0x2810 }));
  assert.deepEqual(
    [...(refused(update, 0, update.length) as Uint8Array).subarray(2, 4)],
    [0xa8, 0x95],
    "opcode and CD kept, RD not invented",
  );
});

test("REFUSED with EDNS: error 18, Prohibited", () => {
  for (const dnssecOk of [false, true]) {
    const bytes = encode(query({ additionals: [opt(dnssecOk)] }));
    const reply = refused(bytes, 0, bytes.length) as Uint8Array;
    const decoded = dnsPacket.decode(Buffer.from(reply));
    assert.equal(decoded.additionals?.length, 1);
    const record = decoded.additionals?.[0] as unknown as {
      type: string;
      name: string;
      udpPayloadSize: number;
      flag_do: boolean;
      extendedRcode: number;
      ednsVersion: number;
      options: { code: number; data: Buffer }[];
    };
    assert.deepEqual(
      [record.type, record.name, record.udpPayloadSize, record.flag_do, record.extendedRcode, record.ednsVersion],
      ["OPT", ".", 1232, dnssecOk, 0, 0],
    );
    assert.deepEqual(
      record.options.map((o) => [o.code, [...o.data]]),
      [[15, [0, 18]]],
    );
  }
});

test("what cannot be read gets FORMERR, what must not be answered nothing", () => {
  const bad = encode(query({ questions: [...ask("a.test"), ...ask("b.test")] }));
  assert.deepEqual([...(refused(bad, 0, bad.length) ?? [])], [0xbe, 0xef, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(refused(bad, 0, 11), undefined);
  assert.equal(refused(bad, 0, 12)?.length, 12);
  const reply = encode(query({ flags: 0x8180 }));
  assert.equal(refused(reply, 0, reply.length), undefined);
  assert.equal(refused(new Uint8Array(0), 0, 0), undefined);
});
