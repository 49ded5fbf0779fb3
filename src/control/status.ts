import type { Mode, PolicyId, Problem } from "../model/policy.ts";
import type { PodUpdate, WorkerStatus } from "../worker/protocol.ts";
import { selectPolicies } from "../policy/select.ts";
import { effectiveMode } from "./effective.ts";
import type { Enforcer } from "./enforcer.ts";
import type { PolicyState } from "./policies.ts";
import type { SelfTestStatus } from "./self-test.ts";
import type { RuleUse } from "./usage.ts";
import type { InputHealth, Outside } from "./source.ts";

export interface StatusInput {
  readonly ready: boolean;
  /** Rules are installed, the packet thread is alive, and packets come to them (`isEnforcing`). */
  readonly enforcing: boolean;
  readonly variant: string;
  readonly startedMs: number;
  readonly states: readonly PolicyState[];
  /** Uses of a policy's rules. */
  readonly rules: (policy: PolicyId) => readonly RuleUse[];
  readonly loose: readonly Problem[];
  readonly pods: readonly PodUpdate[];
  /** Pods that cannot be guarded, and what their namespaces are labelled with. */
  readonly outside: readonly Outside[];
  readonly namespaces: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly inputs: readonly InputHealth[];
  /** Why something else than the inputs is enforced; undefined: it is not so. */
  readonly kept: string | undefined;
  readonly unenforceable: ReadonlyMap<string, string>;
  readonly selfTest: SelfTestStatus;
  readonly worker: WorkerStatus | undefined;
  /** By queue: what the kernel dropped because it was full. */
  readonly dropped: Readonly<Record<string, number>>;
  readonly repairs: number;
  readonly knownHellos: Enforcer["knownHellos"];
  readonly events: number;
  /** What the sinks do; undefined: there are none but stdout. */
  readonly alerts: object | undefined;
  readonly lastUpdate: { readonly microseconds: number; readonly bindings: number } | undefined;
}

/** The strictest mode of any policy in force. */
export function strictest(modes: readonly Mode[]): Mode | "None" {
  return modes.includes("Enforce") ? "Enforce" : modes.includes("Monitor") ? "Monitor" : modes.includes("Discover") ? "Discover" : "None";
}

const ERRORS_SHOWN = 100;

function place({ file, line, column, path, message, hint }: Problem): string {
  return `${file}:${line}:${column}: ${path === "" ? "" : `${path}: `}${message}${hint === undefined ? "" : ` (${hint})`}`;
}

/** What `namegate status -o json` prints (DESIGN §9). */
export function buildStatus(input: StatusInput): Record<string, unknown> {
  const { states, worker } = input;
  const inForce = new Map(states.flatMap(({ id, policy }) => (policy === undefined ? [] : [[id, policy] as const])));
  const mode = strictest([...inForce.values()].map((policy) => policy.mode));
  const pods = input.pods.map(({ pod, attachment, policies }) => {
    const own = strictest(policies.flatMap((id) => inForce.get(id)?.mode ?? []));
    const guarded = own === "Enforce" || own === "Monitor";
    const why = input.unenforceable.get(pod.key);
    return {
      namespace: pod.namespace,
      name: pod.name,
      guarded,
      mode: own === "None" ? null : own,
      enforced: guarded && input.enforcing && why === undefined,
      ...(why === undefined ? {} : { why }),
      policies,
      attachment,
      ...worker?.pods[pod.key],
    };
  });
  const policies = [...inForce.values()];
  const listed = new Set(input.pods.map(({ pod }) => pod.key));
  for (const { pod, why } of input.outside) {
    if (listed.has(pod.key)) continue;
    const selecting = selectPolicies(policies, pod, input.namespaces);
    const own = strictest(selecting.map((policy) => policy.mode));
    pods.push({
      namespace: pod.namespace,
      name: pod.name,
      guarded: own === "Enforce" || own === "Monitor",
      mode: own === "None" ? null : own,
      enforced: false,
      why,
      policies: selecting.map(({ id }) => id),
      attachment: { kind: "missing", interface: "", why },
    });
  }
  return {
    ready: input.ready,
    mode,
    effectiveMode: effectiveMode(mode, input.enforcing),
    selfTest: input.selfTest,
    iptables: input.variant,
    since: new Date(input.startedMs).toISOString(),
    pods,
    policies: states.map(({ id, file, valid, problems, policy }) => ({
      name: id,
      file,
      valid,
      mode: policy?.mode ?? null,
      inForce: policy !== undefined,
      rules: input.rules(id),
      errors: problems.slice(0, ERRORS_SHOWN).map(place),
    })),
    problems: input.loose.map(place),
    queues: Object.fromEntries(
      Object.entries(worker?.queues ?? {}).map(([name, queue]) => [name, { ...queue, dropped: input.dropped[name] ?? 0 }]),
    ),
    sets: worker?.sets ?? {},
    counters: worker?.counters ?? {},
    rules: { installed: input.enforcing, repairs: input.repairs },
    knownHellos: input.knownHellos,
    alerts: { events: input.events, ...input.alerts },
    lastUpdate: input.lastUpdate ?? null,
    inputs: input.inputs.map(({ resource, synced, staleMs, items, error }) => ({
      resource,
      synced,
      /** null: it has never been read. */
      staleSeconds: Number.isFinite(staleMs) ? Math.round(staleMs / 100) / 10 : null,
      items,
      ...(error === undefined ? {} : { error }),
    })),
    ...(input.kept === undefined ? {} : { kept: input.kept }),
  };
}
