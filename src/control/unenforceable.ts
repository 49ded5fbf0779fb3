import type { EventDraft } from "../model/event.ts";
import type { PodKey } from "../model/snapshot.ts";

/** Guarded pods that are not enforced, and why: said once for each reason. */
export class Unenforceable {
  private reasons = new Map<PodKey, string>();
  private readonly say: (key: PodKey, why: string) => void;

  constructor(emit: (draft: EventDraft) => void, log: (detail: Record<string, unknown>, message: string) => void) {
    this.say = (key, why) => {
      log({ pod: key, why }, "pod NOT ENFORCED");
      emit({ type: "agent", verdict: "info", why: "unenforceable", message: `${key} is NOT ENFORCED: ${why}` });
    };
  }

  get all(): ReadonlyMap<PodKey, string> {
    return this.reasons;
  }

  /** The whole list as it is now; `undefined` for a pod that is enforced. Of two reasons the last one counts. */
  set(pods: Iterable<readonly [PodKey, string | undefined]>): void {
    const next = new Map<PodKey, string>();
    for (const [key, why] of pods) if (why !== undefined) next.set(key, why);
    for (const [key, why] of next) if (this.reasons.get(key) !== why) this.say(key, why);
    this.reasons = next;
  }
}
