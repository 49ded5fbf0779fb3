/**
 * Mutated golden cases through every inspector, and through all of them at once. What is promised of them all: they never
 * throw, take long, look outside of their bytes, or ask for what is there; and the same bytes give the same answer however
 * they are cut. For an hour: FUZZ_SECONDS=3600 npm run fuzz -- inspectors; for one application:
 * node dist/test/inspect/inspectors.fuzz.js --only postgresql --seconds 60 [--seed N]
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import type { Direction, FirstBytes, Reading, Run } from "../../src/inspect/inspector.ts";
import { inspectFirst, INSPECTORS } from "../../src/inspect/registry.ts";
import { Protocol } from "../../src/model/packet.ts";
import { randomFrom } from "../dns/encode.ts";
import { type GoldenCase, inWords, readGolden } from "./golden.ts";

/** Octets that mean something at many places. */
const SPECIAL = [0, 1, 2, 3, 4, 5, 10, 13, 16, 22, 32, 34, 48, 58, 63, 64, 0x7b, 0x7f, 0x80, 0x81, 0x84, 0xc0, 0xfe, 0xff];
const BYTES_MAX = 4096; // of a mutated case
/** A mutated case takes microseconds; a pause of the machine is told from slow code by trying again. */
const SLOW_MS = 5;

export interface FuzzTarget {
  readonly application: string;
  readonly cases: readonly GoldenCase[];
  readonly read: (first: FirstBytes) => Reading;
}

const FOLDER = new URL("../../../test/inspect/golden/", import.meta.url);

/** One for each inspector that has golden cases, and one for all of them together. */
export function targets(): FuzzTarget[] {
  const each = INSPECTORS.filter(({ application }) => existsSync(new URL(`${application}.txt`, FOLDER))).map((inspector) => ({
    application: inspector.application,
    cases: readGolden(`${inspector.application}.txt`),
    read: (first: FirstBytes) => inspector.read(first),
  }));
  const all = { application: "*", cases: each.flatMap(({ cases }) => cases), read: (first: FirstBytes) => inspectFirst(undefined, first) };
  return [...each, all];
}

type Sent = readonly { readonly from: Direction; readonly bytes: Uint8Array }[];

/** The first `count` bytes of what was sent (over UDP whole datagrams), with `around` on both sides of each run. */
function cut(transport: number, sent: Sent, count: number, closed: boolean, around: number): FirstBytes {
  const collect = (of: Direction): Run => {
    const bytes = new Uint8Array(BYTES_MAX + 64).fill(around);
    const start = 16;
    let end = start;
    let left = count;
    const ends: number[] = [];
    for (const { from, bytes: all } of sent) {
      const part = all.subarray(0, Math.max(0, left));
      left -= all.length;
      if (from !== of || (transport !== Protocol.TCP && part.length < all.length)) continue;
      bytes.set(part, end);
      end += part.length;
      if (transport !== Protocol.TCP) ends.push(end);
    }
    return { bytes, start, end, ends, closed };
  };
  return { transport, client: collect("client"), server: collect("server") };
}

function mutated(one: GoldenCase, other: GoldenCase, below: (n: number) => number): Sent {
  let sent = one.sent.map(({ from, bytes }) => ({ from, bytes }));
  if (below(20) === 0) sent = [...sent, ...other.sent];
  if (below(40) === 0) sent.reverse();
  let room = BYTES_MAX;
  return sent.map(({ from, bytes }) => {
    let made = Uint8Array.from(bytes.subarray(0, room));
    for (let edits = below(5); edits > 0 && made.length > 0; edits--) {
      const at = below(made.length);
      const kind = below(10);
      if (kind < 3) made[at] = below(256);
      else if (kind < 6) made[at] = SPECIAL[below(SPECIAL.length)] as number;
      else if (kind === 6) made[at] = (made[at] as number) + below(3) - 1;
      else if (kind === 7) made.copyWithin(at, below(made.length));
      else if (kind === 8) made = Uint8Array.from([...made.subarray(0, at), ...made.subarray(at + 1 + below(16))]);
      else made = Uint8Array.from([...made.subarray(0, at), ...made.subarray(below(made.length)), ...made.subarray(at)]).subarray(0, room);
    }
    room -= made.length;
    return { from, bytes: made };
  });
}

/** What two cuts of the same bytes must agree on. */
function certain(reading: Reading): string | undefined {
  if ("need" in reading) return undefined;
  return "bad" in reading ? "bad" : `${reading.application} ${reading.serverName} ${reading.upgrade}`;
}

function check({ read, application }: FuzzTarget, transport: number, sent: Sent, below: (n: number) => number): void {
  const total = sent.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const count = below(total + 1);
  const closed = below(3) === 0;
  const whole = cut(transport, sent, total, closed, 0);
  const before = performance.now();
  const reading = read(whole);
  let tookMs = performance.now() - before;
  for (let again = 0; again < 10 && tookMs > SLOW_MS; again++) {
    const retried = performance.now();
    read(whole);
    tookMs = Math.min(tookMs, performance.now() - retried);
  }
  assert.ok(tookMs < SLOW_MS, `${tookMs} ms`);
  if ("need" in reading) {
    const { start, end } = whole[reading.of];
    assert.ok(Number.isSafeInteger(reading.need) && reading.need > end - start, `needs ${reading.need} of ${end - start}`);
    assert.ok(!closed, "needs what will not come");
  } else if (!("bad" in reading)) {
    for (const value of Object.values(reading.fields ?? {})) assert.ok(value.length <= 255 && /^[ -~]*$/.test(value), `field ${value}`);
  }
  assert.deepEqual(read(cut(transport, sent, total, closed, 0xff)), reading, "looks outside of its bytes");
  const part = cut(transport, sent, count, false, 0x41);
  const some = read(part);
  if (application === "*" || transport !== Protocol.TCP || closed) return;
  // Who spoke first is not in FirstBytes: bytes that came too early look right once the other side has answered.
  if (part.server.end < whole.server.end) return;
  const [early, late] = [certain(some), certain(reading)];
  assert.ok(early === undefined || early === late, `with ${count} of ${total} bytes ${text(some)}, with all ${text(reading)}`);
}

const text = (reading: Reading): string => JSON.stringify({ ...inWords(reading), ...("bad" in reading ? { bad: reading.bad } : {}) });

/** Runs one target until `until(iterations)` is true, looked at every 100. Throws what it found, with the seed and iteration. */
export function fuzz(target: FuzzTarget, seed: number, until: (iterations: number) => boolean): number {
  const random = randomFrom(seed);
  const below = (n: number): number => random() % n;
  const { cases } = target;
  let iterations = 0;
  for (; cases.length > 0 && (iterations % 100 !== 0 || !until(iterations)); iterations++) {
    const one = cases[below(cases.length)] as GoldenCase;
    const sent = mutated(one, cases[below(cases.length)] as GoldenCase, below);
    try {
      check(target, one.transport, sent, below);
    } catch (error) {
      const bytes = sent.map((part) => `${part.from[0]} ${Buffer.from(part.bytes).toString("hex")}`).join("\n");
      throw new Error(`${target.application}: ${one.name}, seed ${seed}, iteration ${iterations}: ${String(error)}\n${bytes}`, {
        cause: error,
      });
    }
  }
  return iterations;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const argument = (name: string): string | undefined => {
    const at = process.argv.indexOf(name);
    return at < 0 ? undefined : process.argv[at + 1];
  };
  const only = argument("--only");
  const list = targets().filter(({ application }) => only === undefined || application === only);
  const eachMs = (Number(argument("--seconds") ?? process.env["FUZZ_SECONDS"] ?? 10) * 1000) / Math.max(1, list.length);
  const seed = Number(argument("--seed") ?? Date.now() >>> 0);
  const failed: string[] = [];
  const count: Record<string, number> = {};
  for (const target of list) {
    const end = performance.now() + eachMs;
    try {
      count[target.application] = fuzz(target, seed, () => performance.now() >= end);
    } catch (error) {
      failed.push((error as Error).message);
    }
  }
  console.log({ seed, iterations: count });
  for (const one of failed) console.error(one);
  if (failed.length > 0) process.exitCode = 1;
}
