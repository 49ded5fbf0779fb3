import type { Event } from "../../model/event.ts";
import { severityOf } from "../severity.ts";
import { type BoundedEvent, plainLine } from "./bound.ts";
import type { Origin } from "./format.ts";
import { destinationName, isIp6, nearestText, podName, signature, TEN, title } from "./words.ts";

// Lengths are those of the CEF dictionary ("Implementing ArcSight Common Event Format", version 0/26).
const HEADER_MAX = 255;
const LONG_MAX = 1023; // msg, dhost, reason, externalId is less
const CUSTOM_MAX = 4000; // cs1 ... cs6
const SHORT_MAX = 63; // act, outcome
const NAME_MAX = 31; // app, proto

/** A header field: backslash and pipe are escaped, and there is no line break (CEF, "Character Encoding"). */
export function cefHeader(text: string): string {
  return plainLine(text, HEADER_MAX).replace(/[\\|]/g, "\\$&");
}

/** An extension value: backslash and `=` are escaped, line breaks written \n and \r; other control characters are blanks. */
export function cefValue(text: string, max: number): string {
  return text
    .slice(0, max * 2)
    .split(/(\r\n|\n|\r)/)
    .map((part) => (part === "\r\n" || part === "\n" ? "\\n" : part === "\r" ? "\\r" : plainLine(part, max).replace(/[\\=]/g, "\\$&")))
    .reduce((all, part) => (all.length + part.length <= max * 2 ? all + part : all), "");
}

const ACTS: Readonly<Record<Event["verdict"], string>> = { allow: "allowed", deny: "blocked", "would-deny": "alerted", info: "none" };

/** ArcSight Common Event Format, version 0, without a syslog header. IPv6 addresses have the fields that the guide gives them. */
export function cef(event: BoundedEvent, origin: Origin): string {
  const { destination, source, evidence } = event;
  const header = ["namegate", "namegate", origin.version, signature(event), title(event)].map(cefHeader).join("|");
  const words: string[] = [];
  const say = (key: string, value: string | number | null | undefined, max = LONG_MAX): void => {
    if (value !== undefined && value !== null && value !== "") words.push(`${key}=${cefValue(String(value), max)}`);
  };
  const custom = (n: number, label: string, value: string | null | undefined): void => {
    if (value === undefined || value === null || value === "") return;
    say(`cs${n}Label`, label);
    say(`cs${n}`, value, CUSTOM_MAX);
  };
  const address = (four: string, six: string, label: string, value: string | null | undefined): void => {
    if (value === undefined || value === null) return;
    if (!isIp6(value)) return say(four, value);
    say(`${six}Label`, label);
    say(six, value);
  };
  say("rt", Date.parse(event.time));
  say("externalId", event.id, 40);
  say("cat", event.type);
  say("act", ACTS[event.verdict], SHORT_MAX);
  say("outcome", event.verdict, SHORT_MAX);
  say("reason", event.why);
  say("cnt", event.count);
  if (event.folded !== undefined) {
    say("start", Date.parse(event.folded.first));
    say("end", Date.parse(event.folded.last));
  }
  say("dvchost", origin.host, 100);
  say("deviceDirection", 1); // outbound
  address("src", "c6a2", "Source IPv6 Address", source?.address);
  if (source !== null && source.port > 0) say("spt", source.port);
  say("deviceInboundInterface", source?.interface, 128);
  address("dst", "c6a3", "Destination IPv6 Address", destination?.address);
  say("dpt", destination?.port);
  say("dhost", destinationName(event));
  say("proto", destination?.protocol, NAME_MAX);
  say("app", evidence?.application, NAME_MAX);
  say("suser", event.pod?.serviceAccountName);
  custom(1, "pod", podName(event));
  custom(2, "policy", event.policy);
  custom(3, "rule", event.rule);
  custom(4, "nearest", nearestText(event));
  custom(5, "names", destination?.names.join(" "));
  custom(6, "ja4", evidence?.ja4);
  if (event.suggestion !== undefined) {
    say("flexString1Label", "suggestion");
    say("flexString1", event.suggestion);
  }
  say("msg", event.message);
  return `CEF:0|${header}|${TEN[severityOf(event)]}|${words.join(" ")}`;
}
