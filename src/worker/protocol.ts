import type { Endpoint, Ip } from "../base/address.ts";
import type { ConntrackEntry } from "../firewall/conntrack.ts";
import type { QueueStats } from "../base/addon.ts";
import type { NamePattern } from "../base/name.ts";
import type { Attachment } from "../model/attachment.ts";
import type { EventDraft } from "../model/event.ts";
import type { Policy, PolicyId } from "../model/policy.ts";
import type { Pod, PodKey } from "../model/snapshot.ts";
import type { Explained, WhatIf } from "./explain.ts";
import type { PolicySlots } from "./meter.ts";

/** What the control thread gives the packet thread at its start. */
export interface WorkerOptions {
  readonly markMask: number;
  readonly queueBase: number;
  readonly limits: Limits;
  /** Names of DNS-over-HTTPS servers, patterns allowed. */
  readonly dnsServers: readonly NamePattern[];
  /** The control thread keeps guarded pods' veths in interface groups. */
  readonly groups: boolean;
  /** Where the pins of the programs are that know hellos (firewall/hellos.ts); undefined: there are none. */
  readonly hellos: string | undefined;
  /** Where the packet thread counts (worker/meter.ts). */
  readonly block: SharedArrayBuffer;
}

/** Bounds that an operator may set. */
export interface Limits {
  /** New connections of one pod that userspace judges, per second; more are dropped and counted. */
  readonly upcallsPerSecond: number;
  /** Bindings of all pods together. */
  readonly bindings: number;
  /** Denials and summaries of one pod that become events, per second. */
  readonly eventsPerSecond: number;
}

export const LIMITS_DEFAULT: Limits = { upcallsPerSecond: 10_000, bindings: 250_000, eventsPerSecond: 50 };

/** A pod as it is to be guarded now. */
export interface PodUpdate {
  readonly pod: Pod;
  readonly attachment: Attachment;
  /** In order of judgement. */
  readonly policies: readonly PolicyId[];
}

/** A change of the desired state: only what changed. Applied whole, in order. */
export interface Update {
  readonly kind: "update";
  readonly id: number;
  readonly policies: readonly Policy[];
  /** Where uses of the rules of these policies are counted. */
  readonly slots?: readonly PolicySlots[];
  readonly removedPolicies: readonly PolicyId[];
  /** New, changed, or selected otherwise. */
  readonly pods: readonly PodUpdate[];
  readonly removedPods: readonly PodKey[];
  readonly resolvers: readonly Endpoint[] | undefined;
  readonly interfacePrefixes: readonly string[] | undefined;
  /** As Snapshot.starting. */
  readonly starting: boolean;
}

/** Connections read from conntrack: because they were asked for, or so that live ones keep their bindings. */
export interface Connections {
  readonly kind: "connections";
  readonly entries: readonly ConntrackEntry[];
  /** `keep`: nobody asked; otherwise a piece of the answer, and whether it is the last. */
  readonly part: "keep" | "more" | "done" | "failed";
}

export type ToWorker =
  | Update
  | Connections
  | { readonly kind: "bind" }
  | { readonly kind: "status"; readonly id: number }
  | { readonly kind: "explain"; readonly id: number; readonly question: WhatIf }
  /** Is it there? */
  | { readonly kind: "ping" }
  | { readonly kind: "stop" };

export interface WorkerStatus {
  readonly queues: Readonly<Record<string, QueueStats>>;
  readonly sets: Readonly<Record<string, number>>;
  readonly counters: Readonly<Record<string, number>>;
  readonly pods: Readonly<
    Record<PodKey, { readonly bindings: number; readonly addresses: number; readonly ruleHits: Readonly<Record<string, number>> }>
  >;
}

export type FromWorker =
  /** Sets are there and what an earlier agent learned has been read back; rules may be installed now. */
  | { readonly kind: "applied"; readonly id: number; readonly microseconds: number; readonly bindings: number }
  | { readonly kind: "bound" }
  /** Wants `connections`: those that these pod addresses opened, or all. */
  | { readonly kind: "read-connections"; readonly sources: readonly Ip[] | undefined }
  /** A packet of no known pod came in by this interface and waits. */
  | { readonly kind: "unknown"; readonly source: Ip; readonly index: number }
  | { readonly kind: "events"; readonly events: readonly EventDraft[] }
  | { readonly kind: "status"; readonly id: number; readonly status: WorkerStatus }
  /** undefined: it guards no such pod. */
  | { readonly kind: "explained"; readonly id: number; readonly answer: Explained | undefined }
  | { readonly kind: "pong" }
  /** Canaries came to our rules. */
  | { readonly kind: "canaries"; readonly nonces: readonly string[] }
  | {
      readonly kind: "log";
      readonly level: "info" | "warn" | "error";
      readonly message: string;
      readonly detail?: Readonly<Record<string, unknown>>;
    }
  | { readonly kind: "failed"; readonly code: string; readonly message: string; readonly fix: string };
