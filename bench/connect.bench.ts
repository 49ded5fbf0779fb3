import { load, type Measured } from "./support/load.ts";
import { kubeProxy, onTrios, PORT, RESPONDER, type Trio, withGuarded } from "./support/node.ts";
import { interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "one client opens TCP connections one after the other to an address whose name its pod has just resolved, in rounds of 4000 by turns on a node without namegate " +
  "(conntrack and a DNAT service, as kube-proxy makes them) and on one with it, and the same with the chains that kube-proxy has in filter and mangle on both; as a floor, without namegate but with one rule that never matches in each of the three chains " +
  "that a forwarded packet passes because of us (mangle PREROUTING, filter FORWARD, security FORWARD); the three nodes are made anew eight times, for equal nodes differ by some percent; then connections that are denied, to ever new addresses (each an upcall) and to one (a cached denial)";
const TRIOS = 8;
const ROUNDS = 5;
const CONNECTS = 4000;
const DENIALS = 300;
/** x7.bench.test */
const KNOWN = "198.18.0.7";
/** Nobody's name, a different part of it in each round. */
const unknown = (round: number): string => `198.19.${round * 2}.1`;

type Rounds = readonly Measured[];
type Known = Record<"plain" | "guarded" | "hooks", Measured[]>;

async function known({ plain, hooks, guarded }: Trio): Promise<Known> {
  await load(guarded, "client", "ask", RESPONDER, 1, 7, 8, 0);
  const connect = {
    plain: () => load(plain, "client", "connect", KNOWN, PORT, CONNECTS, 0),
    guarded: () => load(guarded, "client", "connect", KNOWN, PORT, CONNECTS, 0),
    hooks: () => load(hooks, "client", "connect", KNOWN, PORT, CONNECTS, 0),
  };
  await interleave(1, connect);
  return interleave(ROUNDS, connect);
}

const of = (rounds: Rounds, field: string): number => median(rounds.map((one) => one[field] as number));
/** Each round's pair ran side by side in time: the median of their ratios is steadier than the ratio of the medians. */
const ratio = (all: Known, field: string, of: "guarded" | "hooks" = "guarded"): number =>
  median(all[of].map((one, i) => (one[field] as number) / (all.plain[i]?.[field] as number)));

const bare = await onTrios(TRIOS, known);
const kube = await onTrios(TRIOS, known, kubeProxy);
await withGuarded(async (guarded) => {
  const failed = [bare, kube]
    .flatMap((one) => [...one.plain, ...one.guarded, ...one.hooks])
    .reduce((sum, { ok }) => sum + CONNECTS - (ok as number), 0);
  const denied = await interleave(5, {
    upcall: (round) => load(guarded, "client", "connect", unknown(round), PORT, DENIALS, 1),
    cached: (round) => load(guarded, "client", "connect", unknown(round), PORT, DENIALS, 0),
  });
  const accepted = [...denied.upcall, ...denied.cached].reduce((sum, { refused }) => sum + DENIALS - (refused as number), 0);
  report("connect", WORKLOAD, [
    { what: "connect p50 without", value: of(bare.plain, "p50"), unit: "µs" },
    { what: "connect p50 with", value: of(bare.guarded, "p50"), unit: "µs" },
    { what: "connect p50, with / without", value: ratio(bare, "p50"), unit: "", target: { most: 1.05 } },
    { what: "connect p50, three hooks with one rule each / without", value: ratio(bare, "p50", "hooks"), unit: "" },
    { what: "connections/s without", value: of(bare.plain, "perSecond"), unit: "1/s" },
    { what: "connections/s with", value: of(bare.guarded, "perSecond"), unit: "1/s" },
    { what: "connections/s, with / without", value: ratio(bare, "perSecond"), unit: "", target: { least: 0.95 } },
    { what: "kube-proxy's chains, connect p50 without", value: of(kube.plain, "p50"), unit: "µs" },
    { what: "kube-proxy's chains, connect p50 with", value: of(kube.guarded, "p50"), unit: "µs" },
    { what: "kube-proxy's chains, connect p50, with / without", value: ratio(kube, "p50"), unit: "", target: { most: 1.05 } },
    { what: "kube-proxy's chains, connections/s, with / without", value: ratio(kube, "perSecond"), unit: "", target: { least: 0.95 } },
    { what: "kube-proxy's chains, connect p50, three hooks with one rule each / without", value: ratio(kube, "p50", "hooks"), unit: "" },
    { what: "connections that failed", value: failed, unit: "", target: { most: 0 } },
    { what: "denial by an upcall, p50", value: of(denied.upcall, "p50"), unit: "µs", target: { most: 1000 } },
    { what: "denial by an upcall, p99", value: of(denied.upcall, "p99"), unit: "µs" },
    { what: "cached denial, p50", value: of(denied.cached, "p50"), unit: "µs", target: { most: 1000 } },
    { what: "cached denial, p99", value: of(denied.cached, "p99"), unit: "µs" },
    { what: "denied connections not refused", value: accepted, unit: "", target: { most: 0 } },
  ]);
});
