/**
 * Our reader against dns-packet. On well-formed replies both must find the same addresses for the same names, however
 * the message is compressed. Where they may differ, ours is the stricter one, and `expected` says how:
 * a label with a dot inside (dns-packet flattens it), RDLENGTH (dns-packet reads past it), HTTPS and SVCB (unknown to
 * it), and records of owners that are not on the chain (it has no notion of a chain).
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import dnsPacket from "dns-packet";
import { ipText, parseIp } from "../../src/base/address.ts";
import { dnsName } from "../../src/base/name.ts";
import { learn } from "../../src/dns/reply.ts";
import type { Learned } from "../../src/model/binding.ts";
import { encode, labels, randomFrom, type TestRecord } from "./encode.ts";

interface Decoded {
  name: string;
  type: string;
  class: string;
  ttl: number;
  data: string;
}

/** The chain as a person would do it, on what dns-packet decoded. */
function expected(asked: string, answers: readonly Decoded[]): string[] {
  const lower = (name: string): string => name.toLowerCase();
  const chain = [lower(asked)];
  const ttls = [2 ** 31 - 1];
  while (chain.length <= 16) {
    const tail = chain.at(-1) as string;
    const next = answers.find((r) => r.type === "CNAME" && lower(r.name) === tail);
    if (next === undefined || chain.includes(lower(next.data))) break;
    chain.push(lower(next.data));
    ttls.push(Math.min(ttls.at(-1) as number, next.ttl));
  }
  const out: string[] = [];
  for (const record of answers) {
    if (record.type !== "A" && record.type !== "AAAA") continue;
    const owner = chain.indexOf(lower(record.name));
    for (let i = 0; i <= owner; i++) {
      if (dnsName(chain[i] as string) === undefined) continue;
      out.push(
        `${chain[i]} ${i === 0 ? "asked" : "cname"} ${ipText(parseIp(record.data) as never)} ${Math.min(record.ttl, ttls[owner] as number)}`,
      );
    }
  }
  return out;
}

function ours(bytes: Uint8Array): string[] {
  const out: Learned[] = [];
  learn(bytes, 0, bytes.length, out);
  return out.map((l) => `${l.name} ${l.via} ${ipText(l.address)} ${l.ttl}`);
}

const NAMES = ["a.test", "b.test", "www.a.test", "B.Test", "c.d.e.test", "test", "x-_1.test", "A.TEST", `${"l".repeat(63)}.test`];

/** Random records about few names, so that chains, loops, repeats and strangers are common. */
function randomReply(random: () => number): { asked: string; records: Decoded[] } {
  const below = (n: number): number => random() % n;
  const pick = (): string => NAMES[below(NAMES.length)] as string;
  const records: Decoded[] = [];
  const seen = new Set<string>();
  for (let i = below(10); i > 0; i--) {
    const name = pick();
    const ttl = below(5) === 0 ? below(2 ** 31) : below(600);
    const kind = below(3);
    if (kind === 0) records.push({ name, type: "A", class: "IN", ttl, data: `10.${below(256)}.${below(256)}.${below(256)}` });
    else if (kind === 1) records.push({ name, type: "AAAA", class: "IN", ttl, data: `2001:db8::${(below(65535) + 1).toString(16)}` });
    else if (!seen.has(name.toLowerCase())) {
      seen.add(name.toLowerCase()); // two CNAMEs of one owner have no agreed meaning
      records.push({ name, type: "CNAME", class: "IN", ttl, data: pick() });
    }
  }
  return { asked: pick(), records };
}

function octetsOf(address: string): Uint8Array {
  return Uint8Array.from(parseIp(address) as string, (c) => c.charCodeAt(0));
}

test("replies written by dns-packet", () => {
  const random = randomFrom(1);
  let bindings = 0;
  for (let i = 0; i < 4000; i++) {
    const { asked, records } = randomReply(random);
    const bytes = dnsPacket.encode({
      type: "response",
      id: i,
      flags: 0x180,
      questions: [{ type: "A", name: asked }],
      answers: records as dnsPacket.Answer[],
    });
    const got = ours(bytes);
    bindings += got.length;
    assert.deepEqual(got, expected(asked, records), JSON.stringify({ asked, records }));
  }
  assert.ok(bindings > 2000, `only ${bindings} bindings: the test tests little`);
});

test("replies compressed at random, read by both", () => {
  const random = randomFrom(2);
  let bindings = 0;
  for (let i = 0; i < 6000; i++) {
    const { asked, records } = randomReply(random);
    const wire: TestRecord[] = records.map((r) => ({
      name: labels(r.name),
      type: r.type === "A" ? 1 : r.type === "AAAA" ? 28 : 5,
      ttl: r.ttl,
      data: r.type === "CNAME" ? { name: labels(r.data) } : octetsOf(r.data),
    }));
    const bytes = encode({ questions: [{ name: labels(asked), type: 255 }], answers: wire }, () => random() % 3 > 0);
    const decoded = dnsPacket.decode(Buffer.from(bytes));
    const got = ours(bytes);
    bindings += got.length;
    assert.deepEqual(got, expected(decoded.questions?.[0]?.name as string, decoded.answers as unknown as Decoded[]));
  }
  assert.ok(bindings > 3000, `only ${bindings} bindings: the test tests little`);
});

test("mutated replies: what we learn, dns-packet read too", () => {
  const random = randomFrom(3);
  let both = 0;
  let stricter = 0;
  for (let i = 0; i < 20_000; i++) {
    const { asked, records } = randomReply(random);
    const wire: TestRecord[] = records.map((r) => ({
      name: labels(r.name),
      type: r.type === "A" ? 1 : r.type === "AAAA" ? 28 : 5,
      ttl: r.ttl,
      data: r.type === "CNAME" ? { name: labels(r.data) } : octetsOf(r.data),
    }));
    const bytes = encode({ questions: [{ name: labels(asked), type: 1 }], answers: wire });
    for (let k = random() % 3; k >= 0; k--) bytes[12 + (random() % (bytes.length - 12))] = random();
    const got = ours(bytes);
    if (got.length === 0) continue;
    let decoded: dnsPacket.DecodedPacket;
    try {
      decoded = dnsPacket.decode(Buffer.from(bytes));
    } catch {
      stricter++; // it judges every record, also those that we pass over
      continue;
    }
    both++;
    const theirs = new Set(
      (decoded.answers as unknown as Decoded[])
        .filter((r) => r.type === "A" || r.type === "AAAA")
        .map((r) => ipText(parseIp(r.data) as never)),
    );
    for (const line of got) assert.ok(theirs.has(line.split(" ")[2] as string), `${line} is not among ${[...theirs].join(", ")}`);
  }
  assert.ok(both > 2000, `only ${both} read by both`);
  assert.ok(stricter < both, `${stricter} refused by dns-packet only`);
});

test("where dns-packet is wrong, ours is not", () => {
  const dotted = encode({
    questions: [{ name: labels("example.com"), type: 1 }],
    answers: [{ name: ["example.com"], type: 1, data: Uint8Array.of(6, 6, 6, 6) }],
  });
  assert.deepEqual((dnsPacket.decode(Buffer.from(dotted)).answers as unknown as Decoded[])[0]?.name, "example.com", "flattened");
  assert.deepEqual(ours(dotted), []);
  const long = encode({
    questions: [{ name: labels("a.test"), type: 1 }],
    answers: [{ name: labels("a.test"), type: 1, data: Uint8Array.of(6, 6, 6, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) }],
  });
  assert.equal((dnsPacket.decode(Buffer.from(long)).answers as unknown as Decoded[])[0]?.data, "6.6.6.6", "RDLENGTH 16");
  assert.deepEqual(ours(long), []);
});
