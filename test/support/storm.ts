import { setTimeout as sleep } from "node:timers/promises";
import { ApiFault } from "../../src/inputs/kubernetes/faults.ts";
import { ListWatch } from "../../src/inputs/kubernetes/reflector.ts";
import type { ApiStream, Transport } from "../../src/inputs/kubernetes/transport.ts";
import { until } from "../../src/cli/lab-process.ts";
import { ManualClock } from "./clock.ts";

const GOOD_MS = 60_000;
const STEP_MS = 20;
const AWAY_MS = 120_000;

export interface Storm {
  /** After all watches were cut at once: lists and watches that were asked for, when the last one was, and the most in 100 ms. */
  readonly lists: number;
  readonly watches: number;
  readonly lastMs: number;
  readonly busiest: number;
  /** Requests a second in the second minute of a server that refuses every connection. */
  readonly awayPerSecond: number;
}

/** So many agents, each with one watch of a server in this process, whose watches are cut at once; time is moved by hand, chance is seeded. */
export async function storm(agents: number, seed = 1): Promise<Storm> {
  const clock = new ManualClock();
  const asked: { list: number; watch: number[] } = { list: 0, watch: [] };
  let down = false;
  let cuts: (() => void)[] = [];
  const fault = new ApiFault("connect", "cut", "");
  const transport: Transport = {
    open: ({ path }) => {
      const watch = path.includes("watch=true");
      if (watch) asked.watch.push(clock.now());
      else asked.list++;
      if (down) return Promise.resolve({ ok: false, fault });
      const read: ApiStream["read"] = (take) => {
        if (watch) return new Promise((resolve) => cuts.push(() => resolve(fault)));
        take(Buffer.from('{"metadata":{"resourceVersion":"1"},"items":[]}'));
        return Promise.resolve(undefined);
      };
      return Promise.resolve({ ok: true, value: { read } });
    },
    close: () => {},
  };
  let state = seed;
  const random = (): number => {
    state = (state * 48_271) % 2_147_483_647; // MINSTD
    return state / 2_147_483_647;
  };
  const options = { path: "/api/v1/pods", project: () => true, onChange: () => {} };
  const all = Array.from({ length: agents }, () => new ListWatch(transport, clock, random, options));
  try {
    for (const agent of all) agent.start();
    await until("all watch", () => cuts.length === agents);
    const [lists] = [asked.list];
    const cutAll = async (): Promise<number> => {
      clock.advance(GOOD_MS);
      const open = cuts;
      cuts = [];
      asked.watch = [];
      for (const cut of open) cut();
      await sleep(5);
      return clock.now();
    };
    const cutAt = await cutAll();
    for (let ms = 0; ms < 1000; ms += STEP_MS) {
      clock.advance(STEP_MS);
      await sleep(0);
    }
    await until("all watch again", () => cuts.length === agents);
    const back = asked.watch.map((at) => at - cutAt);
    const inWindow = new Map<number, number>();
    for (const ms of back) inWindow.set(Math.floor(ms / 100), (inWindow.get(Math.floor(ms / 100)) ?? 0) + 1);
    down = true;
    await cutAll();
    for (let ms = 0; ms < AWAY_MS; ms += 100) {
      clock.advance(100);
      await sleep(0);
    }
    const late = asked.watch.filter((at) => clock.now() - at < AWAY_MS / 2).length;
    return {
      lists: asked.list - lists,
      watches: back.length,
      lastMs: Math.max(...back),
      busiest: Math.max(...inWindow.values()),
      awayPerSecond: late / (AWAY_MS / 2000),
    };
  } finally {
    for (const agent of all) agent.stop();
  }
}
