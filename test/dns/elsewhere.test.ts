import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { dnsName, namePattern, type NamePattern, patternMatches } from "../../src/base/name.ts";
import { dnsUse, HTTPS_SERVERS, maybeDns, NameList } from "../../src/dns/elsewhere.ts";
import { Protocol } from "../../src/model/packet.ts";
import type { Evidence } from "../../src/model/verdict.ts";
import { name, pattern } from "../policy/arbitrary.ts";

const { TCP, UDP, SCTP } = Protocol;
const SERVERS = new NameList(HTTPS_SERVERS);
const saw = (over: Partial<Evidence>): Evidence => ({ application: undefined, serverName: undefined, ...over });

test("what a connection shows of DNS", () => {
  const rows: readonly [protocol: number, port: number, known: boolean, evidence: Evidence | undefined, use: string | undefined][] = [
    [UDP, 53, false, undefined, "untrusted-resolver"],
    [TCP, 53, false, undefined, "untrusted-resolver"],
    [UDP, 53, false, saw({ application: "dns", fields: { query: "a.example" } }), "untrusted-resolver"],
    [TCP, 53, false, saw({ application: "tls", serverName: "a.example" }), undefined],
    [UDP, 5300, false, saw({ application: "dns" }), "untrusted-resolver"],
    [UDP, 5300, false, undefined, undefined],
    [TCP, 853, false, undefined, "dns-over-tls"],
    [UDP, 853, false, undefined, "dns-over-tls"],
    [TCP, 853, false, saw({ application: "tls", serverName: "dns.google" }), "dns-over-tls"],
    [TCP, 443, false, saw({ application: "tls", serverName: "a.example", alpn: ["dot"] }), "dns-over-tls"],
    [UDP, 8853, false, saw({ application: "quic", serverName: "a.example", alpn: ["doq"] }), "dns-over-tls"],
    [TCP, 443, false, saw({ application: "tls", serverName: "Mozilla.Cloudflare-DNS.com", alpn: ["h2"] }), "dns-over-https"],
    [UDP, 443, false, saw({ application: "quic", serverName: "dns.google", alpn: ["h3"] }), "dns-over-https"],
    [TCP, 8080, false, saw({ application: "http1", fields: { path: "/dns-query", method: "POST" } }), "dns-over-https"],
    [TCP, 8080, false, saw({ application: "http1", fields: { path: "/", host: "doh.opendns.com" } }), "dns-over-https"],
    [TCP, 443, true, undefined, "dns-over-https"],
    [TCP, 443, true, saw({ application: "tls", serverName: "maps.example" }), undefined],
    [TCP, 80, true, undefined, undefined],
    [TCP, 443, false, saw({ application: "tls", serverName: "dns.google.evil.example" }), undefined],
    [TCP, 443, false, saw({ application: "tls", serverName: "cloudflare.com" }), undefined],
    [SCTP, 53, false, undefined, undefined],
  ];
  for (const [protocol, port, known, evidence, use] of rows) {
    assert.equal(dnsUse(protocol, port, known, evidence, SERVERS), use, JSON.stringify([protocol, port, known, evidence]));
    // What is sorted out by its port alone has nothing to say.
    if (evidence === undefined && !maybeDns(port, known)) assert.equal(use, undefined);
  }
});

test("the built-in names are names, and a list matches as the patterns of a policy do", () => {
  for (const one of HTTPS_SERVERS) assert.equal(namePattern(one), one);
  fc.assert(
    fc.property(fc.array(pattern, { maxLength: 4 }), name, (patterns, one) => {
      assert.equal(
        new NameList(patterns).has(one),
        patterns.some((each) => patternMatches(each, one)),
      );
    }),
  );
  const list = new NameList(["*.example" as NamePattern]);
  assert.deepEqual([list.has(""), list.has("."), list.has("..example"), list.has(".example")], [false, false, true, true]);
  assert.equal(list.has(dnsName("example") ?? ""), false);
});
