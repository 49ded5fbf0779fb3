import { HELLOS } from "../test/inspect/hellos.ts";
import { putPolicy, startAgent } from "../test/support/agent.ts";
import { load, serving } from "./support/load.ts";
import { benchNode, RESPONDER, tlsPolicy } from "./support/node.ts";
import { manyPods, usageOf, withEntries } from "./support/pods.ts";
import { median, report } from "./support/report.ts";

const WORKLOAD =
  "50 pods open 1000 connections each, 5000 a second together, to a name that their rule wants TLS with, begin a ClientHello and let it drip, a byte of one connection after the other (5000 a second), never whole; meanwhile another pod " +
  "makes TLS connections and lookups as it did before. Resident memory is the agent's, read every 100 ms. Everything shares the machine's CPUs: what the drip's own packets cost is in the figures too";
const PODS = 50;
const EACH = 1000;
/** A process may have 20 000 files on many machines. */
const PROCESSES = 5;
const DRIP_MS = 12_000;
const PORT = 8443;
/** x7.bench.test; pod N asks for x(100 + N). */
const KNOWN = "198.18.0.7";
const FIRST = 100;
const { hex, serverName } = HELLOS.node;
const HELLO_ROUNDS = 10;
const HELLO_COUNT = 100;
/** 64 MB of bytes that are held, 2 KB for each connection, and what a collector of garbage needs above that. */
const GROWTH_MAX_MB = 200;

const POLICY = tlsPolicy(serverName, PORT);

const node = await benchNode();
try {
  const lab = withEntries(node, await manyPods(node, PODS));
  for (let i = 0; i < PROCESSES; i++) await serving(lab, "out", "reply", PORT);
  putPolicy(lab, "bench.yaml", POLICY);
  const agent = await startAgent(lab, { args: ["--events", "1"] });
  const pid = agent.child.pid as number;
  await load(lab, "other", "ask", RESPONDER, 1, 7, 8, 0);
  await load(lab, "client", "teach", RESPONDER, PODS, 1, FIRST);

  const hellos = async () => {
    const rounds = [];
    for (let i = 0; i < HELLO_ROUNDS; i++) rounds.push(await load(lab, "other", "hello", KNOWN, PORT, HELLO_COUNT, hex));
    return {
      ok: rounds.reduce((sum, { ok }) => sum + (ok as number), 0),
      p50: median(rounds.map(({ p50 }) => p50 as number)),
      p99: median(rounds.map(({ p99 }) => p99 as number)),
    };
  };
  const lookups = () => load(lab, "other", "ask", RESPONDER, 2000, 7, 8, 1000);
  await hellos();
  const before = { hello: await hellos(), dns: await lookups(), mb: usageOf(pid).residentMb };
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, usageOf(pid).residentMb);
  }, 100);
  const share = PODS / PROCESSES;
  const dripping = Promise.all(
    Array.from({ length: PROCESSES }, (_, i) =>
      load(lab, "client", "drip", `198.18.0.${FIRST}`, PORT, i * share, (i + 1) * share - 1, EACH, DRIP_MS),
    ),
  );
  await new Promise((resolve) => setTimeout(resolve, 8000));
  const during = { hello: await hellos(), dns: await lookups() };
  const drips = await dripping;
  const dripped = (field: string): number => drips.reduce((sum, one) => sum + (one[field] as number), 0);
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const after = { hello: await hellos(), mb: usageOf(pid).residentMb };
  clearInterval(watch);
  const { counters } = await agent.status();
  await agent.stop();
  report("half-open", WORKLOAD, [
    { what: "connections that drip", value: dripped("connections"), unit: "", target: { least: PODS * EACH } },
    { what: "of them not even opened", value: dripped("failed"), unit: "" },
    { what: "ended by the agent before their time was over", value: dripped("ended"), unit: "" },
    {
      what: "counted as without a verdict in time, or beyond a bound",
      value: (counters["inspectIncomplete"] ?? 0) + (counters["inspectLimited"] ?? 0),
      unit: "",
    },
    { what: "resident before", value: before.mb, unit: "MB" },
    { what: "resident, most", value: most, unit: "MB", target: { most: before.mb + GROWTH_MAX_MB } },
    { what: "resident after", value: after.mb, unit: "MB" },
    { what: "another pod's TLS, p50 before", value: before.hello.p50, unit: "µs" },
    { what: "another pod's TLS, p50 meanwhile", value: during.hello.p50, unit: "µs" },
    { what: "another pod's TLS, p50 meanwhile / before", value: during.hello.p50 / before.hello.p50, unit: "", target: { most: 1.25 } },
    { what: "another pod's TLS, p99 before", value: before.hello.p99, unit: "µs" },
    { what: "another pod's TLS, p99 meanwhile", value: during.hello.p99, unit: "µs" },
    {
      what: "another pod's TLS connections that failed",
      value: 2 * HELLO_ROUNDS * HELLO_COUNT - during.hello.ok - after.hello.ok,
      unit: "",
      target: { most: 0 },
    },
    { what: "another pod's DNS, p50 before", value: before.dns["p50"] as number, unit: "µs" },
    { what: "another pod's DNS, p50 meanwhile", value: during.dns["p50"] as number, unit: "µs" },
    { what: "another pod's DNS, p99 meanwhile", value: during.dns["p99"] as number, unit: "µs" },
    { what: "another pod's lookups that were lost", value: during.dns["lost"] as number, unit: "", target: { most: 0 } },
  ]);
} finally {
  await node.close();
}
