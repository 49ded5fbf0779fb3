import { missing } from "../test/support/need.ts";
import { API_SERVER, type ApiServer } from "../test/support/apiserver.ts";
import { type BenchCluster, enforced, populate, realCluster, statusOf, together } from "./support/cluster.ts";
import { begin } from "./support/load.ts";
import { ALLOWED, newcomers } from "./support/newcomers.ts";
import { PORT } from "./support/node.ts";
import { address, manyPods, usageOf } from "./support/pods.ts";
import { median, report } from "./support/report.ts";

const WORKLOAD =
  "an agent of a real kube-apiserver, 10 000 pods on other nodes, a policy for each pod of this one; with 1 and with 250 guarded pods: from the sending of a changed ConfigMap, or of a new pod's status, until the " +
  "kernel's set shows it to another process (asked every 50 µs). Then pods that send 5000 datagrams a second from the moment when they have a way out: what gets out that no rule allows. One machine for all";
const PODS = 250;
const CLUSTER_PODS = Number(process.env.CLUSTER_PODS ?? 10_000);
const ROUNDS = 50;
const POD_ROUNDS = 30;
const NEWCOMERS = Number(process.env.NEWCOMERS ?? 60);
const AT_ONCE = 16;

type Cluster = BenchCluster<ApiServer>;

const policyOf = (i: number, queries: "All" | "AllowedOnly"): object => ({
  mode: "Enforce",
  subject: { podSelector: { matchLabels: { number: String(i) } } },
  dns: { queries },
  egress: [{ name: "bench", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port: PORT }] }],
});
const podOf = (i: number) => ({
  namespace: "shop",
  name: `many-${i}`,
  uid: "",
  labels: { app: "many", number: String(i) },
  addresses: [address(i)],
});
const nowUs = (): number => Number(process.hrtime.bigint()) / 1000;

interface Seen {
  /** Milliseconds from the sending until the kernel has it; and until the API server has answered. */
  readonly kernelMs: number;
  readonly answerMs: number;
}

/** When the set has (or lacks) the address after `change`. */
async function seen(it: Cluster, set: string, of: string, has: boolean, change: () => Promise<unknown>): Promise<Seen> {
  const { child, done } = begin(it.lab, "node", "load", "seen", set, of, has ? 1 : 0);
  await child.line((line) => line === "ready");
  const from = nowUs();
  await change();
  const answered = nowUs();
  const { at = -1 } = await done;
  if (at < 0) throw new Error(`${set} does not show ${of} after ten seconds`);
  return { kernelMs: (at - from) / 1000, answerMs: (answered - from) / 1000 };
}

async function policies(it: Cluster): Promise<Seen[]> {
  const times: Seen[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const has = round % 2 === 0;
    times.push(await seen(it, "ng-query4", address(0), has, () => it.putPolicy("many-0", policyOf(0, has ? "AllowedOnly" : "All"))));
  }
  return times;
}

async function pods(it: Cluster): Promise<Seen[]> {
  const times: Seen[] = [];
  for (let i = PODS; i < PODS + POD_ROUNDS; i++) times.push(await seen(it, "ng-guard4", address(i), true, () => it.putPod(podOf(i))));
  return times;
}

async function measure(): Promise<void> {
  const it = await realCluster();
  try {
    const { lab, api } = it;
    const from = performance.now();
    await populate(api, CLUSTER_PODS, AT_ONCE);
    const populateMs = performance.now() - from;
    await manyPods(lab, PODS + POD_ROUNDS);
    await together(PODS + POD_ROUNDS, AT_ONCE, (i) => it.putPolicy(`many-${i}`, policyOf(i, "All")));
    await it.putPolicy("fresh", {
      mode: "Enforce",
      subject: { podSelector: { matchLabels: { app: "fresh" } } },
      egress: [{ name: "allowed", action: "Accept", to: [{ networks: [`${ALLOWED}/32`] }] }],
    });
    await it.putPod(podOf(0));
    const agent = await it.start();
    await enforced(lab, 1, "many-");
    const few = await policies(it);
    await together(PODS - 1, AT_ONCE, (i) => it.putPod(podOf(i + 1)));
    await enforced(lab, PODS, "many-");
    const many = await policies(it);
    const created = await pods(it);
    const { residentMb } = usageOf(agent.child.pid as number);
    const fresh = await newcomers(it, NEWCOMERS);
    const { inputs, counters } = await statusOf(lab);
    await agent.stop();
    const kernel = (list: readonly Seen[]): number[] => list.map(({ kernelMs }) => kernelMs).sort((a, b) => a - b);
    const p99 = (list: readonly Seen[]): number => kernel(list)[Math.ceil(0.99 * list.length) - 1] as number;
    report("cluster", WORKLOAD, [
      { what: "pods in the cluster", value: CLUSTER_PODS + PODS + POD_ROUNDS, unit: "" },
      { what: "made at", value: (CLUSTER_PODS / populateMs) * 1000, unit: "1/s" },
      { what: "pods that the agent keeps", value: inputs.find(({ resource }) => resource === "pods")?.items ?? -1, unit: "" },
      { what: "ConfigMap → kernel, 1 pod guarded, median", value: median(kernel(few)), unit: "ms", target: { most: 100 } },
      { what: `ConfigMap → kernel, ${PODS} pods guarded, median`, value: median(kernel(many)), unit: "ms", target: { most: 100 } },
      { what: `of which the API server's answer to the PUT, median`, value: median(many.map(({ answerMs }) => answerMs)), unit: "ms" },
      { what: `ConfigMap → kernel, ${PODS} pods guarded, p99`, value: p99(many), unit: "ms" },
      { what: `ConfigMap → kernel, ${PODS} pods / 1 pod`, value: median(kernel(many)) / median(kernel(few)), unit: "" },
      {
        what: `pod (POST, PATCH of its address) → guarded, ${PODS} pods, median`,
        value: median(kernel(created)),
        unit: "ms",
      },
      { what: "of which the API server's answers, median", value: median(created.map(({ answerMs }) => answerMs)), unit: "ms" },
      { what: "pod → guarded, p99", value: p99(created), unit: "ms" },
      { what: "resident memory, 250 pods and policies", value: residentMb, unit: "MB", target: { most: 150 } },
      { what: "newcomers that speak at once", value: NEWCOMERS, unit: "" },
      { what: "datagrams that they sent", value: fresh.sent, unit: "", target: { least: NEWCOMERS * 100 } },
      { what: "newcomers whose allowed datagrams arrived", value: fresh.arrived, unit: "", target: { least: NEWCOMERS } },
      { what: "datagrams that got out unjudged", value: fresh.unjudged, unit: "", target: { most: 0 } },
      { what: "packets of pods that nobody knew yet", value: counters["unknownPod"] ?? 0, unit: "", target: { least: NEWCOMERS } },
      { what: "faults", value: counters["faults"] ?? 0, unit: "", target: { most: 0 } },
    ]);
  } finally {
    await it.close();
  }
}

const lacking = missing(API_SERVER);
if (lacking === undefined) await measure();
else console.log(`cluster: not measured: ${lacking} (kube-apiserver and etcd)`);
