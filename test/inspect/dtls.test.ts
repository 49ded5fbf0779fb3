import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { dtlsInspector } from "../../src/inspect/dtls.ts";
import type { Reading } from "../../src/inspect/inspector.ts";
import { cat, fromClient, helloMessage, u16, u24 } from "./datagrams.ts";

const NAME = "www.example.com";
const BODY = helloMessage(NAME, 1800, "dtls").subarray(4);
const OTHER = helloMessage("bad.example.com", 1800, "dtls").subarray(4);

function record(content: Uint8Array, type = 22, epoch = 0): Uint8Array {
  return cat([type, 0xfe, 0xfd], u16(epoch), new Uint8Array(6), u16(content.length), content);
}
/** body[from..to) as a fragment (RFC 6347 §4.2.2). */
function fragment(from: number, to: number, number = 0, body = BODY): Uint8Array {
  return cat([1], u24(body.length), u16(number), u24(from), u24(to - from), body.subarray(from, to));
}
const part = (from: number, to: number, number = 0, body = BODY): Uint8Array => record(fragment(from, to, number, body));
const END = BODY.length;

function outcome(reading: Reading): string {
  const application = reading.application === undefined ? "" : ` ${reading.application}`;
  if ("need" in reading) return `need${application}`;
  if ("bad" in reading) return `bad${application}`;
  return `${reading.serverName ?? "-"} ${reading.version ?? "-"}${reading.evasion === undefined ? "" : " evasion"}`;
}
const read = (datagrams: readonly Uint8Array[], closed = false): string => outcome(dtlsInspector.read(fromClient(datagrams, closed)));

const ROWS: readonly (readonly [string, readonly Uint8Array[], string])[] = [
  ["one datagram", [part(0, END)], `${NAME} 1.3`],
  ["three, shuffled", [part(1000, 1500), part(0, 1000), part(1500, END)], `${NAME} 1.3`],
  ["one is missing", [part(1000, 1500), part(0, 1000)], "need dtls"],
  ["twice, overlapping", [part(0, 1000), part(0, 1000), part(900, 1700), part(1000, END)], `${NAME} 1.3`],
  ["two records in a datagram", [cat(part(0, 1000), part(1000, END))], `${NAME} 1.3`],
  ["two fragments in a record", [record(cat(fragment(0, 1000), fragment(1000, END)))], `${NAME} 1.3`],
  ["with a cookie, seen from the second hello", [part(0, 900, 1), part(900, END, 1)], `${NAME} 1.3`],
  ["an overlap that disagrees", [part(0, 1000), part(0, END, 0, OTHER)], `${NAME} 1.3 evasion`],
  ["the second hello before the first is whole", [part(0, 1000), part(0, END, 1, OTHER)], "bad.example.com 1.3 evasion"],
  ["fragments of two lengths", [part(0, 1000), part(1000, 1500, 0, BODY.subarray(0, 1500))], "bad dtls"],
  ["a fragment that is not all there", [record(fragment(0, 1000).subarray(0, 900))], "bad dtls"],
  ["a third hello", [part(0, END, 2)], "bad dtls"],
  ["a ServerHello", [record(cat([2], fragment(0, 400).subarray(1)))], "bad dtls"],
  ["a hello that is too short", [record(fragment(0, 20, 0, BODY.subarray(0, 20)))], "bad dtls"],
  ["a hello of 64 KiB", [record(cat([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4], new Uint8Array(4)))], "bad dtls"],
  ["a broken hello", [record(fragment(0, 60, 0, new Uint8Array(60)))], "bad dtls"],
  ["application data: from the middle", [record(new Uint8Array(40), 23, 1)], "bad dtls"],
  ["an encrypted handshake record", [record(new Uint8Array(40), 22, 1)], "bad dtls"],
  ["bytes behind the record", [cat(part(0, END), [0])], "bad"],
  ["bytes behind a later one are dropped", [part(0, 1000), cat(part(1000, END), [0])], `${NAME} 1.3`],
  ["the record is not all there", [part(0, 1000).subarray(0, 500)], "bad"],
  ["TLS", [Uint8Array.of(22, 3, 1, 0, 50, 1, 0, 0, 46, 3, 3, 0, 0, 0, 0)], "bad"],
  ["an empty datagram", [new Uint8Array(0)], "bad"],
];
for (const [name, datagrams, want] of ROWS) test(`dtls: ${name}`, () => assert.equal(read(datagrams), want));

test("dtls: no more to come, nothing yet, and without end", () => {
  assert.equal(read([part(0, 1000)], true), "bad dtls");
  assert.equal(read([], true), "bad");
  assert.equal(read([]), "need");
  assert.equal(read([part(0, END)], true), `${NAME} 1.3`);
  assert.equal(read(Array.from({ length: 70 }, () => part(0, 100))), "bad dtls");
  const first = fromClient([part(0, END)]);
  assert.equal(outcome(dtlsInspector.read({ ...first, client: { ...first.client, ends: [] } })), `${NAME} 1.3`);
});

test("dtls: hostile datagrams never throw, and every need asks for more", () => {
  const edit = fc.tuple(fc.nat(2), fc.nat(120), fc.nat(255));
  fc.assert(
    fc.property(fc.constantFrom(...ROWS), fc.array(edit, { maxLength: 4 }), fc.nat(2000), fc.boolean(), ([, seed], edits, cut, closed) => {
      const datagrams: Uint8Array[] = seed.map((datagram) => Uint8Array.from(datagram));
      for (const [which, at, value] of edits) {
        const datagram = datagrams[which];
        if (datagram !== undefined && at < datagram.length) datagram[at] = value;
      }
      const last = datagrams.length - 1;
      if (cut < 1500) datagrams[last] = (datagrams[last] as Uint8Array).subarray(0, cut);
      const first = fromClient(datagrams, closed);
      const reading = dtlsInspector.read(first);
      if ("need" in reading) assert.ok(!closed && reading.need > first.client.end - first.client.start);
    }),
    { numRuns: 1000 },
  );
});
