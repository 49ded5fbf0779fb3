import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ListWatch } from "../../src/inputs/kubernetes/reflector.ts";
import { httpsTransport } from "../../src/inputs/kubernetes/transport.ts";
import { until } from "../../src/cli/lab-process.ts";
import { fastClock } from "../support/clock.ts";
import { type Asked, EXPIRED, FakeApi, type Fault } from "../support/fake-api.ts";

/** Half a minute takes 60 ms. */
const FASTER = 500;
const RUNS = Number(process.env.PROPERTY_RUNS ?? 40);

const ANY_FAULT: readonly Fault[] = [
  { kind: "status", status: 410 },
  { kind: "status", status: 429, retryAfter: "3" },
  { kind: "status", status: 500 },
  { kind: "status", status: 504 },
  { kind: "status", status: 403 },
  { kind: "silent" },
  { kind: "cut" },
  { kind: "slow", everyMs: 3 },
  { kind: "text", text: "<html>" },
  { kind: "lines", lines: [], after: "close" },
];
const WATCH_FAULTS: readonly Fault[] = [
  ...ANY_FAULT,
  { kind: "lines", lines: [EXPIRED], after: "close" },
  { kind: "lines", lines: [EXPIRED], after: "open" },
  { kind: "lines", lines: ['{"type":"ERROR","object":{"code":500}}'], after: "open" },
  { kind: "lines", lines: ['{"type":"ADDED"}'], after: "open" },
  { kind: "lines", lines: ['{"type":"ADDED","object":'], after: "close" },
];

type Action =
  | { readonly do: "put" | "remove" | "hidePut" | "hideRemove"; readonly name: string }
  | { readonly do: "blackHole" | "compact" | "bookmark" | "endWatches" | "cut" | "restart" | "startAgain" | "garbage" | "half" }
  | { readonly do: "fault"; readonly what: Asked["what"]; readonly fault: Fault; readonly times: number }
  | { readonly do: "wait"; readonly ms: number };

const name = fc.constantFrom("a", "b", "c", "d", "e");
const fault = (what: "list" | "watch", faults: readonly Fault[]): fc.Arbitrary<Action> =>
  fc.record({
    do: fc.constant("fault" as const),
    what: fc.constant(what),
    fault: fc.constantFrom(...faults),
    times: fc.integer({ min: 1, max: 3 }),
  });
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom("put" as const, "remove" as const), name }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("hidePut" as const, "hideRemove" as const), name }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constantFrom("blackHole", "compact", "bookmark", "endWatches", "cut", "restart", "startAgain", "garbage", "half" as const),
    }) as fc.Arbitrary<Action>,
  },
  { weight: 2, arbitrary: fault("list", ANY_FAULT) },
  { weight: 3, arbitrary: fault("watch", WATCH_FAULTS) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 15 }) }) },
);

test("whatever the server does, in whatever order: when it is well again the store is what the server has", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 3, maxLength: 25 }), fc.constantFrom("cached" as const, "paged" as const), play),
    { numRuns: RUNS },
  );
});

const text = (entries: readonly (readonly [string, string | undefined])[]): string =>
  entries
    .map(([key, version]) => `${key}=${version}`)
    .sort()
    .join();

async function play(actions: readonly Action[], list: "cached" | "paged"): Promise<void> {
  const api = await new FakeApi().listen();
  const credentials = { server: api.url, tls: {}, headers: {} };
  const read = () => Promise.resolve({ ok: true, value: credentials } as const);
  const clock = fastClock(FASTER);
  const transport = httpsTransport({ source: "the test", freshMs: Number.POSITIVE_INFINITY, read }, clock.now, "test");
  const options = { path: api.path, list, project: ({ metadata }: { metadata: { resourceVersion?: string } }) => metadata.resourceVersion };
  let told: string | undefined;
  const shown = (): string => text([...reflector.items]);
  const reflector = new ListWatch<string>(transport, clock, Math.random, { ...options, onChange: () => (told = shown()) });
  let planned: { what: Asked["what"]; fault: Fault; left: number } | undefined;
  api.fault = ({ what }) => (planned !== undefined && planned.what === what && planned.left-- > 0 ? planned.fault : undefined);
  reflector.start();
  try {
    for (const step of actions) {
      run(api, reflector, step);
      if (step.do === "fault") planned = { what: step.what, fault: step.fault, left: step.times };
      if (step.do === "wait") await new Promise((resolve) => setTimeout(resolve, step.ms));
    }
    planned = undefined;
    // What was hidden from a watch that is still open comes with the next one, at the latest after its time.
    const wanted = (): string => text([...api.state()].map(([key, { metadata }]) => [key, metadata.resourceVersion]));
    await until("the store is what the server has", () => reflector.synced && shown() === wanted(), 10_000, 3);
    await until("one watch is open", () => api.watching === 1, 10_000, 3);
    api.put("last");
    await until("and it goes on", () => shown() === wanted(), 10_000, 3);
    await until("and onChange has told it", () => told === wanted(), 1000, 1);
    reflector.stop();
    await until("stopped, it watches no more", () => api.watching === 0, 5000, 3);
    assert.equal(reflector.counters.errors.object, undefined);
  } finally {
    reflector.stop();
    transport.close();
    api.close();
  }
}

function run(api: FakeApi, reflector: ListWatch<string>, step: Action): void {
  switch (step.do) {
    case "put":
      return api.put(step.name);
    case "remove":
      return void api.remove(step.name);
    case "hidePut":
      api.quietly(() => api.put(step.name));
      return api.cut(); // a server never goes on behind an event that it kept to itself
    case "hideRemove":
      api.quietly(() => void api.remove(step.name));
      return api.cut();
    case "blackHole":
      return api.blackHole();
    case "compact":
      return api.compact();
    case "bookmark":
      return api.bookmark();
    case "endWatches":
      return api.endWatches();
    case "cut":
      return api.cut();
    case "restart":
      reflector.stop();
      return reflector.start();
    case "startAgain":
      return reflector.start();
    case "garbage":
      return api.say("}{\n");
    case "half":
      return api.say('{"type":"ADDED","obj');
    case "fault":
    case "wait":
      return;
  }
}
