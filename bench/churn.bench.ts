import { until } from "../src/cli/lab-process.ts";
import type { Lab } from "../src/cli/lab-types.ts";
import { type BenchCluster, enforced, fakeCluster, statusOf, together } from "./support/cluster.ts";
import { load } from "./support/load.ts";
import { PORT, RESPONDER } from "./support/node.ts";
import { address, manyPods, noPods, type Usage, usageOf } from "./support/pods.ts";
import { median, report } from "./support/report.ts";
import type { FakeApi } from "../test/support/fake-api.ts";

const WORKLOAD =
  "a day's pods of a busy node in minutes: generations of 250 guarded pods, 20 000 in all, each with an interface, an address of an earlier pod, and 20 names learned from real replies; then their " +
  "objects and interfaces go. Every fourth generation has a policy of its own that comes and goes with it. The API server is one in this process. Nothing collects garbage but the agent itself";
const GENERATION = 250;
const GENERATIONS = Number(process.env.CHURN_GENERATIONS ?? 80);
const NAMES_EACH = 20;
/** Until the table of the last 10 000 events is full, which has an event of each pod, and heaps have their size. */
const WARM = Math.floor(GENERATIONS / 2);
const QUIET_MS = 500;

const spec = (match: object): object => ({
  mode: "Enforce",
  subject: { podSelector: { matchLabels: match } },
  egress: [{ name: "bench", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port: PORT }] }],
});
const uid = (generation: number, i: number): string =>
  `00000000-0000-4000-${(0x9000 + generation).toString(16)}-${i.toString(16).padStart(12, "0")}`;

/** Rules of all tables and both families that are ours. */
async function rules(lab: Lab): Promise<number> {
  let count = 0;
  for (const command of ["iptables-nft-save", "ip6tables-nft-save"])
    count += (await lab.run("node", [command])).split("\n").filter((line) => line.includes("NG-")).length;
  return count;
}

async function generation(it: BenchCluster<FakeApi>, number: number): Promise<{ bindings: number }> {
  const own = `generation-${number}`;
  await manyPods(it.lab, GENERATION);
  if (number % 4 === 0) await it.putPolicy(own, spec({ generation: String(number) }));
  await together(GENERATION, 1, (i) =>
    it.putPod({
      namespace: "shop",
      name: `many-${number}-${i}`,
      uid: uid(number, i),
      labels: { app: "many", generation: String(number) },
      addresses: [address(i)],
    }),
  );
  await enforced(it.lab, GENERATION, `many-${number}-`);
  const taught = await load(it.lab, "client", "teach", RESPONDER, GENERATION, NAMES_EACH, 0);
  if (taught["lost"] !== 0) throw new Error(`generation ${number}: ${taught["lost"]} queries without an answer`);
  const bindings = (await statusOf(it.lab)).pods.reduce((sum, pod) => sum + (pod.bindings ?? 0), 0);
  await together(GENERATION, 1, (i) => it.removePod(`many-${number}-${i}`));
  if (number % 4 === 0) it.api.remove(`policy-${own}`, "shop", "/api/v1/configmaps");
  await noPods(it.lab);
  await until("all are gone", async () => !(await statusOf(it.lab)).pods.some(({ name }) => name.startsWith("many-")), 30_000, 50);
  return { bindings };
}

const it = await fakeCluster();
try {
  await it.putPolicy("bench", spec({ app: "many" }));
  await it.putPolicy("client", spec({ app: "client" }));
  const agent = await it.start({ config: { interfacePrefixes: ["cali", "many"] } });
  await enforced(it.lab, 1, "client");
  const pid = agent.child.pid as number;
  const before = { rules: await rules(it.lab), sets: (await statusOf(it.lab)).sets, usage: usageOf(pid) };
  const usages: Usage[] = [];
  const learned: number[] = [];
  const from = performance.now();
  for (let i = 0; i < GENERATIONS; i++) {
    learned.push((await generation(it, i)).bindings);
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    usages.push(usageOf(pid));
    if (process.env.CHURN_VERBOSE !== undefined) console.log(i, JSON.stringify(usages.at(-1)));
  }
  const seconds = (performance.now() - from) / 1000;
  const status = await statusOf(it.lab);
  const after = { rules: await rules(it.lab), sets: status.sets, usage: usages.at(-1) as Usage };
  const residents = usages.map(({ residentMb }) => residentMb);
  const part = Math.max(1, Math.floor((GENERATIONS - WARM) / 4));
  const [early, late] = [median(residents.slice(WARM, WARM + part)), median(residents.slice(-part))];
  const elements = (sets: Readonly<Record<string, number>>): number => Object.values(sets).reduce((sum, one) => sum + one, 0);
  await agent.stop();
  report("churn", WORKLOAD, [
    { what: "pods", value: GENERATION * GENERATIONS, unit: "" },
    { what: "pods per second", value: (GENERATION * GENERATIONS) / seconds, unit: "1/s" },
    {
      what: "bindings learned",
      value: learned.reduce((sum, one) => sum + one, 0),
      unit: "",
      target: { least: GENERATION * GENERATIONS * NAMES_EACH },
    },
    { what: "resident before", value: before.usage.residentMb, unit: "MB" },
    { what: `resident after half of them (median of ${part} generations)`, value: early, unit: "MB" },
    { what: `resident at the end (median of ${part} generations)`, value: late, unit: "MB" },
    { what: "end / after half", value: late / early, unit: "", target: { most: 1.03 } },
    { what: "open files, before", value: before.usage.files, unit: "" },
    { what: "open files, more after", value: after.usage.files - before.usage.files, unit: "", target: { most: 0 } },
    { what: "rules, before", value: before.rules, unit: "" },
    { what: "rules, more after", value: after.rules - before.rules, unit: "", target: { most: 0 } },
    { what: "elements of all sets, before", value: elements(before.sets), unit: "" },
    { what: "elements of all sets, more after", value: elements(after.sets) - elements(before.sets), unit: "", target: { most: 0 } },
    { what: "pods that the agent still knows", value: status.pods.length - it.lab.pods.length, unit: "", target: { most: 0 } },
    { what: "policies that the agent still knows", value: status.policies.length - 2, unit: "", target: { most: 0 } },
    { what: "faults", value: status.counters["faults"] ?? 0, unit: "", target: { most: 0 } },
    { what: "CPU of the agent for a pod", value: (after.usage.cpuMs - before.usage.cpuMs) / (GENERATION * GENERATIONS), unit: "ms" },
  ]);
} finally {
  await it.close();
}
