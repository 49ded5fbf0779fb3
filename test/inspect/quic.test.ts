import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Reading } from "../../src/inspect/inspector.ts";
import { quicInspector } from "../../src/inspect/quic.ts";
import { initialKeys } from "../../src/inspect/quic-keys.ts";
import { quicVersion } from "../../src/inspect/quic-versions.ts";
import { cat, crypto, DCID, fromClient, helloMessage, initial, u32 } from "./datagrams.ts";

const NAME = "www.example.com";
const HELLO = helloMessage(NAME);
const BIG = helloMessage(NAME, 2300);
const read = (...datagrams: readonly Uint8Array[]): Reading => quicInspector.read(fromClient(datagrams));
const readAll = (...datagrams: readonly Uint8Array[]): Reading => quicInspector.read(fromClient(datagrams, true));
const one = (hello = HELLO): Uint8Array => crypto(0, hello);
const part = (from: number, to: number, hello = BIG): Uint8Array => crypto(from, hello.subarray(from, to));

/** In one line: the name and what is remarkable; need; bad. */
function outcome(reading: Reading): string {
  const application = reading.application === undefined ? "" : ` ${reading.application}`;
  if ("need" in reading) return `need${application}${reading.release === true ? " release" : ""}`;
  if ("bad" in reading) return `bad${application}`;
  return `${reading.serverName ?? "-"} ${reading.version ?? "-"}${reading.evasion === undefined ? "" : " evasion"}`;
}

test("keys of RFC 9001 A.1 and RFC 9369 A.1", () => {
  const rows = [
    [1, "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c"],
    [0x6b3343cf, "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f"],
  ] as const;
  for (const [version, key, iv] of rows) {
    const keys = initialKeys(quicVersion(version) ?? assert.fail(), DCID);
    assert.equal(Buffer.from(keys.key).toString("hex"), key);
    assert.equal(Buffer.from(keys.iv).toString("hex"), iv);
  }
});

test("a whole evidence", () => {
  assert.deepEqual(read(initial(one())), {
    application: "quic",
    serverName: NAME,
    alpn: ["h3"],
    ja4: "q13d0204h3_62ed6f6ca7ad_3953dc75acc4",
    ech: false,
    version: "1",
  });
});

const OTHER = Uint8Array.from({ length: 20 }, (_, i) => i + 1);
const shuffled = [part(1500, 1900), part(0, 3), part(700, 1500), part(1900, BIG.length), part(2, 750)];
const forged = initial(one());
forged[forged.length - 1] = (forged[forged.length - 1] as number) ^ 1;
const zeroRtt = cat([0xd0], u32(1), [8], DCID, [0, 0x40, 40], new Uint8Array(40));
const handshake = cat([0xe0], u32(1), [8], DCID, [0, 0x40, 60], new Uint8Array(60));
const unknown = (version: number, size = 1200): Uint8Array => cat([0xc3], u32(version), [8], DCID, [8], DCID, new Uint8Array(size));

/** A CHLO with padding, a server name and a user agent. */
function chlo(name?: string, padding = 40): Uint8Array {
  const le32 = (v: number): number[] => u32(v).reverse();
  const agent = [...Buffer.from("test agent")];
  const server = [...Buffer.from(name ?? "")];
  const tags: (readonly [string, number, readonly number[]])[] = [["PAD\0", padding, new Array(40).fill(0x2d)]];
  if (name !== undefined) tags.push(["SNI\0", 40 + server.length, server]);
  tags.push(["UAID", 40 + server.length + agent.length, agent]);
  const entries = tags.flatMap(([tag, to]) => [...Buffer.from(tag), ...le32(to)]);
  return cat([...Buffer.from("CHLO")], [tags.length, 0, 0, 0], entries, ...tags.map(([, , value]) => value));
}
function google(version: number, data: Uint8Array): Uint8Array {
  const name = [...Buffer.from(`Q0${version}`)];
  const header = version === 46 ? cat([0xc3], name, [0x50], DCID, [0, 0, 0, 1]) : cat([0x09], DCID, name, [1]);
  const length = [data.length >> 8, data.length & 255];
  const frame = cat([0xa0, 1], version < 39 ? length.reverse() : length, data);
  return cat(header, new Uint8Array(12).fill(9), frame, new Uint8Array(1200));
}

const ROWS: readonly (readonly [string, readonly Uint8Array[], string])[] = [
  ["one Initial", [initial(one())], `${NAME} 1`],
  ["version 2", [initial(one(), { version: 0x6b3343cf })], `${NAME} 2`],
  ["draft 29", [initial(one(), { version: 0xff00001d })], `${NAME} draft-29`],
  ["draft 22", [initial(one(), { version: 0xff000016 })], `${NAME} draft-22`],
  ["a token", [initial(one(), { token: new Uint8Array(70) })], `${NAME} 1`],
  ["two Initials in order", [initial(part(0, 1100)), initial(part(1100, BIG.length), { number: 1 })], `${NAME} 1`],
  ["shuffled frames over four Initials", shuffled.slice(0, 4).map((f) => initial(f)), "need quic"],
  ["... and the fifth", shuffled.map((f, number) => initial(f, { number })), `${NAME} 1`],
  ["... twice", [...shuffled.slice(0, 4), ...shuffled].map((f) => initial(f)), `${NAME} 1`],
  ["an overlap that disagrees", [initial(part(0, 1100)), initial(crypto(1000, new Uint8Array(101)))], "need quic"],
  [
    "... to the end",
    [initial(part(0, 1100)), initial(crypto(1000, new Uint8Array(101))), initial(part(1100, 2000)), initial(part(2000, BIG.length))],
    `${NAME} 1 evasion`,
  ],
  ["coalesced Initials", [cat(initial(part(0, 600), { size: 0 }), initial(part(600, 1200), { size: 0 }))], "need quic"],
  ["coalesced with 0-RTT and padding", [cat(initial(one(), { size: 900 }), zeroRtt, new Uint8Array(300))], `${NAME} 1`],
  ["0-RTT came first", [zeroRtt, initial(one())], `${NAME} 1`],
  ["PING, ACK and PADDING between", [initial(cat([1, 0, 0], [2, 5, 0, 1, 2, 1, 1], [3, 5, 0, 0, 2, 1, 1, 1], one()))], `${NAME} 1`],
  ["a CONNECTION_CLOSE", [initial(cat(part(0, 100), [0x1c, 0, 0, 0]))], "need quic"],
  ["a STREAM frame in an Initial", [initial(cat([0x08, 0, 1, 1], one()))], "bad quic"],
  ["a frame longer than its packet", [initial(cat([6, 0, 0x7f, 0xff]))], "bad quic"],
  ["CRYPTO far away", [initial(cat([6, 0xc0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0]))], "bad quic"],
  ["a message that is no ClientHello", [initial(crypto(0, Uint8Array.of(2, 0, 0, 40)))], "bad quic"],
  ["a hello that says it is too long", [initial(crypto(0, Uint8Array.of(1, 1, 0, 0)))], "bad quic"],
  ["a broken hello", [initial(one(cat([1, 0, 0, 5], new Uint8Array(5))))], "bad quic"],
  ["a datagram that a server must discard", [initial(one(), { size: 1100 })], `${NAME} 1 evasion`],
  ["a forged packet is skipped", [forged], "need"],
  ["... and then a good one", [forged, initial(one())], `${NAME} 1`],
  ["the server's connection id", [initial(part(0, 1100)), initial(part(1100, 2200), { dcid: OTHER, keysOf: DCID })], "need quic"],
  [
    "... to the end",
    [0, 1100, 2200].map((from) => initial(part(from, Math.min(from + 1100, BIG.length)), { dcid: from > 0 ? OTHER : DCID, keysOf: DCID })),
    `${NAME} 1`,
  ],
  [
    "after a Retry: another id, other keys, the same hello again",
    [initial(part(0, 1100)), ...[0, 1100, 2200].map((from) => initial(part(from, Math.min(from + 1100, BIG.length)), { dcid: OTHER }))],
    `${NAME} 1`,
  ],
  [
    "after a Retry: another hello",
    [initial(part(0, 1100)), initial(one(), { dcid: OTHER }), initial(part(1100, 2200)), initial(part(2200, BIG.length))],
    `${NAME} 1 evasion`,
  ],
  [
    "another version begins again",
    [initial(part(0, 1100)), initial(one(helloMessage("v2.example")), { version: 0x6b3343cf })],
    "v2.example 2",
  ],
  ["a reserved version waits for the server", [unknown(0xbabababa)], "need quic release"],
  ["... and comes again", [unknown(0xbabababa), initial(one())], `${NAME} 1`],
  ["a version that is registered but not known", [unknown(0xff000063)], "- draft-99"],
  ["Google's 46", [google(46, chlo(NAME))], `${NAME} Q046`],
  ["Google's 43", [google(43, chlo(NAME))], `${NAME} Q043`],
  ["Google's 35: little-endian", [google(35, chlo(NAME))], `${NAME} Q035`],
  ["... without a name", [google(43, chlo())], "- Q043"],
  ["... with something else", [google(43, new Uint8Array(40))], "- Q043"],
  ["... with a name that is none", [google(43, chlo("a b"))], "bad quic"],
  ["... too small for a first packet", [google(43, chlo(NAME)).subarray(0, 900)], "bad"],
  ["... a CHLO whose values go backwards", [google(43, chlo(NAME, 400))], "bad quic"],
  ["a version nobody registered", [unknown(0x12345678)], "bad"],
  ["version negotiation", [unknown(0)], "bad"],
  ["a short header", [cat([0x40], new Uint8Array(1300))], "bad"],
  ["a Handshake packet", [handshake], "need"],
  ["a connection id of 21 bytes", [cat([0xc0], u32(1), [21], new Uint8Array(1300))], "bad"],
  ["a packet longer than its datagram", [initial(one()).subarray(0, 1000)], "bad"],
  ["no bytes of a datagram", [new Uint8Array(0)], "bad"],
  ["DNS", [Uint8Array.from(Buffer.from("c00001000001000000000000076578616d706c6503636f6d0000010001", "hex"))], "bad"],
];
for (const [name, datagrams, want] of ROWS) {
  test(`quic: ${name}`, () => assert.equal(outcome(read(...datagrams)), want));
}

test("no more to come", () => {
  assert.equal(outcome(readAll(initial(part(0, 1100)))), "bad quic");
  assert.equal(outcome(readAll(forged)), "bad quic");
  assert.equal(outcome(readAll(handshake)), "bad quic", "a connection from its middle");
  assert.equal(outcome(readAll(unknown(0xbabababa))), "- 0xbabababa");
  assert.equal(outcome(readAll()), "bad");
  assert.equal(outcome(read()), "need");
  assert.equal(outcome(readAll(initial(one()))), `${NAME} 1`);
});

test("one datagram without its end, as the kernel hands it over", () => {
  const first = fromClient([initial(one())]);
  assert.equal(outcome(quicInspector.read({ ...first, client: { ...first.client, ends: [] } })), `${NAME} 1`);
});

test("limits: Initials without a hello, and junk stays cheap", () => {
  const drip = Array.from({ length: 40 }, (_, i) => initial(crypto(i * 2 + 1, Uint8Array.of(1)), { number: i }));
  assert.equal(outcome(read(...drip.slice(0, 31))), "need quic");
  assert.equal(outcome(read(...drip)), "bad quic");
  const junk = Array.from({ length: 40 }, (_, i) => initial(one(), { dcid: Uint8Array.of(i, 1, 2, 3, 4, 5, 6, 7), keysOf: OTHER }));
  assert.equal(outcome(read(...junk.slice(0, 31))), "need");
  assert.equal(outcome(read(...junk)), "bad quic");
});

test("hostile datagrams never throw, and every need asks for more", () => {
  const seeds = ROWS.map(([, datagrams]) => datagrams);
  const edit = fc.tuple(fc.nat(2), fc.nat(1300), fc.nat(255));
  fc.assert(
    fc.property(fc.constantFrom(...seeds), fc.array(edit, { maxLength: 4 }), fc.nat(1500), fc.boolean(), (seed, edits, cut, closed) => {
      const datagrams: Uint8Array[] = seed.map((datagram) => Uint8Array.from(datagram));
      for (const [which, at, value] of edits) {
        const datagram = datagrams[which];
        if (datagram !== undefined && at < datagram.length) datagram[at] = value;
      }
      const last = datagrams.length - 1;
      if (cut < 1200) datagrams[last] = (datagrams[last] as Uint8Array).subarray(0, cut);
      const first = fromClient(datagrams, closed);
      const reading = quicInspector.read(first);
      if ("need" in reading) assert.ok(!closed && reading.need > first.client.end - first.client.start);
    }),
    { numRuns: 500 },
  );
});

test("frames of any bytes, well protected, never throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (frames) => {
      assert.ok(!("serverName" in read(initial(frames))));
    }),
    { numRuns: 300 },
  );
});
