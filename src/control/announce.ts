import type { EventDraft } from "../model/event.ts";
import type { Problem } from "../model/policy.ts";
import type { Snapshot } from "../model/snapshot.ts";
import type { PolicyState } from "./policies.ts";

/** Tells, once for each change, which policies are accepted, invalid or gone, and what else is wrong with the inputs. */
export function announcer(
  emit: (draft: EventDraft) => void,
  resolverHint: string,
): (states: readonly PolicyState[], problems: readonly Problem[], snapshot: Snapshot) => void {
  const said = new Map<string, string>();
  return (states, loose, snapshot) => {
    const now = new Set<string>();
    const tell = (key: string, text: string, draft: EventDraft): void => {
      now.add(key);
      if (said.get(key) === text) return;
      said.set(key, text);
      emit(draft);
    };
    for (const { id, valid, problems, policy } of states) {
      const first = problems[0];
      const text = valid ? JSON.stringify(policy) : JSON.stringify(problems);
      const stays = policy === undefined ? "no version of it is in force" : "its last good version stays in force";
      tell(id, text, {
        type: "policy",
        verdict: "info",
        policy: id,
        mode: policy?.mode ?? null,
        why: valid ? "policy-accepted" : "policy-invalid",
        message:
          valid || first === undefined
            ? `${id}: accepted`
            : `${first.file}:${first.line}:${first.column}: ${first.path}: ${first.message} (${problems.length} problem${problems.length === 1 ? "" : "s"}); ${stays}`,
      });
    }
    for (const problem of loose) {
      tell(`${problem.file}:${problem.line}:${problem.message}`, problem.message, {
        type: "policy",
        verdict: "info",
        why: "input-invalid",
        message: `${problem.file}:${problem.line}:${problem.column}: ${problem.message}; what was read before stays`,
      });
    }
    if (snapshot.resolvers.length === 0 && snapshot.policies.some(({ rules: list }) => list.some(({ names }) => names.length > 0))) {
      tell("no-resolver", "", {
        type: "policy",
        verdict: "info",
        why: "no-resolver",
        message: `policies name domains, but no DNS resolver is trusted, so no name can ever be learned: ${resolverHint}`,
      });
    }
    for (const key of said.keys()) {
      if (now.has(key)) continue;
      said.delete(key);
      if (!key.includes(":")) emit({ type: "policy", verdict: "info", policy: key, why: "policy-removed", message: `${key}: removed` });
    }
  };
}
