import assert from "node:assert/strict";
import { test } from "node:test";
import { Message } from "../../src/dns/message.ts";
import { learn } from "../../src/dns/reply.ts";
import type { Learned } from "../../src/model/binding.ts";
import { fuzz } from "./message.fuzz.ts";

test("200 000 mutated messages", () => {
  const count = fuzz(42, (iterations) => iterations >= 200_000);
  assert.equal(count.iterations, 200_000);
  assert.ok(
    count.learned > 20_000 && count.queries > 5_000 && count.messages > 20_000,
    `the fuzz reaches little: ${JSON.stringify(count)}`,
  );
});

const label = (text: string): number[] => [text.length, ...Buffer.from(text, "latin1")];
/** 250 octets on the wire. */
const LONG = [...label("a".repeat(63)), ...label("b".repeat(63)), ...label("c".repeat(63)), ...label("d".repeat(56)), 0];

/** A message of records up to 64 KiB: the question's name, then record after record until it is full. */
function full(question: readonly number[], record: (i: number, at: number) => readonly number[]): Uint8Array {
  const out = [0, 1, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, ...question, 0, 1, 0, 1];
  let count = 0;
  for (;;) {
    const next = record(count, out.length);
    if (out.length + next.length > 65535) break;
    out.push(...next);
    count++;
  }
  out[6] = count >> 8;
  out[7] = count & 255;
  return Uint8Array.from(out);
}

const A = [0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 6, 6, 6, 6];
const pointer = (at: number): number[] => [0xc0 | ((at >> 8) & 0x3f), at & 255];
const cnameTo = (...name: number[]): number[] => [0, 5, 0, 1, 0, 0, 1, 0, 0, name.length, ...name];
/** The long name's last label differs in its last octet: comparing costs most, and never succeeds. */
const ALMOST = [...LONG.slice(0, -2), 101, 0];

const HOSTILE: [string, Uint8Array][] = [
  ["pointers to the asked 250-octet name", full(LONG, () => [...pointer(12), ...A])],
  ["a label before the asked 250-octet name's tail", full(LONG, (i) => [1, 97 + (i % 26), ...pointer(12 + 64), ...A])],
  [
    "another 250-octet name, by pointer",
    full(LONG, (i, at) => (i === 0 ? [...ALMOST, ...A] : [...pointer(12 + 250 + 4), ...A].slice(0, at + 16))),
  ],
  ["250-octet names in full", full(LONG, () => [...ALMOST, ...A])],
  ["pointer to pointer to pointer", full(LONG, (i, at) => [...pointer(i === 0 ? 12 : at - 16 < 0x4000 ? at - 16 : 12 + 250 + 4), ...A])],
  ["CNAMEs of strangers", full(LONG, (i) => [1, 97 + (i % 26), ...pointer(12), ...cnameTo(...pointer(12))])],
  [
    "16 hops written backwards, in front of thousands of records",
    full([1, 97, 0], (i) => (i < 16 ? [1, 97 + 15 - i, 0, ...cnameTo(1, 97 + 16 - i, 0)] : [1, 97 + 16, 0, ...A])),
  ],
  [
    "16 hops backwards and strangers with long names",
    full([1, 97, 0], (i) =>
      i < 16
        ? [1, 97 + 15 - i, 0, ...cnameTo(1, 97 + 16 - i, 0)]
        : i === 16
          ? [...LONG, ...cnameTo(0)]
          : [1, 48 + (i % 10), ...pointer(12 + 7 + 16 * 16 + 64), ...cnameTo(0)],
    ),
  ],
  ["empty records of the root", full([1, 97, 0], () => [0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])],
];

test("64 KiB made to cost time: work is bounded by the length, and so is time", () => {
  const out: Learned[] = [];
  for (const [what, bytes] of HOSTILE) {
    assert.ok(bytes.length > 60_000, what);
    let best = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 5; i++) {
      const before = performance.now();
      const outcome = learn(bytes, 0, bytes.length, out);
      best = Math.min(best, performance.now() - before);
      assert.ok(
        outcome.kind !== "malformed" || outcome.reason === "work" || what === "pointer to pointer to pointer",
        `${what}: ${outcome.kind} ${outcome.reason}`,
      );
    }
    assert.ok(best < 20, `${what}: ${best.toFixed(2)} ms`);
  }
});

test("the work of one message is at most 8 steps an octet and 4096", () => {
  for (const [what, bytes] of HOSTILE) {
    const message = new Message();
    message.open(bytes, 0, bytes.length);
    const paid = message.work;
    assert.equal(paid, 4096 + 8 * bytes.length, what);
    let walks = 0;
    while (message.walk(12)) walks++;
    assert.ok(walks >= 1 && message.work < 0, "walking ends");
    assert.equal(message.walk(12), false, "and stays ended");
    message.open(bytes, 0, bytes.length);
    assert.equal(message.work, paid, "until the next message");
  }
});
