import type { Event, EventDraft } from "../model/event.ts";

/** Gives drafts their id, sequence number and time. `run` tells this run of the agent from others on any node. */
export function stamper(run: string): (draft: EventDraft, nowMs: number) => Event {
  let seq = 0;
  return (draft, nowMs) => {
    seq++;
    return {
      id: `${run}-${seq}`,
      seq,
      time: new Date(nowMs).toISOString(),
      mode: null,
      why: null,
      pod: null,
      policy: null,
      rule: null,
      policies: [],
      nearest: null,
      destination: null,
      source: null,
      evidence: null,
      message: null,
      count: 1,
      ...draft,
    };
  };
}
