import { severityOf } from "../severity.ts";
import { type BoundedEvent, plainLine } from "./bound.ts";
import type { Origin } from "./format.ts";
import { destinationName, nearestText, podName, signature, TEN } from "./words.ts";

const HEADER_MAX = 255;
const VALUE_MAX = 1024;

/** A header field: LEEF has no escape, so that a pipe is written `_`. */
export function leefHeader(text: string): string {
  return plainLine(text, HEADER_MAX).replaceAll("|", "_");
}

/** IBM's Log Event Extended Format 2.0; attributes are separated by tabs, which plainLine takes out of every value. */
export function leef(event: BoundedEvent, origin: Origin): string {
  const { destination, source, evidence, pod } = event;
  const header = ["namegate", "namegate", origin.version, signature(event)].map(leefHeader).join("|");
  const words: string[] = [];
  const say = (key: string, value: string | number | null | undefined): void => {
    if (value !== undefined && value !== null && value !== "") words.push(`${key}=${plainLine(String(value), VALUE_MAX)}`);
  };
  // Predefined keys first ("Predefined LEEF event attributes"), then our own.
  say("cat", event.type);
  say("devTime", Date.parse(event.time));
  say("sev", TEN[severityOf(event)]);
  say("proto", destination?.protocol);
  say("src", source?.address);
  if (source !== null && source.port > 0) say("srcPort", source.port);
  say("dst", destination?.address);
  say("dstPort", destination?.port);
  say("usrName", pod?.serviceAccountName);
  say("policy", event.policy);
  say("resource", podName(event));
  say("eventId", event.id);
  say("verdict", event.verdict);
  say("reason", event.why);
  say("mode", event.mode);
  say("rule", event.rule);
  say("nearest", nearestText(event));
  say("dstHost", destinationName(event));
  say("dnsNames", destination?.names.join(","));
  say("application", evidence?.application);
  say("ja4", evidence?.ja4);
  say("node", origin.host);
  say("cluster", origin.cluster);
  say("count", event.count);
  say("firstTime", event.folded?.first);
  say("lastTime", event.folded?.last);
  say("msg", event.message);
  return `LEEF:2.0|${header}|x09|${words.join("\t")}`;
}
