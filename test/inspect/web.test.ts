import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { readAuthority, sameAuthority } from "../../src/inspect/http1-authority.ts";
import { type FirstBytes, NO_BYTES } from "../../src/inspect/inspector.ts";
import { inspectFirst, inspectorOf } from "../../src/inspect/registry.ts";
import { readGolden } from "./golden.ts";

const WEB = ["http1", "websocket", "http2", "grpc", "etcd"];
const sent = WEB.flatMap((name) => readGolden(`${name}.txt`)).map((one) =>
  Buffer.concat(one.sent.filter(({ from }) => from === "client").map(({ bytes }) => bytes)).subarray(0, 2000),
);

test("web: damaged first bytes never throw, and never need what is there or cannot come", () => {
  const damage = fc.array(fc.tuple(fc.nat(400), fc.constantFrom(0, 0x0a, 0x0d, 0x20, 0x2c, 0x3a, 0x40, 0x7f, 0xff)), { maxLength: 4 });
  fc.assert(
    fc.property(fc.constantFrom(...sent), damage, fc.nat(500), fc.nat(3), fc.boolean(), (whole, changes, cut, before, closed) => {
      const bytes = Buffer.concat([Buffer.alloc(before, 0x50), whole]);
      for (const [at, value] of changes) if (before + at < bytes.length) bytes[before + at] = value;
      const end = Math.min(bytes.length, before + cut);
      const first: FirstBytes = { transport: 6, client: { bytes, start: before, end, ends: [], closed }, server: NO_BYTES };
      for (const name of WEB) {
        const reading = inspectorOf(name).read(first);
        if ("need" in reading) assert.ok(!closed && reading.of === "client" && reading.need > end - before);
        else if (!("bad" in reading))
          for (const value of Object.values(reading.fields ?? {})) assert.ok(value.length > 0 && value.length <= 255);
      }
    }),
    { numRuns: 4000, seed: 2616 },
  );
});

test("web: 64 KiB that drip into one head are not read in full each time", () => {
  const bytes = Buffer.concat([Buffer.from("GET / HTTP/1.1\r\n"), Buffer.alloc(65_000, "X: y\r\n")]);
  const first: FirstBytes = { transport: 6, client: { ...NO_BYTES, bytes }, server: NO_BYTES };
  const from = performance.now();
  for (let end = 60_000; end < 60_500; end++) {
    first.client.end = end;
    assert.ok("need" in inspectFirst("http", first));
  }
  assert.ok(performance.now() - from < 3000);
});

test("authority: what is a host, and when two are the same", () => {
  const text = (of: string): string | undefined => {
    const a = readAuthority(of);
    return a === undefined ? undefined : `${a.name ?? "-"} ${a.host} ${a.port ?? "-"}`;
  };
  const rows: readonly (readonly [string, string | undefined])[] = [
    ["Example.COM", "example.com example.com -"],
    ["example.com.:443", "example.com example.com 443"],
    ["example.com:", "example.com example.com -"],
    ["192.0.2.1:80", "- 192.0.2.1 80"],
    ["[2001:DB8::0:1]:80", "- [2001:db8::1] 80"],
    ["[::ffff:192.0.2.1]", "- 192.0.2.1 -"],
    ["", undefined],
    [":80", undefined],
    ["2001:db8::1", undefined],
    ["[192.0.2.1]", undefined],
    ["[2001:db8::1", undefined],
    ["[2001:db8::1]x:80", undefined],
    ["[fe80::1%25eth0]", undefined],
    ["example.com:0", undefined],
    ["example.com:65536", undefined],
    ["example.com:080443", undefined],
    ["example.com:80:80", undefined],
    ["a@example.com", undefined],
    ["example.com/", undefined],
    ["ex%61mple.com", undefined],
    ["a,b", undefined],
    ["a..b", undefined],
  ];
  for (const [of, want] of rows) assert.equal(text(of), want, of);
  const same = (a: string, b: string): boolean => {
    const [x, y] = [readAuthority(a), readAuthority(b)];
    return x !== undefined && y !== undefined && sameAuthority(x, y);
  };
  assert.ok(same("a.example", "A.example.:443") && same("[::1]:1", "[0:0::1]:1") && same("192.0.2.1", "[::ffff:192.0.2.1]"));
  assert.ok(!same("a.example:80", "a.example:81") && !same("a.example", "b.example"));
});
