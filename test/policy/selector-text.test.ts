import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { selectorMatches } from "../../src/policy/select.ts";
import { parseSelector } from "../../src/policy/selector-text.ts";

const LABELS = { app: "web", env: "prod", "team.example/owner": "pay", empty: "" };

test("selectors as kubectl has them", () => {
  const rows: readonly (readonly [text: string, matches: boolean])[] = [
    ["app=web", true],
    ["app==web", true],
    ["app = web", true],
    ["app=api", false],
    ["app!=api", true],
    ["app!=web", false],
    ["tier!=front", true], // as in Kubernetes: also where the label is missing
    ["app", true],
    ["!app", false],
    ["!tier", true],
    ["app in (web, api)", true],
    ["app in(web)", true],
    ["app notin (web, api)", false],
    ["tier notin (front)", true],
    ["app=web,env in (prod,test),!tier", true],
    ["app=web,env=test", false],
    ["team.example/owner=pay", true],
    ["empty=", true],
    ["app=", false],
    ["constructor", false],
    ["!__proto__", true],
  ];
  for (const [text, matches] of rows) {
    const selector = parseSelector(text);
    assert.ok(typeof selector !== "string", `${text}: ${JSON.stringify(selector)}`);
    assert.equal(selectorMatches(selector, LABELS), matches, text);
  }
});

test("what is none is said", () => {
  for (const text of [
    "",
    ",",
    "app=web,",
    "app in",
    "app in (a",
    "app in (a))",
    "app like (a)",
    "a b",
    "app>1",
    "=web",
    "app=a b",
    "app=\u001b[2J",
    "(a)",
    "a".repeat(2000),
    "a,".repeat(50),
  ])
    assert.equal(typeof parseSelector(text), "string", text.slice(0, 40));
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => void parseSelector(text)));
});
