import { until } from "../src/cli/lab-process.ts";
import { putPolicy, startAgent, type TestAgent } from "../test/support/agent.ts";
import { manyPods, usageOf, withEntries } from "./support/pods.ts";
import { load } from "./support/load.ts";
import { benchNode, POLICY, RESPONDER } from "./support/node.ts";
import { report } from "./support/report.ts";
import type { Lab } from "../src/cli/lab-types.ts";

const WORKLOAD =
  "250 guarded pods, each of which resolves 400 names of its own: 100 000 bindings and as many decisions in the kernel, all learned from real replies. Resident memory (VmRSS, both threads) " +
  "20 s after that, and of an agent that was started anew and has read them back from the kernel; CPU time over 20 s without a packet, with few bindings and with all";
const PODS = 250;
const NAMES_EACH = 400;
const IDLE_MS = 20_000;
/** What a start itself costs is not idleness. */
const SETTLE_MS = 5000;

/** Percent of one core over IDLE_MS, and the memory at its end. */
async function idle(agent: TestAgent): Promise<{ percent: number; residentMb: number }> {
  const pid = agent.child.pid as number;
  const before = usageOf(pid);
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  const after = usageOf(pid);
  return { percent: ((after.cpuMs - before.cpuMs) / IDLE_MS) * 100, residentMb: after.residentMb };
}

async function bindings(agent: TestAgent): Promise<number> {
  return (await agent.status()).pods.reduce((sum, pod) => sum + (pod.bindings ?? 0), 0);
}

async function start(lab: Lab): Promise<TestAgent> {
  const agent = await startAgent(lab, { args: ["--events", "1"] });
  await until("all pods guarded", async () => (await agent.status()).pods.filter(({ guarded, name }) => guarded && name.startsWith("many")).length === PODS, 20_000, 200);
  return agent;
}

const node = await benchNode();
try {
  const lab = withEntries(node, await manyPods(node, PODS));
  putPolicy(lab, "bench.yaml", POLICY);
  const first = await start(lab);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const few = await idle(first);
  const taught = await load(lab, "client", "teach", RESPONDER, PODS, NAMES_EACH, 0);
  const learned = await bindings(first);
  const many = await idle(first);
  const later = await idle(first);
  await first.kill();
  const from = performance.now();
  const second = await start(lab);
  const restartMs = performance.now() - from;
  const restored = await bindings(second);
  const again = await idle(second);
  await second.stop();
  report("memory", WORKLOAD, [
    { what: "pods", value: PODS, unit: "" },
    { what: "replies held and learned", value: taught["perSecond"] as number, unit: "1/s" },
    { what: "queries without an answer", value: taught["lost"] as number, unit: "", target: { most: 0 } },
    { what: "bindings", value: learned, unit: "", target: { least: PODS * NAMES_EACH } },
    { what: "resident, few bindings", value: few.residentMb, unit: "MB" },
    { what: "resident, 20 s after the last was learned", value: many.residentMb, unit: "MB" },
    { what: "resident, 40 s after the last was learned", value: later.residentMb, unit: "MB", target: { most: 120 } },
    { what: "bindings after a restart", value: restored, unit: "", target: { least: learned } },
    { what: "resident after a restart", value: again.residentMb, unit: "MB", target: { most: 120 } },
    { what: "restart until every pod is guarded", value: restartMs, unit: "ms" },
    { what: "CPU when idle, few bindings", value: few.percent, unit: "%", target: { most: 1 } },
    { what: "CPU when idle, the first 20 s with all", value: many.percent, unit: "%" },
    { what: "CPU when idle, with all", value: later.percent, unit: "%", target: { most: 1 } },
  ]);
} finally {
  await node.close();
}
