import type { EventDraft, PolicyOrigin } from "../model/event.ts";
import type { Policy, PolicyId, Problem } from "../model/policy.ts";
import type { Snapshot } from "../model/snapshot.ts";
import type { PolicyState } from "./policies.ts";
import { isLower, whatChanged } from "./policy-change.ts";

export interface AnnouncerDeps {
  readonly emit: (draft: EventDraft) => void;
  readonly resolverHint: string;
  /** Of a PolicyState's file. */
  readonly origin: (file: string) => PolicyOrigin;
  /** In force when the last agent ended: what has become another meanwhile is a change too. */
  readonly before: readonly { readonly file: string; readonly policy: Policy }[];
}

export type Announce = (states: readonly PolicyState[], problems: readonly Problem[], snapshot: Snapshot) => void;

/** Tells, once for each change, which policies are accepted, changed, invalid or gone, and what else is wrong with the inputs. */
export function announcer(deps: AnnouncerDeps): Announce {
  const policies = policyAnnouncer(deps);
  const said = new Set<string>();
  return (states, loose, snapshot) => {
    policies(states);
    const now = new Set<string>();
    const tell = (why: "input-invalid" | "no-resolver", message: string): void => {
      now.add(message);
      if (!said.has(message)) deps.emit({ type: "policy", verdict: "info", why, message });
    };
    for (const problem of loose)
      tell("input-invalid", `${problem.file}:${problem.line}:${problem.column}: ${problem.message}; what was read before stays`);
    if (snapshot.resolvers.length === 0 && snapshot.policies.some(({ rules: list }) => list.some(({ names }) => names.length > 0)))
      tell("no-resolver", `policies name domains, but no DNS resolver is trusted, so no name can ever be learned: ${deps.resolverHint}`);
    said.clear();
    for (const message of now) said.add(message);
  };
}

interface Known {
  readonly file: string;
  /** The last version that was valid. */
  readonly policy: Policy | undefined;
  /** What was last said about it, and of which state that was. */
  readonly said: string;
  readonly state: PolicyState | undefined;
}

function policyAnnouncer({ emit, origin, before }: AnnouncerDeps): (states: readonly PolicyState[]) => void {
  let known = new Map<PolicyId, Known>(before.map(({ file, policy }) => [policy.id, { file, policy, said: "", state: undefined }]));

  const accepted = (id: PolicyId, file: string, policy: Policy, was: Policy | undefined): void => {
    const what = was === undefined ? [] : whatChanged(was, policy);
    const change = { ...origin(file), what };
    const common = { type: "policy", verdict: "info", policy: id, mode: policy.mode, change } as const;
    if (what.length === 0) return emit({ ...common, why: "policy-accepted", message: `${id}: accepted` });
    emit({ ...common, why: "policy-changed", message: `${id}: ${what.join("; ")}${byWhom(change)}` });
    if (was === undefined || was.mode === policy.mode) return;
    const why = isLower(policy.mode, was.mode) ? "policy-mode-lowered" : "policy-mode-raised";
    const modes = `mode: ${was.mode} → ${policy.mode}`;
    emit({ ...common, why, change: { ...change, what: [modes] }, message: `${id}: ${modes}${byWhom(change)}` });
  };

  return (states) => {
    const next = new Map<PolicyId, Known>();
    for (const state of states) {
      const { id, file, valid, problems, policy } = state;
      const old = known.get(id);
      if (old?.state === state) {
        next.set(id, old);
        continue;
      }
      const said = JSON.stringify(valid ? policy : problems);
      next.set(id, { file, policy: valid ? policy : (old?.policy ?? policy), said, state });
      if (old?.said === said) continue;
      const [first] = problems;
      if (valid && policy !== undefined) accepted(id, file, policy, old?.policy);
      else {
        const where = first === undefined ? file : `${first.file}:${first.line}:${first.column}: ${first.path}: ${first.message}`;
        const count = `${problems.length} problem${problems.length === 1 ? "" : "s"}`;
        const stays = policy === undefined ? "no version of it is in force" : "its last good version stays in force";
        const change = { ...origin(file), what: [] };
        const message = `${where} (${count}); ${stays}`;
        emit({ type: "policy", verdict: "info", policy: id, mode: policy?.mode ?? null, why: "policy-invalid", change, message });
      }
    }
    for (const [id, { file, policy }] of known) {
      if (next.has(id)) continue;
      const change = { ...origin(file), what: [] };
      const message = `${id}: removed${policy === undefined ? "" : `; it was in mode ${policy.mode}`}${byWhom(change)}`;
      emit({ type: "policy", verdict: "info", policy: id, mode: policy?.mode ?? null, why: "policy-removed", change, message });
    }
    known = next;
  };
}

function byWhom({ by, at }: PolicyOrigin): string {
  return by === null ? "" : ` (written by ${by}${at === null ? "" : ` at ${at}`})`;
}
