import type { EventDraft } from "../model/event.ts";
import type { Mode } from "../model/policy.ts";

type Effective = Mode | "None";

/** What of the mode that policies ask for is really in force: all of it, or nothing. Discover needs no rules. */
export function effectiveMode(mode: Effective, enforcing: boolean): Effective {
  return mode === "Enforce" || mode === "Monitor" ? (enforcing ? mode : "None") : mode;
}

const RANK: Readonly<Record<Effective, number>> = { None: 0, Discover: 1, Monitor: 2, Enforce: 3 };

/** Says every change of the effective mode, the first one included: nobody is to find out later that nothing was enforced. */
export function modeWatch(emit: (draft: EventDraft) => void): (mode: Effective, effective: Effective, why: string | undefined) => void {
  let last: Effective | undefined;
  return (mode, effective, why) => {
    if (effective === last) return;
    const from = last ?? "None";
    last = effective;
    if (from === effective) return;
    const reason = effective === mode ? "" : `, though policies ask for ${mode}${why === undefined ? "" : `: ${why}`}`;
    emit({
      type: "agent",
      verdict: "info",
      mode: effective === "None" ? null : effective,
      why: RANK[effective] < RANK[from] ? "effective-mode-lowered" : "effective-mode",
      message: `effective mode ${from} → ${effective}${reason}`,
    });
  };
}
