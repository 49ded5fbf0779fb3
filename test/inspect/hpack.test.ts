import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HpackDecoder, LIST_BYTES_MAX } from "../../src/inspect/hpack.ts";
import { decodeHuffman } from "../../src/inspect/hpack-huffman.ts";

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
/** `name: value` a field; or what is wrong. */
function decoded(decoder: HpackDecoder, text: string): string[] | string {
  const bytes = hex(`ff ${text} ff`);
  const fields = decoder.decode(bytes, 1, bytes.length - 1);
  return Array.isArray(fields) ? fields.map(({ name, value }) => `${name}: ${value}`) : fields.bad;
}

test("RFC 7541 Appendix C.2: every representation", () => {
  const one = (text: string): string[] | string => decoded(new HpackDecoder(), text);
  assert.deepEqual(one("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572"), ["custom-key: custom-header"]);
  assert.deepEqual(one("040c 2f73 616d 706c 652f 7061 7468"), [":path: /sample/path"]);
  assert.deepEqual(one("1008 7061 7373 776f 7264 0673 6563 7265 74"), ["password: secret"]);
  assert.deepEqual(one("82"), [":method: GET"]);
});

const REQUESTS = [
  [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
  [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"],
  [":method: GET", ":scheme: https", ":path: /index.html", ":authority: www.example.com", "custom-key: custom-value"],
];

test("RFC 7541 Appendix C.3 and C.4: requests on one connection, plain and Huffman coded", () => {
  const plain = [
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "8286 84be 5808 6e6f 2d63 6163 6865",
    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
  ];
  const coded = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
  ];
  for (const blocks of [plain, coded]) {
    const decoder = new HpackDecoder();
    for (const [i, block] of blocks.entries()) assert.deepEqual(decoded(decoder, block), REQUESTS[i]);
  }
});

const first = ["cache-control: private", "date: Mon, 21 Oct 2013 20:13:21 GMT", "location: https://www.example.com"];
const RESPONSES = [
  [":status: 302", ...first],
  [":status: 307", ...first],
  [
    ":status: 200",
    "cache-control: private",
    "date: Mon, 21 Oct 2013 20:13:22 GMT",
    "location: https://www.example.com",
    "content-encoding: gzip",
    "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
  ],
];

test("RFC 7541 Appendix C.5 and C.6: a table of 256 bytes, with eviction, plain and Huffman coded", () => {
  const plain = [
    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "4803 3330 37c1 c0bf",
    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
  ];
  const coded = [
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    "4883 640e ffc1 c0bf",
    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
  ];
  for (const blocks of [plain, coded]) {
    const decoder = new HpackDecoder();
    assert.deepEqual(decoded(decoder, "3fe101"), [], "size 256");
    for (const [i, block] of blocks.entries()) assert.deepEqual(decoded(decoder, block), RESPONSES[i]);
    assert.equal(typeof decoded(decoder, "c1"), "string", "only three entries are left");
  }
});

test("what HPACK forbids", () => {
  const rows: readonly (readonly [string, string])[] = [
    ["index 0", "80"],
    ["no such entry", "be"],
    ["no such entry's name", "7e 01 61"],
    ["an integer without end", "ff ff ff ff ff ff ff 00"],
    ["a cut integer", "ff"],
    ["a string longer than the block", "00 01 61 05 61"],
    ["no value", "00 01 61"],
    ["EOS", "00 01 61 84 ff ff ff ff"],
    ["8 bits of padding", "00 01 61 82 1f ff"],
    ["padding that is not ones", "00 01 61 81 18"],
    ["a table size behind a field", "82 20"],
    ["a table size beyond any server's", "3f ff ff 0f"],
  ];
  for (const [name, block] of rows) assert.equal(typeof decoded(new HpackDecoder(), block), "string", name);
});

test("a small block that stands for a large list is refused", () => {
  const name = Buffer.alloc(2000, 0x61).toString("hex");
  const refusal = decoded(new HpackDecoder(), `40 7f d10e ${name} 00 ${"be ".repeat(100)}`);
  assert.equal(refusal, `a header list of more than ${LIST_BYTES_MAX} bytes`);
});

test("an entry larger than the table empties it; a table of no size holds nothing", () => {
  const decoder = new HpackDecoder();
  assert.deepEqual(decoded(decoder, "3f0f 40 01 61 01 62 be"), ["a: b", "a: b"]);
  assert.deepEqual(decoded(decoder, `40 20 ${"61".repeat(32)} 01 62`), [`${"a".repeat(32)}: b`]);
  assert.equal(typeof decoded(decoder, "be"), "string");
  assert.deepEqual(decoded(new HpackDecoder(), "20 40 01 61 01 62"), ["a: b"]);
});

test("any bytes: no throw, and never more than the bounds", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const text = decodeHuffman(bytes, 0, bytes.length);
      assert.ok(text === undefined || text.length <= (bytes.length * 8) / 5);
      const fields = new HpackDecoder().decode(bytes, 0, bytes.length);
      assert.ok(Array.isArray(fields) ? fields.length <= bytes.length : fields.bad !== "");
    }),
    { numRuns: 2000, seed: 7541 },
  );
});
