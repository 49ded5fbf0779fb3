import type { Lab } from "../src/cli/lab-types.ts";
import type { AgentStatus, TestAgent } from "../test/support/agent.ts";
import { load } from "./support/load.ts";
import { RESPONDER, withPair } from "./support/node.ts";
import { median, report } from "./support/report.ts";

const WORKLOAD =
  "one pod opens new UDP connections to 131 072 addresses in turn, none of which its policy allows, for 2 s a round: at 50 000/s, and as fast as it can; its limit on upcalls is raised out of the way. " +
  "Each round has a port of its own, so each connection is an upcall. Meanwhile another pod asks for names, 200 a second, each reply held. " +
  "Beside it, in turn, a node without namegate where one iptables rule drops the flood at 50 000/s: what the generator alone costs the lookups";
const ROUNDS = 5;
const FLOOD_MS = 2000;
const SPREAD = 131_072;
const OFFERED = 50_000;
const NAMES = 400;

/** What the admission queue lost: dropped by a full queue, and by a full socket (nfnetlink_queue in proc, columns 6 and 7). */
async function dropped(lab: Lab): Promise<number> {
  const lines = (await lab.run("node", ["cat", "/proc/net/netfilter/nfnetlink_queue"])).trim().split("\n");
  return lines.map((line) => line.trim().split(/\s+/).map(Number)).reduce((sum, columns) => sum + (columns[5] ?? 0) + (columns[6] ?? 0), 0);
}

interface Round {
  readonly offered: number;
  readonly decided: number;
  readonly lost: number;
  readonly p50: number;
  readonly p99: number;
  readonly dnsLost: number;
}

async function round(lab: Lab, agent: TestAgent, rate: number, port: number): Promise<Round> {
  const before = { status: await agent.status(), dropped: await dropped(lab) };
  const [flood, dns] = await Promise.all([
    load(lab, "client", "flood", "198.18.0.0", port, rate, FLOOD_MS, SPREAD),
    load(lab, "other", "ask", RESPONDER, (200 * FLOOD_MS) / 1000, 0, NAMES, 200),
  ]);
  const after = { status: await agent.status(), dropped: await dropped(lab) };
  const grown = (name: string): number => count(after.status, name) - count(before.status, name);
  const seconds = (flood["sent"] as number) / (flood["perSecond"] as number);
  return {
    offered: flood["perSecond"] as number,
    decided: (grown("upcallsDenied") + grown("upcallsAllowed")) / seconds,
    lost: after.dropped - before.dropped + grown("upcallsLimited"),
    p50: dns["p50"] as number,
    p99: dns["p99"] as number,
    dnsLost: dns["lost"] as number,
  };
}

const count = ({ counters }: AgentStatus, name: string): number => counters[name] ?? 0;

/** The same flood and the same lookups where the kernel drops the flood by itself. */
async function unguarded(lab: Lab, port: number): Promise<{ readonly p50: number; readonly p99: number }> {
  const [, dns] = await Promise.all([
    load(lab, "client", "flood", "198.18.0.0", port, OFFERED, FLOOD_MS, SPREAD),
    load(lab, "other", "ask", RESPONDER, (200 * FLOOD_MS) / 1000, 0, NAMES, 200),
  ]);
  return { p50: dns["p50"] as number, p99: dns["p99"] as number };
}

await withPair(
  async ({ plain, guarded: lab, agent }) => {
    await plain.run("node", ["iptables-nft", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-d", "198.18.0.0/15", "-j", "DROP"]);
    const idle = await load(lab, "other", "ask", RESPONDER, 400, 0, NAMES, 200);
    const rounds: Record<"steady" | "most", Round[]> = { steady: [], most: [] };
    const byRule: { readonly p50: number; readonly p99: number }[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      byRule.push(await unguarded(plain, 1000 + 2 * i));
      rounds.steady.push(await round(lab, agent, OFFERED, 1000 + 2 * i));
      rounds.most.push(await round(lab, agent, 0, 1001 + 2 * i));
    }
    const of = (list: readonly Round[], field: keyof Round): number => median(list.map((one) => one[field]));
    report("upcalls", WORKLOAD, [
      { what: "another pod's DNS p50, no flood", value: idle["p50"] as number, unit: "µs" },
      { what: "another pod's DNS p99, no flood", value: idle["p99"] as number, unit: "µs" },
      { what: `offered at ${OFFERED}/s`, value: of(rounds.steady, "offered"), unit: "1/s", target: { least: OFFERED * 0.99 } },
      { what: "decided", value: of(rounds.steady, "decided"), unit: "1/s", target: { least: OFFERED * 0.99 } },
      { what: "lost in a round of 2 s", value: of(rounds.steady, "lost"), unit: "", target: { most: 0 } },
      { what: "another pod's DNS p50", value: of(rounds.steady, "p50"), unit: "µs" },
      { what: "another pod's DNS p99", value: of(rounds.steady, "p99"), unit: "µs", target: { most: 2000 } },
      { what: "DNS p50 without namegate, the flood dropped by a rule", value: median(byRule.map(({ p50 }) => p50)), unit: "µs" },
      { what: "DNS p99 without namegate, the flood dropped by a rule", value: median(byRule.map(({ p99 }) => p99)), unit: "µs" },
      { what: "another pod's DNS queries lost", value: of(rounds.steady, "dnsLost"), unit: "", target: { most: 0 } },
      { what: "offered without limit", value: of(rounds.most, "offered"), unit: "1/s" },
      { what: "decided, offered without limit", value: of(rounds.most, "decided"), unit: "1/s" },
      { what: "lost in a round of 2 s, offered without limit", value: of(rounds.most, "lost"), unit: "" },
      { what: "another pod's DNS p99, offered without limit", value: of(rounds.most, "p99"), unit: "µs" },
    ]);
  },
  ["--upcalls", "10000000"],
);
