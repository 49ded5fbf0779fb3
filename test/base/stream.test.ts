import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ByteStream } from "../../src/base/stream.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text, "latin1");
const push = (stream: ByteStream, sequence: number, text: string): string => stream.push(sequence, bytes(text), 0, text.length);
const text = (stream: ByteStream): string => Buffer.from(stream.view()).toString("latin1");

test("in order, with a gap, old, and again", () => {
  const stream = new ByteStream(100);
  stream.start(999);
  assert.equal(push(stream, 1000, "abc"), "in-order");
  assert.equal(push(stream, 1006, "ghi"), "gap");
  assert.equal(push(stream, 1006, "ghi"), "gap", "the piece beyond the gap again");
  assert.equal(text(stream), "abc");
  assert.equal(stream.hasGap, true);
  assert.equal(push(stream, 1000, "abc"), "old");
  assert.equal(push(stream, 1003, "def"), "in-order");
  assert.equal(text(stream), "abcdefghi");
  assert.equal(stream.hasGap, false);
  assert.equal(push(stream, 1007, "hijk"), "in-order", "partly old");
  assert.equal(text(stream), "abcdefghijk");
  assert.equal(push(stream, 1011, ""), "old", "no bytes");
});

test("first bytes win, and who says otherwise is reported", () => {
  const stream = new ByteStream(100);
  stream.start(0);
  assert.equal(push(stream, 1, "abcd"), "in-order");
  assert.equal(push(stream, 3, "Xdef"), "overlap-differs");
  assert.equal(text(stream), "abcddef".slice(0, 4) + "ef");
  assert.equal(push(stream, 10, "jkl"), "gap");
  assert.equal(push(stream, 9, "iJ"), "overlap-differs");
  assert.equal(push(stream, 7, "gh"), "in-order");
  assert.equal(text(stream), "abcdefghijkl");
});

test("a segment over several pieces fills the holes between them", () => {
  const stream = new ByteStream(100);
  stream.start(0);
  for (const at of [3, 6, 9]) assert.equal(push(stream, at + 1, "0123456789"[at] as string), "gap");
  assert.equal(push(stream, 3, "2345678"), "gap");
  assert.equal(push(stream, 1, "01"), "in-order");
  assert.equal(text(stream), "0123456789");
});

test("sequence numbers wrap", () => {
  const stream = new ByteStream(100);
  stream.start(0xfffffffd);
  assert.equal(push(stream, 0, "cd"), "gap");
  assert.equal(push(stream, 0xfffffffe, "ab"), "in-order");
  assert.equal(push(stream, 2, "ef"), "in-order");
  assert.equal(text(stream), "abcdef");
});

test("without a SYN the first segment is the begin, and what is before it was never seen", () => {
  const stream = new ByteStream(100);
  assert.equal(stream.started, false);
  assert.equal(push(stream, 50, "cd"), "in-order");
  assert.equal(stream.started, true);
  assert.equal(push(stream, 48, "abcd"), "gap");
  assert.equal(text(stream), "cd");
});

test("the limit is for unread bytes; nothing of an overflowing segment is taken", () => {
  const stream = new ByteStream(8);
  stream.start(0);
  assert.equal(push(stream, 1, "12345678"), "in-order");
  assert.equal(push(stream, 9, "9"), "overflow");
  stream.consume(1);
  assert.equal(push(stream, 9, "9"), "in-order");
  assert.equal(push(stream, 8, "89a"), "overflow");
  assert.equal(text(stream), "23456789");
  assert.equal(push(stream, 0x40000000, "x"), "overflow");
  assert.equal(push(stream, 0x90000000, "x"), "gap", "half the number space back");
});

test("read bytes are compared too, as long as they are kept", () => {
  const stream = new ByteStream(2000, 16);
  stream.start(0);
  push(stream, 1, "abcdef");
  stream.consume(6);
  assert.equal(stream.length, 0);
  assert.equal(push(stream, 1, "abcdef"), "old");
  assert.equal(push(stream, 4, "dXf"), "overlap-differs");
  for (let i = 0; i < 3000; i++) {
    assert.equal(push(stream, 7 + i, "z"), "in-order");
    stream.consume(1);
  }
  assert.equal(push(stream, 1, "abcdef"), "gap", "too long ago");
  assert.equal(push(stream, 7 + 2990, "zz"), "old");
  assert.ok(stream.octets <= 2016, `${stream.octets} bytes held`);
});

test("pieces beyond a gap are bounded", () => {
  const stream = new ByteStream(10000);
  stream.start(0);
  let overflow = 0;
  for (let i = 0; i < 200; i++) if (push(stream, 3 + 2 * i, "x") === "overflow") overflow++;
  assert.equal(overflow, 200 - 64);
  assert.equal(push(stream, 1, "yy"), "in-order", "the gap can still be filled");
});

test("start forgets", () => {
  const stream = new ByteStream(100);
  stream.start(0);
  push(stream, 1, "abc");
  push(stream, 9, "xyz");
  stream.start(500);
  assert.equal(stream.isFrom(500), true);
  assert.equal(push(stream, 501, "new"), "in-order");
  assert.equal(text(stream), "new");
  assert.equal(stream.hasGap, false);
  assert.equal(stream.isFrom(500), true);
  assert.equal(stream.isFrom(501), false);
});

test("whatever the order, cuts, repeats, reads and starting number: the bytes come out, once and in order", () => {
  const segment = fc.tuple(fc.nat(299), fc.integer({ min: 1, max: 60 }));
  fc.assert(
    fc.property(
      fc.array(segment, { maxLength: 40 }),
      fc.integer({ min: 0, max: 0xffffffff }),
      fc.array(fc.nat(50), { maxLength: 40 }),
      (segments, first, reads) => {
        const whole = Uint8Array.from({ length: 300 }, (_, i) => (i * 7) & 255);
        const stream = new ByteStream(400, 400);
        stream.start((first - 1) >>> 0);
        const seen = new Uint8Array(300);
        const out: number[] = [];
        const all = [...segments, ...Array.from({ length: 10 }, (_, i) => [(9 - i) * 30, 30] as [number, number])];
        for (const [i, [from, length]] of all.entries()) {
          const to = Math.min(300, from + length);
          const ready = out.length + stream.length;
          const pushed = stream.push((first + from) >>> 0, whole, from, to);
          if (from < to) seen.fill(1, from, to);
          const firstHole = seen.indexOf(0) < 0 ? 300 : seen.indexOf(0);
          assert.equal(pushed, firstHole > ready ? "in-order" : to > firstHole ? "gap" : "old");
          assert.equal(out.length + stream.length, firstHole);
          const count = Math.min(reads[i] ?? 0, stream.length);
          out.push(...stream.view().subarray(0, count));
          stream.consume(count);
        }
        out.push(...stream.view());
        assert.deepEqual(out, [...whole]);
      },
    ),
    { numRuns: 500 },
  );
});

test("bytes that disagree are always told, and never taken", () => {
  const step = fc.tuple(fc.nat(59), fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 1 }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const stream = new ByteStream(100);
      stream.start(0);
      const model: (number | undefined)[] = new Array<number | undefined>(80).fill(undefined);
      for (const [from, length, value] of steps) {
        const data = new Uint8Array(length).fill(value);
        const range = model.slice(from, from + length);
        const pushed = stream.push(1 + from, data, 0, length);
        assert.equal(
          pushed === "overlap-differs",
          range.some((old) => old !== undefined && old !== value),
        );
        for (let i = 0; i < length; i++) model[from + i] ??= value;
        const hole = model.indexOf(undefined);
        assert.deepEqual([...stream.view()], model.slice(0, hole));
      }
    }),
    { numRuns: 500 },
  );
});
