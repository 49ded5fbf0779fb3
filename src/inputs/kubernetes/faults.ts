import { Fault } from "../../base/fault.ts";
import type { ErrorKind } from "./types.ts";

/** A request to the API server that failed. */
export class ApiFault extends Fault {
  readonly kind: ErrorKind;
  /** The HTTP status, where there was one. */
  readonly status: number | undefined;
  /** What the server asked for (Retry-After, or `retryAfterSeconds` of a Status). */
  readonly retryAfterMs: number | undefined;

  constructor(
    kind: ErrorKind,
    what: string,
    fix: string,
    more: { readonly cause?: unknown; readonly status?: number | undefined; readonly retryAfterMs?: number | undefined } = {},
  ) {
    super(`kubernetes-${kind}`, what, fix, more.cause);
    this.kind = kind;
    this.status = more.status;
    this.retryAfterMs = more.retryAfterMs;
  }
}
