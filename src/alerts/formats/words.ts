import { Protocol } from "../../model/packet.ts";
import type { Event } from "../../model/event.ts";
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

export function title({ type, verdict }: Event): string {
  return `${TITLES[type]} ${DONE[verdict]}`.trim();
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

/** The name that the destination is best known by: what the client itself said, else what DNS did. */
export function destinationName({ evidence, destination }: Event): string | undefined {
  return evidence?.serverName ?? destination?.names[0];
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
