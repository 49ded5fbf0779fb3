import { Meter, newBlock, Slot } from "../src/worker/meter.ts";
import type { Decision } from "../src/worker/guard.ts";
import { median, report } from "./support/report.ts";

const WORKLOAD =
  "what counting adds to one upcall in the packet thread (a duration in its histogram, the verdict of one of 1000 policies with 4 rules each), " +
  "and to one held DNS reply; 5 million of each a round";
const ROUNDS = 7;
const TIMES = 5_000_000;
const POLICIES = 1000;
const RULES = 4;

const meter = new Meter(newBlock());
meter.nowMs = Date.now();
const decisions: Decision[] = [];
for (let p = 0; p < POLICIES; p++) {
  const policy = `shop/policy-${p}`;
  const slots = Array.from({ length: RULES }, (_, r) => [`rule-${r}`, Slot.first + p * RULES + r] as const);
  meter.know({ policy, slots });
  for (const [rule] of slots)
    decisions.push({
      kernel: "pass",
      verdict: { action: "allow", policy, rule },
      mode: "Enforce",
      wouldDeny: undefined,
      shadow: undefined,
    });
}

/** Nanoseconds of one `work`. */
function perCall(work: (i: number) => void): number {
  const rounds = Array.from({ length: ROUNDS }, () => {
    const from = performance.now();
    for (let i = 0; i < TIMES; i++) work(i);
    return ((performance.now() - from) * 1e6) / TIMES;
  });
  return median(rounds);
}

const { upcall, dnsHold } = meter.histograms;
const verdict = perCall((i) => meter.decided(decisions[i % decisions.length] as Decision));
const duration = perCall((i) => upcall.observe((i & 1023) / 1000));
const clock = perCall(() => void performance.now());
const held = perCall((i) => dnsHold.observe((i & 1023) / 1000, 8));
/** Few enough that nothing is collected meanwhile; a round in which it was is not the median's. */
const FEW = 20_000;
const allocated = median(
  Array.from({ length: ROUNDS }, () => {
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < FEW; i++) {
      meter.decided(decisions[i % decisions.length] as Decision);
      upcall.observe((i & 1023) / 1000);
    }
    return (process.memoryUsage().heapUsed - before) / FEW;
  }),
);
report("meter", WORKLOAD, [
  { what: "an upcall: its verdict", value: verdict, unit: "ns" },
  { what: "an upcall: its duration, whose clock was read before too", value: duration, unit: "ns" },
  { what: "allocated for an upcall", value: allocated, unit: "B", target: { most: 1 } },
  { what: "a batch of DNS replies: two readings of the clock and a count", value: 2 * clock + held, unit: "ns" },
]);
