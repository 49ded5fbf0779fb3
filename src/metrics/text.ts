import { Exposition, type Labels, type Sample } from "./exposition.ts";
import { type Measures, measured, NO_MEASURES, OTHERS, POLICY_SERIES_MAX, RULE_SERIES_MAX } from "./measures.ts";

/** The parts of a status that become metrics; everything is optional so that a metric never breaks a scrape. */
interface Source {
  readonly ready?: boolean;
  readonly mode?: string;
  readonly effectiveMode?: string;
  readonly policies?: readonly {
    readonly name: string;
    readonly valid: boolean;
    readonly rules?: readonly { readonly name: string; readonly hits: number | null; readonly lastHit: string | null }[];
  }[];
  readonly queues?: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly sets?: Readonly<Record<string, number>>;
  readonly counters?: Readonly<Record<string, number>>;
  readonly inputs?: readonly { readonly resource: string; readonly synced: boolean; readonly staleSeconds: number | null }[];
  readonly pods?: readonly { readonly guarded: boolean; readonly enforced: boolean; readonly bindings?: number }[];
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
    readonly maxBytes?: number;
    readonly events: number;
    readonly damaged: number;
    readonly lost: Readonly<Record<string, number>>;
  } | null;
}

const MODES = ["None", "Discover", "Monitor", "Enforce"];
const BREAKERS = ["closed", "half-open", "open"];
const NONE: Labels = {};
const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

/** Labels are names of sinks, which the operator wrote, and severities. */
function alertFamilies(out: Exposition, alerts: Source["alerts"]): void {
  if (alerts?.events !== undefined) out.family("namegate_events_total", "counter", "events of this run", [[NONE, alerts.events]]);
  if (alerts?.sinks === undefined) return;
  const { sinks, folded, limited } = alerts;
  out.family("namegate_alerts_folded_total", "counter", "events that were folded into a summary", [[NONE, folded ?? 0]]);
  out.family("namegate_alerts_limited_total", "counter", "events that rate limits held back, counted in an event", [[NONE, limited ?? 0]]);
  const each = (name: string, type: "counter" | "gauge", help: string, value: (sink: SinkSource) => number | undefined): void =>
    out.family(
      `namegate_alert_${name}`,
      type,
      help,
      sinks.flatMap((sink): Sample[] => {
        const found = value(sink);
        return found === undefined ? [] : [[{ sink: sink.name }, found]];
      }),
    );
  each("sent_total", "counter", "events that the sink has", ({ sent }) => sent);
  each("failures_total", "counter", "tries that failed", ({ failures, spool }) => (spool === null ? undefined : failures));
  each("dead_letters_total", "counter", "events that the collector refused for good", ({ deadLetters, spool }) =>
    spool === null ? undefined : deadLetters,
  );
  each("spool_bytes", "gauge", "on disk", ({ spool }) => spool?.bytes);
  each("spool_max_bytes", "gauge", "what the spool may have on disk", ({ spool }) => spool?.maxBytes);
  each("spool_events", "gauge", "events that wait", ({ spool }) => spool?.events);
  each("spool_damaged_total", "counter", "places of the spool that could not be read", ({ spool }) => spool?.damaged);
  out.family(
    "namegate_alert_lost_total",
    "counter",
    "events that were given up",
    sinks.flatMap(({ name: sink, lost, spool }) =>
      Object.entries(spool?.lost ?? { any: lost }).map(([severity, count]): Sample => [{ sink, severity }, count]),
    ),
  );
  out.family(
    "namegate_alert_breaker_state",
    "gauge",
    "1 for the state that the breaker is in",
    sinks.flatMap(({ name: sink, breaker }) =>
      breaker === null ? [] : BREAKERS.map((state): Sample => [{ sink, state }, breaker === state ? 1 : 0]),
    ),
  );
}

function policyFamilies(out: Exposition, policies: NonNullable<Source["policies"]>): void {
  const own = policies.slice(0, POLICY_SERIES_MAX);
  const others = policies.slice(POLICY_SERIES_MAX);
  out.family("namegate_policy_valid", "gauge", "0 when the document as it is now is invalid", [
    ...own.map(({ name, valid }): Sample => [{ policy: name }, valid ? 1 : 0]),
    ...(others.length === 0 ? [] : [[{ policy: OTHERS }, others.every(({ valid }) => valid) ? 1 : 0] as const]),
  ]);
  const rules = policies.flatMap(({ name: policy, rules: list }) =>
    (list ?? []).flatMap(({ name: rule, hits, lastHit }): Sample[] =>
      hits === null ? [] : [[{ policy, rule }, lastHit === null ? 0 : Date.parse(lastHit) / 1000]],
    ),
  );
  out.family(
    "namegate_rule_last_hit_timestamp_seconds",
    "gauge",
    "when the rule last decided something on this node, also before a restart; 0: never seen",
    rules.slice(0, RULE_SERIES_MAX),
  );
}

/** `status` is what `status -o json` prints. Every label has a bounded number of values: README, "Metrics". */
export function metricsText(status: unknown, measures: Measures = NO_MEASURES): string {
  const s = status as Source;
  const out = new Exposition();
  const modes = (name: string, help: string, now: string | undefined): void =>
    out.family(
      name,
      "gauge",
      help,
      MODES.map((mode): Sample => [{ mode }, now === mode ? 1 : 0]),
    );
  out.family("namegate_ready", "gauge", "1 when the kernel answers as the policies say", [[NONE, s.ready === true ? 1 : 0]]);
  modes("namegate_effective_mode", "1 for the mode that is really in effect", s.effectiveMode);
  modes("namegate_configured_mode", "1 for the strictest mode that a policy asks for", s.mode);
  out.family(
    "namegate_self_test_passed",
    "gauge",
    "1 when the last canary came to our rules; 0 also while it cannot be tried",
    s.selfTest === undefined ? [] : [[NONE, s.selfTest.state === "ok" ? 1 : 0]],
  );
  policyFamilies(out, s.policies ?? []);
  const inputs = s.inputs ?? [];
  out.family(
    "namegate_informer_stale_seconds",
    "gauge",
    "since what the agent knows of a resource was last known to be up to date",
    inputs.map(({ resource, staleSeconds }): Sample => [{ resource }, staleSeconds ?? Infinity]),
  );
  out.family(
    "namegate_informer_synced",
    "gauge",
    "1 once a resource has been listed",
    inputs.map(({ resource, synced }): Sample => [{ resource }, synced ? 1 : 0]),
  );
  podFamilies(out, s.pods ?? []);
  out.family(
    "namegate_set_elements",
    "gauge",
    "elements in the kernel",
    Object.entries(s.sets ?? {}).map(([set, count]): Sample => [{ set }, count]),
  );
  for (const [field, help] of QUEUE_FIELDS)
    out.family(
      `namegate_queue_${field}_total`,
      "counter",
      help,
      Object.entries(s.queues ?? {}).map(([queue, stats]): Sample => [{ queue }, stats[field] ?? 0]),
    );
  for (const [name, value] of Object.entries(s.counters ?? {}))
    out.family(`namegate_${snake(name)}_total`, "counter", `counter ${name} of the packet thread`, [[NONE, value]]);
  alertFamilies(out, s.alerts);
  out.family("namegate_rule_repairs_total", "counter", "times that altered rules were restored", [[NONE, s.rules?.repairs ?? 0]]);
  measured(out, measures);
  return out.text;
}

const QUEUE_FIELDS = [
  ["received", "packets that the packet thread was given by this NFQUEUE"],
  ["settled", "packets that got their verdict"],
  ["gaps", "packets of this NFQUEUE that never came"],
  ["enobufs", "times that the socket behind this NFQUEUE was full"],
  ["rebinds", "times that this NFQUEUE was bound again"],
  ["late", "packets that the watchdog settled in place of the packet thread"],
  ["dropped", "packets that the kernel dropped because this NFQUEUE, or the socket behind it, was full"],
] as const;

function podFamilies(out: Exposition, pods: NonNullable<Source["pods"]>): void {
  const guarded = pods.filter((pod) => pod.guarded);
  const enforced = guarded.filter((pod) => pod.enforced).length;
  out.family("namegate_pods", "gauge", "pods that a policy asks to guard, by whether they are", [
    [{ enforced: "true" }, enforced],
    [{ enforced: "false" }, guarded.length - enforced],
  ]);
  out.family("namegate_pods_not_enforced", "gauge", "guarded pods whose packets are not judged", [[NONE, guarded.length - enforced]]);
  const bindings = pods.reduce((sum, pod) => sum + (pod.bindings ?? 0), 0);
  out.family("namegate_bindings", "gauge", "names of addresses that DNS taught the pods of this node", [[NONE, bindings]]);
}
