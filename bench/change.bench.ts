import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Lab } from "../src/cli/lab-types.ts";
import { until } from "../src/cli/lab-process.ts";
import { policy, putPolicy, startAgent, type TestAgent } from "../test/support/agent.ts";
import { load } from "./support/load.ts";
import { benchNode, PORT } from "./support/node.ts";
import { manyPods, podsText } from "./support/pods.ts";
import { median, report } from "./support/report.ts";

const WORKLOAD =
  "a file that is renamed into place until the kernel's sets show it to another process: a policy that selects one pod (its queries are restricted, or no longer), and the pods file with one pod more " +
  "or less; with 1 and with 250 pods guarded. The observer asks the kernel every 50 µs";
const PODS = 250;
const ROUNDS = 15;
const OBSERVED = "10.245.0.0"; // the address of pod number 0

/** A policy of its own for each pod, so that a change of one concerns one pod. */
function onePolicy(i: number, queries: "All" | "AllowedOnly"): string {
  return policy(`many-${i}`, {
    mode: "Enforce",
    subject: { podSelector: { matchLabels: { number: String(i) } } },
    dns: { queries },
    egress: [{ name: "bench", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port: PORT }] }],
  });
}

const file = (lab: Lab): string => join(lab.dir, "pods.yaml");

async function guarded(agent: TestAgent, count: number): Promise<void> {
  await until(`${count} pods guarded`, async () => (await agent.status()).pods.filter((pod) => pod.guarded).length === count, 20_000, 100);
}

/** Microseconds from the rename to the kernel, a value a round; the set `has` the observed pod, then not, by turns. */
async function measure(lab: Lab, target: string, set: string, text: (has: boolean) => string, starts: boolean): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS * 2; round++) {
    const wanted = (round % 2 === 0) !== starts;
    writeFileSync(`${target}.next`, text(wanted));
    times.push((await load(lab, "node", "change", `${target}.next`, target, set, OBSERVED, wanted ? 1 : 0))["us"] as number);
  }
  return times;
}

interface Result {
  readonly policy: number[];
  readonly pod: number[];
}

async function series(lab: Lab, agent: TestAgent, entries: readonly string[]): Promise<Result> {
  writeFileSync(`${file(lab)}.next`, podsText(lab, entries));
  renameSync(`${file(lab)}.next`, file(lab));
  await guarded(agent, entries.length);
  const one = join(lab.dir, "policies", "many-0.yaml");
  const ofPolicy = await measure(lab, one, "ng-query4", (has) => onePolicy(0, has ? "AllowedOnly" : "All"), false);
  const ofPod = await measure(lab, file(lab), "ng-guard4", (has) => podsText(lab, has ? entries : entries.slice(1)), true);
  return { policy: ofPolicy, pod: ofPod };
}

const lab = await benchNode();
try {
  const entries = await manyPods(lab, PODS);
  for (let i = 0; i < PODS; i++) putPolicy(lab, `many-${i}.yaml`, onePolicy(i, "All"));
  const agent = await startAgent(lab, { args: ["--events", "1"] });
  const few = await series(lab, agent, entries.slice(0, 1));
  const many = await series(lab, agent, entries);
  const { lastUpdate } = await agent.status();
  await agent.stop();
  const missed = [few, many].flatMap(({ policy: a, pod: b }) => [...a, ...b]).filter((us) => us < 0).length;
  const ms = (times: readonly number[]): number => median(times) / 1000;
  report("change", WORKLOAD, [
    { what: "policy, 1 pod guarded", value: ms(few.policy), unit: "ms", target: { most: 10 } },
    { what: `policy of one pod, ${PODS} pods guarded`, value: ms(many.policy), unit: "ms", target: { most: 10 } },
    { what: `policy, ${PODS} pods / 1 pod`, value: ms(many.policy) / ms(few.policy), unit: "" },
    { what: "pods file, 1 pod guarded", value: ms(few.pod), unit: "ms", target: { most: 10 } },
    { what: `pods file, ${PODS} pods guarded`, value: ms(many.pod), unit: "ms", target: { most: 10 } },
    { what: `pods file, ${PODS} pods / 1 pod`, value: ms(many.pod) / ms(few.pod), unit: "" },
    { what: "longest of all", value: Math.max(...[few, many].flatMap(({ policy: a, pod: b }) => [...a, ...b])) / 1000, unit: "ms" },
    { what: "of which in the packet thread, the last change", value: (lastUpdate?.microseconds ?? 0) / 1000, unit: "ms" },
    { what: "changes not seen in 5 s", value: missed, unit: "", target: { most: 0 } },
  ]);
} finally {
  await lab.close();
}
