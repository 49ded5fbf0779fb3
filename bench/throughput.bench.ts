import { load } from "./support/load.ts";
import { kubeProxy, type Pair, PORT, RESPONDER, withPair } from "./support/node.ts";
import { interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "one client sends over one TCP connection to a known name as fast as it can, in rounds of 400 ms by turns on a node without namegate (conntrack and a DNAT service, as kube-proxy makes them) " +
  "and on one with it, and again with the chains that kube-proxy has in filter and mangle on both; sender and receiver share the machine's CPUs with the node";
const ROUNDS = 40;
const ROUND_MS = 400;
const KNOWN = "198.18.0.7"; // x7.bench.test

interface Rate {
  readonly plain: number;
  readonly guarded: number;
  readonly ratio: number;
}

const measure = async ({ plain, guarded }: Pair): Promise<Rate> => {
  await load(guarded, "client", "ask", RESPONDER, 1, 7, 8, 0);
  const subjects = {
    plain: () => load(plain, "client", "stream", KNOWN, PORT, ROUND_MS),
    guarded: () => load(guarded, "client", "stream", KNOWN, PORT, ROUND_MS),
  };
  await interleave(2, subjects);
  const rounds = await interleave(ROUNDS, subjects);
  const rate = (list: typeof rounds.plain): number => median(list.map(({ gigabits }) => gigabits as number));
  // Each round's pair ran side by side in time: the median of their ratios is steadier than the ratio of the medians.
  const ratio = median(rounds.guarded.map(({ gigabits }, i) => (gigabits as number) / (rounds.plain[i]?.["gigabits"] as number)));
  return { plain: rate(rounds.plain), guarded: rate(rounds.guarded), ratio };
};

const bare = await withPair(measure);
const kube = await withPair(measure, kubeProxy);
report("throughput", WORKLOAD, [
  { what: "without", value: bare.plain, unit: "Gbit/s" },
  { what: "with", value: bare.guarded, unit: "Gbit/s" },
  { what: "with / without, median of ratios", value: bare.ratio, unit: "", target: { least: 0.99 } },
  { what: "kube-proxy's chains, without", value: kube.plain, unit: "Gbit/s" },
  { what: "kube-proxy's chains, with", value: kube.guarded, unit: "Gbit/s" },
  { what: "kube-proxy's chains, with / without, median of ratios", value: kube.ratio, unit: "", target: { least: 0.99 } },
]);
