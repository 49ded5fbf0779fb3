import type { TestAgent } from "../../test/support/agent.ts";
import { enforced, fakeCluster } from "./cluster.ts";
import { begin, load, type Measured, serving } from "./load.ts";
import { RESPONDER } from "./node.ts";

/** The port of the server that answers (node.ts's own discards). */
const ANSWERS = 8443;
/** What the responder gives x0.bench.test; the others follow. */
const FIRST = "198.18.0.0";
const EVERY_MS = 500;
const LOAD_MS_MAX = 180_000;

export interface OutageSize {
  readonly names: number;
  /** Established connections that talk. */
  readonly held: number;
  /** New connections a second. */
  readonly perSecond: number;
}

export interface Outage {
  agent(): TestAgent;
  start(): Promise<void>;
  /** The load, and `during` from its beginning to its end (no more than three minutes); what steady.c has counted. */
  load(during: () => Promise<unknown>): Promise<Measured>;
}

/** A guarded pod that has learned its names, under load. */
export async function outage<T>({ names, held, perSecond }: OutageSize, run: (it: Outage) => Promise<T>): Promise<T> {
  const cluster = await fakeCluster();
  const { lab } = cluster;
  try {
    await serving(lab, "out", "reply", ANSWERS);
    await cluster.putPolicy("bench", {
      mode: "Enforce",
      subject: { podSelector: { matchLabels: { app: "client" } } },
      egress: [{ name: "bench", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port: ANSWERS }] }],
    });
    let agent: TestAgent;
    const start = async (): Promise<void> => {
      agent = await cluster.start();
      await enforced(lab, 1, "client");
    };
    await start();
    const it: Outage = {
      agent: () => agent,
      start,
      load: async (during) => {
        const asked = await load(lab, "client", "ask", RESPONDER, names, 0, names, 0);
        if (asked["lost"] !== 0) throw new Error(`${asked["lost"]} names without an answer`);
        const { child, done } = begin(lab, "client", "steady", "steady", FIRST, ANSWERS, held, EVERY_MS, perSecond, names, LOAD_MS_MAX);
        await during();
        if (child.status !== undefined) throw new Error("the load ended too early");
        child.kill("SIGTERM");
        return done;
      },
    };
    return await run(it);
  } finally {
    await cluster.close();
  }
}
