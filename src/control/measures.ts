import { readdirSync } from "node:fs";
import type { Counted } from "../base/histogram.ts";
import { Histogram, HISTOGRAM_WORDS } from "../base/histogram.ts";
import { DENIALS, Slot, Word } from "../worker/meter.ts";
import type { RuleUsage } from "./usage.ts";

const DENIED = ["deny", "would-deny"] as const;

/** What is measured for /metrics beside the status: read from shared memory and counters that are there anyway. */
export interface Measured {
  readonly usage: RuleUsage;
  /** How late the control thread's own timer was. */
  readonly loop: LoopDelay;
  /** Milliseconds that the packet thread was busy for; undefined: there is none. */
  readonly packetActiveMs: number | undefined;
  readonly queueLengths: Readonly<Record<string, number>>;
  readonly startedMs: number;
}

/**
 * How late the timer of an event loop is. It watches a timer that runs anyway: perf_hooks.monitorEventLoopDelay has one of its own, every
 * 10 ms, which alone is half of what the whole agent may use when idle.
 */
export class LoopDelay {
  private readonly histogram = new Histogram(new Float64Array(HISTOGRAM_WORDS));
  private readonly everyMs: number;
  private tickedMs: number;

  constructor(everyMs: number, nowMs: number) {
    this.everyMs = everyMs;
    this.tickedMs = nowMs;
  }

  /** `nowMs`: of performance.now(). */
  tick(nowMs: number): void {
    this.histogram.observe(Math.max(0, nowMs - this.tickedMs - this.everyMs));
    this.tickedMs = nowMs;
  }

  read(): Counted {
    return this.histogram.read();
  }
}

export function measures({ usage, loop, packetActiveMs, queueLengths, startedMs }: Measured) {
  const { histograms } = usage.meter;
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  return {
    verdicts: usage.verdicts(),
    otherVerdicts: [
      { verdict: "allow", count: usage.meter.slot(Slot.other, Word.allow) },
      { verdict: "deny", count: usage.meter.slot(Slot.other, Word.deny) },
      { verdict: "would-deny", count: usage.meter.slot(Slot.other, Word.wouldDeny) },
    ],
    rulesUncounted: usage.uncounted,
    denials: DENIALS.flatMap((why) => DENIED.map((verdict) => ({ why, verdict, count: usage.denials(why, verdict) }))),
    durations: [
      {
        name: "upcall_duration_seconds",
        help: "processor time of one decision about a connection that the kernel did not know",
        counted: histograms.upcall.read(),
      },
      {
        name: "dns_hold_seconds",
        help: "from when a batch of DNS replies was read until the kernel had what they taught and they were released",
        counted: histograms.dnsHold.read(),
      },
      {
        name: "inspection_duration_seconds",
        help: "processor time of reading one packet under inspection",
        counted: histograms.inspection.read(),
      },
    ],
    threads: [
      { thread: "control", delay: loop.read(), activeSeconds: performance.eventLoopUtilization().active / 1000 },
      ...(packetActiveMs === undefined ? [] : [{ thread: "packet", delay: histograms.loop.read(), activeSeconds: packetActiveMs / 1000 }]),
    ],
    queueLengths,
    process: {
      residentBytes: rss,
      cpuSeconds: (user + system) / 1e6,
      startSeconds: startedMs / 1000,
      openFiles: openFiles(),
      heapBytes: heapUsed,
      version: process.version,
    },
  };
}

function openFiles(): number | undefined {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
}
