import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { stamper } from "../../src/alerts/stamp.ts";
import { Fault } from "../../src/base/fault.ts";
import { filterOf, parseTime, readTerms, type Term, TERM_KINDS, type TermKind } from "../../src/control/event-filter.ts";
import type { Event } from "../../src/model/event.ts";
import { anyEvent } from "../alerts/any-event.ts";
import { DRAFTS, NOW } from "../alerts/events.ts";

const stamp = stamper("x");
const EVENTS: Readonly<Record<string, Event>> = Object.fromEntries(
  Object.entries(DRAFTS).map(([name, draft]) => [name, stamp(draft, NOW)]),
);
const passing = (terms: readonly Term[]): string[] =>
  Object.entries(EVENTS).flatMap(([name, event]) => (filterOf(terms)(event) ? [name] : []));
const is = (kind: TermKind, value: string): Term => ({ kind, value });
const not = (kind: TermKind, value: string): Term => ({ kind, value, not: true });

test("each kind of filter, on the events of a day", () => {
  const { allowed, denied } = EVENTS as Record<string, Event>;
  assert.ok(allowed !== undefined && denied !== undefined);
  const rows: readonly (readonly [kind: TermKind, value: string, allow: boolean, deny: boolean])[] = [
    ["pod", "shop/checkout-0", true, true],
    ["pod", "checkout", true, true],
    ["pod", "shop/", true, true],
    ["pod", "heckout", false, false],
    ["pod", "sho/checkout", false, false],
    ["namespace", "shop", true, true],
    ["namespace", "sho", false, false],
    ["label", "app=checkout,team.example/owner in (pay)", true, true],
    ["label", "!app", false, false],
    ["to-name", "api.stripe.com", true, true],
    ["to-name", "*.stripe.com", true, true],
    ["to-name", "*.COM", true, true],
    ["to-name", "stripe.com", false, false],
    ["to-name", "*.api.stripe.com", false, false],
    ["to", "203.0.113.0/24", true, false],
    ["to", "203.0.113.7", true, false],
    ["to", "2001:db8::/32", false, true],
    ["to", "0.0.0.0/0", true, false],
    ["port", "443", true, false],
    ["port", "8000-9000", false, true],
    ["port", "443/udp", false, false],
    ["port", "1-65535/TCP", true, true],
    ["port", "/tcp", true, true],
    ["verdict", "deny", false, true],
    ["verdict", "allow", true, false],
    ["policy", "shop/checkout", true, true],
    ["policy", "guardrails", false, true],
    ["policy", "shop/checkout/stripe", true, true],
    ["policy", "shop/checkout/other", false, false],
    ["why", "wrong-port", false, true],
    ["type", "connection", true, true],
    ["type", "dns", false, false],
    ["since", "2026-11-26T10:00:00Z", true, true],
    ["since", "2026-11-26T10:00:01Z", false, false],
    ["until", "2026-11-26T12:00:01+02:00", true, true],
    ["until", "2026-11-26T10:00:00.123Z", false, false],
  ];
  for (const [kind, value, allow, deny] of rows) {
    const passes = filterOf([is(kind, value)]);
    assert.deepEqual([passes(allowed), passes(denied)], [allow, deny], `--${kind} ${value}`);
    const others = filterOf([not(kind, value)]);
    assert.deepEqual([others(allowed), others(denied)], [!allow, !deny], `--not --${kind} ${value}`);
  }
  assert.deepEqual(new Set(rows.map(([kind]) => kind)), new Set(TERM_KINDS), "every kind is tried");
});

test("alternatives within a kind, all of several kinds, and none that is negated", () => {
  assert.ok(passing([]).length === Object.keys(EVENTS).length);
  assert.deepEqual(passing([is("why", "wrong-port"), is("why", "name-not-allowed")]), ["denied", "refusedQuery"]);
  assert.deepEqual(passing([is("why", "wrong-port"), is("why", "name-not-allowed"), is("type", "dns")]), ["refusedQuery"]);
  assert.deepEqual(passing([is("why", "wrong-port"), is("why", "name-not-allowed"), not("type", "dns")]), ["denied"]);
  const plenty = passing([not("verdict", "deny"), not("verdict", "info")]);
  assert.ok(plenty.includes("allowed") && !plenty.includes("denied") && !plenty.includes("policy"));
});

test("what cannot be read is a fault that names it, from a person or from the socket", () => {
  const rows: readonly (readonly [TermKind, string])[] = [
    ["to", "nonsense"],
    ["to", "10.0.0.0/33"],
    ["to-name", "*"],
    ["to-name", "a*.example"],
    ["port", "99999"],
    ["port", "9-1"],
    ["port", "1-2-3"],
    ["port", ""],
    ["port", "443/u d p"],
    ["verdict", "denied"],
    ["why", "NO RULE"],
    ["type", "\u001b[2J"],
    ["label", "a b"],
    ["since", "yesterday"],
    ["since", "2026-13-45T00:00:00Z"],
    ["pod", ""],
    ["pod", "a".repeat(2000)],
  ];
  for (const [kind, value] of rows)
    assert.throws(
      () => filterOf([is(kind, value)]),
      (error) => error instanceof Fault && error.message.startsWith(`--${kind}`),
      `${kind} ${value.slice(0, 20)}`,
    );
  for (const value of [
    "x",
    7,
    null,
    [7],
    [null],
    [{}],
    [{ kind: "__proto__", value: "" }],
    [{ kind: "constructor", value: "x" }],
    [{ kind: "pod", value: 7 }],
    Array(65).fill(is("pod", "a")),
  ])
    assert.throws(() => readTerms(value), Fault, JSON.stringify(value).slice(0, 60));
  assert.equal(readTerms(undefined), undefined);
  assert.equal(readTerms([{ kind: "pod", value: "checkout", more: 1 }])?.(EVENTS["allowed"] as Event), true);
  assert.equal(parseTime("2026-11-26 10:00:00z"), Date.parse("2026-11-26T10:00:00Z"));
});

const term: fc.Arbitrary<Term> = fc.oneof(
  fc.record({
    kind: fc.constantFrom<TermKind>("pod", "namespace", "policy"),
    value: fc.string({ unit: "binary", minLength: 1, maxLength: 5 }),
  }),
  fc.constantFrom<Term>(
    is("label", "a!=b"),
    is("to-name", "*.com"),
    is("to", "0.0.0.0/0"),
    is("to", "::/0"),
    is("port", "0-40000"),
    is("port", "/tcp"),
    is("verdict", "deny"),
    is("why", "no-rule"),
    is("type", "dns"),
    is("since", "2026-11-26T10:00:00Z"),
  ),
);

test("filter(not x) is the complement of filter(x), and several filters are what they are each by each", () => {
  fc.assert(
    fc.property(
      anyEvent,
      fc.array(term, { minLength: 1, maxLength: 6 }),
      fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }),
      (event, terms, nots) => {
        for (const one of terms) assert.equal(filterOf([{ ...one, not: true }])(event), !filterOf([one])(event));
        const all = terms.map((one, i) => ({ ...one, not: nots[i] === true }));
        const kinds = new Set(all.flatMap(({ kind, not: no }) => (no ? [] : [kind])));
        const expected =
          [...kinds].every((kind) => all.some((one) => one.kind === kind && !one.not && filterOf([one])(event))) &&
          all.every((one) => !one.not || !filterOf([{ ...one, not: false }])(event));
        assert.equal(filterOf(all)(event), expected);
        assert.equal(readTerms(JSON.parse(JSON.stringify(all)))?.(event), expected, "over the socket too");
      },
    ),
    { numRuns: 500 },
  );
});
