import type { Counted } from "../base/histogram.ts";
import type { Exposition, Sample } from "./exposition.ts";

/** Policies that have time series of their own; what there is about further ones is one series, OTHERS. */
export const POLICY_SERIES_MAX = 1000;
/** The same for rules. */
export const RULE_SERIES_MAX = 2000;
/** No name of Kubernetes has parentheses. */
export const OTHERS = "(other)";
const NO_RULE = "(none)";

/** What is measured and is no part of a status. */
export interface Measures {
  /** By rule; those of no rule (default denials) are without. */
  readonly verdicts: readonly {
    readonly policy: string | undefined;
    readonly rule: string | undefined;
    readonly mode: string;
    readonly verdict: string;
    readonly count: number;
  }[];
  /** By rules that are not told apart. */
  readonly otherVerdicts: readonly { readonly verdict: string; readonly count: number }[];
  readonly rulesUncounted: number;
  readonly denials: readonly { readonly why: string; readonly verdict: string; readonly count: number }[];
  /** Name without `namegate_`, and help. */
  readonly durations: readonly { readonly name: string; readonly help: string; readonly counted: Counted }[];
  readonly threads: readonly { readonly thread: string; readonly delay: Counted; readonly activeSeconds: number }[];
  readonly queueLengths: Readonly<Record<string, number>>;
  readonly process:
    | {
        readonly residentBytes: number;
        readonly cpuSeconds: number;
        readonly startSeconds: number;
        readonly openFiles: number | undefined;
        readonly heapBytes: number;
        readonly version: string;
      }
    | undefined;
}

export const NO_MEASURES: Measures = {
  verdicts: [],
  otherVerdicts: [],
  rulesUncounted: 0,
  denials: [],
  durations: [],
  threads: [],
  queueLengths: {},
  process: undefined,
};

export function measured(out: Exposition, measures: Measures): void {
  verdictFamilies(out, measures);
  for (const { name, help, counted } of measures.durations) out.histogram(`namegate_${name}`, help, [[{}, counted]]);
  const { threads } = measures;
  out.histogram(
    "namegate_event_loop_delay_seconds",
    "how late a timer of each thread was",
    threads.map(({ thread, delay }) => [{ thread }, delay] as const),
  );
  out.family(
    "namegate_event_loop_active_seconds_total",
    "counter",
    "time that each thread was not waiting for something to do",
    threads.map(({ thread, activeSeconds }): Sample => [{ thread }, activeSeconds]),
  );
  out.family(
    "namegate_queue_length",
    "gauge",
    "packets that wait in this NFQUEUE, or for their verdict",
    Object.entries(measures.queueLengths).map(([queue, length]): Sample => [{ queue }, length]),
  );
  processFamilies(out, measures.process);
}

function verdictFamilies(out: Exposition, { verdicts, otherVerdicts, rulesUncounted, denials }: Measures): void {
  const rules = new Set<string>();
  const others = new Map(otherVerdicts.map(({ verdict, count }) => [verdict, count]));
  const samples: Sample[] = [];
  for (const { policy = NO_RULE, rule = NO_RULE, mode, verdict, count } of verdicts) {
    if (policy !== NO_RULE && rules.size >= RULE_SERIES_MAX && !rules.has(`${policy}\n${rule}`)) {
      others.set(verdict, (others.get(verdict) ?? 0) + count);
      continue;
    }
    if (policy !== NO_RULE) rules.add(`${policy}\n${rule}`);
    samples.push([{ policy, rule, mode, verdict }, count]);
  }
  for (const [verdict, count] of others) if (count > 0) samples.push([{ policy: OTHERS, rule: OTHERS, mode: OTHERS, verdict }, count]);
  out.family("namegate_verdicts_total", "counter", "connections and refused queries by the rule that decided", samples);
  out.family(
    "namegate_denials_total",
    "counter",
    "connections and queries that were denied, or would be, by reason",
    denials.map(({ why, verdict, count }): Sample => [{ why, verdict }, count]),
  );
  if (verdicts.length > 0)
    out.family("namegate_rules_uncounted", "gauge", "rules in force beyond those that are counted one by one", [[{}, rulesUncounted]]);
}

function processFamilies(out: Exposition, process: Measures["process"]): void {
  if (process === undefined) return;
  const { residentBytes, cpuSeconds, startSeconds, openFiles, heapBytes, version } = process;
  out.family("process_resident_memory_bytes", "gauge", "resident memory of the agent", [[{}, residentBytes]]);
  out.family("process_cpu_seconds_total", "counter", "processor time of the agent, all threads", [[{}, cpuSeconds]]);
  out.family("process_start_time_seconds", "gauge", "when the agent was started", [[{}, startSeconds]]);
  if (openFiles !== undefined) out.family("process_open_fds", "gauge", "open files and sockets", [[{}, openFiles]]);
  out.family("nodejs_heap_size_used_bytes", "gauge", "JavaScript heap of the control thread", [[{}, heapBytes]]);
  out.family("nodejs_version_info", "gauge", "Node", [[{ version }, 1]]);
}
