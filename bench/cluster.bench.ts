import { readFileSync } from "node:fs";
import { until } from "../src/cli/lab-process.ts";
import { type KubeShop, kubeShop } from "../test/support/kube-shop.ts";
import { manyPods } from "./support/pods.ts";
import { median, report } from "./support/report.ts";

const WORKLOAD =
  "an agent of a real API server (one machine for all of it) with 250 guarded pods: from the PUT of a policy's ConfigMap until the agent has said that the kernel has it, " +
  "for one pod's policy and for one that selects all 250; resident memory of the whole agent";
const PODS = 250;
const ROUNDS = 15;
const AT_ONCE = 8;

const policyFor = (match: object, port: number): object => ({
  mode: "Enforce",
  subject: { podSelector: { matchLabels: match } },
  egress: [{ name: "bench", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port }] }],
});

async function announceAll(it: KubeShop): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < PODS; i = next++) {
      const labels = { app: "many", number: String(i) };
      await it.api.createPod({ namespace: "shop", name: `many-${i}`, node: "node-1", labels, addresses: [`10.245.${i >> 8}.${i & 255}`] });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/** Milliseconds. */
async function timed(work: () => Promise<void>): Promise<number> {
  const from = performance.now();
  await work();
  return performance.now() - from;
}

async function main(): Promise<void> {
  if ((process.env.KUBEBUILDER_ASSETS ?? "") === "") {
    console.log("cluster: needs KUBEBUILDER_ASSETS in the environment (kube-apiserver, etcd): not measured");
    return;
  }
  const ends: (() => unknown)[] = [];
  const it = await kubeShop({ after: (end: () => unknown) => void ends.unshift(end) } as Parameters<typeof kubeShop>[0]);
  try {
    await it.addPod({ name: "client" });
    await manyPods(it.lab, PODS);
    await announceAll(it);
    for (let i = 0; i < PODS; i += 10) await it.put(`many-${i}`, policyFor({ number: String(i) }, 1));
    await it.put("all", policyFor({ app: "many" }, 2));
    await it.start({ config: { interfacePrefixes: ["cali", "many"] } });
    await until(
      "all are guarded",
      async () => (await it.agent.status()).pods.filter(({ guarded, enforced }) => guarded && enforced).length === PODS,
      30_000,
      200,
    );
    const one: number[] = [];
    const all: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      one.push(await timed(() => it.enforce("many-0", policyFor({ number: "0" }, 100 + round))));
      all.push(await timed(() => it.enforce("all", policyFor({ app: "many" }, 100 + round))));
    }
    const status = readFileSync(`/proc/${it.agent.child.pid}/status`, "utf8");
    report("cluster", WORKLOAD, [
      { what: "a policy for one pod, median", value: median(one), unit: "ms", target: { most: 100 } },
      { what: "a policy for all pods, median", value: median(all), unit: "ms", target: { most: 100 } },
      { what: "the slowest of both", value: Math.max(...one, ...all), unit: "ms" },
      { what: "resident memory", value: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024, unit: "MB", target: { most: 150 } },
    ]);
  } finally {
    for (const end of ends) await end();
  }
}

await main();
