import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { MAIN } from "../test/support/agent.ts";
import { bundleFor } from "../test/support/image.ts";
import { type BenchCluster, enforced, fakeCluster, statusOf, together } from "./support/cluster.ts";
import { load } from "./support/load.ts";
import { PORT, RESPONDER } from "./support/node.ts";
import { address, manyPods, type Usage, usageOf } from "./support/pods.ts";
import { report } from "./support/report.ts";

const WORKLOAD =
  "the whole agent in a cluster (TLS, an API server in this process, pod objects of 8 KB), 250 guarded pods, resident memory (VmRSS) after 20 s of quiet: of the sources as they are, and of the bundle that the image has; " +
  "then with 100 000 bindings from real replies, and of an agent that was started anew. Beside it a Node process with one worker thread that do nothing";
const PODS = 250;
const NAMES_EACH = 400;
const QUIET_MS = 20_000;

const quiet = async (pid: number): Promise<Usage> => {
  await sleep(QUIET_MS);
  return usageOf(pid);
};

/** What any Node program with a worker thread has. */
async function bare(): Promise<Usage> {
  const text = `new (require("node:worker_threads").Worker)("setInterval(() => {}, 1000)", { eval: true }); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["-e", text], { stdio: "ignore" });
  await sleep(3000);
  const usage = usageOf(child.pid as number);
  child.kill("SIGKILL");
  return usage;
}

const bindings = async ({ lab }: BenchCluster<unknown>): Promise<number> =>
  (await statusOf(lab)).pods.reduce((sum, pod) => sum + (pod.bindings ?? 0), 0);

const it = await fakeCluster();
try {
  const { bundle } = bundleFor(it);
  await manyPods(it.lab, PODS);
  await it.putPolicy("bench", {
    mode: "Enforce",
    subject: { podSelector: { matchLabels: { app: "many" } } },
    egress: [{ name: "bench", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port: PORT }] }],
  });
  await together(PODS, 1, (i) =>
    it.putPod({ namespace: "shop", name: `many-${i}`, uid: `uid-${i}`, labels: { app: "many" }, addresses: [address(i)] }),
  );
  const start = async (main: string) => {
    const agent = await it.start({ program: [process.execPath, main] });
    await enforced(it.lab, PODS, "many-");
    return agent;
  };
  const nothing = await bare();
  const sources = await start(MAIN);
  const unbundled = await quiet(sources.child.pid as number);
  await sources.stop();
  const first = await start(`${bundle}/main.js`);
  const pid = first.child.pid as number;
  const bundled = await quiet(pid);
  const idle = (await quiet(pid)).cpuMs - bundled.cpuMs;
  const taught = await load(it.lab, "client", "teach", RESPONDER, PODS, NAMES_EACH, 0);
  const learned = await bindings(it);
  const full = await quiet(pid);
  await first.kill();
  const second = await start(`${bundle}/main.js`);
  const restored = await bindings(it);
  const again = await quiet(second.child.pid as number);
  await second.stop();
  report("cluster-memory", WORKLOAD, [
    { what: "pods", value: PODS, unit: "" },
    { what: "Node with an idle worker thread", value: nothing.residentMb, unit: "MB" },
    { what: "unbundled", value: unbundled.residentMb, unit: "MB", target: { most: 150 } },
    { what: "bundled", value: bundled.residentMb, unit: "MB", target: { most: 150 } },
    { what: "of which pages of files (Node's own program, libc, the addon)", value: bundled.fileMb, unit: "MB" },
    { what: "of which its own (two heaps, stacks, queues' buffers)", value: bundled.ownMb, unit: "MB" },
    { what: "bundled / Node with an idle worker", value: bundled.residentMb / nothing.residentMb, unit: "" },
    { what: "queries without an answer", value: taught["lost"] as number, unit: "", target: { most: 0 } },
    { what: "bindings", value: learned, unit: "", target: { least: PODS * NAMES_EACH } },
    { what: "bundled, with all bindings", value: full.residentMb, unit: "MB", target: { most: 150 } },
    { what: "bytes a binding", value: ((full.residentMb - bundled.residentMb) * 1024 * 1024) / learned, unit: "" },
    { what: "bindings after a restart", value: restored, unit: "", target: { least: learned } },
    { what: "bundled, after a restart with all bindings", value: again.residentMb, unit: "MB", target: { most: 150 } },
    { what: "CPU when idle, few bindings", value: (idle / QUIET_MS) * 100, unit: "%" },
  ]);
} finally {
  await it.close();
}
