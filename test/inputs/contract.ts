import assert from "node:assert/strict";
import { until } from "../../src/cli/lab-process.ts";
import type { RawObject, ReflectOptions, Reflector } from "../../src/inputs/kubernetes/types.ts";

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
