import type { Lab } from "../src/cli/lab-types.ts";
import { load } from "./support/load.ts";
import { PORT, RESPONDER, withPair } from "./support/node.ts";
import { interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "10 000 times: resolve a new name, and in the same turn connect to its new address, 8 in flight, in rounds of 1000 by turns on a node without namegate and on one with it; " +
  "retransmissions as the client's kernel counts them";
const ROUNDS = 10;
const CONNECTS = 1000;
const INFLIGHT = 8;

/** TcpRetransSegs of the client's namespace. */
async function retransmitted(lab: Lab): Promise<number> {
  const tcp = (await lab.run("client", ["cat", "/proc/net/snmp"]))
    .split("\n")
    .filter((line) => line.startsWith("Tcp:"))
    .map((line) => line.split(" "));
  return Number(tcp[1]?.[tcp[0]?.indexOf("RetransSegs") ?? -1]);
}

await withPair(async ({ plain, guarded, agent }) => {
  const first = (lab: Lab) => (round: number) => load(lab, "client", "first", RESPONDER, PORT, CONNECTS, round * CONNECTS, INFLIGHT);
  const before = { plain: await retransmitted(plain), guarded: await retransmitted(guarded) };
  const rounds = await interleave(ROUNDS, { plain: first(plain), guarded: first(guarded) });
  const after = { plain: await retransmitted(plain), guarded: await retransmitted(guarded) };
  const sum = (field: string): number => rounds.guarded.reduce((total, one) => total + (one[field] as number), 0);
  const p50 = (list: typeof rounds.plain): number => median(list.map((one) => one["p50"] as number));
  const { counters } = await agent.status();
  report("first-connect", WORKLOAD, [
    { what: "first connections made", value: sum("ok"), unit: "", target: { least: ROUNDS * CONNECTS } },
    { what: "refused", value: sum("refused"), unit: "", target: { most: 0 } },
    { what: "lost", value: sum("lost") + sum("unanswered"), unit: "", target: { most: 0 } },
    { what: "segments retransmitted", value: after.guarded - before.guarded, unit: "", target: { most: 0 } },
    { what: "segments retransmitted without namegate", value: after.plain - before.plain, unit: "" },
    { what: "upcalls (0: the kernel knew each in time)", value: counters["upcalls"] as number, unit: "" },
    { what: "first connect p50 without", value: p50(rounds.plain), unit: "µs" },
    { what: "first connect p50 with", value: p50(rounds.guarded), unit: "µs" },
  ]);
});
