import { Protocol } from "../../model/packet.ts";
import type { Event, Notice } from "../../model/event.ts";
import type { Severity } from "../../model/alerts.ts";

/** What several formats say in the same words. */

/** 0 to 10, as CEF and LEEF (1 to 10) count. */
export const TEN: Readonly<Record<Severity, number>> = { info: 1, low: 3, medium: 5, high: 8, critical: 10 };

/** `connection.no-rule`: names what happened, for rules of the receiver. */
export function signature({ type, verdict, why }: Event): string {
  return `${type}.${why ?? verdict}`;
}

const TITLES: Readonly<Record<Event["type"], string>> = {
  connection: "Connection",
  dns: "DNS query",
  spoofed: "Spoofed packet",
  limit: "Limit reached",
  policy: "Policy",
  rules: "Kernel state repaired",
  agent: "Agent",
};
const DONE: Readonly<Record<Event["verdict"], string>> = { allow: "allowed", deny: "denied", "would-deny": "would be denied", info: "" };

const NOTICES: Readonly<Record<Notice, string>> = {
  "untrusted-resolver": "DNS with an untrusted resolver",
  "dns-over-tls": "DNS over TLS or QUIC",
  "dns-over-https": "DNS over HTTPS",
  "dns-tunnel": "Signs of a DNS tunnel",
  "policy-accepted": "Policy accepted",
  "policy-changed": "Policy changed",
  "policy-removed": "Policy removed",
  "policy-invalid": "Policy invalid",
  "policy-mode-raised": "Mode of a policy raised",
  "policy-mode-lowered": "Mode of a policy lowered",
  "effective-mode": "Effective mode",
  "effective-mode-lowered": "Effective mode lowered",
  "input-invalid": "Input invalid",
  "inputs-live": "Inputs can be read",
  "no-resolver": "No trusted resolver",
  started: "Agent started",
  stopped: "Agent stopped",
  degraded: "Agent degraded",
  unenforceable: "Pod not enforced",
  "enforcing-again": "Enforcing again",
  "not-enforcing": "NOT ENFORCING",
  "rules-restored": "Rules restored",
  "rules-contended": "Rules altered again and again",
  "groups-restored": "Interface groups restored",
  "set-repaired": "Set repaired",
  "queue-full": "Queue full",
  "queue-enobufs": "Queue overrun",
  "queue-gap": "Queue lost packets",
  "queue-rebind": "Queue bound again",
  "queue-watchdog": "Packets held too long",
  "queue-fault": "Queue fault",
  "too-many-bindings": "Too many addresses learned",
  "too-much-work": "Pod costs too much work",
  "bindings-evicted": "Learned addresses forgotten",
  "events-held-back": "Events held back",
  "alerts-lost": "Alerts lost",
  "alerts-limited": "Alerts limited",
  "alerts-refused": "Alerts refused by a collector",
};

export function title({ type, verdict, why }: Event): string {
  const notice = why !== null && Object.hasOwn(NOTICES, why) ? NOTICES[why as Notice] : undefined;
  return `${notice ?? TITLES[type]} ${DONE[verdict]}`.trim();
}

/** Worth a look: a denial, and what went through with a reason to look at it. */
export function isAlert({ verdict, why }: Event): boolean {
  return verdict === "deny" || verdict === "would-deny" || (verdict === "allow" && why !== null);
}

/** Of a `dns` event: the name asked for, as far as it is known. */
export function question({ destination, evidence, why }: Event): string | undefined {
  // Of a resolver's event the names are the server's own.
  const ofServer = why === "untrusted-resolver" || why === "dns-over-tls" || why === "dns-over-https";
  return ofServer ? evidence?.fields?.query : destination?.names[0];
}

/** Was a query answered with REFUSED? */
export function isRefused({ type, verdict, why }: Event): boolean {
  return type === "dns" && verdict === "deny" && why !== "untrusted-resolver" && why !== "dns-over-tls" && why !== "dns-over-https";
}

/** The IP protocol number of `TCP`, `UDP`, ... or of a number as text; undefined where it is neither. */
export function protocolNumber(text: string | null | undefined): number | undefined {
  if (text === null || text === undefined) return undefined;
  if (Object.hasOwn(Protocol, text)) return Protocol[text as keyof typeof Protocol];
  return /^\d{1,3}$/.test(text) && Number(text) < 256 ? Number(text) : undefined;
}

/** `ns/name`. */
export function podName(event: Event): string | undefined {
  return event.pod === null ? undefined : `${event.pod.namespace}/${event.pod.name}`;
}

/** `shop/checkout/stripe: port` */
export function nearestText({ nearest }: Event): string | undefined {
  return nearest === null ? undefined : `${nearest.policy}/${nearest.rule}: ${nearest.clause}`;
}

/** The name of the server that the client itself gave. (Of DNS the first bytes have a name too: what is asked for.) */
export function serverName({ evidence }: Event): string | undefined {
  return evidence?.application === "dns" ? undefined : (evidence?.serverName ?? undefined);
}

/** The name that the destination is best known by: what the client itself said, else what DNS did. */
export function destinationName(event: Event): string | undefined {
  return serverName(event) ?? event.destination?.names[0];
}

/** An address literal with a colon is IPv6. */
export function isIp6(address: string): boolean {
  return address.includes(":");
}

/** Drops fields that are undefined or null, and mappings with nothing in them. */
export function present<T extends object>(fields: T): Partial<T> | undefined {
  const found = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  return found.length === 0 ? undefined : (Object.fromEntries(found) as Partial<T>);
}
