import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { ROOT } from "../support/need.ts";

const module = async <T>(name: string): Promise<T> => (await import(pathToFileURL(join(ROOT, "src", "page", "static", name)).href)) as T;

test("the page has words for every reason and clause of the model", async () => {
  const { whyText, clauseText } = await module<{ whyText: (why: string) => string | undefined; clauseText: (clause: string) => string }>(
    "words.mjs",
  );
  const model = readFileSync(join(ROOT, "src", "model", "verdict.ts"), "utf8");
  const whys = [...(/export type Why =([^;]*);/.exec(model)?.[1] ?? "").matchAll(/\| "([a-z-]+)"/g)].map((match) => match[1] as string);
  const clauses = [...(/readonly clause: ([^;]*);/.exec(model)?.[1] ?? "").matchAll(/"([a-z-]+)"/g)].map((match) => match[1] as string);
  assert.ok(whys.length >= 20 && clauses.length >= 6, `${whys.join()} ${clauses.join()}`);
  for (const why of whys) assert.ok(whyText(why), why);
  for (const clause of clauses) assert.notEqual(clauseText(clause), clause);
  for (const other of ["constructor", "__proto__", "never-heard", null, undefined]) assert.equal(whyText(other as string), undefined);
});

test("numbers and times as a person reads them", async () => {
  const { number, ago, whole } = await module<{
    number: (n: number) => string;
    ago: (time: number, now: number) => string;
    whole: (time: number | undefined) => string;
  }>("words.mjs");
  assert.deepEqual([0, 7, 999, 1000, 12_345, 1_234_567].map(number), ["0", "7", "999", "1\u202f000", "12\u202f345", "1\u202f234\u202f567"]);
  assert.deepEqual(
    [0, 59_000, 61_000, 7_200_000, 200_000_000].map((ms) => ago(1_000_000_000_000 - ms, 1_000_000_000_000)),
    ["0 s ago", "59 s ago", "1 min ago", "2 h ago", "2 days ago"],
  );
  assert.match(whole(1_800_000_000_000), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
  assert.equal(whole(undefined), "");
});

interface Edge {
  readonly namespace: string;
  readonly workload: string;
  readonly to: string;
  readonly verdict: string;
  readonly lastMs: number;
  readonly allow: number;
  readonly deny: number;
  readonly wouldDeny: number;
  readonly members?: readonly Edge[];
}

test("the picture: four or more names of one domain are one line, and so are addresses; no public name is swallowed alone", async () => {
  const { linesOf } = await module<{ linesOf: (edges: readonly Edge[]) => Edge[] }>("picture.mjs");
  const edge = (workload: string, to: string): Edge => ({
    namespace: "n",
    workload,
    to,
    verdict: "deny",
    lastMs: 1,
    allow: 0,
    deny: 2,
    wouldDeny: 0,
  });
  const lines = (tos: readonly string[]): string[] => linesOf(tos.map((to) => edge("a", to))).map(({ to, deny }) => `${to} ${deny}`);
  assert.deepEqual(lines(["1.x.example", "2.x.example", "3.x.example"]), ["1.x.example 2", "2.x.example 2", "3.x.example 2"]);
  assert.deepEqual(lines(["1.x.example", "2.x.example", "3.x.example", "4.x.example"]), ["*.x.example 8"]);
  assert.deepEqual(lines(["a.com", "b.com", "c.com", "d.com", "e.com"]).length, 5);
  assert.deepEqual(lines(["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "198.51.100.1"]), ["192.0.2.0/24 8", "198.51.100.1 2"]);
  assert.deepEqual(lines(["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"]).length, 4);
  const two = linesOf([...["1", "2", "3", "4"].map((n) => edge("a", `${n}.x.example`)), edge("b", "1.x.example")]);
  assert.deepEqual(
    two.map(({ workload, to, members }) => [workload, to, members?.length]),
    [
      ["a", "*.x.example", 4],
      ["b", "*.x.example", 1],
    ],
  );
});

interface Filter {
  readonly verdicts: readonly string[];
  readonly text: string;
  readonly namespace: string;
  readonly policy: string;
  readonly why: string;
}

test("filters go into the address and come back, and a hostile address is only text", async () => {
  const { fromHash, toHash } = await module<{ fromHash: (hash: string) => Filter; toHash: (filter: Filter) => string }>("store.mjs");
  const filter = { verdicts: ["deny", "allow"], text: "a b&c=#%", namespace: "shop", policy: "shop/x", why: "no-rule" };
  assert.deepEqual(fromHash(`#${toHash(filter)}`), filter);
  assert.deepEqual(fromHash("#v=deny,evil,__proto__&ns=%zz"), { verdicts: ["deny"], text: "", namespace: "%zz", policy: "", why: "" });
  assert.equal(fromHash(`#q=${"x".repeat(10_000)}`).text.length, 300);
});
