import { load } from "./support/load.ts";
import { PORT, RESPONDER, withPair } from "./support/node.ts";
import { interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "one client opens TCP connections one after the other to an address whose name its pod has just resolved, in rounds of 1000 by turns on a node without namegate " +
  "(conntrack and a DNAT service, as kube-proxy makes them) and on one with it; then connections that are denied, to ever new addresses (each an upcall) and to one (a cached denial)";
const ROUNDS = 40;
const CONNECTS = 1000;
const DENIALS = 300;
/** x7.bench.test */
const KNOWN = "198.18.0.7";
/** Nobody's name, a different part of it in each round. */
const unknown = (round: number): string => `198.19.${round * 2}.1`;

await withPair(async ({ plain, guarded }) => {
  await load(guarded, "client", "ask", RESPONDER, 1, 7, 8, 0);
  const connect = {
    plain: () => load(plain, "client", "connect", KNOWN, PORT, CONNECTS, 0),
    guarded: () => load(guarded, "client", "connect", KNOWN, PORT, CONNECTS, 0),
  };
  await interleave(2, connect);
  const known = await interleave(ROUNDS, connect);
  const failed = [...known.plain, ...known.guarded].reduce((sum, { ok }) => sum + CONNECTS - (ok as number), 0);
  const p50 = (rounds: typeof known.plain): number => median(rounds.map((one) => one["p50"] as number));
  const rate = (rounds: typeof known.plain): number => median(rounds.map((one) => one["perSecond"] as number));
  const denied = await interleave(5, {
    upcall: (round) => load(guarded, "client", "connect", unknown(round), PORT, DENIALS, 1),
    cached: (round) => load(guarded, "client", "connect", unknown(round), PORT, DENIALS, 0),
  });
  const accepted = [...denied.upcall, ...denied.cached].reduce((sum, { refused }) => sum + DENIALS - (refused as number), 0);
  report("connect", WORKLOAD, [
    { what: "connect p50 without", value: p50(known.plain), unit: "µs" },
    { what: "connect p50 with", value: p50(known.guarded), unit: "µs" },
    { what: "connect p50, with / without", value: p50(known.guarded) / p50(known.plain), unit: "", target: { most: 1.05 } },
    { what: "connections/s without", value: rate(known.plain), unit: "1/s" },
    { what: "connections/s with", value: rate(known.guarded), unit: "1/s" },
    { what: "connections/s, with / without", value: rate(known.guarded) / rate(known.plain), unit: "", target: { least: 0.95 } },
    { what: "connections that failed", value: failed, unit: "", target: { most: 0 } },
    { what: "denial by an upcall, p50", value: p50(denied.upcall), unit: "µs", target: { most: 1000 } },
    { what: "denial by an upcall, p99", value: median(denied.upcall.map((one) => one["p99"] as number)), unit: "µs" },
    { what: "cached denial, p50", value: p50(denied.cached), unit: "µs", target: { most: 1000 } },
    { what: "cached denial, p99", value: median(denied.cached.map((one) => one["p99"] as number)), unit: "µs" },
    { what: "denied connections not refused", value: accepted, unit: "", target: { most: 0 } },
  ]);
});
