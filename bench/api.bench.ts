import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../src/cli/lab-process.ts";
import { type Asked, FakeApi } from "../test/support/fake-api.ts";
import { storm } from "../test/support/storm.ts";
import { COLLECTIONS, enforced, fakeCluster, PODS, statusOf, together } from "./support/cluster.ts";
import { PORT } from "./support/node.ts";
import { address, manyPods } from "./support/pods.ts";
import { report } from "./support/report.ts";

const WORKLOAD =
  "what one agent asks of the API server (one in this process that counts): 250 pods of 8 KB and as many policies are read, 50 pods come and go (four changes of their status each), 20 policies change, and nothing " +
  "happens for 20 s. And 1000 watches that are cut at once, or whose server is away, in simulated time";
const NODE_PODS = 250;
const COME_AND_GO = 50;
const STATUSES = 4;
const POLICY_CHANGES = 20;
const IDLE_MS = 20_000;
const WATCHES = 1000;

const policyOf = (i: number, port: number): object => ({
  mode: "Enforce",
  subject: { podSelector: { matchLabels: { number: String(i) } } },
  egress: [{ name: "bench", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port }] }],
});

const bytes = (api: FakeApi, path: string): number => api.sent.get(path) ?? 0;
const [, NAMESPACES, CONFIG_MAPS, SERVICES] = COLLECTIONS;

async function one() {
  const it = await fakeCluster();
  try {
    const { api, lab } = it;
    const pod = (i: number) =>
      it.putPod({
        namespace: "shop",
        name: `many-${i}`,
        uid: `uid-${i}`,
        labels: { app: "many", number: String(i) },
        addresses: [address(i)],
      });
    await manyPods(lab, NODE_PODS);
    await together(NODE_PODS, 1, (i) => it.putPolicy(`many-${i}`, policyOf(i, PORT)));
    await together(NODE_PODS, 1, pod);
    const agent = await it.start();
    await enforced(lab, NODE_PODS, "many-");
    await until("all is watched", () => api.watching === COLLECTIONS.length);
    await sleep(3000); // and Events are written
    const listed = { pods: bytes(api, PODS), maps: bytes(api, CONFIG_MAPS), others: bytes(api, NAMESPACES) + bytes(api, SERVICES) };
    for (let i = NODE_PODS; i < NODE_PODS + COME_AND_GO; i++) {
      for (let change = 0; change <= STATUSES; change++) await pod(i);
      await it.removePod(`many-${i}`);
    }
    const podBytes = (bytes(api, PODS) - listed.pods) / COME_AND_GO;
    for (let round = 0; round < POLICY_CHANGES; round++) await it.putPolicy("many-0", policyOf(0, 1000 + round));
    const mapBytes = (bytes(api, CONFIG_MAPS) - listed.maps) / POLICY_CHANGES;
    await until(
      "the last is seen",
      async () => (await statusOf(lab)).inputs.every(({ error }) => error === undefined || error.includes("404")),
      10_000,
    );
    await sleep(3000);
    const before = api.asked.length;
    await sleep(IDLE_MS);
    const isAbsent = ({ url }: Asked): boolean => url.pathname.includes("/openshift-dns/");
    const idle = api.asked.slice(before).filter((asked) => asked.what !== "other").length;
    const absent = api.asked.filter(isAbsent).length;
    const counts = COLLECTIONS.map((path) => ({ lists: api.count("list", path), watches: api.count("watch", path) }));
    const events = api.asked.filter(({ method }) => method === "POST").length;
    await agent.stop();
    return { listed, podBytes, mapBytes, idle, absent, counts, events };
  } finally {
    await it.close();
  }
}

const { listed, podBytes, mapBytes, idle, absent, counts, events } = await one();
const cut = await storm(WATCHES);
const most = (of: "lists" | "watches"): number => Math.max(...counts.map((one) => one[of]));
report("api", WORKLOAD, [
  { what: "lists of a kind, most", value: most("lists"), unit: "", target: { most: 1 } },
  { what: "watches of a kind, most", value: most("watches"), unit: "", target: { most: 1 } },
  { what: "lists and watches in 20 quiet seconds", value: idle, unit: "", target: { most: 0 } },
  { what: "of all, for a namespace that is not there (openshift-dns), less and less often", value: absent, unit: "" },
  { what: "Events written for 250 policies and 20 changes, of 5000 nodes' agents this one", value: events, unit: "", target: { most: 60 } },
  { what: `list of ${NODE_PODS} pods`, value: listed.pods / 1024, unit: "KiB" },
  { what: `list of ${NODE_PODS} policies`, value: listed.maps / 1024, unit: "KiB" },
  { what: "lists of the others", value: listed.others / 1024, unit: "KiB" },
  { what: "a pod's life (made, four statuses, deleted)", value: podBytes / 1024, unit: "KiB" },
  { what: "a changed policy", value: mapBytes / 1024, unit: "KiB" },
  { what: "1000 watches cut at once: lists", value: cut.lists, unit: "", target: { most: 0 } },
  { what: "watches", value: cut.watches, unit: "", target: { most: WATCHES } },
  { what: "most of them in 100 ms", value: cut.busiest, unit: "" },
  { what: "most in 100 ms / an even spread over the second", value: cut.busiest / (WATCHES / 9), unit: "", target: { most: 1.5 } },
  { what: "the last one after", value: cut.lastMs, unit: "ms", target: { most: 1020 } },
  { what: "requests a second while the server is away", value: cut.awayPerSecond, unit: "1/s", target: { most: 100 } },
]);
