import type { Mode } from "./policy.ts";
import type { Fields, Nearest, Why } from "./verdict.ts";

export type EventType =
  | "connection" // allowed (first use), denied, would be denied
  | "dns" // a query refused, a resolver that is not trusted, signs of a tunnel
  | "spoofed"
  | "limit" // a bound was reached: upcalls, bindings, queue
  | "policy" // accepted, changed, invalid, removed
  | "rules" // kernel state altered by somebody and restored
  | "agent"; // started, stopped, degraded

/** What is said beside denials. An `allow` with one of these is worth a look all the same. Closed: each has a severity (alerts/severity.ts). */
export type Notice =
  | "untrusted-resolver" // DNS with a server that is not trusted
  | "dns-over-tls" // or over QUIC: what is asked and answered cannot be seen
  | "dns-over-https"
  | "dns-tunnel" // names that carry data: `exceeded` says which limit
  | "policy-accepted" // for the first time
  | "policy-changed"
  | "policy-removed"
  | "policy-invalid"
  | "policy-mode-raised" // of one policy: towards Enforce
  | "policy-mode-lowered"
  | "effective-mode" // of the node: for the first time, or raised
  | "effective-mode-lowered"
  | "input-invalid"
  | "inputs-live"
  | "no-resolver"
  | "started"
  | "stopped"
  | "degraded"
  | "unenforceable"
  | "enforcing-again"
  | "not-enforcing"
  | "rules-restored"
  | "rules-contended"
  | "groups-restored"
  | "set-repaired"
  | "queue-full"
  | `queue-${"enobufs" | "gap" | "rebind" | "watchdog" | "fault"}`
  | "too-many-bindings"
  | "too-much-work"
  | "bindings-evicted"
  | "events-held-back"
  | "alerts-limited"
  | "alerts-lost"
  | "alerts-refused";

/** Where a policy comes from, as far as its object or file says: whoever may write that has written this too. */
export interface PolicyOrigin {
  /** `configmap/NAMESPACE/NAME:KEY`, or a file. */
  readonly source: string;
  /** `sha256:` and the digest (hex) of the text that it was read from. */
  readonly digest: string | null;
  /** The ConfigMap's resourceVersion. */
  readonly version: string | null;
  /** The field manager that wrote the data last, and how: `kubectl-edit (Update)`. Of a file: its owner, `uid 0`. */
  readonly by: string | null;
  /** When that was, as `time`. */
  readonly at: string | null;
}

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
  /** Of a denial that a rule could allow: the narrowest one, an entry of `spec.egress` in YAML. */
  readonly suggestion?: string;
  /** Of a policy event: where it comes from, and what is another than before. */
  readonly change?: PolicyOrigin & { readonly what: readonly string[] };
  /** The limit of `dns.limits` that was exceeded, its value and what was found; `domain`: below which the names are. */
  readonly exceeded?: { readonly limit: string; readonly most: number; readonly found: number; readonly domain: string };
  /** How many like this one since the last line about it, this one included. */
  readonly count: number;
  /** Of the repeats that were folded into this line (alerts/fold.ts): when the first and the last of them were, as `time`. */
  readonly folded?: { readonly first: string; readonly last: string };
}

/** An event before the wiring stamps id, seq and time; what is left out is null (or empty, or 1). */
export type EventDraft = Pick<Event, "type" | "verdict"> & { readonly why?: Why | Notice | null } & Partial<
    Omit<Event, "id" | "seq" | "time" | "why">
  >;
