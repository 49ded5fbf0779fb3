import assert from "node:assert/strict";
import { until } from "../../src/cli/lab-process.ts";
import type { RawObject, ReflectOptions, Reflector } from "../../src/inputs/kubernetes/types.ts";
import type { Door } from "../support/door.ts";

type Labels = Readonly<Record<string, string>>;

/** An API server with one collection in the namespace `shop`: the fake, or the real one. */
export interface World {
  readonly path: string;
  /** Creates or replaces. */
  put(name: string, labels: Labels): Promise<void>;
  remove(name: string): Promise<void>;
  reflect<T>(options: ReflectOptions<T>): Reflector<T>;
}

/** What the list/watch loop relies on. Both servers must keep it, or the tests on the fake say nothing. */
export async function contract(world: World): Promise<void> {
  const project = ({ metadata }: RawObject): unknown => metadata.labels;
  await world.put("before", { app: "web" });
  await world.put("other", { app: "db" });
  for (const list of ["cached", "paged"] as const) {
    const reflector = world.reflect({ path: world.path, labelSelector: "app=web", list, project, onChange: () => {} });
    const shows = (...names: string[]) =>
      until(
        `it shows ${names.join()}`,
        () => reflector.synced && [...reflector.items.keys()].sort().join() === names.map((n) => `shop/${n}`).join(),
      );
    reflector.start();
    await shows("before");
    await until("it watches", () => reflector.counters.watches === 1);
    await world.put("made", { app: "web" });
    await shows("before", "made");
    await world.put("made", { app: "db" });
    await shows("before");
    await world.put("other", { app: "web", tier: "1" });
    await shows("before", "other");
    assert.deepEqual(reflector.items.get("shop/other"), { app: "web", tier: "1" });
    await world.put("other", { app: "web", tier: "2" });
    await until("the change is seen", () => (reflector.items.get("shop/other") as Labels).tier === "2");
    await world.remove("made");
    await world.remove("before");
    await shows("other");
    await world.put("before", { app: "web" });
    await shows("before", "other");
    await world.put("other", { app: "db" });
    await shows("before");
    const { lists, watches, errors, events } = reflector.counters;
    assert.deepEqual(
      { lists, watches, errors, events },
      { lists: 1, watches: 1, errors: {}, events: 7 },
      "each change that matters is one event",
    );
    reflector.stop();
  }
  await world.remove("before");
  await world.remove("other");
}

/** The same server behind a door, through which `reflect` goes, with what may befall it. */
export interface TroubledWorld extends World {
  readonly door: Door;
  /** kill -9, and back with all that it had. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** Watches from a version before now are too old; called while the door is shut. */
  forget(): Promise<void>;
  /** May the user of `reflect` list and watch? */
  permit(on: boolean): Promise<void>;
  /** With a token that nobody has given. */
  intruder<T>(options: ReflectOptions<T>): Reflector<T>;
}

/** What may befall a watch, and that it is as if nothing had been: what was known stays meanwhile, and nothing is lost. */
export async function troubles(world: TroubledWorld, waitMs: number): Promise<void> {
  const { door } = world;
  const options = { path: world.path, labelSelector: "app=web", project: ({ metadata }: RawObject) => metadata.labels, onChange: () => {} };
  await world.put("stays", { app: "web" });
  await world.put("goes", { app: "web" });
  await world.put("comes", { app: "db" });
  const it = world.reflect<unknown>(options);
  const { counters } = it;
  const names = (): string =>
    [...it.items.keys()]
      .map((key) => key.replace("shop/", ""))
      .sort()
      .join();
  const shows = (wanted: string) =>
    until(`it shows ${wanted} (${JSON.stringify(counters)})`, () => it.synced && names() === wanted, waitMs);
  const watches = () => until("it watches", () => counters.lastError === undefined && counters.watches > watched, waitMs);
  let watched = 0;
  it.start();
  await shows("goes,stays");

  watched = counters.watches;
  door.cut();
  await world.remove("goes");
  await world.put("comes", { app: "web" });
  await shows("comes,stays");
  assert.deepEqual([counters.lists, counters.errors.gone], [1, undefined], "cut: it goes on from where it was");

  door.shut(true);
  await until("shut: it is noticed", () => counters.lastError !== undefined, waitMs);
  await world.put("goes", { app: "web" });
  await world.remove("comes");
  assert.equal(names(), "comes,stays", "shut: what was known stays");
  await world.forget();
  door.shut(false);
  await shows("goes,stays");
  assert.deepEqual([counters.lists, counters.errors.gone], [2, 1], "too old: listed once more");

  watched = counters.watches;
  await world.kill();
  await until("killed: it is noticed", () => counters.lastError !== undefined, waitMs);
  assert.equal(names(), "goes,stays", "killed: what was known stays");
  await world.restart();
  await world.put("comes", { app: "web" });
  await shows("comes,goes,stays");
  await watches();

  const { timeout } = counters.errors;
  door.slow({ bytes: 256, everyMs: 5 });
  door.cut();
  await world.put("stays", { app: "db" });
  await shows("comes,goes");
  assert.equal(counters.errors.timeout, timeout, "slow: it is waited for");
  door.slow(undefined);

  const { lists } = counters;
  await world.permit(false);
  door.cut();
  await until("forbidden: it is said", () => (counters.errors.forbidden ?? 0) > 0, waitMs);
  assert.equal(names(), "comes,goes", "forbidden: what was known stays");
  await world.remove("goes");
  await world.permit(true);
  await shows("comes");
  assert.equal(counters.lists, lists, "permitted again: it goes on from where it was");
  it.stop();

  const intruder = world.intruder<unknown>(options);
  intruder.start();
  await until("unauthorised: it is said", () => (intruder.counters.errors.unauthorized ?? 0) > 0, waitMs);
  assert.deepEqual([intruder.synced, intruder.items.size, intruder.counters.watches], [false, 0, 0]);
  intruder.stop();
  for (const name of ["stays", "comes"]) await world.remove(name);
}
