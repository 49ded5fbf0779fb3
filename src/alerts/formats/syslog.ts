import { FACILITIES, type Facility, type Severity } from "../../model/alerts.ts";
import { severityOf } from "../severity.ts";
import { type BoundedEvent, plainLine } from "./bound.ts";
import { nearestText, podName } from "./words.ts";

/** RFC 5424 §6.2.1. */
const LEVELS: Readonly<Record<Severity, number>> = { info: 6, low: 5, medium: 4, high: 3, critical: 2 };
/** The private enterprise number that RFC 5612 keeps for documentation: namegate has none of its own. */
const SD_ID = "namegate@32473";
const PARAM_MAX = 512;

/** A header field: printable ASCII without blanks, `-` where nothing is left (RFC 5424 §6). */
export function headerField(text: string, max: number): string {
  const found = text.slice(0, max).replace(/[^\x21-\x7e]/g, "_");
  return found === "" ? "-" : found;
}

/** PARAM-VALUE: quote, backslash and `]` are escaped (RFC 5424 §6.3.3). */
export function paramValue(text: string): string {
  return plainLine(text, PARAM_MAX).replace(/["\\\]]/g, "\\$&");
}

/** One RFC 5424 message, no line break in it. `body` is the event in a format of the sink's choice; the header repeats what receivers sort by. */
export function syslogMessage(event: BoundedEvent, host: string, pid: number, facility: Facility, body: string): string {
  const priority = FACILITIES[facility] * 8 + LEVELS[severityOf(event)];
  const params: string[] = [];
  const say = (name: string, value: string | null | undefined): void => {
    if (value !== undefined && value !== null && value !== "") params.push(` ${name}="${paramValue(value)}"`);
  };
  say("id", event.id);
  say("verdict", event.verdict);
  say("why", event.why);
  say("pod", podName(event));
  say("policy", event.policy);
  say("rule", event.rule);
  say("nearest", nearestText(event));
  return `<${priority}>1 ${event.time} ${headerField(host, 255)} namegate ${pid} ${headerField(event.type, 32)} [${SD_ID}${params.join("")}] ${body}`;
}

/** MSG-LEN SP SYSLOG-MSG; the length counts octets (RFC 6587 §3.4.1, RFC 5425 §4.3). */
export function octetCounted(message: string): Buffer {
  const bytes = Buffer.from(message, "utf8");
  return Buffer.concat([Buffer.from(`${bytes.length} `), bytes]);
}
