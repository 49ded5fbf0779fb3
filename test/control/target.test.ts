import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { hostText, parseTarget } from "../../src/control/target.ts";

test("where a connection would go, as a person writes it", () => {
  const rows: readonly (readonly [text: string, host: string, port: number, protocol: number])[] = [
    ["api.stripe.com:443", "api.stripe.com", 443, 6],
    ["API.Stripe.com.:443/tcp", "api.stripe.com", 443, 6],
    ["10.0.0.1:53/udp", "10.0.0.1", 53, 17],
    ["[2001:db8::1]:443", "2001:db8::1", 443, 6],
    ["[::ffff:10.0.0.1]:443", "10.0.0.1", 443, 6],
    ["10.0.0.1:9/SCTP", "10.0.0.1", 9, 132],
    ["10.0.0.1/icmp", "10.0.0.1", 8 << 8, 1],
    ["10.0.0.1:3.1/icmp", "10.0.0.1", (3 << 8) | 1, 1],
    ["[2001:db8::1]/icmpv6", "2001:db8::1", 128 << 8, 58],
    ["db:5432", "db", 5432, 6],
  ];
  for (const [text, host, port, protocol] of rows) {
    const target = parseTarget(text);
    assert.ok(typeof target !== "string", `${text}: ${JSON.stringify(target)}`);
    assert.deepEqual([hostText(target), target.port, target.protocol], [host, port, protocol], text);
  }
});

test("and what is none, with what is wrong", () => {
  const rows: readonly (readonly [text: string, says: RegExp])[] = [
    ["api.stripe.com", /port is missing/],
    ["api.stripe.com:0", /number from 1/],
    ["api.stripe.com:65536", /number from 1/],
    ["api.stripe.com:+1", /number from 1/],
    ["2001:db8::1:443", /in brackets/],
    ["[2001:db8::1]443", /behind the bracket/],
    ["[api.stripe.com]:443", /neither a name nor an address/],
    ["10.0.0.256:1", /neither a name nor an address/],
    ["a.example:1/quic", /\/quic is none of/],
    ["a.example:1/__proto__", /is none of/],
    ["*.example:1", /neither/],
    ["10.0.0.1:8.0.0/icmp", /TYPE\.CODE/],
    ["10.0.0.1:256/icmp", /TYPE\.CODE/],
    [`${"a".repeat(400)}:1`, /too long/],
    ["\u001b[2J:1", /neither/],
    ["", /port is missing/],
  ];
  for (const [text, says] of rows) assert.match(String(parseTarget(text)), says, text);
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 40 }), (text) => void parseTarget(text)));
});
