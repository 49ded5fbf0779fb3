import assert from "node:assert/strict";
import { suite, test, type TestContext } from "node:test";
import { type Clock, systemClock } from "../../src/inputs/kubernetes/clock.ts";
import { ApiFault } from "../../src/inputs/kubernetes/faults.ts";
import { ListWatch } from "../../src/inputs/kubernetes/reflector.ts";
import { type ApiStream, httpsTransport, type Transport } from "../../src/inputs/kubernetes/transport.ts";
import type { RawObject, ReflectOptions } from "../../src/inputs/kubernetes/types.ts";
import { until } from "../../src/cli/lab-process.ts";
import { contract } from "./contract.ts";
import { ManualClock } from "../support/clock.ts";
import { type Asked, EXPIRED, FakeApi, type Fault } from "../support/fake-api.ts";
import { storm } from "../support/storm.ts";

const now = (): number => performance.now();
const REAL = systemClock(now);
/** As long as peers were measured against the same faults (350 lists, 1 387 watches). */
const OBSERVED_MS = 1500;

interface Kept {
  readonly name: string;
  readonly value: unknown;
}

const project = ({ metadata: { name }, value }: RawObject): Kept => ({ name, value });

interface Setup extends Partial<ReflectOptions<Kept>> {
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly start?: boolean;
}

/** A server with two objects, and a reflector of it. */
async function setup(t: TestContext, { clock = REAL, random = () => 0, start = true, ...more }: Setup = {}) {
  const api = await new FakeApi().listen();
  api.put("a", { value: 1 });
  api.put("b", { value: 2 });
  const credentials = { server: api.url, tls: {}, headers: {} };
  const source = {
    source: "the test",
    freshMs: Number.POSITIVE_INFINITY,
    read: () => Promise.resolve({ ok: true, value: credentials } as const),
  };
  const inner = httpsTransport(source, now, "test");
  let opened = 0;
  const transport: Transport = {
    open: async (request, signal) => {
      const answer = await inner.open(request, signal);
      if (request.path.includes("watch=true")) opened++;
      return answer;
    },
    close: () => inner.close(),
  };
  let changes = 0;
  const onChange = (): void => {
    changes++;
  };
  const reflector = new ListWatch<Kept>(transport, clock, random, { path: api.path, project, onChange, ...more });
  t.after(() => {
    reflector.stop();
    transport.close();
    api.close();
  });
  if (start) reflector.start();
  const values = (): Record<string, unknown> => Object.fromEntries([...reflector.items].map(([key, { value }]) => [key, value]));
  return {
    api,
    reflector,
    reflect: <U>(options: ReflectOptions<U>) => new ListWatch(inner, clock, random, options),
    values,
    changes: () => changes,
    /** On both ends: with a clock that is moved by hand, the answer must have begun. */
    watched: () => until("it is watched", () => api.watching === 1 && opened === reflector.counters.watches),
    shows: (wanted: Record<string, unknown>) =>
      until(`it shows ${JSON.stringify(wanted)}, and not ${JSON.stringify(values())}`, () => {
        try {
          assert.deepEqual(values(), wanted);
          return true;
        } catch {
          return false;
        }
      }),
  };
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const on =
  (what: Asked["what"], fault: Fault) =>
  (asked: Asked): Fault | undefined =>
    asked.what === what ? fault : undefined;

/** The first `count` requests of a kind go wrong. */
function first(count: number, what: Asked["what"], fault: Fault): (asked: Asked) => Fault | undefined {
  let left = count;
  return (asked) => (asked.what === what && left-- > 0 ? fault : undefined);
}

test("objects that are there, added, changed and deleted are seen", async (t) => {
  const { api, shows, watched, reflector } = await setup(t);
  assert.equal(reflector.synced, false);
  assert.equal(reflector.staleMs(now()), Number.POSITIVE_INFINITY);
  await shows({ "shop/a": 1, "shop/b": 2 });
  await watched();
  api.put("c", { value: 3 });
  api.put("a", { value: 11 });
  api.remove("b");
  await shows({ "shop/a": 11, "shop/c": 3 });
  assert.ok(reflector.staleMs(now()) < 1000);
  assert.deepEqual([reflector.counters.lists, reflector.counters.watches, reflector.counters.events], [1, 1, 3]);
  assert.deepEqual(reflector.counters.errors, {});
});

test("the fake keeps the contract of the real server", async (t) => {
  const { api, reflect } = await setup(t, { start: false });
  await contract({
    path: api.path,
    put: (name, labels) => Promise.resolve(api.put(name, {}, labels)),
    remove: (name) => Promise.resolve(void api.remove(name)),
    reflect,
  });
});

test("selectors are sent, bookmarks and a bounded time are asked for", async (t) => {
  const { api, shows, watched } = await setup(t, { labelSelector: "app=web", fieldSelector: "metadata.name=w", random: () => 0.5 });
  api.put("w", { value: 1 }, { app: "web" });
  await watched();
  api.put("x", { value: 1 }, { app: "web" });
  api.put("w", { value: 2 }, { app: "web" });
  await shows({ "shop/w": 2 });
  const query = api.asked[1]?.url.searchParams;
  assert.equal(query?.get("allowWatchBookmarks"), "true");
  assert.equal(query?.get("timeoutSeconds"), "270");
  assert.equal(api.asked[0]?.url.searchParams.get("fieldSelector"), "metadata.name=w");
});

test("many events at once are one change; an object that says the same as before is none", async (t) => {
  const { api, watched, changes, reflector } = await setup(t);
  await watched();
  assert.equal(changes(), 1);
  const events = Array.from({ length: 100 }, (_, i) => ({
    type: "ADDED",
    object: { metadata: { name: `n${i}`, resourceVersion: String(200 + i) }, value: i },
  }));
  api.say(events.map((event) => `${JSON.stringify(event)}\n`).join(""));
  await until("all are there", () => reflector.items.size === 102);
  await sleep(5);
  assert.ok(changes() <= 3, `${changes()} changes`);
  const before = changes();
  const a = reflector.items.get("shop/a");
  api.put("a", { value: 1, status: "new" });
  api.put("b", { value: 3 });
  await until("b has changed", () => reflector.items.get("shop/b")?.value === 3);
  assert.equal(reflector.items.get("shop/a"), a);
  assert.ok(changes() - before <= 2);
});

test("pages: 1 200 objects in three, and the watch goes on from there", async (t) => {
  const { api, shows, reflector } = await setup(t, { list: "paged", start: false });
  const wanted: Record<string, unknown> = { "shop/a": 1, "shop/b": 2 };
  for (let i = 0; i < 1200; i++) {
    api.put(`p${i}`, { value: i });
    wanted[`shop/p${i}`] = i;
  }
  reflector.start();
  await shows(wanted);
  assert.deepEqual(
    api.asked.filter(({ what }) => what === "list").map(({ url }) => url.searchParams.get("limit")),
    ["500", "500", "500"],
  );
});

test("a page that has expired: the list starts over, whole, and nothing of the first half is shown", async (t) => {
  const { api, shows, reflector } = await setup(t, { list: "paged", start: false });
  for (let i = 0; i < 600; i++) api.put(`p${i}`, { value: i });
  api.fault = ({ url }) => {
    if (url.searchParams.has("continue")) {
      for (let i = 0; i < 600; i++) api.remove(`p${i}`);
      api.compact();
      assert.equal(reflector.items.size, 0, "half a list is not shown");
    }
    return undefined;
  };
  reflector.start();
  await shows({ "shop/a": 1, "shop/b": 2 });
  assert.equal(reflector.counters.errors.gone, 1);
  assert.deepEqual(
    api.asked.flatMap(({ what, url }) => (what === "list" ? [url.searchParams.get("limit")] : [])),
    ["500", "500", null],
  );
});

test("a store restored from a backup: our version is from the future, which a watch bears in silence and a list refuses; then it is read", async (t) => {
  const clock = new ManualClock();
  const { api, shows, watched, reflector } = await setup(t, { clock });
  await watched();
  api.quietly(() => {
    api.remove("a");
    api.restoreBackup();
    api.put("c", { value: 3 });
  });
  clock.advance(240_000);
  api.endWatches();
  await until("the server refuses our version", () => reflector.counters.errors.server === 1);
  clock.advance(100);
  await shows({ "shop/b": 2, "shop/c": 3 });
  const queries = api.asked.flatMap(({ what, url }) => (what === "list" ? [url.searchParams.get("resourceVersion")] : []));
  assert.deepEqual(queries, ["0", "102", null]);
  await watched();
  api.put("d", { value: 4 });
  await shows({ "shop/b": 2, "shop/c": 3, "shop/d": 4 });
});

test("a list that lost objects deletes them, and keeps the identity of what has not changed", async (t) => {
  const projected: string[] = [];
  const { api, shows, watched, reflector } = await setup(t, { project: (raw) => (projected.push(raw.metadata.name), project(raw)) });
  await watched();
  const a = reflector.items.get("shop/a");
  api.quietly(() => {
    api.remove("b");
    api.put("c", { value: 3 });
  });
  api.compact();
  api.endWatches();
  await shows({ "shop/a": 1, "shop/c": 3 });
  assert.equal(reflector.items.get("shop/a"), a);
  assert.deepEqual(projected, ["a", "b", "c"], "the same version is not looked at again");
  assert.equal(reflector.counters.errors.gone, 1);
});

const GONE: readonly (readonly [string, Fault])[] = [
  ["as HTTP status", { kind: "status", status: 410 }],
  ["as event, then closed", { kind: "lines", lines: [EXPIRED], after: "close" }],
  ["as event, left open", { kind: "lines", lines: [EXPIRED], after: "open" }],
];

suite("410 in its three shapes", { concurrency: true }, () => {
  for (const [shape, fault] of GONE) {
    test(`410 ${shape}: listed again; for ever: a handful of requests`, async (t) => {
      const { api, shows, watched, reflector } = await setup(t, { random: () => 0.5 });
      await watched();
      api.fault = on("watch", fault);
      api.put("c", { value: 3 });
      api.cut();
      await shows({ "shop/a": 1, "shop/b": 2, "shop/c": 3 });
      await sleep(OBSERVED_MS);
      assert.ok(api.count("list") <= 5 && api.count("watch") <= 5, `${api.count("list")} lists, ${api.count("watch")} watches`);
      assert.ok((reflector.counters.errors.gone ?? 0) > 0);
      api.fault = () => undefined;
      api.put("d", { value: 4 });
      await shows({ "shop/a": 1, "shop/b": 2, "shop/c": 3, "shop/d": 4 });
    });
  }
});

const BROKEN: readonly (readonly [string, Fault, string])[] = [
  ["closes at once", { kind: "lines", lines: [], after: "close" }, "closed"],
  ["cuts at once", { kind: "cut" }, "connect"],
  [
    "an ERROR event of code 500, left open",
    { kind: "lines", lines: ['{"type":"ERROR","object":{"code":500,"message":"etcd"}}'], after: "open" },
    "stream",
  ],
  ["a garbage line, left open", { kind: "lines", lines: ["<html>"], after: "open" }, "garbage"],
  ["an event without metadata", { kind: "lines", lines: ['{"type":"ADDED","object":{"kind":"Pod"}}'], after: "open" }, "garbage"],
  ["an event that is null", { kind: "lines", lines: ["null"], after: "open" }, "garbage"],
  ["an event of no known type", { kind: "lines", lines: ['{"type":"NEWS","object":{"metadata":{"name":"x"}}}'], after: "open" }, "garbage"],
  ["a bookmark without a version", { kind: "lines", lines: ['{"type":"BOOKMARK","object":{}}'], after: "open" }, "garbage"],
  ["HTTP 500", { kind: "status", status: 500 }, "server"],
  ["HTTP 429", { kind: "status", status: 429 }, "throttled"],
  ["HTTP 403", { kind: "status", status: 403 }, "forbidden"],
];

suite("watches that go wrong", { concurrency: true }, () => {
  for (const [what, fault, kind] of BROKEN) {
    test(`the watch: ${what}. A handful of requests, and all is well when it is well again`, async (t) => {
      const { api, shows, reflector, values } = await setup(t, { random: () => 0.5 });
      api.fault = on("watch", fault);
      await sleep(OBSERVED_MS);
      assert.ok(api.count("watch") <= 3 && api.count("list") <= 3, `${api.count("list")} lists, ${api.count("watch")} watches`);
      assert.ok(api.count("watch") >= 2, "it goes on trying");
      assert.equal(api.count("list") > 1, kind === "garbage" || kind === "stream", "what cannot be understood may stand in its history");
      assert.ok((reflector.counters.errors[kind as "closed"] ?? 0) >= 2, JSON.stringify(reflector.counters));
      assert.deepEqual(values(), { "shop/a": 1, "shop/b": 2 }, "what was known stays");
      assert.equal(reflector.counters.errors.object, undefined);
      api.fault = () => undefined;
      api.remove("a");
      api.put("c", { value: 3 });
      await shows({ "shop/b": 2, "shop/c": 3 });
    });
  }
});

const BAD_LISTS: readonly (readonly [string, Fault, string])[] = [
  ["HTTP 500", { kind: "status", status: 500 }, "server"],
  ["HTTP 401", { kind: "status", status: 401 }, "unauthorized"],
  ["cut in the middle", { kind: "cut" }, "connect"],
  ["not JSON", { kind: "text", text: "<html><body>Bad gateway" }, "garbage"],
  ["an object, not a list", { kind: "text", text: '{"kind":"Pod","metadata":{"name":"a","resourceVersion":"1"}}' }, "garbage"],
  ["an object without a name", { kind: "text", text: '{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{}}]}' }, "garbage"],
  ["half of a list", { kind: "text", text: '{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}}' }, "garbage"],
];

suite("lists that go wrong", { concurrency: true }, () => {
  for (const [what, fault, kind] of BAD_LISTS) {
    test(`the list: ${what}. A handful of requests, nothing of it is believed, and it comes in the end`, async (t) => {
      const { api, shows, reflector } = await setup(t, { random: () => 0.5, start: false });
      api.fault = on("list", fault);
      reflector.start();
      await sleep(OBSERVED_MS);
      assert.ok(api.count("list") >= 2 && api.count("list") <= 3, `${api.count("list")} lists`);
      assert.equal(api.count("watch"), 0);
      assert.deepEqual([reflector.synced, reflector.items.size], [false, 0]);
      assert.ok((reflector.counters.errors[kind as "server"] ?? 0) >= 2, JSON.stringify(reflector.counters));
      assert.ok(reflector.counters.lastError !== undefined);
      api.fault = () => undefined;
      await shows({ "shop/a": 1, "shop/b": 2 });
      assert.equal(reflector.counters.lastError, undefined);
    });
  }
});

test("the waits grow to half a minute, are spread by chance, and start anew after a good watch", async (t) => {
  const clock = new ManualClock();
  const asked: number[] = [];
  const fault = new ApiFault("connect", "cut", "");
  let cut: (() => void) | undefined;
  let down = true;
  const transport: Transport = {
    open: ({ path }) => {
      asked.push(clock.now());
      if (down) return Promise.resolve({ ok: false, fault });
      const list: ApiStream["read"] = (take) => Promise.resolve(take(Buffer.from('{"metadata":{"resourceVersion":"1"},"items":[]}')));
      const watch: ApiStream["read"] = () => new Promise((resolve) => (cut = () => resolve(fault)));
      return Promise.resolve({ ok: true, value: { read: path.includes("watch=true") ? watch : list } });
    },
    close: () => {},
  };
  let chance = 1;
  const reflector = new ListWatch(transport, clock, () => chance, { path: "/api/v1/pods", project, onChange: () => {} });
  t.after(() => reflector.stop());
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 100) {
      clock.advance(100);
      await sleep(0);
    }
  };
  const waits = (): number[] => asked.splice(0).map((at, index, all) => at - (all[index - 1] ?? at));
  reflector.start();
  await sleep(0);
  await pass(130_000);
  assert.deepEqual(waits(), [0, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  chance = 0;
  await pass(31_000);
  asked.length = 0;
  await pass(1000);
  assert.deepEqual(waits(), [0, ...Array.from({ length: 9 }, () => 100)], "the least wait");
  chance = 1;
  down = false;
  await pass(30_100);
  assert.ok(cut !== undefined && reflector.synced);
  cut();
  await pass(30_000);
  asked.length = 0;
  await pass(30_000);
  cut();
  await sleep(0);
  const cutAt = clock.now();
  await pass(2000);
  assert.deepEqual(
    asked.map((at) => at - cutAt),
    [1000],
  );
});

test("what may not be there, and is not, is asked about ever less often; something else that is wrong is not", async (t) => {
  const clock = new ManualClock();
  const kinds = ["not-found", "connect"] as const;
  const asked: number[][] = [];
  for (const kind of kinds) {
    const times: number[] = [];
    const open: Transport["open"] = () => {
      times.push(clock.now());
      return Promise.resolve({ ok: false, fault: new ApiFault(kind, "no", "") });
    };
    const options = { path: "/api/v1/namespaces/x/services", project, onChange: () => {}, optional: true };
    const reflector = new ListWatch({ open, close: () => {} }, clock, () => 1, options);
    t.after(() => reflector.stop());
    reflector.start();
    asked.push(times);
  }
  await sleep(0);
  for (let ms = 0; ms < 2_000_000; ms += 500) {
    clock.advance(500);
    await sleep(0);
  }
  const waits = asked.map((times) => times.map((at, i) => (at - (times[i - 1] ?? 0)) / 1000));
  assert.deepEqual(waits[0], [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
  assert.equal(waits[1]?.at(-1), 30);
});

test("Retry-After is waited for, with the jitter on top", async (t) => {
  const clock = new ManualClock();
  const { api, reflector, shows } = await setup(t, { clock, random: () => 0, start: false });
  api.fault = first(1, "list", { kind: "status", status: 429, retryAfter: "7" });
  reflector.start();
  await until("it was told to wait", () => reflector.counters.errors.throttled === 1);
  await sleep(5);
  clock.advance(7099);
  await sleep(20);
  assert.equal(api.count("list"), 1);
  clock.advance(1);
  await shows({ "shop/a": 1, "shop/b": 2 });
});

test("a black hole is noticed half a minute after the server should have ended the watch, and what is known stays", async (t) => {
  const clock = new ManualClock();
  const { api, watched, reflector, shows } = await setup(t, { clock, random: () => 0 });
  await watched();
  api.quietly(() => api.put("c", { value: 3 }));
  clock.advance(240_000 + 29_000);
  await sleep(20);
  assert.equal(reflector.counters.errors.timeout, undefined);
  assert.equal(reflector.staleMs(clock.now()), 269_000);
  clock.advance(1000);
  await until("it is noticed", () => reflector.counters.errors.timeout === 1);
  assert.deepEqual(reflector.items.size, 2);
  await sleep(5);
  clock.advance(100);
  await shows({ "shop/a": 1, "shop/b": 2, "shop/c": 3 });
  assert.equal(reflector.counters.lists, 1, "it went on from where it was");
});

test("a bookmark is proof of life, and the version to go on from", async (t) => {
  const clock = new ManualClock();
  const { api, watched, reflector, shows } = await setup(t, { clock });
  await watched();
  clock.advance(200_000);
  api.compact();
  api.bookmark();
  await until("it is seen", () => reflector.counters.bookmarks === 1);
  assert.equal(reflector.staleMs(clock.now()), 0);
  clock.advance(39_000);
  api.endWatches();
  await until("the next watch", () => reflector.counters.watches === 2);
  api.put("c", { value: 3 });
  await shows({ "shop/a": 1, "shop/b": 2, "shop/c": 3 });
  assert.equal(reflector.counters.lists, 1);
  assert.deepEqual(reflector.counters.errors, {});
});

test("a whole watch without any sign of life proves nothing: everything is listed, without an error", async (t) => {
  const clock = new ManualClock();
  const { api, watched, reflector, shows } = await setup(t, { clock });
  await watched();
  api.quietly(() => api.remove("a"));
  clock.advance(239_000);
  api.endWatches();
  await shows({ "shop/b": 2 });
  assert.deepEqual([reflector.counters.lists, reflector.counters.errors], [2, {}]);
});

const SLOW: readonly (readonly [string, Fault, number])[] = [
  ["says nothing", { kind: "silent" }, 30_000],
  ["comes a byte at a time", { kind: "slow", everyMs: 2 }, 60_000],
];

for (const [what, fault, limitMs] of SLOW) {
  test(`a list that ${what} is ended after ${limitMs / 1000} s and tried again`, async (t) => {
    const clock = new ManualClock();
    const { api, reflector, shows } = await setup(t, { clock, start: false });
    api.fault = first(1, "list", fault);
    reflector.start();
    await until("it is asked for", () => api.count("list") === 1);
    await sleep(20);
    for (let ms = 0; ms < limitMs; ms += 5000) {
      assert.equal(reflector.counters.errors.timeout, undefined);
      clock.advance(5000);
      await sleep(30);
    }
    await until("it is ended", () => reflector.counters.errors.timeout === 1);
    await sleep(5);
    clock.advance(100);
    await shows({ "shop/a": 1, "shop/b": 2 });
  });
}

test("started twice it watches once; stopped it asks nothing more; started again it lists", async (t) => {
  const { api, watched, reflector, shows, changes } = await setup(t);
  reflector.start();
  await watched();
  reflector.start();
  await sleep(50);
  assert.deepEqual([api.count("list"), api.count("watch")], [1, 1]);
  reflector.stop();
  reflector.stop();
  await until("the watch is closed", () => api.watching === 0);
  api.put("c", { value: 3 });
  const before = changes();
  await sleep(250);
  assert.deepEqual([api.count("list"), api.count("watch"), changes()], [1, 1, before]);
  assert.equal(reflector.items.size, 2);
  reflector.start();
  await shows({ "shop/a": 1, "shop/b": 2, "shop/c": 3 });
  await watched();
  assert.deepEqual([api.count("list"), api.count("watch")], [2, 2]);
});

test("stopped and started in one breath, and in the middle of a list: one watch in the end, and no half list", async (t) => {
  const { api, reflector, shows, watched, changes } = await setup(t, { start: false });
  api.fault = first(1, "list", { kind: "slow", everyMs: 1 });
  reflector.start();
  await until("it is asked for", () => api.count("list") === 1);
  reflector.stop();
  await sleep(50);
  assert.deepEqual([reflector.synced, changes(), api.count("list")], [false, 0, 1]);
  for (let i = 0; i < 5; i++) {
    reflector.start();
    reflector.stop();
  }
  reflector.start();
  await shows({ "shop/a": 1, "shop/b": 2 });
  await watched();
  await sleep(150);
  assert.equal(api.watching, 1);
});

test("a line without end is cut off at its limit", { timeout: 20_000 }, async (t) => {
  const { api, watched, reflector, shows } = await setup(t);
  await watched();
  const rss = process.memoryUsage().rss;
  const piece = "x".repeat(1024 * 1024);
  for (let i = 0; i < 17; i++) api.say(piece);
  await until("it is cut off", () => reflector.counters.errors["too-large"] === 1);
  assert.ok(process.memoryUsage().rss - rss < 200e6);
  api.put("c", { value: 3 });
  await shows({ "shop/a": 1, "shop/b": 2, "shop/c": 3 });
});

test("more objects than the limit are refused and counted, and taken when there is room", async (t) => {
  const clock = new ManualClock();
  const { api, watched, reflector, shows } = await setup(t, { clock, objectsMax: 3, start: false });
  for (const name of ["c", "d", "e"]) api.put(name, { value: name });
  reflector.start();
  await watched();
  assert.deepEqual([[...reflector.items.keys()], reflector.counters.refused], [["shop/a", "shop/b", "shop/c"], 2]);
  api.put("f");
  api.remove("a");
  api.remove("e");
  api.remove("f");
  await shows({ "shop/b": 2, "shop/c": "c" });
  assert.equal(reflector.counters.refused, 3);
  clock.advance(240_000);
  api.endWatches();
  await shows({ "shop/b": 2, "shop/c": "c", "shop/d": "d" });
});

test("a namespace takes no more than its share of the room; that is said, and over when there is room", async (t) => {
  const clock = new ManualClock();
  const { api, watched, reflector, shows } = await setup(t, { clock, objectsMax: 5, inNamespaceMax: 2, start: false });
  for (const name of ["c", "d", "e"]) api.put(name, { value: name });
  reflector.start();
  await watched();
  assert.deepEqual([...reflector.items.keys()], ["shop/a", "shop/b"]);
  assert.match(reflector.counters.lastError ?? "", /3 objects are beyond the limit/);
  api.remove("a");
  await shows({ "shop/b": 2 });
  assert.match(reflector.counters.lastError ?? "", /beyond the limit/, "a sign of life does not hide it");
  api.put("f", { value: 6 });
  await shows({ "shop/b": 2, "shop/f": 6 });
  for (const name of ["c", "d", "e"]) api.remove(name);
  clock.advance(240_000);
  api.endWatches();
  await until("it is listed again", () => reflector.counters.lastError === undefined);
  await shows({ "shop/b": 2, "shop/f": 6 });
});

test("what was projected from less than there is, is projected again with the next list, though it has not changed", async (t) => {
  const clock = new ManualClock();
  let room = false;
  const { api, watched, shows } = await setup(t, {
    clock,
    project: (raw) => (raw.metadata.name === "a" && !room ? { name: "a", value: "no room" } : project(raw)),
    provisional: ({ value }) => value === "no room",
  });
  await watched();
  await shows({ "shop/a": "no room", "shop/b": 2 });
  room = true;
  clock.advance(240_000);
  api.endWatches();
  await shows({ "shop/a": 1, "shop/b": 2 });
});

test("an object that its projection cannot bear is left out, and counted", async (t) => {
  const bad = (raw: RawObject): Kept => {
    if (raw.value === "poison") throw new Error("no");
    return project(raw);
  };
  const { api, watched, reflector, shows } = await setup(t, { project: bad });
  await watched();
  api.put("a", { value: "poison" });
  api.put("c", { value: 3 });
  await shows({ "shop/b": 2, "shop/c": 3 });
  assert.equal(reflector.counters.errors.object, 1);
  assert.equal(api.watching, 1);
});

test("a thousand agents that are cut at once: none lists again, and they come back over a second; while the server is away they back off", async (t) => {
  const { lists, watches, busiest, awayPerSecond } = await storm(1000);
  assert.deepEqual([lists, watches], [0, 1000], "one watch for each, and no list");
  assert.ok(busiest < 160, `${busiest} in 100 ms`);
  assert.ok(awayPerSecond < 100, `${awayPerSecond} a second while it is away`);
  t.diagnostic(`1 000 watches cut: 0 lists, at most ${busiest} watches in 100 ms; server away: ${awayPerSecond.toFixed(0)} requests/s`);
});
