import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { dnsName } from "../../src/base/name.ts";
import { Message, nameOfWire } from "../../src/dns/message.ts";

/** A header with one question whose name octets are `octets`, placed at `offset`. */
function withName(octets: readonly number[], offset = 0): { bytes: Uint8Array; start: number } {
  const bytes = Uint8Array.from([...new Array<number>(offset).fill(0xee), 0, 1, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, ...octets, 0, 1, 0, 1]);
  return { bytes, start: offset };
}

const label = (text: string): number[] => [text.length, ...Buffer.from(text, "latin1")];

function walked(octets: readonly number[], at = 12): string | undefined | false {
  const { bytes, start } = withName(octets, 5);
  const message = new Message();
  assert.equal(message.open(bytes, start, bytes.length), true);
  return message.walk(start + at) && message.name();
}

test("names that can be read", () => {
  const rows: [string, number[], string | undefined][] = [
    ["plain", [...label("www"), ...label("example"), 0], "www.example"],
    ["upper case", [...label("WwW"), ...label("EXAMPLE"), 0], "www.example"],
    ["underscore and hyphen", [...label("_sip-1"), ...label("x"), 0], "_sip-1.x"],
    ["63 octets", [...label("a".repeat(63)), 0], "a".repeat(63)],
    ["the root", [0], undefined],
    ["a dot inside a label", [...label("a.b"), ...label("com"), 0], undefined],
    ["a NUL inside a label", [...label("a\0"), ...label("com"), 0], undefined],
    ["UTF-8", [...label("\xc3\xa9"), 0], undefined],
    ["a space", [...label("a b"), 0], undefined],
    ["a star", [...label("*"), ...label("com"), 0], undefined],
  ];
  for (const [what, octets, expected] of rows) assert.equal(walked(octets), expected, what);
});

test("names that cannot", () => {
  const long = [...label("a".repeat(63)), ...label("b".repeat(63)), ...label("c".repeat(63))];
  const rows: [string, number[], number?][] = [
    ["label type 01", [0x41, 0x41, 0]],
    ["label type 10", [0x81, 0x41, 0]],
    ["pointer to itself", [0xc0, 12]],
    ["pointer into its own run", [...label("a"), 0xc0, 12]],
    ["pointer forward", [0xc0, 14, ...label("a"), 0]],
    ["pointer into the header", [0xc0, 4]],
    ["two pointers in a circle", [0xc0, 14, 0xc0, 12]],
    ["256 octets", [...long, ...label("d".repeat(62)), 0]],
    ["cut in a label", [60, 65, 65]],
  ];
  for (const [what, octets] of rows) assert.equal(walked(octets), false, what);
  assert.equal(
    walked([...long, ...label("d".repeat(61)), 0]),
    [..."abc"].map((c) => c.repeat(63)).join(".") + "." + "d".repeat(61),
    "255 octets are good",
  );
  assert.equal(walked([0xc0], 16), false, "cut in a pointer");
});

test("backward pointers, one after the other", () => {
  const tail = [...label("com"), 0]; // at 12
  const middle = [...label("example"), 0xc0, 12]; // at 17
  const head = [...label("www"), 0xc0, 17]; // at 27
  assert.equal(walked([...tail, ...middle, ...head, 0xc0, 27], 33), "www.example.com");
  const chain = [...tail];
  for (let i = 0; i < 127; i++) chain.push(0xc0, i === 0 ? 12 : 17 + 2 * (i - 1));
  assert.equal(walked(chain, 17 + 2 * 60), "com");
});

test("at most 128 pointers in one name", () => {
  const pointers = [...label("com"), 0];
  for (let i = 0; i < 200; i++) {
    const target = i === 0 ? 12 : 17 + 2 * (i - 1);
    pointers.push(0xc0 | (target >> 8), target & 255);
  }
  assert.equal(walked(pointers, 17 + 2 * 127), "com");
  assert.equal(walked(pointers, 17 + 2 * 128), false);
  const { bytes } = withName(pointers);
  const message = new Message();
  message.open(bytes, 0, bytes.length);
  assert.deepEqual([message.lead(17 + 2 * 127), message.lead(17 + 2 * 128)], [12, -1]);
});

test("the same place is the same name: `lead` follows leading pointers only", () => {
  const { bytes } = withName([...label("com"), 0, 0xc0, 12, 0xc0, 17, ...label("x"), 0xc0, 12]);
  const message = new Message();
  message.open(bytes, 0, bytes.length);
  assert.equal(message.lead(12), 12);
  assert.equal(message.lead(17), 12);
  assert.equal(message.lead(19), 12);
  assert.equal(message.lead(21), 21);
});

test("the wire's door gives what the text's door gives", () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: fc.constantFrom("a", "Z", "0", "-", "_", ".", "\0", " ", "\xff"), minLength: 1, maxLength: 8 }), {
        maxLength: 5,
      }),
      (list) => {
        const wire = Uint8Array.from([...list.flatMap((l) => label(l.toLowerCase())), 0]);
        const expected = list.some((l) => l.includes(".")) ? undefined : dnsName(list.join("."));
        assert.equal(nameOfWire(wire, 0, wire.length), expected);
      },
    ),
  );
});

test("no header, or more than a message", () => {
  const message = new Message();
  assert.equal(message.open(new Uint8Array(11), 0, 11), false);
  assert.equal(message.open(new Uint8Array(12), 0, 12), true);
  assert.equal(message.open(new Uint8Array(65536), 0, 65536), false);
  assert.equal(message.open(new Uint8Array(12), 0, 4000), true, "an end past the buffer is its end");
});
