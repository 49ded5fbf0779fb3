import { HELLOS } from "../test/inspect/hellos.ts";
import { policy, putPolicy, startAgent } from "../test/support/agent.ts";
import { load, type Measured, serving } from "./support/load.ts";
import { benchNode, RESPONDER } from "./support/node.ts";
import { manyPods, usageOf, withEntries } from "./support/pods.ts";
import { median, report } from "./support/report.ts";

const WORKLOAD =
  "50 pods open 1000 connections each, 5000 a second together, to a name that their rule wants TLS with, begin a ClientHello and let it drip, a byte of one connection after the other (5000 a second), never whole; meanwhile another pod " +
  "makes 100 TLS connections every half second and 200 lookups a second, as it did before, and as it did while the same connections went to a port whose rule wants no evidence: that is what they cost the machine, whose CPUs all share. " +
  "Medians of the rounds. Resident memory is the agent's, read every 100 ms";
const PODS = 50;
const EACH = 1000;
/** A process may have 20 000 files on many machines. */
const PROCESSES = 5;
const DRIP_MS = 8000;
const PORT = 8443;
/** The rule asks for nothing but the name. */
const PLAIN = 8444;
/** x7.bench.test; pod N asks for x(100 + N). */
const KNOWN = "198.18.0.7";
const FIRST = 100;
const { hex, serverName } = HELLOS.node;
const HELLOS_EACH = 100;
const PAUSE_MS = 500;
const LOOKUPS = 200;
/** 64 MB of bytes that are held, 2 KB for each connection, and what a collector of garbage needs above that. */
const GROWTH_MAX_MB = 200;

const POLICY = policy("bench", {
  mode: "Enforce",
  subject: { podSelector: {} },
  egress: [
    {
      name: "tls",
      action: "Accept",
      to: [{ domainNames: ["*.bench.test", serverName] }],
      ports: [{ protocol: "TCP", port: PORT }],
      application: "tls",
    },
    { name: "plain", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port: PLAIN }] },
  ],
});

const OPEN_MS = (PODS * EACH) / PROCESSES;
const total = (all: readonly Measured[], field: string): number => all.reduce((sum, one) => sum + (one[field] as number), 0);
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const node = await benchNode();
try {
  const lab = withEntries(node, await manyPods(node, PODS));
  for (let i = 0; i < PROCESSES; i++) for (const port of [PORT, PLAIN]) await serving(lab, "out", "reply", port);
  putPolicy(lab, "bench.yaml", POLICY);
  const agent = await startAgent(lab, { args: ["--events", "1"] });
  const pid = agent.child.pid as number;
  await load(lab, "other", "ask", RESPONDER, 1, 7, 8, 0);
  await load(lab, "client", "teach", RESPONDER, PODS, 1, FIRST);

  /** What the other pod sees in so long, while something else is going on. */
  const other = async (ms: number, drips: Promise<readonly Measured[]> = Promise.resolve([])) => {
    const until = performance.now() + ms;
    const rounds: Measured[] = [];
    const lookups: Measured[] = [];
    const asking = async (): Promise<void> => {
      while (performance.now() < until) lookups.push(await load(lab, "other", "ask", RESPONDER, LOOKUPS, 7, 8, LOOKUPS));
    };
    const connecting = async (): Promise<void> => {
      while (performance.now() < until) {
        rounds.push(await load(lab, "other", "hello", KNOWN, PORT, HELLOS_EACH, hex));
        await pause(PAUSE_MS);
      }
    };
    await Promise.all([asking(), connecting()]);
    const middle = (all: readonly Measured[], field: string): number => median(all.map((one) => one[field] as number));
    return {
      p50: middle(rounds, "p50"),
      p99: middle(rounds, "p99"),
      failed: rounds.length * HELLOS_EACH - total(rounds, "ok"),
      dns50: middle(lookups, "p50"),
      dns99: middle(lookups, "p99"),
      lost: total(lookups, "lost"),
      drips: await drips,
    };
  };
  const share = PODS / PROCESSES;
  const drip = (port: number): Promise<readonly Measured[]> =>
    Promise.all(
      Array.from({ length: PROCESSES }, (_, i) =>
        load(lab, "client", "drip", `198.18.0.${FIRST}`, port, i * share, (i + 1) * share - 1, EACH, DRIP_MS),
      ),
    );

  await other(1000);
  const before = await other(4000);
  const mb = usageOf(pid).residentMb;
  const plain = await other(OPEN_MS + DRIP_MS, drip(PLAIN));
  await pause(2000);
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, usageOf(pid).residentMb);
  }, 100);
  const during = await other(OPEN_MS + DRIP_MS, drip(PORT));
  await pause(5000);
  const after = { ...(await other(1000)), mb: usageOf(pid).residentMb };
  clearInterval(watch);
  const { counters, queues } = await agent.status();
  await agent.stop();
  const phases = [
    ["before", before],
    ["beside connections without evidence", plain],
    ["meanwhile", during],
  ] as const;
  report("half-open", WORKLOAD, [
    { what: "connections that drip", value: total(during.drips, "connections"), unit: "", target: { least: PODS * EACH } },
    { what: "of them not even opened", value: total(during.drips, "failed"), unit: "" },
    { what: "ended by the agent before their time was over", value: total(during.drips, "ended"), unit: "" },
    { what: "refused: no verdict in time", value: counters["inspectIncomplete"] ?? 0, unit: "" },
    { what: "packets dropped: their pod's line was full", value: counters["inspectLimited"] ?? 0, unit: "" },
    { what: "packets dropped: the kernel's queue was full", value: queues["inspect"]?.["dropped"] ?? 0, unit: "" },
    { what: "resident before", value: mb, unit: "MB" },
    { what: "resident, most", value: most, unit: "MB", target: { most: mb + GROWTH_MAX_MB } },
    { what: "resident after", value: after.mb, unit: "MB" },
    ...phases.map(([when, { p50 }]) => ({ what: `another pod's TLS, p50 ${when}`, value: p50, unit: "µs" })),
    { what: "another pod's TLS, p50 meanwhile / before", value: during.p50 / before.p50, unit: "" },
    { what: "another pod's TLS, p50 meanwhile / beside those", value: during.p50 / plain.p50, unit: "", target: { most: 1.25 } },
    ...phases.map(([when, { p99 }]) => ({ what: `another pod's TLS, p99 ${when}`, value: p99, unit: "µs" })),
    {
      what: "another pod's TLS connections that failed",
      value: before.failed + plain.failed + during.failed + after.failed,
      unit: "",
      target: { most: 0 },
    },
    ...phases.map(([when, { dns50 }]) => ({ what: `another pod's DNS, p50 ${when}`, value: dns50, unit: "µs" })),
    ...phases.map(([when, { dns99 }]) => ({ what: `another pod's DNS, p99 ${when}`, value: dns99, unit: "µs" })),
    { what: "another pod's lookups that were lost", value: during.lost, unit: "", target: { most: 0 } },
  ]);
} finally {
  await node.close();
}
