import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Lab } from "../src/cli/lab-types.ts";
import { putPolicy, startAgent } from "../test/support/agent.ts";
import { load } from "./support/load.ts";
import { benchNode, POLICY, RESPONDER } from "./support/node.ts";
import { interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "one pod is denied 2000 new UDP connections a second for 2 s a round, each an event, and another pod asks for names, 200 a second, each reply held. The agent by turns without sinks (JSON on stdout), with " +
  "a file, and with a file and a collector that takes connections and never answers";
const ROUNDS = 5;
const FLOOD_MS = 2000;
const DENIALS = 2000;
const NAMES = 400;
const SILENT_PORT = 4999;
/** What the slowest of a hundred replies may take longer than without sinks: these are two shared cores. */
const TIMES_MOST = 1.5;

interface Round {
  readonly p50: number;
  readonly p99: number;
  readonly events: number;
}

let port = 1000;
async function round(lab: Lab, args: readonly string[]): Promise<Round> {
  const agent = await startAgent(lab, { args: ["--upcalls", "10000000", "--events", "100000", ...args] });
  try {
    const [, dns] = await Promise.all([
      load(lab, "client", "flood", "198.18.0.0", port++, DENIALS, FLOOD_MS, 65_536),
      load(lab, "other", "ask", RESPONDER, (200 * FLOOD_MS) / 1000, 0, NAMES, 200),
    ]);
    const { alerts } = (await agent.status()) as unknown as { alerts: { events: number } };
    return { p50: dns["p50"] as number, p99: dns["p99"] as number, events: alerts.events };
  } finally {
    await agent.stop();
  }
}

const lab = await benchNode();
try {
  putPolicy(lab, "bench.yaml", POLICY);
  const silent = lab.spawn("node", [
    process.execPath,
    "-e",
    `require("net").createServer(() => {}).listen(${SILENT_PORT}, "127.0.0.1", () => console.log("ready"))`,
  ]);
  await silent.line((line) => line === "ready");
  writeFileSync(join(lab.dir, "secret"), "s");
  const config = (name: string, sinks: string): readonly string[] => {
    const file = join(lab.dir, `${name}.yaml`);
    writeFileSync(file, `alerts:\n  fold: { podPerSecond: 100000, nodePerSecond: 100000 }\n  sinks:\n${sinks}`);
    return ["--config", file];
  };
  const file = `  - { type: file, path: "${lab.dir}/events.log" }\n`;
  const hanging = `  - { type: webhook, url: "http://127.0.0.1:${SILENT_PORT}/", secretFile: "${lab.dir}/secret" }\n`;
  const on = config("on", file);
  const both = config("hanging", file + hanging);
  const rounds = await interleave(ROUNDS, { off: () => round(lab, []), on: () => round(lab, on), hanging: () => round(lab, both) });
  const of = (list: readonly Round[], field: keyof Round): number => median(list.map((one) => one[field]));
  const p99 = of(rounds.off, "p99");
  report("alerts-path", WORKLOAD, [
    { what: "events a round", value: of(rounds.hanging, "events"), unit: "", target: { least: (DENIALS * FLOOD_MS) / 2000 } },
    { what: "reply p50 without sinks", value: of(rounds.off, "p50"), unit: "µs" },
    { what: "reply p50 with a file", value: of(rounds.on, "p50"), unit: "µs" },
    { what: "reply p50 with a hanging collector", value: of(rounds.hanging, "p50"), unit: "µs" },
    { what: "reply p99 without sinks", value: p99, unit: "µs" },
    { what: "reply p99 with a file, times", value: of(rounds.on, "p99") / p99, unit: "", target: { most: TIMES_MOST } },
    { what: "reply p99 with a hanging collector, times", value: of(rounds.hanging, "p99") / p99, unit: "", target: { most: TIMES_MOST } },
  ]);
} finally {
  await lab.close();
}
