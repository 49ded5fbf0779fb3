import type { Lab } from "../src/cli/lab-types.ts";
import { onPath } from "../test/support/need.ts";
import { load, type Measured } from "./support/load.ts";
import { RESPONDER, RESPONDER_PORT, withPair } from "./support/node.ts";
import { interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "one client asks for A records, one after the other (ping-pong) and at 5000 a second; every subject gets the same 16 000 names in the same order, each new to it in the first 16 000 queries. " +
  "dnsmasq forwards to a small responder in C and caches nothing, so that --ipset (which inserts what upstream answers, and then replies) works for each query. " +
  "Subjects by turns: the responder and dnsmasq without and with namegate's hold, and dnsmasq --ipset without namegate";
const NAMES = 16_000;
const PINGS = 1000;
const PING_ROUNDS = 14;
const RATE = 5000;
const PACED = 10_000;
const PACED_ROUNDS = 4;
const PLAIN_DNSMASQ = { address: "10.96.0.10", port: 5353 };
const IPSET_DNSMASQ = { address: "10.96.0.11", port: 5354 };
const SET = "bench-answers";

async function dnsmasq(lab: Lab, port: number, ipset: boolean): Promise<void> {
  const lines = [
    "no-resolv",
    "no-hosts",
    "no-daemon",
    "user=root",
    "bind-dynamic",
    "cache-size=0",
    "dns-forward-max=10000",
    `port=${port}`,
    `server=127.0.0.1#${RESPONDER_PORT}`,
    `pid-file=${lab.dir}/dnsmasq-${port}.pid`,
  ];
  if (ipset) {
    await lab.run("coredns", ["ipset", "create", SET, "hash:ip", "maxelem", "1000000"]);
    lines.push(`ipset=/bench.test/${SET}`);
  }
  lab.spawn("coredns", ["dnsmasq", "-C", lab.file(`dnsmasq-${port}.conf`, `${lines.join("\n")}\n`)]);
  await lab.run("coredns", [
    "sh",
    "-c",
    `for i in $(seq 100); do dig +time=1 +tries=1 -p ${port} @127.0.0.1 x0.bench.test | grep -q NOERROR && exit 0; sleep 0.05; done; exit 1`,
  ]);
}

if (!["dnsmasq", "dig", "ipset"].every(onPath)) throw new Error("benchmarks: dnsmasq, dig and ipset are needed");

await withPair(async ({ plain, guarded, agent }) => {
  await dnsmasq(plain, PLAIN_DNSMASQ.port, false);
  await dnsmasq(guarded, PLAIN_DNSMASQ.port, false);
  await plain.service({ address: IPSET_DNSMASQ.address, port: 53, target: plain.pods[0]?.v4 as string, targetPort: IPSET_DNSMASQ.port });
  await dnsmasq(plain, IPSET_DNSMASQ.port, true);

  const subjects = (count: number, rate: number, from: number) => {
    const ask = (lab: Lab, server: string) => (round: number) =>
      load(lab, "client", "ask", server, count, from + round * count, NAMES, rate);
    return {
      responder: ask(plain, RESPONDER),
      held: ask(guarded, RESPONDER),
      dnsmasq: ask(plain, PLAIN_DNSMASQ.address),
      dnsmasqHeld: ask(guarded, PLAIN_DNSMASQ.address),
      dnsmasqIpset: ask(plain, IPSET_DNSMASQ.address),
    };
  };
  await interleave(2, subjects(PINGS, 0, 0));
  const ping = await interleave(PING_ROUNDS, subjects(PINGS, 0, 2 * PINGS));
  const paced = await interleave(PACED_ROUNDS, subjects(PACED, RATE, 0));
  const members = (await plain.run("coredns", ["ipset", "list", "-t", SET])).match(/entries: (\d+)/)?.[1];

  const of = (rounds: readonly Measured[], field: string): number => median(rounds.map((one) => one[field] as number));
  const added = (all: typeof ping, field: string, subject: keyof typeof ping, base: keyof typeof ping): number =>
    of(all[subject], field) - of(all[base], field);
  const lost = (subject: keyof typeof ping): number =>
    [...ping[subject], ...paced[subject]].reduce((sum, one) => sum + (one["lost"] as number), 0);
  const ipset = added(ping, "p50", "dnsmasqIpset", "responder");
  const ours = added(ping, "p50", "held", "responder");
  const rows = (Object.keys(ping) as (keyof typeof ping)[]).flatMap((subject) => [
    { what: `${subject}, ping-pong p50`, value: of(ping[subject], "p50"), unit: "µs" },
    { what: `${subject}, ping-pong p99`, value: of(ping[subject], "p99"), unit: "µs" },
    { what: `${subject}, ${RATE}/s p50`, value: of(paced[subject], "p50"), unit: "µs" },
    {
      what: `${subject}, ${RATE}/s p99`,
      value: of(paced[subject], "p99"),
      unit: "µs",
      ...(subject === "dnsmasqHeld" || subject === "held" ? { target: { most: 1000 } } : {}),
    },
  ]);
  const { counters, queues } = await agent.status();
  report("dns-hold", WORKLOAD, [
    ...rows,
    { what: "added to the responder by dnsmasq --ipset, ping-pong p50", value: ipset, unit: "µs" },
    { what: "added to the responder by the hold, ping-pong p50", value: ours, unit: "µs", target: { most: ipset } },
    { what: "hold / dnsmasq --ipset", value: ours / ipset, unit: "" },
    { what: "added to dnsmasq by --ipset alone, ping-pong p50", value: added(ping, "p50", "dnsmasqIpset", "dnsmasq"), unit: "µs" },
    { what: "added to dnsmasq by the hold, ping-pong p50", value: added(ping, "p50", "dnsmasqHeld", "dnsmasq"), unit: "µs" },
    { what: "queries lost, without namegate", value: lost("responder") + lost("dnsmasq") + lost("dnsmasqIpset"), unit: "" },
    { what: "queries lost, with the hold", value: lost("held"), unit: "", target: { most: 0 } },
    { what: "queries lost, with the hold on dnsmasq", value: lost("dnsmasqHeld"), unit: "" },
    { what: "addresses that dnsmasq put into its set", value: Number(members), unit: "", target: { least: NAMES } },
    { what: "bindings learned by namegate", value: counters["learned"] as number, unit: "", target: { least: NAMES } },
    { what: "replies settled late by the watchdog", value: queues["reply"]?.["late"] ?? 0, unit: "", target: { most: 0 } },
  ]);
});
