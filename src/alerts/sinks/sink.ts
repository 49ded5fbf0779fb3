import type { Severity } from "../../model/alerts.ts";
import type { BoundedEvent } from "../formats/bound.ts";

/** One event on its way. */
export interface Outgoing {
  readonly event: BoundedEvent;
  readonly severity: Severity;
  /** The event in the sink's format, one line. */
  readonly text: string;
}

/** What became of one try. */
export type Outcome =
  | { readonly kind: "done" }
  /** Nothing is known to have arrived; later it may. `afterMs`: as the collector asked for. */
  | { readonly kind: "retry"; readonly why: string; readonly afterMs?: number | undefined }
  /** The collector will not have this batch, whenever it comes; parts of it perhaps. */
  | { readonly kind: "refused"; readonly why: string }
  /** One by one. */
  | { readonly kind: "each"; readonly results: readonly ItemOutcome[]; readonly why: string; readonly afterMs?: number | undefined };

export type ItemOutcome = "done" | "retry" | { readonly refused: string };

/**
 * A way to a collector. `send` never throws, holds on to nothing of a batch once it has answered, and gives up at once when `signal` says so.
 * Whatever the collector answers, only a bounded part of it is kept.
 */
export interface Sink {
  send(batch: readonly Outgoing[], signal: AbortSignal): Promise<Outcome>;
  close(): void;
}
