import type { Event } from "../model/event.ts";
import { plain } from "./kubectl-merge.ts";
import { BOLD, DIM, GREEN, type Paint, RED, unpainted, YELLOW } from "./terminal.ts";

export interface Look {
  readonly paint: Paint;
  /** `YYYY-MM-DD`: the date of events of other days is shown; undefined: of none. */
  readonly today: string | undefined;
  /** The event's id at the end, for `namegate explain`. */
  readonly ids: boolean;
}
const BARE: Look = { paint: unpainted, today: undefined, ids: false };

const COLOURS: Readonly<Record<Event["verdict"], number>> = { allow: GREEN, deny: RED, "would-deny": YELLOW, info: DIM };

/** What about the nearest rule did not do. */
const CLAUSES: Readonly<Record<string, string>> = {
  name: "its names do not match",
  port: "its port does not match",
  stale: "its name matches, but the DNS answer is too old",
  "server-name": "its server name does not match",
  application: "its application does not match",
  identity: "its users, databases, paths and so on do not match",
};
/** Where the evidence alone does not tell what was wrong. */
const WITH_DETAIL: ReadonlySet<string> = new Set(["evasion", "incomplete", "names-disagree", "fault"]);
const NAMES_SHOWN = 1;
const POLICIES_SHOWN = 3;
const FIELDS_SHOWN = 4;

/** One event on one line for a person. Nothing in it that a terminal would obey but our own colours. */
export function eventText(event: Event, { paint, today, ids }: Look = BARE): string {
  const denied = event.verdict === "deny" || event.verdict === "would-deny";
  return [
    paint(DIM, timeText(event.time, today)),
    paint(COLOURS[event.verdict], event.verdict.toUpperCase().padEnd(10)),
    plain(podText(event)),
    plain(destinationText(event)),
    plain(seenText(event)),
    denied ? paint(BOLD, plain(event.why ?? "")) : plain(event.why ?? ""),
    plain(detailText(event)),
    plain(ruleText(event)),
    plain(saidText(event)),
    plain(countText(event)),
    ids && event.id !== "" && event.verdict !== "info" ? paint(DIM, `id ${plain(event.id)}`) : "",
  ]
    .filter((part) => part !== "")
    .join(" ")
    .trimEnd();
}

export function timeText(time: string, today: string | undefined): string {
  const at = plain(time.slice(11, 23));
  return today === undefined || time.startsWith(today) ? at : `${plain(time.slice(0, 10))} ${at}`;
}

export const podText = ({ pod }: Event): string => (pod === null ? "-" : `${pod.namespace}/${pod.name}`);

function destinationText({ destination }: Event): string {
  if (destination === null) return "";
  const { names } = destination;
  const more = names.length > NAMES_SHOWN ? ` (+${names.length - NAMES_SHOWN} names)` : "";
  return `→ ${names.length === 0 ? "" : `${names[0]}${more} `}${placeText(destination)}`.trimEnd();
}

export function placeText({ address, port, protocol }: NonNullable<Event["destination"]>): string {
  if (address === null) return "";
  const host = address.includes(":") ? `[${address}]` : address;
  if (protocol === "ICMP" || protocol === "ICMPv6") return `${address} ${protocol} type ${(port ?? 0) >> 8} code ${(port ?? 0) & 255}`;
  return `${host}:${port ?? 0}/${protocol ?? "?"}`;
}

function seenText({ type, evidence }: Event): string {
  if (type === "dns") return "[query]";
  if (evidence === null) return "";
  const { application, upgrade, serverName, ech, fields = {} } = evidence;
  const said = Object.entries(fields).slice(0, FIELDS_SHOWN);
  const parts = [
    ...(application === null ? [] : [upgrade === undefined ? application : `${application}, then ${upgrade}`]),
    ...(serverName === null ? [] : [`server name ${serverName}`]),
    ...(ech === true ? ["ECH"] : []),
    ...said.map(([field, value]) => `${field} ${value}`),
  ];
  return parts.length === 0 ? "" : `[${parts.join(", ")}]`;
}

function detailText({ why, message }: Event): string {
  if (why === null || message === null || !WITH_DETAIL.has(why)) return "";
  const at = message.indexOf(`: ${why}: `);
  return at < 0 ? "" : `(${message.slice(at + why.length + 4)})`;
}

export function ruleText(event: Event): string {
  const { rule, policy, nearest, policies, verdict, type, why, message } = event;
  if (rule !== null) return `by ${policy}/${rule}`;
  // worker/inspection.ts says what the rule would have liked to see.
  const wanted = why === "wrong-protocol" ? (message?.lastIndexOf("; ") ?? -1) : -1;
  if (nearest !== null && wanted >= 0) return `(nearest: ${message?.slice(wanted + 2)})`;
  if (nearest !== null) return `(nearest: ${nearest.policy}/${nearest.rule}, ${clauseText(nearest.clause)})`;
  if ((verdict !== "deny" && verdict !== "would-deny") || (type !== "connection" && type !== "dns") || policies.length === 0) return "";
  const more = policies.length > POLICIES_SHOWN ? ` and ${policies.length - POLICIES_SHOWN} more` : "";
  return `(no rule of ${policies.slice(0, POLICIES_SHOWN).join(", ")}${more} comes near)`;
}

export const clauseText = (clause: string): string =>
  Object.hasOwn(CLAUSES, clause) ? (CLAUSES[clause] as string) : `its ${clause} does not match`;

/** What only the message has. */
function saidText({ type, destination, source, message }: Event): string {
  if (destination === null) return message ?? "";
  if (type === "spoofed") return `from ${source?.address ?? "?"} on ${source?.interface ?? "?"}`;
  if (type === "limit") return message ?? "";
  return heldBack(message ?? "");
}

/** The end of a message about events that were held back (worker/context.ts). */
function heldBack(message: string): string {
  const at = message.lastIndexOf(" (");
  return at >= 0 && message.endsWith("held back before this one)") ? message.slice(at + 1) : "";
}

function countText({ count, folded }: Event): string {
  if (count <= 1) return "";
  return `×${count}${folded === undefined ? "" : ` since ${folded.first.slice(11, 19)}`}`;
}
