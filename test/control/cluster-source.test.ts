import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Logger } from "pino";
import { clusterSource } from "../../src/control/cluster.ts";
import type { NodeFacts } from "../../src/control/cluster-node.ts";
import { NO_CONFIG } from "../../src/inputs/config/read.ts";
import type { Cluster } from "../../src/inputs/kubernetes/types.ts";

/** An API server that never answers. */
const SILENT = {
  reflect: ({ path }: { path: string }) => ({
    path,
    items: new Map(),
    synced: false,
    counters: { errors: {}, lastError: undefined },
    staleMs: () => Number.POSITIVE_INFINITY,
    start: () => undefined,
    stop: () => undefined,
  }),
  close: () => undefined,
} as unknown as Cluster;

test("a prefix that appears while the API is silent is covered too", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const facts = (...prefixes: string[]): NodeFacts => ({ prefixes, local: new Set(), resolvConf: { servers: [], searches: [] } });
  let now = facts("cali");

  const source = clusterSource({
    cluster: SILENT,
    settings: NO_CONFIG.cluster,
    node: "a",
    clusterNamespace: "namegate",
    locator: { refresh: () => undefined, find: () => ({ kind: "later", why: "" }) },
    routeTo: () => undefined,
    facts: () => now,
    state: join(tmpdir(), "namegate-there-is-none"),
    boot: "b",
    nowMs: () => 0,
    log: { warn: () => undefined, error: () => undefined, info: () => undefined } as unknown as Logger,
  });
  t.after(() => source.close());
  await source.begin(true);
  const prefixes = (): unknown => {
    const read = source.read();
    return read.kind === "kept" && [read.snapshot.starting, read.snapshot.interfacePrefixes];
  };
  assert.deepEqual(prefixes(), [true, ["cali"]]);
  let told = 0;
  source.watch(() => told++);
  t.mock.timers.tick(5000);
  assert.equal(told, 1, "the API has had its time");
  prefixes();
  now = facts("cali", "veth");
  t.mock.timers.tick(10_000);
  assert.equal(told, 2);
  assert.deepEqual(prefixes(), [true, ["cali", "veth"]]);
});
