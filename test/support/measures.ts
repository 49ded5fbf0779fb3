import { Histogram, HISTOGRAM_WORDS } from "../../src/base/histogram.ts";
import type { Measures } from "../../src/metrics/measures.ts";

const counted = new Histogram(new Float64Array(HISTOGRAM_WORDS)).read();
const queue = { received: 1, settled: 1, gaps: 1, enobufs: 1, rebinds: 1, late: 1, dropped: 1 };

/** A status in which everything is that becomes a metric. */
export const FULL_STATUS = {
  ready: true,
  mode: "Enforce",
  effectiveMode: "Enforce",
  selfTest: { state: "ok" },
  policies: [{ name: "shop/a", valid: true, rules: [{ name: "r", hits: 1, lastHit: "2026-01-01T00:00:00.000Z" }] }],
  pods: [{ guarded: true, enforced: true, bindings: 3 }],
  queues: { reply: queue },
  sets: { "ng-allow4": 1 },
  counters: { bindingsEvicted: 1, bindingsRefused: 1, repaired: 1 },
  inputs: [{ resource: "pods", synced: true, staleSeconds: 1 }],
  rules: { repairs: 1 },
  alerts: {
    events: 1,
    folded: 1,
    limited: 1,
    sinks: [
      {
        name: "siem",
        breaker: "closed",
        sent: 1,
        failures: 1,
        deadLetters: 1,
        lost: 1,
        spool: { bytes: 1, maxBytes: 10, events: 1, damaged: 0, lost: { high: 1 } },
      },
    ],
  },
};

export const FULL_MEASURES: Measures = {
  verdicts: [{ policy: "shop/a", rule: "r", mode: "Enforce", verdict: "allow", count: 1 }],
  otherVerdicts: [],
  rulesUncounted: 0,
  denials: [{ why: "no-rule", verdict: "deny", count: 1 }],
  durations: ["upcall_duration_seconds", "dns_hold_seconds", "inspection_duration_seconds"].map((name) => ({ name, help: "h", counted })),
  threads: [{ thread: "packet", delay: counted, activeSeconds: 1 }],
  queueLengths: { reply: 0 },
  process: { residentBytes: 1, cpuSeconds: 1, startSeconds: 1, openFiles: 1, heapBytes: 1, version: "v20" },
};
