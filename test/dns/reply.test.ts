import assert from "node:assert/strict";
import { test } from "node:test";
import dnsPacket from "dns-packet";
import { ipText } from "../../src/base/address.ts";
import { dnsName, type DnsName } from "../../src/base/name.ts";
import { ADDRESSES_MAX, learn, type ReplyOutcome, withoutSearch } from "../../src/dns/reply.ts";
import type { Learned } from "../../src/model/binding.ts";
import { a, aaaa, ask, cname, encode, labels, param, svcb, type TestMessage, type TestRecord } from "./encode.ts";

/** `name via address ttl`, one string a binding. */
function lines(out: readonly Learned[]): string[] {
  return out.map((l) => `${l.name} ${l.via} ${ipText(l.address)} ${l.ttl}`);
}

function learnt(bytes: Uint8Array, searches?: readonly string[]): { outcome: ReplyOutcome; lines: string[] } {
  // Placed inside other bytes: offsets and pointers must count from the message.
  const padded = new Uint8Array(bytes.length + 60).fill(0xcc);
  padded.set(bytes, 30);
  const out: Learned[] = [{ name: dnsName("left.over") as DnsName, via: "asked", address: "" as never, ttl: 1 }];
  const outcome = learn(padded, 30, 30 + bytes.length, out, searches);
  return { outcome, lines: lines(out) };
}

function row(message: TestMessage, searches?: readonly string[]): { outcome: ReplyOutcome; lines: string[] } {
  const compressed = learnt(encode(message), searches);
  assert.deepEqual(
    learnt(
      encode(message, () => false),
      searches,
    ),
    compressed,
    "compression changes nothing",
  );
  return compressed;
}

test("one address", () => {
  const { outcome, lines } = row({ id: 77, questions: ask("api.stripe.com"), answers: [a("api.stripe.com", [1, 2, 3, 4], 60)] });
  assert.deepEqual(lines, ["api.stripe.com asked 1.2.3.4 60"]);
  assert.deepEqual(outcome, {
    kind: "learned",
    reason: undefined,
    id: 77,
    qname: "api.stripe.com",
    qtype: 1,
    rcode: 0,
    tc: false,
    ech: false,
    answers: 1,
    addresses: 1,
    foreign: 0,
    unusable: 0,
    excess: 0,
  });
});

test("a CNAME chain: every name, the least TTL, in any order", () => {
  const chain = [cname("a.test", "b.test", 300), cname("b.test", "c.test", 20), a("c.test", [9, 9, 9, 9], 100), aaaa("c.test", 1, 5)];
  const expected = [
    "a.test asked 9.9.9.9 20",
    "b.test cname 9.9.9.9 20",
    "c.test cname 9.9.9.9 20",
    "a.test asked 2001:db8::1 5",
    "b.test cname 2001:db8::1 5",
    "c.test cname 2001:db8::1 5",
  ];
  assert.deepEqual(row({ questions: ask("a.test"), answers: chain }).lines, expected);
  assert.deepEqual(row({ questions: ask("a.test"), answers: [chain[2], chain[1], chain[0], chain[3]] as TestRecord[] }).lines, expected);
});

test("an address in the middle of a chain binds the names that lead to it", () => {
  const { lines } = row({
    questions: ask("a.test"),
    answers: [cname("a.test", "b.test", 30), a("b.test", [1, 1, 1, 1], 90), cname("b.test", "c.test", 1)],
  });
  assert.deepEqual(lines, ["a.test asked 1.1.1.1 30", "b.test cname 1.1.1.1 30"]);
});

test("0x20 case is one name", () => {
  assert.deepEqual(
    row({ questions: ask("ApI.StRiPe.cOm"), answers: [cname("aPi.stripe.COM", "X.test"), a("x.TEST", [1, 2, 3, 4])] }).lines,
    ["api.stripe.com asked 1.2.3.4 300", "x.test cname 1.2.3.4 300"],
  );
});

test("records of other owners teach nothing", () => {
  const { outcome, lines } = row({
    questions: ask("good.test"),
    answers: [a("bank.test", [6, 6, 6, 6]), a("good.test", [1, 2, 3, 4]), cname("bank.test", "good.test"), a("test", [6, 6, 6, 6])],
  });
  assert.deepEqual(lines, ["good.test asked 1.2.3.4 300"]);
  assert.equal(outcome.foreign, 3);
  const only = row({ questions: ask("good.test"), answers: [a("bank.test", [6, 6, 6, 6])] });
  assert.deepEqual([only.outcome.kind, only.lines], ["nothing", []]);
});

test("authority and additional sections teach nothing", () => {
  const { outcome, lines } = row({
    questions: ask("a.test"),
    authorities: [a("a.test", [6, 6, 6, 6])],
    additionals: [a("a.test", [6, 6, 6, 6])],
  });
  assert.deepEqual([outcome.kind, lines], ["negative", []]);
});

test("a dot or NUL inside a label is not the name it looks like", () => {
  const flat: TestRecord = { name: ["api.stripe", "com"], type: 1, data: Uint8Array.of(6, 6, 6, 6) };
  const asked = row({ questions: [{ name: ["api.stripe", "com"], type: 1 }], answers: [flat] });
  assert.deepEqual([asked.outcome.kind, asked.outcome.reason, asked.outcome.qname, asked.lines], ["ignored", "name", undefined, []]);
  const owner = row({ questions: ask("api.stripe.com"), answers: [flat, a("api.stripe.com", [1, 2, 3, 4])] });
  assert.deepEqual(owner.lines, ["api.stripe.com asked 1.2.3.4 300"], "the other record is still good");
  const through = row({
    questions: ask("x.test"),
    answers: [{ name: labels("x.test"), type: 5, data: { name: ["api.stripe", "com"] } }, flat],
  });
  assert.deepEqual(through.lines, ["x.test asked 6.6.6.6 300"], "a chain may lead through it; it is no name itself");
  const whole = row({ questions: ask("com"), answers: [{ name: ["com\0"], type: 1, data: Uint8Array.of(6, 6, 6, 6) }] });
  assert.deepEqual([whole.outcome.kind, whole.lines], ["nothing", []]);
});

test("RDLENGTH must be right; the other records stay", () => {
  for (const [type, lengths] of [
    [1, [0, 3, 5, 16]],
    [28, [0, 4, 15, 17]],
  ] as const) {
    for (const length of lengths) {
      const { outcome, lines } = row({
        questions: ask("a.test", type),
        answers: [{ name: labels("a.test"), type, data: new Uint8Array(length) }, a("a.test", [1, 2, 3, 4])],
      });
      assert.deepEqual([lines, outcome.unusable], [["a.test asked 1.2.3.4 300"], 1], `type ${type} length ${length}`);
    }
  }
  const trailing = encode({
    questions: ask("a.test"),
    answers: [{ name: labels("a.test"), type: 5, data: Uint8Array.of(1, 98, 0, 7) }, a("b", [6, 6, 6, 6])],
  });
  assert.deepEqual([learnt(trailing).lines, learnt(trailing).outcome.unusable], [[], 1], "octets after a CNAME's name");
});

test("TTL", () => {
  const ttl = (value: number): string | undefined =>
    row({ questions: ask("a.test"), answers: [a("a.test", [1, 2, 3, 4], value)] }).lines[0]?.split(" ")[3];
  assert.equal(ttl(0), "0");
  assert.equal(ttl(0x7fffffff), "2147483647");
  assert.equal(ttl(0x80000000), "0");
  assert.equal(ttl(0xffffffff), "0");
  assert.equal(
    row({ questions: ask("a.test"), answers: [cname("a.test", "b.test", 0x80000001), a("b.test", [1, 2, 3, 4])] }).lines[0],
    "a.test asked 1.2.3.4 0",
  );
});

test("an IPv4-mapped IPv6 address is the IPv4 address that a socket would use", () => {
  const data = new Uint8Array(16);
  data.set([0xff, 0xff, 1, 2, 3, 4], 10);
  assert.deepEqual(row({ questions: ask("a.test", 28), answers: [{ name: labels("a.test"), type: 28, data }] }).lines, [
    "a.test asked 1.2.3.4 300",
  ]);
});

test("chains: loops end, 16 hops are followed, 17 are not", () => {
  const loop = row({
    questions: ask("a.test"),
    answers: [cname("a.test", "b.test"), cname("b.test", "a.test"), a("b.test", [1, 2, 3, 4])],
  });
  assert.deepEqual(loop.lines, ["a.test asked 1.2.3.4 300", "b.test cname 1.2.3.4 300"]);
  const self = row({ questions: ask("a.test"), answers: [cname("a.test", "A.test"), a("a.test", [1, 2, 3, 4])] });
  assert.deepEqual(self.lines, ["a.test asked 1.2.3.4 300"]);
  const hops = (count: number, backwards: boolean): number => {
    const answers = Array.from({ length: count }, (_, i) => cname(`n${i}.test`, `n${i + 1}.test`));
    if (backwards) answers.reverse();
    return row({ questions: ask("n0.test"), answers: [...answers, a(`n${count}.test`, [1, 2, 3, 4])] }).lines.length;
  };
  for (const backwards of [false, true]) {
    assert.equal(hops(16, backwards), 17);
    assert.equal(hops(17, backwards), 0);
  }
});

test("two CNAMEs of one owner: the first counts", () => {
  const { lines } = row({
    questions: ask("a.test"),
    answers: [cname("a.test", "b.test"), cname("a.test", "c.test"), a("c.test", [6, 6, 6, 6]), a("b.test", [1, 2, 3, 4])],
  });
  assert.deepEqual(lines, ["a.test asked 1.2.3.4 300", "b.test cname 1.2.3.4 300"]);
});

test("records of another class are not ours", () => {
  const { lines } = row({
    questions: ask("a.test"),
    answers: [{ ...a("a.test", [6, 6, 6, 6]), class: 3 }, { ...cname("a.test", "b.test"), class: 255 }, a("b.test", [6, 6, 6, 6])],
  });
  assert.deepEqual(lines, []);
});

test("HTTPS and SVCB: hints for the asked name", () => {
  const hints = [...param(1, 2, 104, 50), ...param(4, 1, 2, 3, 4, 5, 6, 7, 8), ...param(6, ...new Array<number>(15).fill(0), 1)];
  for (const type of [65, 64]) {
    const { outcome, lines } = row({
      questions: ask("a.test", type),
      answers: [cname("a.test", "b.test", 9), svcb("b.test", 1, "", hints, 300, type)],
    });
    assert.deepEqual(lines, ["a.test asked 1.2.3.4 9", "a.test asked 5.6.7.8 9", "a.test asked ::1 9"]);
    assert.equal(outcome.ech, false);
  }
  const ech = row({ questions: ask("a.test", 65), answers: [svcb("a.test", 1, "svc.test", [...param(4, 1, 2, 3, 4), ...param(5, 0, 0)])] });
  assert.deepEqual([ech.lines, ech.outcome.ech], [["a.test asked 1.2.3.4 300"], true]);
  const alias = row({ questions: ask("a.test", 65), answers: [svcb("a.test", 0, "svc.test", [...param(4, 6, 6, 6, 6), ...param(5, 0)])] });
  assert.deepEqual([alias.lines, alias.outcome.ech], [[], false], "AliasMode has no parameters that count");
  const other = row({ questions: ask("a.test", 65), answers: [svcb("b.test", 1, "", hints)] });
  assert.deepEqual([other.lines, other.outcome.foreign], [[], 1]);
});

test("a malformed parameter list spoils its record only", () => {
  const v4 = param(4, 6, 6, 6, 6);
  const rows: [string, number[]][] = [
    ["keys out of order", [...param(6, ...new Array<number>(16).fill(1)), ...v4]],
    ["a key twice", [...v4, ...v4]],
    ["cut in a value", v4.slice(0, -1)],
    ["cut in a key", [...v4, 0]],
    ["ipv4hint of 3 octets", param(4, 6, 6, 6)],
    ["empty ipv4hint", param(4)],
    ["ipv6hint of 4 octets", [...v4, ...param(6, 1, 2, 3, 4)]],
    ["empty ech", [...v4, ...param(5)]],
    ["port of 1 octet", [...param(3, 1), ...v4]],
    ["empty alpn", [...param(1), ...v4]],
    ["alpn with an empty id", [...param(1, 0), ...v4]],
    ["alpn past its end", [...param(1, 9, 104), ...v4]],
    ["no-default-alpn with a value", [...param(1, 1, 104), ...param(2, 1), ...v4]],
    ["no-default-alpn without alpn", [...param(2), ...v4]],
    ["empty mandatory", [...param(0), ...v4]],
    ["mandatory names itself", [...param(0, 0, 0), ...v4]],
    ["mandatory out of order", [...param(0, 0, 4, 0, 3), ...param(3, 1, 187), ...v4]],
    ["mandatory names an absent key", [...param(0, 0, 3), ...v4]],
    ["mandatory names an absent high key", [...param(0, 1, 0), ...v4]],
    ["mandatory of odd length", [...param(0, 0, 4, 0), ...v4]],
  ];
  for (const [what, params] of rows) {
    const { outcome, lines } = row({
      questions: ask("a.test", 65),
      answers: [svcb("a.test", 1, "", params), svcb("a.test", 2, "", param(4, 1, 2, 3, 4))],
    });
    assert.deepEqual([lines, outcome.unusable], [["a.test asked 1.2.3.4 300"], 1], what);
  }
  const target = ["a", "b", "c", "d"].map((c) => c.repeat(63)).join(".");
  assert.equal(
    row({ questions: ask("a.test", 65), answers: [svcb("a.test", 1, target, v4)] }).outcome.unusable,
    1,
    "a target of 257 octets",
  );
  const good = [...param(0, 0, 4, 1, 0), ...param(1, 2, 104, 51), ...param(2), ...param(3, 1, 187), ...v4, ...param(256, 7)];
  assert.equal(row({ questions: ask("a.test", 65), answers: [svcb("a.test", 1, "", good)] }).lines.length, 1, "and a good one is taken");
  const compressedTarget: TestRecord = { name: labels("a.test"), type: 65, data: Uint8Array.of(0, 1, 0xc0, 12, ...v4) };
  assert.equal(row({ questions: ask("a.test", 65), answers: [compressedTarget] }).outcome.unusable, 1, "a compressed target");
});

test("ANY teaches, other types do not", () => {
  assert.equal(row({ questions: ask("a.test", 255), answers: [a("a.test", [1, 2, 3, 4]), aaaa("a.test", 1)] }).lines.length, 2);
  for (const type of [5, 2, 12, 15, 16, 33]) {
    const { outcome, lines } = row({ questions: ask("a.test", type), answers: [cname("a.test", "b.test"), a("b.test", [6, 6, 6, 6])] });
    assert.deepEqual([outcome.kind, lines], ["nothing", []], `type ${type}`);
  }
});

test("replies that teach nothing, and why", () => {
  const good = [a("a.test", [6, 6, 6, 6])];
  const rows: [string, TestMessage, string, string | undefined][] = [
    ["a query", { flags: 0x0100, questions: ask("a.test"), answers: good }, "ignored", "not-a-reply"],
    ["opcode NOTIFY", { flags: 0xa180, questions: ask("a.test"), answers: good }, "ignored", "opcode"],
    ["no question", { questions: [], answers: good }, "ignored", "question-count"],
    ["two questions", { questions: [...ask("a.test"), ...ask("a.test")], answers: good }, "ignored", "question-count"],
    ["class CH", { questions: [{ name: labels("a.test"), type: 1, class: 3 }], answers: good }, "ignored", "class"],
    ["class with the mDNS bit", { questions: [{ name: labels("a.test"), type: 1, class: 0x8001 }], answers: good }, "ignored", "class"],
    ["the root", { questions: [{ name: [], type: 1 }], answers: good }, "ignored", "name"],
    ["SERVFAIL", { flags: 0x8182, questions: ask("a.test"), answers: good }, "ignored", "rcode"],
    ["REFUSED", { flags: 0x8185, questions: ask("a.test"), answers: good }, "ignored", "rcode"],
    ["NXDOMAIN", { flags: 0x8183, questions: ask("a.test"), answers: good }, "negative", undefined],
    ["NODATA", { questions: ask("a.test") }, "negative", undefined],
    ["NODATA after a CNAME", { questions: ask("a.test"), answers: [cname("a.test", "b.test")] }, "negative", undefined],
  ];
  for (const [what, message, kind, reason] of rows) {
    const { outcome, lines } = row(message);
    assert.deepEqual([outcome.kind, outcome.reason, lines], [kind, reason, []], what);
  }
});

test("truncated: what came whole is learned", () => {
  const bytes = encode({ flags: 0x8380, questions: ask("a.test"), answers: [a("a.test", [1, 2, 3, 4]), a("a.test", [5, 6, 7, 8])] });
  const whole = learnt(bytes);
  assert.deepEqual([whole.outcome.kind, whole.lines.length], ["truncated", 2]);
  const cut = learnt(bytes.subarray(0, bytes.length - 3));
  assert.deepEqual([cut.outcome.kind, cut.outcome.tc, cut.lines], ["truncated", true, ["a.test asked 1.2.3.4 300"]]);
  assert.equal(learnt(encode({ flags: 0x8380, questions: ask("a.test") })).outcome.kind, "truncated");
});

test("cut anywhere without TC: malformed, nothing learned", () => {
  const bytes = encode({
    questions: ask("a.test"),
    answers: [a("a.test", [1, 2, 3, 4]), cname("a.test", "b.test"), a("b.test", [5, 6, 7, 8])],
  });
  for (let end = 0; end < bytes.length; end++) {
    const { outcome, lines } = learnt(bytes.subarray(0, end));
    assert.deepEqual([outcome.kind, lines], ["malformed", []], `cut at ${end}`);
    assert.equal(outcome.reason, end < 12 ? "header" : end < 24 ? "question" : "answer");
  }
});

test("a bad pointer in a record of ours spoils the reply", () => {
  const bytes = encode({ questions: ask("a.test"), answers: [a("a.test", [1, 2, 3, 4]), a("a.test", [5, 6, 7, 8])] });
  const second = bytes.length - 16;
  assert.deepEqual([bytes[second], bytes[second + 1]], [0xc0, 12]);
  for (const target of [second, second + 2, 4, 0x3fff]) {
    const bad = bytes.slice();
    bad[second] = 0xc0 | (target >> 8);
    bad[second + 1] = target & 255;
    const { outcome, lines } = learnt(bad);
    assert.deepEqual([outcome.kind, outcome.reason, lines], ["malformed", "answer", []], `pointer to ${target}`);
  }
});

test("at most ADDRESSES_MAX addresses", () => {
  const answers = Array.from({ length: 1300 }, (_, i) => a("a.test", [10, 0, i >> 8, i & 255]));
  const { outcome, lines } = learnt(encode({ questions: ask("a.test"), answers }));
  assert.deepEqual([lines.length, outcome.addresses, outcome.excess], [ADDRESSES_MAX, ADDRESSES_MAX, 300]);
});

test("search suffixes", () => {
  const searches = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"];
  const rows: [string, string][] = [
    ["api.stripe.com.shop.svc.cluster.local", "api.stripe.com"],
    ["api.stripe.com.cluster.local", "api.stripe.com"],
    ["db.shop.svc.cluster.local", "db"],
    ["db.other.svc.cluster.local", "db.other"],
    ["shop.svc.cluster.local", "shop"],
    ["svc.cluster.local", "svc"],
    ["cluster.local", "cluster.local"],
    ["x.notcorp.example", "x.notcorp.example"],
    ["corp.example", "corp.example"],
    ["api.stripe.com", "api.stripe.com"],
  ];
  for (const [name, expected] of rows) assert.equal(withoutSearch(name as DnsName, searches), expected);
  assert.equal(withoutSearch("a.b" as DnsName, [""]), "a.b");
});

test("autopath: the searched name counts as asked, with the pod's suffixes only", () => {
  const searches = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"];
  const via = (asked: string, target: string, s?: readonly string[]): string | undefined =>
    row({ questions: ask(asked), answers: [cname(asked, target), a(target, [1, 2, 3, 4])] }, s).lines[1]?.split(" ")[1];
  assert.equal(via("api.stripe.com.shop.svc.cluster.local", "api.stripe.com", searches), "asked");
  assert.equal(via("db.prod.shop.svc.cluster.local", "db.prod.svc.cluster.local", searches), "asked", "found under another suffix");
  assert.equal(via("api.stripe.com.shop.svc.cluster.local", "api.stripe.com"), "cname");
  assert.equal(via("api.stripe.com.shop.svc.cluster.local", "evil.test", searches), "cname");
  assert.equal(via("api.stripe.com.evil.test", "api.stripe.com", searches), "cname");
  assert.equal(via("www.example.com", "api.stripe.com", searches), "cname");
  assert.equal(via("api.test", "api.test.cluster.local", searches), "cname", "a suffix put on is not one taken off");
  const second = row(
    {
      questions: ask("x.y.cluster.local"),
      answers: [cname("x.y.cluster.local", "z.test"), cname("z.test", "x.y"), a("x.y", [1, 2, 3, 4])],
    },
    searches,
  );
  assert.deepEqual(
    second.lines.map((l) => l.split(" ")[1]),
    ["asked", "cname", "cname"],
    "only the first hop",
  );
});

test("replies as dns-packet writes them", () => {
  const encoded = (answers: dnsPacket.Answer[], additionals: dnsPacket.Answer[] = []): Uint8Array =>
    dnsPacket.encode({
      type: "response",
      id: 4711,
      flags: dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE,
      questions: [{ type: "A", name: "www.microsoft.com" }],
      answers,
      additionals,
    });
  const opt: dnsPacket.Answer = {
    type: "OPT",
    name: ".",
    udpPayloadSize: 1232,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
  const { outcome, lines } = learnt(
    encoded(
      [
        { type: "CNAME", name: "www.microsoft.com", ttl: 3600, data: "www.microsoft.com-c-3.edgekey.net" },
        { type: "CNAME", name: "www.microsoft.com-c-3.edgekey.net", ttl: 900, data: "e13678.dscb.akamaiedge.net" },
        { type: "A", name: "e13678.dscb.akamaiedge.net", ttl: 20, data: "23.50.108.36" },
        { type: "A", name: "e13678.dscb.akamaiedge.net", ttl: 20, data: "23.50.108.37" },
      ],
      [opt],
    ),
  );
  assert.equal(outcome.kind, "learned");
  assert.deepEqual(
    lines.filter((l) => l.includes(" asked ")),
    ["www.microsoft.com asked 23.50.108.36 20", "www.microsoft.com asked 23.50.108.37 20"],
  );
  assert.equal(lines.length, 6);
  const soa: dnsPacket.Answer = {
    type: "SOA",
    name: "com",
    ttl: 900,
    data: {
      mname: "a.gtld-servers.net",
      rname: "nstld.verisign-grs.com",
      serial: 1,
      refresh: 1800,
      retry: 900,
      expire: 604800,
      minimum: 86400,
    },
  };
  const negative = dnsPacket.encode({
    type: "response",
    id: 1,
    flags: dnsPacket.RECURSION_DESIRED | 3,
    questions: [{ type: "A", name: "nope.example.com" }],
    authorities: [soa],
  });
  assert.deepEqual([learnt(negative).outcome.kind, learnt(negative).outcome.qname], ["negative", "nope.example.com"]);
});
