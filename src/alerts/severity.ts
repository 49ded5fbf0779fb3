import type { Severity } from "../model/alerts.ts";
import type { Event, Notice } from "../model/event.ts";
import type { Why } from "../model/verdict.ts";

/** How much a denial is worth a look. Closed: a new reason does not compile without a place here. */
const OF_DENIAL: Readonly<Record<Why, Severity>> = {
  "denied-by-rule": "high", // somebody wrote down that this must not be
  "no-rule": "medium",
  "wrong-port": "medium",
  "no-name": "medium",
  "wrong-name": "medium",
  "stale-dns": "low", // most often a client that caches longer than it may
  "name-not-allowed": "medium",
  "wrong-server-name": "high", // fronting looks like this
  "no-server-name": "medium",
  "wrong-protocol": "high", // a tunnel looks like this
  "wrong-identity": "high",
  "names-disagree": "high",
  ech: "medium",
  evasion: "critical",
  incomplete: "medium",
  "spoofed-source": "critical",
  "mid-stream": "medium",
  "unknown-pod": "medium",
  "upcall-limit": "high",
  malformed: "medium",
  fault: "high",
};

/** Of what is no denial of the table above. Closed as well. */
const OF_NOTICE: Readonly<Record<Notice, Severity>> = {
  "untrusted-resolver": "medium",
  "dns-over-tls": "medium",
  "dns-over-https": "medium",
  "dns-tunnel": "high",
  "policy-accepted": "info",
  "policy-changed": "low",
  "policy-removed": "medium", // its pods may be guarded by nothing now
  "policy-invalid": "high",
  "policy-mode-raised": "low",
  "policy-mode-lowered": "high",
  "effective-mode": "low",
  "effective-mode-lowered": "critical",
  "input-invalid": "high",
  "inputs-live": "info",
  "no-resolver": "high",
  started: "low",
  stopped: "low",
  degraded: "high",
  unenforceable: "high",
  "enforcing-again": "low",
  "not-enforcing": "critical",
  "rules-restored": "high",
  "rules-contended": "critical",
  "groups-restored": "high",
  "set-repaired": "high",
  "queue-full": "high",
  "queue-enobufs": "medium",
  "queue-gap": "medium",
  "queue-rebind": "medium",
  "queue-watchdog": "high",
  "queue-fault": "high",
  "too-many-bindings": "medium",
  "too-much-work": "medium",
  "bindings-evicted": "medium",
  "events-held-back": "medium",
  "alerts-lost": "high",
  "alerts-limited": "high",
  "alerts-refused": "high",
};
const OTHERWISE: Readonly<Record<Event["type"], Severity>> = {
  connection: "info",
  dns: "low",
  spoofed: "critical",
  limit: "medium",
  policy: "medium",
  rules: "high",
  agent: "high", // degraded
};

/** What it would have been denied for counts one step less than the denial. */
const LESS: Readonly<Record<Severity, Severity>> = { critical: "high", high: "medium", medium: "low", low: "info", info: "info" };

export function severityOf({ type, verdict, why }: Pick<Event, "type" | "verdict" | "why">): Severity {
  const own = (table: Readonly<Record<string, Severity>>): Severity | undefined =>
    why !== null && Object.hasOwn(table, why) ? table[why] : undefined;
  switch (verdict) {
    case "allow":
      return own(OF_NOTICE) ?? "info";
    case "deny":
      return own(OF_DENIAL) ?? own(OF_NOTICE) ?? (type === "limit" ? "high" : type === "spoofed" ? "critical" : "medium");
    case "would-deny":
      return LESS[own(OF_DENIAL) ?? own(OF_NOTICE) ?? "medium"];
    case "info":
      return own(OF_NOTICE) ?? OTHERWISE[type];
    default:
      verdict satisfies never;
      return "medium";
  }
}
