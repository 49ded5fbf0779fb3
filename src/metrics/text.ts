/** The parts of a status that become metrics; everything is optional so that a metric never breaks a scrape. */
interface Source {
  readonly ready?: boolean;
  readonly mode?: string;
  readonly effectiveMode?: string;
  readonly policies?: readonly { readonly name: string; readonly valid: boolean }[];
  readonly queues?: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly sets?: Readonly<Record<string, number>>;
  readonly counters?: Readonly<Record<string, number>>;
  readonly inputs?: readonly { readonly resource: string; readonly synced: boolean; readonly staleSeconds: number | null }[];
  readonly pods?: readonly { readonly guarded: boolean; readonly enforced: boolean }[];
  readonly selfTest?: { readonly state?: string };
  readonly rules?: { readonly repairs?: number };
  readonly alerts?: {
    readonly events?: number;
    readonly folded?: number;
    readonly limited?: number;
    readonly sinks?: readonly SinkSource[];
  };
}
interface SinkSource {
  readonly name: string;
  readonly breaker: string | null;
  readonly sent: number;
  readonly failures: number;
  readonly deadLetters: number;
  readonly lost: number;
  readonly spool: {
    readonly bytes: number;
    readonly events: number;
    readonly damaged: number;
    readonly lost: Readonly<Record<string, number>>;
  } | null;
}

const MODES = ["None", "Discover", "Monitor", "Enforce"];
const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
const label = (text: string): string => text.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`));

type Family = (
  name: string,
  type: "counter" | "gauge",
  help: string,
  samples: readonly (readonly [labels: string, value: number])[],
) => void;

const BREAKERS = ["closed", "half-open", "open"];

/** Labels are names of sinks, which the operator wrote, and severities. */
function alertFamilies(alerts: Source["alerts"], family: Family): void {
  if (alerts?.events !== undefined) family("events_total", "counter", "events of this run", [["", alerts.events]]);
  if (alerts?.sinks === undefined) return;
  family("alerts_folded_total", "counter", "events that were folded into a summary", [["", alerts.folded ?? 0]]);
  family("alerts_limited_total", "counter", "events that rate limits held back, counted in an event", [["", alerts.limited ?? 0]]);
  const { sinks } = alerts;
  const each = (name: string, type: "counter" | "gauge", help: string, value: (sink: SinkSource) => number | undefined): void =>
    family(
      `alert_${name}`,
      type,
      help,
      sinks.flatMap((sink) => {
        const found = value(sink);
        return found === undefined ? [] : [[`sink="${label(sink.name)}"`, found] as const];
      }),
    );
  each("sent_total", "counter", "events that the sink has", ({ sent }) => sent);
  each("failures_total", "counter", "tries that failed", ({ failures, spool }) => (spool === null ? undefined : failures));
  each("dead_letters_total", "counter", "events that the collector refused for good", ({ deadLetters, spool }) =>
    spool === null ? undefined : deadLetters,
  );
  each("spool_bytes", "gauge", "on disk", ({ spool }) => spool?.bytes);
  each("spool_events", "gauge", "events that wait", ({ spool }) => spool?.events);
  each("spool_damaged_total", "counter", "places of the spool that could not be read", ({ spool }) => spool?.damaged);
  family(
    "alert_lost_total",
    "counter",
    "events that were given up",
    sinks.flatMap(({ name, lost, spool }) =>
      Object.entries(spool?.lost ?? { any: lost }).map(
        ([severity, count]) => [`sink="${label(name)}",severity="${label(severity)}"`, count] as const,
      ),
    ),
  );
  family(
    "alert_breaker_state",
    "gauge",
    "1 for the state that the breaker is in",
    sinks.flatMap(({ name, breaker }) =>
      breaker === null ? [] : BREAKERS.map((state) => [`sink="${label(name)}",state="${state}"`, breaker === state ? 1 : 0] as const),
    ),
  );
}

/** Prometheus text format 0.0.4. Labels are policies, queues, sets, sinks and counters: bounded by what the operator wrote. */
export function metricsText(status: unknown): string {
  const s = status as Source;
  const lines: string[] = [];
  const family = (
    name: string,
    type: "counter" | "gauge",
    help: string,
    samples: readonly (readonly [labels: string, value: number])[],
  ): void => {
    if (samples.length === 0) return;
    lines.push(`# HELP namegate_${name} ${help}`, `# TYPE namegate_${name} ${type}`);
    for (const [labels, value] of samples)
      lines.push(`namegate_${name}${labels === "" ? "" : `{${labels}}`} ${value === Infinity ? "+Inf" : value}`);
  };
  family("ready", "gauge", "1 when the kernel answers as the policies say", [["", s.ready === true ? 1 : 0]]);
  family(
    "effective_mode",
    "gauge",
    "1 for the mode that is really in effect",
    MODES.map((mode) => [`mode="${mode}"`, s.effectiveMode === mode ? 1 : 0] as const),
  );
  family(
    "configured_mode",
    "gauge",
    "1 for the strictest mode that a policy asks for",
    MODES.map((mode) => [`mode="${mode}"`, s.mode === mode ? 1 : 0] as const),
  );
  family(
    "self_test_passed",
    "gauge",
    "1 when the last canary came to our rules; 0 also while it cannot be tried",
    s.selfTest === undefined ? [] : [["", s.selfTest.state === "ok" ? 1 : 0]],
  );
  family("pods_not_enforced", "gauge", "guarded pods whose packets are not judged", [
    ["", (s.pods ?? []).filter(({ guarded, enforced }) => guarded === true && enforced !== true).length],
  ]);
  family(
    "policy_valid",
    "gauge",
    "0 when the document as it is now is invalid",
    (s.policies ?? []).map(({ name, valid }) => [`policy="${label(name)}"`, valid ? 1 : 0] as const),
  );
  family(
    "informer_stale_seconds",
    "gauge",
    "since what the agent knows of a resource was last known to be up to date",
    (s.inputs ?? []).map(({ resource, staleSeconds }) => [`resource="${label(resource)}"`, staleSeconds ?? Infinity] as const),
  );
  family(
    "informer_synced",
    "gauge",
    "1 once a resource has been listed",
    (s.inputs ?? []).map(({ resource, synced }) => [`resource="${label(resource)}"`, synced ? 1 : 0] as const),
  );
  const guarded = (s.pods ?? []).filter((pod) => pod.guarded);
  family("pods", "gauge", "pods that a policy asks to guard, by whether they are", [
    [`enforced="true"`, guarded.filter(({ enforced }) => enforced).length],
    [`enforced="false"`, guarded.filter(({ enforced }) => !enforced).length],
  ]);
  family(
    "set_elements",
    "gauge",
    "elements in the kernel",
    Object.entries(s.sets ?? {}).map(([set, count]) => [`set="${set}"`, count] as const),
  );
  for (const field of ["received", "settled", "gaps", "enobufs", "rebinds", "late"]) {
    family(
      `queue_${field}_total`,
      "counter",
      `NFQUEUE: ${field}`,
      Object.entries(s.queues ?? {}).map(([queue, stats]) => [`queue="${queue}"`, stats[field] ?? 0] as const),
    );
  }
  for (const [name, value] of Object.entries(s.counters ?? {}))
    family(`${snake(name)}_total`, "counter", `counter ${name} of the packet thread`, [["", value]]);
  alertFamilies(s.alerts, family);
  family("rule_repairs_total", "counter", "times that altered rules were restored", [["", s.rules?.repairs ?? 0]]);
  return `${lines.join("\n")}\n`;
}
