import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ItemCutter, LineCutter, TOO_LARGE } from "../../src/inputs/kubernetes/pieces.ts";

/** The bytes of a text, in pieces of this size. */
function* pieces(text: string, size: number): Generator<Buffer> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function cutItems(text: string, size: number, max = 1000): { items: string[]; rest: string } | typeof TOO_LARGE {
  const cutter = new ItemCutter(max, max);
  const items: string[] = [];
  for (const piece of pieces(text, size)) {
    const bad = cutter.push(piece, (item) => void items.push(item));
    if (bad !== undefined) return TOO_LARGE;
  }
  return { items, rest: cutter.rest() };
}

test("a list is cut into its objects and its frame, wherever the network cuts it", () => {
  fc.assert(
    fc.property(
      fc.array(fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue({ maxDepth: 3 })), { maxLength: 5 }),
      fc.dictionary(
        fc.string().filter((key) => key !== "__proto__"),
        fc.jsonValue({ maxDepth: 2 }),
      ),
      fc.integer({ min: 1, max: 40 }),
      fc.constantFrom(undefined, 1),
      (items, metadata, size, indent) => {
        const list = { kind: 'L"ist[{', metadata, items, tail: { x: [{}] } };
        const cut = cutItems(JSON.stringify(list, null, indent), size, 1e6);
        assert.ok(cut !== TOO_LARGE);
        assert.deepEqual(
          cut.items.map((item) => JSON.parse(item) as unknown),
          JSON.parse(JSON.stringify(items)),
        );
        assert.deepEqual(JSON.parse(cut.rest), JSON.parse(JSON.stringify({ ...list, items: [] })));
      },
    ),
    { numRuns: 500 },
  );
});

test("no items, and items that are no objects", () => {
  assert.deepEqual(cutItems('{"metadata":{},"items":null}', 3), { items: [], rest: '{"metadata":{},"items":null}' });
  assert.deepEqual(cutItems('{"items":[]}', 3), { items: [], rest: '{"items":[]}' });
  assert.deepEqual(cutItems('{"items":[1,"a{b",{"c":1}]}', 2), { items: ['{"c":1}'], rest: '{"items":[1"a{b"]}' }, "not JSON any more");
  assert.deepEqual(cutItems("}}]][[{{", 1), { items: [], rest: "}}]][[{{" });
});

test("an object, and a frame, have their limits", () => {
  const object = JSON.stringify({ a: "x".repeat(90) });
  assert.notEqual(cutItems(`{"items":[${object}]}`, 7, 100), TOO_LARGE);
  assert.equal(cutItems(`{"items":[${object}]}`, 7, 90), TOO_LARGE);
  assert.equal(cutItems(`{"kind":${object}`, 7, 90), TOO_LARGE);
});

test("lines, wherever the network cuts them, up to their limit", () => {
  for (let size = 1; size < 12; size++) {
    const cutter = new LineCutter(5);
    const lines: string[] = [];
    for (const piece of pieces("ab\n\nü€\nx", size))
      assert.equal(
        cutter.push(piece, (line) => void lines.push(line)),
        undefined,
      );
    assert.deepEqual(lines, ["ab", "ü€"]);
  }
  assert.equal(
    new LineCutter(5).push(Buffer.from("123456"), () => undefined),
    TOO_LARGE,
  );
  const answers = new LineCutter(5).push(Buffer.from("a\nb\nc\n"), (line) => (line === "b" ? "stop" : undefined));
  assert.equal(answers, "stop");
});
