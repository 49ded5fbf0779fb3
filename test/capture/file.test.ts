import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { Protocol } from "../../src/model/packet.ts";
import { readCapture, type Capture } from "../../src/capture/file.ts";
import { ipInFrame, LinkType } from "../../src/capture/link.ts";
import { concat, ip4, ip6, text, u16, u32, udp } from "./build.ts";

const packet = ip4({ protocol: Protocol.UDP }, udp(1000, 53, text("hello")));
const packet6 = ip6({ next: Protocol.UDP }, udp(1000, 53, text("hello")));

/** Writers of the two formats, in either byte order. */
function writer(little: boolean) {
  const w16 = (v: number): number[] => (little ? u16(v).reverse() : u16(v));
  const w32 = (v: number): number[] => (little ? u32(v).reverse() : u32(v));
  const padded = (bytes: Uint8Array): Uint8Array => concat(bytes, new Uint8Array((4 - (bytes.length % 4)) % 4));
  const block = (type: number, body: Uint8Array): Uint8Array => {
    const length = body.length + 12;
    return concat(w32(type), w32(length), body, w32(length));
  };
  const option = (code: number, value: readonly number[]): Uint8Array =>
    concat(w16(code), w16(value.length), padded(Uint8Array.from(value)));
  return {
    pcap: (magic: number, link: number, frames: readonly Uint8Array[]) =>
      concat(
        w32(magic),
        w16(2),
        w16(4),
        new Uint8Array(8),
        w32(65535),
        w32(link),
        ...frames.flatMap((frame, i) => [w32(1_700_000_000 + i), w32(250_000), w32(frame.length), w32(frame.length), frame]),
      ),
    section: () => block(0x0a0d0d0a, concat(w32(0x1a2b3c4d), w16(1), w16(0), new Uint8Array(8).fill(255))),
    interface: (link: number, snap = 0, options: readonly Uint8Array[] = []) => block(1, concat(w16(link), w16(0), w32(snap), ...options)),
    option,
    offset: (seconds: number) => option(14, little ? [...w32(seconds), ...w32(0)] : [...w32(0), ...w32(seconds)]),
    enhanced: (id: number, units: number, frame: Uint8Array) =>
      block(
        6,
        concat(
          w32(id),
          w32(Math.floor(units / 2 ** 32)),
          w32(units % 2 ** 32),
          w32(frame.length),
          w32(frame.length),
          padded(frame),
          option(1, [65, 66]),
          option(0, []),
        ),
      ),
    old: (id: number, units: number, frame: Uint8Array) =>
      block(
        2,
        concat(
          w16(id),
          w16(0),
          w32(Math.floor(units / 2 ** 32)),
          w32(units % 2 ** 32),
          w32(frame.length),
          w32(frame.length),
          padded(frame),
        ),
      ),
    simple: (length: number, frame: Uint8Array) => block(3, concat(w32(length), padded(frame))),
    block,
  };
}

function times(capture: Capture, want: Uint8Array = packet): number[] {
  const list: number[] = [];
  for (const r of capture) {
    assert.deepEqual(r.bytes.subarray(r.start, r.end), want);
    list.push(r.time);
  }
  return list;
}

for (const little of [false, true]) {
  const w = writer(little);
  const order = little ? "little endian" : "big endian";

  test(`pcap, ${order}: microseconds and nanoseconds`, () => {
    const micro = readCapture(w.pcap(0xa1b2c3d4, LinkType.raw, [packet, packet]));
    assert.deepEqual(times(micro), [1_700_000_000_250, 1_700_000_001_250]);
    assert.equal(micro.fault, undefined);
    assert.deepEqual(times(readCapture(w.pcap(0xa1b23c4d, LinkType.raw, [packet]))), [1_700_000_000_000.25]);
  });

  test(`pcapng, ${order}: sections, interfaces, blocks and options`, () => {
    const eth = concat(new Uint8Array(12), [8, 0], packet);
    const file = concat(
      w.section(),
      w.interface(LinkType.raw),
      w.block(0xbad, text("four")),
      w.interface(LinkType.ethernet, 0, [w.option(2, [101, 116, 104, 48]), w.option(9, [9]), w.option(0, [])]),
      w.interface(LinkType.raw, 0, [w.option(9, [0x80 | 10]), w.offset(1000)]),
      w.enhanced(0, 1_700_000_000_250_000, packet),
      w.enhanced(1, 1_700_000_000_500_000_000, eth),
      w.enhanced(2, 2048, packet),
      w.old(0, 1_700_000_000_750_000, packet),
      w.simple(packet.length, packet),
      w.section(),
      w.interface(LinkType.ethernet, eth.length),
      w.simple(9999, eth),
    );
    const capture = readCapture(file);
    assert.deepEqual(
      times(capture).map((t) => Math.round(t * 100) / 100),
      [1_700_000_000_250, 1_700_000_000_500, 1_002_000, 1_700_000_000_750, 1_700_000_000_750, 1_700_000_000_750],
    );
    assert.deepEqual([capture.frames, capture.skipped, capture.fault], [6, 0, undefined]);
  });

  test(`a cut file gives everything before the cut, ${order}`, () => {
    const pcap = w.pcap(0xa1b2c3d4, LinkType.raw, [packet, packet, packet]);
    const ng = concat(w.section(), w.interface(LinkType.raw), ...[1, 2, 3].map((i) => w.enhanced(0, i, packet)));
    for (const file of [pcap, ng]) {
      let seen = 0;
      for (let cut = 4; cut < file.length; cut++) {
        const capture = readCapture(file.subarray(0, cut));
        const count = times(capture).length;
        assert.ok(count >= seen && count <= 3);
        seen = count;
        if (capture.fault !== undefined) assert.match(capture.fault.message, /the capture ends inside the record at byte \d+/);
      }
      assert.equal(seen, 2);
    }
  });

  test(`a corrupt file says where, ${order}`, () => {
    const rows: readonly (readonly [Uint8Array, number, RegExp])[] = [
      [
        concat(w.pcap(0xa1b2c3d4, LinkType.raw, [packet]), new Uint8Array(8), new Uint8Array(8).fill(0xff)),
        1,
        /corrupt at byte 73: a frame of 4294967295 bytes/,
      ],
      [concat(w.section(), w.enhanced(0, 1, packet)), 0, /corrupt at byte 28: a packet of an interface/],
      [concat(w.section(), w.simple(5, packet)), 0, /corrupt at byte 28: a packet before any interface/],
      [concat(w.section(), w.interface(101), w.enhanced(0, 1, packet), w.block(6, new Uint8Array(8))), 1, /shorter than its content/],
      [concat(w.section(), new Uint8Array(12)), 0, /corrupt at byte 28: a block of 0 bytes/],
      [concat(w.section(), w.interface(101).subarray(0, 16), [9, 9, 9, 9]), 0, /corrupt at byte 28: the two lengths/],
    ];
    for (const [file, count, want] of rows) {
      const capture = readCapture(file);
      assert.equal(times(capture).length, count);
      assert.match(capture.fault?.message ?? "", want);
      assert.ok((capture.fault?.fix ?? "").length > 0);
    }
  });
}

test("what is no capture says so", () => {
  for (const bytes of [new Uint8Array(0), text("abc"), text("a text file\n"), Uint8Array.of(0x1f, 0x8b, 8, 0)]) {
    const capture = readCapture(bytes);
    assert.deepEqual(times(capture), []);
    assert.equal(capture.fault?.code, "capture-format");
  }
});

const mac = new Uint8Array(12);
const FRAMES: readonly (readonly [string, number, Uint8Array, Uint8Array | undefined])[] = [
  ["ethernet, ipv4", 1, concat(mac, [8, 0], packet), packet],
  ["ethernet, ipv6", 1, concat(mac, [0x86, 0xdd], packet6), packet6],
  ["vlan", 1, concat(mac, [0x81, 0, 0, 5, 8, 0], packet), packet],
  ["qinq", 1, concat(mac, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd], packet6), packet6],
  ["mpls, two labels", 1, concat(mac, [0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64], packet), packet],
  ["pppoe", 1, concat(mac, [0x88, 0x64, 0x11, 0, 0, 1, 0, 9, 0, 0x21], packet), packet],
  ["pppoe, lcp", 1, concat(mac, [0x88, 0x64, 0x11, 0, 0, 1, 0, 9, 0xc0, 0x21], packet), undefined],
  ["arp", 1, concat(mac, [8, 6], new Uint8Array(28)), undefined],
  ["nine vlan tags", 1, concat(mac, ...Array.from({ length: 9 }, () => [0x81, 0, 0, 1]), [8, 0], packet), undefined],
  ["ethernet cut", 1, mac, undefined],
  ["raw", 101, packet6, packet6],
  ["raw, not ip", 101, text("zz"), undefined],
  ["null", 0, concat([2, 0, 0, 0], packet), packet],
  ["loop", 108, concat([0, 0, 0, 24], packet6), packet6],
  ["linux cooked", 113, concat(new Uint8Array(14), [8, 0], packet), packet],
  ["linux cooked, with vlan", 113, concat(new Uint8Array(14), [0x81, 0, 0, 1, 8, 0], packet), packet],
  ["linux cooked 2", 276, concat([0x86, 0xdd], new Uint8Array(18), packet6), packet6],
  ["an unknown link type", 147, packet, undefined],
  ["empty", 101, new Uint8Array(0), undefined],
];
for (const [name, link, frame, want] of FRAMES) {
  test(`link: ${name}`, () => {
    const range = { start: 0, end: 0 };
    const shifted = concat([1, 2, 3], frame, [4]);
    const found = ipInFrame(link, shifted, 3, 3 + frame.length, range);
    assert.deepEqual(found ? shifted.subarray(range.start, range.end) : undefined, want);
  });
}

test("hostile files never throw, and records stay inside the file", () => {
  const w = writer(true);
  const seeds = [
    w.pcap(
      0xa1b2c3d4,
      1,
      FRAMES.map(([, , frame]) => frame),
    ),
    concat(
      w.section(),
      w.interface(1, 0, [w.option(9, [6])]),
      ...FRAMES.map(([, , frame]) => w.enhanced(0, 5, frame)),
      w.simple(9, packet),
      w.old(0, 1, packet),
    ),
  ];
  fc.assert(
    fc.property(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(900), fc.nat(255)), { minLength: 1, maxLength: 8 }), (seed, edits) => {
      const file = Uint8Array.from(seed);
      for (const [at, value] of edits) if (at < file.length) file[at] = value;
      for (const r of readCapture(file)) assert.ok(r.start < r.end && r.end <= file.length);
    }),
    { numRuns: 2000 },
  );
});

const corpus = process.env["NAMEGATE_CORPUS"];
for (const set of ["captures", "generated"]) {
  const folder = join(corpus ?? "", set);
  const skip = corpus === undefined ? "NAMEGATE_CORPUS is not set" : existsSync(folder) ? false : `no ${folder}`;
  test(`every capture of the corpus is read: ${set}`, { skip }, () => {
    const labels = readFileSync(join(folder, "labels.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { file: string; capture: { packets: number; undecoded: number } });
    const files = readdirSync(folder).filter((name) => name !== "labels.jsonl");
    assert.equal(files.length, labels.length);
    for (const { file, capture: want } of labels) {
      const capture = readCapture(readFileSync(join(folder, file)));
      let count = 0;
      for (const _ of capture) count++;
      assert.equal(capture.fault, undefined, file);
      assert.deepEqual([capture.frames, capture.skipped, count], [want.packets, want.undecoded, want.packets - want.undecoded], file);
    }
  });
}
