import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { endpointText } from "../../src/base/address.ts";
import { Protocol, TcpFlag } from "../../src/model/packet.ts";
import type { CaptureRecord } from "../../src/capture/file.ts";
import type { Connection } from "../../src/capture/connection.ts";
import { readFlows } from "../../src/capture/flows.ts";
import { newReassembly } from "../../src/capture/fragments.ts";
import type { Payload } from "../../src/capture/side.ts";
import { addSegment, newStream, STREAM_BYTES_MAX, streamBytes } from "../../src/capture/stream.ts";
import { concat, ip4, ip6, tcp, text, u16, u32, udp } from "./build.ts";

const { SYN, ACK, FIN, RST } = TcpFlag;
const decoder = new TextDecoder();

function* records(packets: readonly Uint8Array[]): Generator<CaptureRecord> {
  for (const [i, bytes] of packets.entries()) yield { time: 1000 + i, bytes, start: 0, end: bytes.length };
}

/** Over UDP the first datagram. */
const said = ({ bytes, start, end, ends }: Payload): string => decoder.decode(bytes.subarray(start, ends[0] ?? end));

function line(c: Connection): string {
  return `${c.transport} ${endpointText(c.client.address, c.client.port)} > ${endpointText(c.server.address, c.server.port)} [${said(c.fromClient)}|${said(c.fromServer)}]`;
}

const out = (seq: number, flags: number, data = "", port = 4000): Uint8Array =>
  ip4({ protocol: Protocol.TCP }, tcp({ from: port, to: 443, seq, flags }, text(data)));
const back = (seq: number, flags: number, data = "", port = 4000): Uint8Array =>
  ip4({ protocol: Protocol.TCP, source: "192.0.2.1", destination: "10.0.0.1" }, tcp({ from: 443, to: port, seq, flags }, text(data)));
const T = "6 10.0.0.1:4000 > 192.0.2.1:443";

const ROWS: readonly (readonly [string, readonly Uint8Array[], readonly string[]])[] = [
  ["a connection", [out(99, SYN), back(499, SYN | ACK), out(100, ACK), out(100, ACK, "hello"), back(500, ACK, "hi")], [`${T} [hello|hi]`]],
  ["segments out of order", [out(99, SYN), out(105, ACK, "world"), out(100, ACK, "hello")], [`${T} [helloworld|]`]],
  ["a gap hides what is behind it", [out(99, SYN), out(105, ACK, "world")], [`${T} [|]`]],
  ["the first bytes win", [out(99, SYN), out(100, ACK, "good"), out(100, ACK, "evil+more")], [`${T} [good+more|]`]],
  ["data in the SYN", [out(99, SYN, "tfo"), out(103, ACK, "rest")], [`${T} [tforest|]`]],
  ["sequence numbers wrap", [out(0xfffffffe, SYN), out(0xffffffff, ACK, "ab"), out(1, ACK, "cd")], [`${T} [abcd|]`]],
  ["begun in the middle, client first", [out(7, ACK, "x"), back(9, ACK, "y")], [`${T} [x|y]`]],
  ["begun in the middle, server first", [back(9, ACK, "y", 40000), out(7, ACK, "x", 40000)], ["6 10.0.0.1:40000 > 192.0.2.1:443 [x|y]"]],
  ["begun at the SYN+ACK", [back(499, SYN | ACK), out(100, ACK, "x")], [`${T} [x|]`]],
  ["the 5-tuple is used again", [out(99, SYN), out(100, ACK | RST, "a"), out(5099, SYN), out(5100, ACK, "b")], [`${T} [a|]`, `${T} [b|]`]],
  [
    "closed by both, used again",
    [out(99, SYN), out(100, ACK | FIN, "a"), back(1, ACK | FIN), out(5099, SYN), out(5100, ACK, "b")],
    [`${T} [a|]`, `${T} [b|]`],
  ],
  ["a SYN repeated", [out(99, SYN), out(99, SYN), out(100, ACK, "a")], [`${T} [a|]`]],
  ["refused, then tried again", [out(99, SYN), back(0, RST | ACK), out(299, SYN), out(300, ACK, "a")], [`${T} [a|]`]],
  [
    "udp",
    [ip4({ protocol: 17 }, udp(4000, 443, text("one"))), ip4({ protocol: 17 }, udp(4000, 443, text("two")))],
    ["17 10.0.0.1:4000 > 192.0.2.1:443 [one|]"],
  ],
  [
    "a dns answer without its question",
    [ip4({ protocol: 17, source: "192.0.2.1", destination: "10.0.0.1" }, udp(53, 4000, text("answer")))],
    ["17 10.0.0.1:4000 > 192.0.2.1:53 [|answer]"],
  ],
  ["ipv6", [ip6({ next: 17 }, udp(4000, 443, text("six")))], ["17 [fd00::1]:4000 > [2001:db8::1]:443 [six|]"]],
];
for (const [name, packets, want] of ROWS) {
  test(`flows: ${name}`, () => assert.deepEqual(readFlows(records(packets)).connections.map(line), want));
}

test("flows: conflicts, datagrams, and what is not a connection", () => {
  const flows = readFlows(
    records([
      out(99, SYN),
      out(100, ACK, "good"),
      out(100, ACK, "evil"),
      ip4({ protocol: 17 }, udp(4000, 443, text("one"))),
      ip4({ protocol: 17 }, udp(4000, 443, text("two"))),
      ip4({ protocol: 1 }, new Uint8Array(8)),
      Uint8Array.of(0x45, 0),
    ]),
  );
  assert.equal(flows.connections[0]?.fromClient.conflict, true);
  const datagrams = flows.connections[1]?.fromClient;
  assert.deepEqual([decoder.decode(datagrams?.bytes.subarray(datagrams.start, datagrams.end)), datagrams?.ends], ["onetwo", [3, 6]]);
  assert.deepEqual([flows.others, flows.malformed, flows.ignored], [1, 1, 0]);
});

test("flows: handlers are called in the order of the packets; dns over udp and tcp, whole messages", () => {
  const dnsTcp = (seq: number, data: Uint8Array): Uint8Array =>
    ip4({ protocol: 6, source: "192.0.2.53", destination: "10.0.0.1" }, tcp({ from: 53, to: 40001, seq, flags: ACK }, data));
  const log: string[] = [];
  readFlows(
    records([
      ip4({ protocol: 17 }, udp(4000, 53, text("q"))),
      out(99, SYN),
      ip4({ protocol: 17, source: "192.0.2.1", destination: "10.0.0.1" }, udp(53, 4000, text("r"))),
      dnsTcp(0, concat([0, 3], text("ab"))),
      dnsTcp(4, concat(text("c"), [0, 1], text("d"), [0])),
      dnsTcp(9, concat([1], text("e"))),
      out(100, ACK, "x"),
    ]),
    {
      onStart: (c, t) => log.push(`${t} start ${c.server.port}`),
      onDns: (m, c, fromClient, t) => log.push(`${t} dns ${c.transport} ${fromClient ? "query" : "reply"} ${decoder.decode(m)}`),
      onPacket: (p, c, fromClient, t) =>
        c.server.port === 443 ? log.push(`${t} packet ${fromClient} ${p.payloadEnd - p.payloadStart}`) : 0,
    },
  );
  assert.deepEqual(log, [
    "1000 start 53",
    "1000 dns 17 query q",
    "1001 start 443",
    "1001 packet true 0",
    "1002 dns 17 reply r",
    "1003 start 53",
    "1004 dns 6 reply abc",
    "1004 dns 6 reply d",
    "1005 dns 6 reply e",
    "1006 packet true 1",
  ]);
});

test("stream: any cut, order and repetition of segments gives the same bytes", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      fc.array(fc.tuple(fc.nat(299), fc.nat(60)), { maxLength: 30 }),
      fc.nat(0xffffffff),
      (data, cuts, base) => {
        const pieces = cuts.map(([from, length]) => [Math.min(from, data.length), Math.min(from + length, data.length)] as const);
        const s = newStream();
        s.base = base;
        const have = new Array<boolean>(data.length).fill(false);
        for (const [from, to] of pieces) {
          addSegment(s, (base + from) >>> 0, data, from, to);
          for (let i = from; i < to; i++) have[i] = true;
        }
        const gap = have.indexOf(false);
        assert.deepEqual(streamBytes(s), data.subarray(0, gap < 0 ? data.length : gap));
        assert.deepEqual([s.conflict, s.cut], [false, false]);
      },
    ),
  );
});

test("stream: bounded in bytes and in gaps", () => {
  const s = newStream();
  addSegment(s, 0, new Uint8Array(2 * STREAM_BYTES_MAX).fill(1), 0, 2 * STREAM_BYTES_MAX);
  assert.deepEqual([s.length, s.cut, s.bytes.length], [STREAM_BYTES_MAX, true, STREAM_BYTES_MAX]);
  const holes = newStream();
  holes.base = 0;
  for (let i = 0; i < 500; i++) addSegment(holes, i * 2 + 1, new Uint8Array(1), 0, 1);
  assert.equal(holes.cut, true);
  assert.ok(holes.runs.length <= 128);
  addSegment(holes, 0, new Uint8Array(1000), 0, 1000);
  assert.equal(holes.length, 1000);
});

const F = text("0123456789abcdefghijklmnopqrstuv");
const datagram = udp(4000, 443, F); // 40 bytes
const piece4 = (from: number, to: number, id = 9): Uint8Array =>
  ip4({ protocol: 17, id, fragment: (from / 8) | (to < datagram.length ? 0x2000 : 0) }, datagram.subarray(from, to));
const piece6 = (from: number, to: number): Uint8Array =>
  ip6(
    { next: 60 },
    concat([44, 0, 0, 0, 0, 0, 0, 0], [17, 0], u16(from | (to < datagram.length ? 1 : 0)), u32(9), datagram.subarray(from, to)),
  );

test("fragments: every order gives the packet as it was, for both families", () => {
  const ranges = [
    [0, 16],
    [16, 24],
    [24, 40],
  ] as const;
  for (const order of [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
    [2, 2, 1, 1, 0],
  ]) {
    for (const piece of [piece4, piece6]) {
      const flows = readFlows(records(order.map((i) => piece(...(ranges[i] as readonly [number, number])))));
      assert.equal(flows.connections.length, 1, `order ${order.join()}`);
      assert.equal(said(flows.connections[0]?.fromClient as Payload), decoder.decode(F));
    }
  }
});

test("fragments: overlapping, oversized, ill-sized, cut and stale ones are dropped as a whole", () => {
  const late = newReassembly();
  const [a, b] = [piece4(0, 16), piece4(16, 40)];
  assert.equal(late.add(a, 0, a.length, 0), "more");
  assert.equal(late.add(b, 0, b.length, 60_000), "more");
  const whole = ip4({ protocol: 17, fragment: 0x4000 }, datagram);
  assert.equal(late.add(whole, 0, whole.length, 60_000), "whole");
  const rows: readonly (readonly [string, readonly Uint8Array[]])[] = [
    ["overlap", [piece4(0, 24), piece4(16, 40), piece4(24, 40)]],
    ["ends twice", [piece4(24, 40), ip4({ protocol: 17, id: 9, fragment: 4 }, new Uint8Array(8)), piece4(0, 24)]],
    ["not a multiple of 8", [ip4({ protocol: 17, id: 9, fragment: 0x2000 }, datagram.subarray(0, 20)), piece4(24, 40), piece4(0, 24)]],
    ["past 65535", [ip4({ protocol: 17, id: 9, fragment: 0x1fff }, new Uint8Array(64)), piece4(0, 24), piece4(24, 40)]],
    ["cut by the capture", [piece4(0, 24).subarray(0, 40), piece4(24, 40)]],
  ];
  for (const [name, packets] of rows) {
    const flows = readFlows(records(packets));
    assert.equal(flows.connections.length, 0, name);
    assert.ok(flows.fragmentsDropped > 0, name);
  }
});

test("fragments: the number of incomplete datagrams is bounded", () => {
  const many = newReassembly();
  for (let id = 0; id < 1000; id++) {
    const p = piece4(0, 16, id);
    many.add(p, 0, p.length, 0);
  }
  assert.equal(many.dropped, 744);
});

const corpus = process.env["NAMEGATE_CORPUS"];
test("flows of the corpus are those of its labels", { skip: corpus === undefined ? "NAMEGATE_CORPUS is not set" : false }, async () => {
  const { readCapture } = await import("../../src/capture/file.ts");
  let found = 0;
  let missing = 0;
  for (const set of ["captures", "generated"]) {
    const folder = join(corpus ?? "", set);
    for (const labelLine of readFileSync(join(folder, "labels.jsonl"), "utf8").trim().split("\n")) {
      const label = JSON.parse(labelLine) as { file: string; flows: { proto: string; client: string; server: string }[] };
      const flows = readFlows(readCapture(readFileSync(join(folder, label.file))));
      assert.equal(flows.malformed, 0, label.file);
      const seen = new Set(
        flows.connections.map(
          (c) => `${c.transport} ${endpointText(c.client.address, c.client.port)} ${endpointText(c.server.address, c.server.port)}`,
        ),
      );
      for (const f of label.flows) {
        if (seen.has(`${f.proto === "tcp" ? 6 : f.proto === "udp" ? 17 : 132} ${f.client} ${f.server}`)) found++;
        else missing++;
      }
    }
  }
  assert.ok(found >= 630 && missing <= 8, `${found} found, ${missing} missing or turned round`);
});
