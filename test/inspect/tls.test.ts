import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { dnsName, dnsNameAt } from "../../src/base/name.ts";
import { Protocol } from "../../src/model/packet.ts";
import { NO_BYTES } from "../../src/inspect/inspector.ts";
import { ja4 } from "../../src/inspect/ja4.ts";
import { applications, inspect, inspectFirst } from "../../src/inspect/registry.ts";
import { Extension, type ClientHello, u16At } from "../../src/inspect/tls-hello.ts";
import { readClientHello } from "../../src/inspect/tls.ts";
import { HELLOS } from "./hellos.ts";

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"));
const cat = (...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));
const u16 = (v: number): number[] => [v >> 8, v & 255];
const u24 = (v: number): number[] => [v >> 16, (v >> 8) & 255, v & 255];
const ascii = (s: string): Uint8Array => Uint8Array.from(Buffer.from(s, "latin1"));
const read = (bytes: Uint8Array) => readClientHello(bytes, 0, bytes.length);

/** The text of `bad`, "need" or "hello". */
function outcome(bytes: Uint8Array): string {
  const r = read(bytes);
  return "bad" in r ? r.bad : "need" in r ? "need" : "hello";
}
function hello(bytes: Uint8Array): ClientHello {
  const r = read(bytes);
  assert.ok(!("bad" in r) && !("need" in r), JSON.stringify(r));
  return r;
}

/** All that a hello says, wherever it stands. */
function said(bytes: Uint8Array, start = 0, end = bytes.length) {
  const r = readClientHello(bytes, start, end);
  if ("bad" in r || "need" in r) return r;
  const { serverName, alpn, ech, version } = r;
  const u16s = (at: number, to: number): number[] => Array.from({ length: (to - at) / 2 }, (_, i) => u16At(r.bytes, at + 2 * i));
  const extensions: number[] = [];
  for (let at = r.extensionsAt; at < r.extensionsEnd; at += 4 + u16At(r.bytes, at + 2)) extensions.push(u16At(r.bytes, at));
  const [ciphers, signatures] = [u16s(r.ciphersAt, r.ciphersEnd), u16s(r.signaturesAt, r.signaturesEnd)];
  return { serverName, alpn, ech, version, ciphers, extensions, signatures, ja4: ja4(r, "t") };
}

/** A handshake message cut into records of `size` bytes. */
function records(message: Uint8Array, size = 16_384): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < message.length; at += size) {
    const part = message.subarray(at, at + size);
    parts.push(cat([22, 3, 1], u16(part.length), part));
  }
  return cat(...parts);
}
/** The handshake message of a record stream. */
function message(stream: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < stream.length; ) {
    const length = ((stream[at + 3] as number) << 8) | (stream[at + 4] as number);
    parts.push(stream.subarray(at + 5, at + 5 + length));
    at += 5 + length;
  }
  return cat(...parts);
}

type Ext = readonly [number, Uint8Array | readonly number[]];
interface Made {
  readonly version?: number;
  readonly session?: number;
  readonly ciphers?: readonly number[];
  readonly compressions?: readonly number[];
  readonly extensions?: readonly Ext[];
  readonly tail?: readonly number[];
}
function make(made: Made = {}): Uint8Array {
  const ciphers = (made.ciphers ?? [0x1301]).flatMap(u16);
  const compressions = made.compressions ?? [0];
  const extensions =
    made.extensions === undefined ? [] : cat(...made.extensions.map(([type, body]) => cat(u16(type), u16(body.length), body)));
  const body = cat(
    u16(made.version ?? 0x0303),
    new Uint8Array(32),
    [made.session ?? 0],
    new Uint8Array(made.session ?? 0),
    u16(ciphers.length),
    ciphers,
    [compressions.length],
    compressions,
    made.extensions === undefined ? [] : u16(extensions.length),
    extensions,
    made.tail ?? [],
  );
  return cat([1], u24(body.length), body);
}
const entry = (name: Uint8Array, type = 0): Uint8Array => cat([type], u16(name.length), name);
const list16 = (...parts: readonly Uint8Array[]): Uint8Array => cat(u16(cat(...parts).length), ...parts);
const sni = (name: string): Ext => [0, list16(entry(ascii(name)))];
const alpn = (...names: readonly string[]): Ext => [16, list16(...names.map((n) => cat([n.length], ascii(n))))];
const numbers16 = (type: number, values: readonly number[]): Ext => [type, list16(Uint8Array.from(values.flatMap(u16)))];
const versions = (values: readonly number[]): Ext => [43, cat([values.length * 2], values.flatMap(u16))];

for (const [name, { hex, ...want }] of Object.entries(HELLOS)) {
  test(`a ClientHello of ${name}`, () => {
    const bytes = bytesOf(hex);
    const got = hello(bytes);
    assert.deepEqual({ serverName: got.serverName, alpn: got.alpn, ja4: ja4(got, "t") }, want);
    assert.equal(got.ech, false);
    const shifted = cat([9, 9, 9], bytes, [9, 9]);
    assert.deepEqual(said(shifted, 3, 3 + bytes.length), said(bytes), "at another offset");
  });

  test(`every part of the ClientHello of ${name} needs more, never less than before`, () => {
    const bytes = bytesOf(hex);
    let last = 0;
    for (let cut = 0; cut < bytes.length; cut++) {
      const r = read(bytes.subarray(0, cut));
      assert.ok("need" in r, `${cut}: ${JSON.stringify(r)}`);
      assert.ok(r.need > cut && r.need >= last && r.need <= bytes.length, `${cut}: need ${r.need} after ${last}`);
      last = r.need;
    }
  });

  test(`the ClientHello of ${name} in records of any size is the same`, () => {
    const bytes = bytesOf(hex);
    const whole = message(bytes);
    for (const size of [1, 2, 3, 4, 5, 7, 16, 100, whole.length - 1, whole.length])
      assert.deepEqual(said(records(whole, size)), said(bytes), `${size}`);
  });
}

test("what follows in other records is not looked at", () => {
  const bytes = bytesOf(HELLOS.node.hex);
  assert.deepEqual(said(cat(bytes, [20, 3, 3, 0, 1, 1])), said(bytes));
});

const BAD: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ["an alert first", Uint8Array.of(21, 3, 1), /not a handshake record/],
  ["http", ascii("GET / HTTP/1.1\r\n"), /not a handshake record/],
  ["one wrong byte is enough", Uint8Array.of(0x80), /not a handshake record/],
  ["version 2", Uint8Array.of(22, 2), /not a TLS version/],
  ["version 3.5", Uint8Array.of(22, 3, 5), /not a TLS version/],
  ["an empty record", Uint8Array.of(22, 3, 1, 0, 0, 22, 3, 1), /empty/],
  ["an empty record between two", cat([22, 3, 1, 0, 6], make().subarray(0, 6), [22, 3, 1, 0, 0]), /empty/],
  ["a record of 16385 bytes", Uint8Array.of(22, 3, 1, 0x40, 1), /16385/],
  ["a ServerHello", Uint8Array.of(22, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3), /not a ClientHello/],
  ["another type in the middle", cat([22, 3, 1, 0, 2], make().subarray(0, 2), [21, 3, 1]), /not a handshake record/],
  ["a hello of 64 KiB", Uint8Array.of(22, 3, 1, 0x40, 0, 1, 1, 0, 0, 3, 3), /bytes/],
  ["bytes behind the hello", records(cat(make(), [1])), /behind/],
  ["early: the record is longer than the hello", records(cat(make(), [1])).subarray(0, 11), /behind/],
  ["1025 records", records(cat([1, 0, 0x80, 0, 3, 3], new Uint8Array(2000)), 1), /records/],
  ["legacy version 2", records(make({ version: 0x0203 })), /version/],
  ["session id of 33", records(make({ session: 33 })), /session/],
  ["no ciphers", records(make({ ciphers: [] })), /cipher/],
  ["no null compression", records(make({ compressions: [1] })), /compression/],
  ["no compression", records(make({ compressions: [] })), /compression/],
  ["a byte behind the extensions", records(make({ extensions: [sni("a.b")], tail: [0] })), /fill/],
  ["one byte where extensions would be", records(make({ tail: [0] })), /fill/],
  ["the same extension twice", records(make({ extensions: [sni("a.example"), sni("b.example")] })), /extension 0 twice/],
  [
    "an unknown extension twice",
    records(
      make({
        extensions: [
          [0x9999, []],
          [0x9999, []],
        ],
      }),
    ),
    /twice/,
  ],
  [
    "extensions without end",
    records(make({ extensions: Array.from({ length: 300 }, (_, i) => [0x1000 + i, []] as const) })),
    /more than 256/,
  ],
  ["something behind pre_shared_key", records(make({ extensions: [[41, [0]], sni("a.example")] })), /pre_shared_key/],
  ["two names", records(make({ extensions: [[0, list16(entry(ascii("a.example")), entry(ascii("b.example")))]] })), /more than one/],
  ["no name", records(make({ extensions: [[0, [0, 0]]] })), /server_name/],
  ["an empty server_name", records(make({ extensions: [[0, []]] })), /server_name/],
  ["an empty host name", records(make({ extensions: [sni("")] })), /no DNS name/],
  ["another name type", records(make({ extensions: [[0, list16(entry(ascii("a.example"), 1))]] })), /type 1/],
  ["list longer than the extension", records(make({ extensions: [[0, cat([0, 99], entry(ascii("a.example")))]] })), /server_name/],
  ["name longer than the list", records(make({ extensions: [[0, [0, 5, 0, 0, 9, 97, 98]]] })), /server_name/],
  ["a NUL in the name", records(make({ extensions: [sni("good.example\0.evil.example")] })), /no DNS name/],
  ["a space", records(make({ extensions: [sni("a b.example")] })), /no DNS name/],
  ["a trailing dot", records(make({ extensions: [sni("a.example.")] })), /no DNS name/],
  ["a name of 254", records(make({ extensions: [sni(`${"a.".repeat(126)}aa`)] })), /no DNS name/],
  ["an empty ALPN list", records(make({ extensions: [[16, [0, 0]]] })), /ALPN/],
  ["an empty ALPN name", records(make({ extensions: [alpn("")] })), /ALPN/],
  ["65 ALPN names", records(make({ extensions: [alpn(...Array.from({ length: 65 }, (_, i) => `p${i}`))] })), /ALPN/],
  ["odd supported_versions", records(make({ extensions: [[43, [3, 3, 4, 3]]] })), /supported_versions/],
  ["bytes behind supported_versions", records(make({ extensions: [[43, [2, 3, 4, 0]]] })), /supported_versions/],
  ["odd signature_algorithms", records(make({ extensions: [[13, [0, 1, 4]]] })), /signature_algorithms/],
];
for (const [name, bytes, want] of BAD) test(`refused: ${name}`, () => assert.match(outcome(bytes), want));

test("taken: upper case, no extensions, deflate beside null, ECH, a hello of many records", () => {
  assert.equal(hello(records(make({ extensions: [sni("API.Example.COM")] }))).serverName, "api.example.com");
  for (const address of ["192.0.2.1", "2001:db8::1"])
    assert.equal(hello(records(make({ extensions: [sni(address)] }))).serverName, address);
  assert.deepEqual(said(records(make())), {
    serverName: undefined,
    alpn: [],
    ech: false,
    version: 0x0303,
    ciphers: [0x1301],
    extensions: [],
    signatures: [],
    ja4: "t12i010000_0f2cb44170f4_000000000000",
  });
  hello(records(make({ compressions: [1, 0] })));
  for (const type of [Extension.encryptedClientHello, Extension.encryptedServerName])
    assert.equal(hello(records(make({ extensions: [[type, [0]]] }))).ech, true);
  const big = make({ extensions: [sni("big.example"), [0x3374, new Uint8Array(60_000)]] });
  assert.equal(hello(records(big, 1000)).serverName, "big.example");
});

const OPERA = {
  ciphers: [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035],
  signatures: [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
};
const plain = (type: number): Ext => [type, []];

test("JA4: published fingerprints", () => {
  const common: readonly Ext[] = [
    sni("a.example"),
    alpn("h2", "http/1.1"),
    versions([0x2a2a, 0x0304, 0x0303]),
    numbers16(13, OPERA.signatures),
  ];
  const grease: readonly Ext[] = [plain(0x0a0a), plain(0xfafa)];
  const rows: readonly (readonly [string, readonly number[], string])[] = [
    [
      "Chrome with 4469",
      [0x0005, 0x000a, 0x000b, 0x0012, 0x0015, 0x0017, 0x001b, 0x0023, 0x002d, 0x0033, 0x4469, 0xff01],
      "t13d1516h2_8daaf6152771_e5627efa2ab1",
    ],
    [
      "Chrome with ECH and 44cd",
      [0xfe0d, 0x0033, 0xff01, 0x0017, 0x001b, 0x000a, 0x0005, 0x002d, 0x0012, 0x000b, 0x44cd, 0x0023],
      "t13d1516h2_8daaf6152771_d8a2da3f94cd",
    ],
  ];
  for (const [name, others, want] of rows) {
    const made = make({ ciphers: [0x1a1a, ...OPERA.ciphers], extensions: [...grease, ...others.map(plain), ...common] });
    assert.equal(ja4(hello(records(made)), "t"), want, name);
  }
});

test("JA4: versions, counts, ALPN characters, empty lists", () => {
  const of = (made: Made, carrier: "t" | "q" | "d" = "t"): string => ja4(hello(records(make(made))), carrier);
  const start = (made: Made): string => of(made).slice(0, 10);
  assert.equal(of({ version: 0x0301, ciphers: [0x0a0a] }), "t10i000000_000000000000_000000000000");
  assert.equal(of({ extensions: [sni("a.example"), alpn("h2")] }, "q"), "q12d0102h2_0f2cb44170f4_000000000000");
  assert.equal(start({ version: 0x0300 }), "t" + "s3" + "i010000");
  assert.equal(start({ extensions: [versions([0x7f1c])] }), "t00i010100");
  assert.equal(start({ ciphers: Array.from({ length: 200 }, (_, i) => i + 0x4000) }), "t12i990000");
  const chars = (name: string): string => start({ extensions: [alpn(name)] }).slice(8);
  assert.deepEqual(["h2", "http/1.1", "h", "\xab", "\xab\xcd", "0\xab", "01\xab\xcd", "0\xab\xcd1", "h-"].map(chars), [
    "h2",
    "h1",
    "hh",
    "ab",
    "ad",
    "3b",
    "3d",
    "01",
    "6d",
  ]);
});

test("registry: evidence, need, bad, and what is not recognised", () => {
  const bytes = bytesOf(HELLOS.openssl13.hex);
  const { TCP, UDP } = Protocol;
  const evidence = {
    application: "tls",
    serverName: "api.example.com",
    alpn: ["h2", "http/1.1"],
    ja4: HELLOS.openssl13.ja4,
    ech: false,
    version: "1.3",
  };
  for (const wanted of ["tls", undefined]) assert.deepEqual(inspect(wanted, bytes, 0, bytes.length, TCP), evidence);
  assert.deepEqual(inspect("tls", bytes, 0, 100, TCP), { need: bytes.length, of: "client", application: "tls" });
  assert.deepEqual(inspect("tls", bytes, 0, 0, TCP), { need: 6, of: "client" });
  const nobodys = ascii("\xff\xfeno protocol\r\n");
  assert.ok("bad" in inspect("tls", nobodys, 0, nobodys.length, TCP));
  assert.deepEqual(inspect(undefined, nobodys, 0, nobodys.length, TCP), { application: undefined, serverName: undefined });
  const twice = records(make({ extensions: [sni("a.example"), sni("b.example")] }));
  for (const wanted of ["tls", undefined])
    assert.deepEqual(inspect(wanted, twice, 0, twice.length, TCP), { bad: "extension 0 twice", application: "tls" });
  assert.ok("bad" in inspect("tls", bytes, 0, bytes.length, UDP), "tls is not spoken over udp");
  assert.ok("bad" in inspect("no-such-protocol", bytes, 0, bytes.length, TCP));
  assert.deepEqual(inspectFirst("tls", { transport: TCP, client: { ...NO_BYTES, bytes, end: bytes.length }, server: NO_BYTES }), evidence);
  assert.ok(applications().includes("tls"));
});

test("a server name is what dnsName makes of its text", () => {
  const octet = fc.oneof(
    fc.constantFrom(..."aZ09-_.."),
    fc.nat(255).map((c) => String.fromCharCode(c)),
  );
  fc.assert(
    fc.property(fc.string({ unit: octet, maxLength: 300 }), (text) => {
      const bytes = cat([9], ascii(text), [9]);
      assert.equal(dnsNameAt(bytes, 1, 1 + text.length), text.endsWith(".") ? undefined : dnsName(text));
    }),
    { numRuns: 2000 },
  );
});

test("hostile bytes never throw, and every need asks for more", () => {
  const seeds = [
    ...Object.values(HELLOS).map(({ hex }) => bytesOf(hex)),
    records(make({ extensions: [sni("a.example"), alpn("h2"), versions([0x0304])] }), 11),
  ];
  const edit = fc.tuple(fc.nat(500), fc.nat(255));
  fc.assert(
    fc.property(fc.constantFrom(...seeds), fc.array(edit, { maxLength: 5 }), fc.nat(500), (seed, edits, cut) => {
      const bytes = Uint8Array.from(seed);
      for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
      const end = Math.min(bytes.length, cut < 50 ? bytes.length : cut);
      const r = inspect(undefined, bytes, 0, end, Protocol.TCP);
      if ("need" in r) assert.ok(r.need > (r.of === "client" ? end : 0));
    }),
    { numRuns: 5000 },
  );
});
