import { load, type Measured } from "./support/load.ts";
import { kubeProxy, onTrios, PORT, RESPONDER, type Trio } from "./support/node.ts";
import { interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "one client sends over one TCP connection to a known name as fast as it can, in rounds of 400 ms by turns on a node without namegate (conntrack and a DNAT service, as kube-proxy makes them), " +
  "on one with namegate's three hooks and a rule each that never matches, and on one with namegate; the three nodes are made anew eight times, for equal nodes differ by 3 %; " +
  "and again with the chains that kube-proxy has in filter and mangle on all; sender and receiver share the machine's CPUs with the node";
const TRIOS = 8;
const ROUNDS = 6;
const ROUND_MS = 400;
const KNOWN = "198.18.0.7"; // x7.bench.test

type Rounds = Record<"plain" | "hooks" | "guarded", Measured[]>;

const measure = async ({ plain, hooks, guarded }: Trio): Promise<Rounds> => {
  await load(guarded, "client", "ask", RESPONDER, 1, 7, 8, 0);
  const subjects = {
    plain: () => load(plain, "client", "stream", KNOWN, PORT, ROUND_MS),
    hooks: () => load(hooks, "client", "stream", KNOWN, PORT, ROUND_MS),
    guarded: () => load(guarded, "client", "stream", KNOWN, PORT, ROUND_MS),
  };
  await interleave(1, subjects);
  return interleave(ROUNDS, subjects);
};

const rate = (list: Measured[]): number => median(list.map(({ gigabits }) => gigabits as number));
/** Each round's three ran side by side in time: the median of their ratios is steadier than the ratio of the medians. */
const ratio = (all: Rounds, of: "hooks" | "guarded"): number =>
  median(all[of].map(({ gigabits }, i) => (gigabits as number) / (all.plain[i]?.["gigabits"] as number)));

const bare = await onTrios(TRIOS, measure);
const kube = await onTrios(TRIOS, measure, kubeProxy);
report("throughput", WORKLOAD, [
  { what: "without", value: rate(bare.plain), unit: "Gbit/s" },
  { what: "with", value: rate(bare.guarded), unit: "Gbit/s" },
  { what: "three hooks with one rule each / without, median of ratios", value: ratio(bare, "hooks"), unit: "" },
  { what: "with / without, median of ratios", value: ratio(bare, "guarded"), unit: "", target: { least: 0.99 } },
  { what: "kube-proxy's chains, without", value: rate(kube.plain), unit: "Gbit/s" },
  { what: "kube-proxy's chains, with", value: rate(kube.guarded), unit: "Gbit/s" },
  { what: "kube-proxy's chains, three hooks with one rule each / without", value: ratio(kube, "hooks"), unit: "" },
  { what: "kube-proxy's chains, with / without, median of ratios", value: ratio(kube, "guarded"), unit: "", target: { least: 0.99 } },
]);
