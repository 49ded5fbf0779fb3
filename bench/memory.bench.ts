import { until } from "../src/cli/lab-process.ts";
import { putPolicy, startAgent, type TestAgent } from "../test/support/agent.ts";
import { manyPods, usageOf, withEntries } from "./support/pods.ts";
import { load } from "./support/load.ts";
import { benchNode, POLICY, RESPONDER } from "./support/node.ts";
import { report } from "./support/report.ts";
import type { Lab } from "../src/cli/lab-types.ts";

const WORKLOAD =
  "250 guarded pods, each of which resolves 400 names of its own: 100 000 bindings and as many decisions in the kernel, all learned from real replies. Resident memory " +
  "(VmRSS, both threads) after that, and of an agent that was started anew and has read them back from the kernel; CPU time without a packet, with few bindings for 60 s and with all for 315 s: " +
  "all of them are compared with the kernel every five minutes, which takes most of a second, so that is one whole turn of everything that the agent does by itself";
const PODS = 250;
const NAMES_EACH = 400;
const IDLE_MS = 15_000;
const FEW_WINDOWS = 4;
const WINDOWS = 21;
/** What a start itself costs is not idleness. */
const SETTLE_MS = 15_000;

/** Percent of one core in each window, and the memory at the end of each. */
async function idle(agent: TestAgent, windows: number): Promise<{ percent: number[]; residentMb: number[] }> {
  const pid = agent.child.pid as number;
  const percent: number[] = [];
  const residentMb: number[] = [];
  for (let i = 0; i < windows; i++) {
    const before = usageOf(pid);
    await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
    const after = usageOf(pid);
    percent.push(((after.cpuMs - before.cpuMs) / IDLE_MS) * 100);
    residentMb.push(after.residentMb);
  }
  return { percent, residentMb };
}

const mean = (list: readonly number[]): number => list.reduce((sum, one) => sum + one, 0) / list.length;

async function bindings(agent: TestAgent): Promise<number> {
  return (await agent.status()).pods.reduce((sum, pod) => sum + (pod.bindings ?? 0), 0);
}

async function start(lab: Lab): Promise<TestAgent> {
  const agent = await startAgent(lab, { args: ["--events", "1"] });
  await until(
    "all pods guarded",
    async () => (await agent.status()).pods.filter(({ guarded, name }) => guarded && name.startsWith("many")).length === PODS,
    20_000,
    200,
  );
  return agent;
}

const node = await benchNode();
try {
  const lab = withEntries(node, await manyPods(node, PODS));
  putPolicy(lab, "bench.yaml", POLICY);
  const first = await start(lab);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const few = await idle(first, FEW_WINDOWS);
  const taught = await load(lab, "client", "teach", RESPONDER, PODS, NAMES_EACH, 0);
  const learned = await bindings(first);
  const many = await idle(first, WINDOWS);
  await first.kill();
  const from = performance.now();
  const second = await start(lab);
  const restartMs = performance.now() - from;
  const restored = await bindings(second);
  const again = await idle(second, 1);
  await second.stop();
  report("memory", WORKLOAD, [
    { what: "pods", value: PODS, unit: "" },
    { what: "replies held and learned", value: taught["perSecond"] as number, unit: "1/s" },
    { what: "queries without an answer", value: taught["lost"] as number, unit: "", target: { most: 0 } },
    { what: "bindings", value: learned, unit: "", target: { least: PODS * NAMES_EACH } },
    { what: "resident, few bindings", value: Math.max(...few.residentMb), unit: "MB" },
    { what: "resident, with all, most of any window", value: Math.max(...many.residentMb), unit: "MB", target: { most: 120 } },
    { what: "bindings after a restart", value: restored, unit: "", target: { least: learned } },
    { what: "resident after a restart", value: Math.max(...again.residentMb), unit: "MB", target: { most: 120 } },
    { what: "restart until every pod is guarded", value: restartMs, unit: "ms" },
    { what: "CPU when idle, few bindings", value: mean(few.percent), unit: "%", target: { most: 1 } },
    { what: "CPU when idle, with all", value: mean(many.percent), unit: "%", target: { most: 1 } },
    { what: "CPU when idle, with all, busiest 15 s", value: Math.max(...many.percent), unit: "%" },
  ]);
} finally {
  await node.close();
}
