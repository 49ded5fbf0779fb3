import type { Mode } from "./policy.ts";
import type { Fields, Nearest } from "./verdict.ts";

export type EventType =
  | "connection" // allowed (first use), denied, would be denied
  | "dns" // a query refused, a reply from elsewhere
  | "spoofed"
  | "limit" // a bound was reached: upcalls, bindings, queue
  | "policy" // accepted, invalid, removed
  | "rules" // kernel state altered by somebody and restored
  | "agent"; // started, stopped, degraded

export type EventVerdict = "allow" | "deny" | "would-deny" | "info";

/** One event, one line of JSON. Field names are a contract (DESIGN §9). */
export interface Event {
  /** Unique: node start time, and the sequence number. */
  readonly id: string;
  readonly seq: number;
  /** RFC 3339, UTC, milliseconds. */
  readonly time: string;
  readonly type: EventType;
  readonly verdict: EventVerdict;
  readonly mode: Mode | null;
  readonly why: string | null;
  readonly pod: {
    readonly namespace: string;
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly serviceAccountName: string;
  } | null;
  /** The policy and rule that decided; null for a default deny. */
  readonly policy: string | null;
  readonly rule: string | null;
  /** The policies that select the pod. */
  readonly policies: readonly string[];
  readonly nearest: Nearest | null;
  readonly destination: {
    readonly address: string | null;
    readonly port: number | null;
    readonly protocol: string | null;
    readonly names: readonly string[];
  } | null;
  readonly source: { readonly address: string; readonly port: number; readonly interface: string | null } | null;
  readonly evidence: {
    readonly dns: readonly { readonly name: string; readonly via: string; readonly fresh: boolean }[] | null;
    readonly serverName: string | null;
    readonly application: string | null;
    readonly ja4: string | null;
    /** What else the first bytes showed. */
    readonly alpn?: readonly string[];
    readonly ech?: boolean;
    readonly version?: string;
    readonly upgrade?: string;
    readonly fields?: Fields;
  } | null;
  /** A sentence for a person. */
  readonly message: string | null;
  /** How many like this one since the last line about it, this one included. */
  readonly count: number;
  /** Of the repeats that were folded into this line (alerts/fold.ts): when the first and the last of them were, as `time`. */
  readonly folded?: { readonly first: string; readonly last: string };
}

/** An event before the wiring stamps id, seq and time; what is left out is null (or empty, or 1). */
export type EventDraft = Pick<Event, "type" | "verdict"> & Partial<Omit<Event, "id" | "seq" | "time">>;
