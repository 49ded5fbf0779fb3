import fc from "fast-check";
import type { Event } from "../../src/model/event.ts";

const hostile = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({
    unit: fc.constantFrom("|", "=", "\\", "\n", "\r", "\t", "\0", '"', "]", " ", "a", "\ud800", "\u2028", "é", "😀"),
    maxLength: 40,
  }),
  fc.string({ minLength: 1000, maxLength: 5000 }),
);
const maybe = <T>(one: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(one, { nil: null });
const optional = <T>(one: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(one, { nil: undefined });
const ip = fc.oneof(fc.ipV4(), fc.ipV6());
const port = fc.nat({ max: 65_535 });

/** Any event whose texts somebody hostile has chosen. */
export const anyEvent: fc.Arbitrary<Event> = fc
  .record({
    id: fc.constant("mb2k9x-7"),
    seq: fc.constant(7),
    time: fc.constant("2026-11-26T10:00:00.123Z"),
    type: fc.constantFrom("connection", "dns", "spoofed", "limit", "policy", "rules", "agent"),
    verdict: fc.constantFrom("allow", "deny", "would-deny", "info"),
    mode: fc.constantFrom("Discover", "Monitor", "Enforce", null),
    why: maybe(fc.oneof(hostile, fc.constantFrom("untrusted-resolver", "dns-over-tls", "dns-over-https", "dns-tunnel", "policy-changed"))),
    pod: maybe(
      fc.record({
        namespace: hostile,
        name: hostile,
        labels: fc.dictionary(hostile, hostile, { maxKeys: 5 }),
        serviceAccountName: hostile,
      }),
    ),
    policy: maybe(hostile),
    rule: maybe(hostile),
    policies: fc.array(hostile, { maxLength: 3 }),
    nearest: maybe(fc.record({ policy: hostile, rule: hostile, clause: fc.constantFrom("name", "port") })),
    destination: maybe(
      fc.record({
        address: maybe(ip),
        port: maybe(port),
        protocol: maybe(fc.oneof(hostile, fc.constantFrom("TCP", "UDP", "ICMPv6", "47"))),
        names: fc.array(hostile, { maxLength: 100 }),
      }),
    ),
    source: maybe(fc.record({ address: ip, port, interface: maybe(hostile) })),
    evidence: maybe(
      fc.record({
        dns: maybe(fc.array(fc.record({ name: hostile, via: fc.constantFrom("asked", "cname"), fresh: fc.boolean() }), { maxLength: 3 })),
        serverName: maybe(hostile),
        application: maybe(hostile),
        ja4: maybe(hostile),
      }),
    ),
    message: maybe(hostile),
    suggestion: optional(hostile),
    change: optional(
      fc.record({
        source: hostile,
        digest: maybe(hostile),
        version: maybe(hostile),
        by: maybe(hostile),
        at: maybe(hostile),
        what: fc.array(hostile, { maxLength: 100 }),
      }),
    ),
    exceeded: optional(fc.record({ limit: hostile, most: fc.nat(), found: fc.nat(), domain: hostile })),
    count: fc.nat({ max: 1e9 }).map((n) => n + 1),
  })
  .map(({ suggestion, change, exceeded, ...event }) => ({
    ...event,
    ...(suggestion !== undefined && { suggestion }),
    ...(change !== undefined && { change }),
    ...(exceeded !== undefined && { exceeded }),
  })) as fc.Arbitrary<Event>;
