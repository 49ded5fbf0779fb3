import assert from "node:assert/strict";
import { test } from "node:test";
import type { FirstBytes, Inspector, Run } from "../../src/inspect/inspector.ts";
import { inspectorOf } from "../../src/inspect/registry.ts";
import { type GoldenCase, readGolden } from "./golden.ts";

const DATABASES = ["postgresql", "cassandra", "mongodb", "mssql", "oracle", "elasticsearch"].concat([
  "couchbase",
  "zookeeper",
  "memcached",
  "redis",
  "mysql",
]);
const TRIES_PER_CASE = 20;

/** Mulberry32: the same numbers in every run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** What one side sends in a case: cut somewhere, bytes changed, doubled or put in, most of all to what ends a length or a text. */
function mutated(one: GoldenCase, from: "client" | "server", random: (below: number) => number): Run {
  let bytes = Array.from(Buffer.concat(one.sent.filter((part) => part.from === from).map((part) => part.bytes)));
  for (let count = random(4); count > 0 && bytes.length > 0; count--) {
    const at = random(bytes.length);
    const value = [0, 0xff, 0x7f, 0x80, 0x0a, 0x20, random(256)][random(7)] as number;
    if (random(3) > 0) bytes[at] = value;
    else if (random(2) > 0) bytes.splice(at, random(5), value);
    else bytes = [...bytes.slice(0, at), ...bytes.slice(at >> 1)];
  }
  if (random(2) > 0) bytes = bytes.slice(0, random(bytes.length + 1));
  const start = random(9);
  const behind = random(9);
  const all = Uint8Array.from([...Array<number>(start).fill(0xff), ...bytes, ...Array<number>(behind).fill(0x30)]);
  const ends = one.transport === 17 ? [all.length - behind] : [];
  return { bytes: all, start, end: all.length - behind, ends, closed: random(4) === 0 };
}

function check(inspector: Inspector, first: FirstBytes): void {
  const reading = inspector.read(first);
  const shown = `${inspector.application}: ${JSON.stringify(reading)} for ${Buffer.from(first.client.bytes).toString("hex")}`;
  if ("need" in reading) {
    const run = first[reading.of];
    assert.ok(!run.closed, shown);
    assert.ok(Number.isSafeInteger(reading.need) && reading.need > run.end - run.start, shown);
  } else if (!("bad" in reading)) {
    assert.equal(reading.application, inspector.application, shown);
    for (const value of Object.values(reading.fields ?? {})) assert.ok(value !== "" && value.length <= 255, shown);
  }
}

test("databases: damaged first bytes never throw, and never need what is there or cannot come", () => {
  const random = numbers(20_261_123);
  const cases = DATABASES.map((name) => readGolden(`${name}.txt`));
  for (const one of cases.flat()) {
    for (let i = 0; i < TRIES_PER_CASE; i++) {
      const client = mutated(one, "client", random);
      const first = { transport: one.transport, client, server: mutated(one, "server", random) };
      for (const name of DATABASES) check(inspectorOf(name), first);
    }
  }
});

test("databases: what one protocol's golden case shows, no other takes for its own", () => {
  for (const name of DATABASES) {
    for (const one of readGolden(`${name}.txt`)) {
      if (one.expected["application"] !== name || "bad" in one.expected) continue;
      const run = (from: string): Run => {
        const bytes = Buffer.concat(one.sent.filter((part) => part.from === from).map((part) => part.bytes));
        return { bytes, start: 0, end: bytes.length, ends: one.transport === 17 ? [bytes.length] : [], closed: true };
      };
      const first = { transport: one.transport, client: run("client"), server: run("server") };
      for (const other of DATABASES) {
        const inspector = inspectorOf(other);
        if (other === name || !inspector.transports.includes(one.transport)) continue;
        const reading = inspector.read(first);
        assert.ok("bad" in reading && reading.application === undefined, `${name}: ${one.name}: ${other} says ${JSON.stringify(reading)}`);
      }
    }
  }
});
