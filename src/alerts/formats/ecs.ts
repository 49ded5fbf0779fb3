import type { Event } from "../../model/event.ts";
import { severityOf } from "../severity.ts";
import type { BoundedEvent } from "./bound.ts";
import type { Origin } from "./format.ts";
import { destinationName, isAlert, isIp6, isRefused, present, protocolNumber, question, serverName, signature, TEN } from "./words.ts";

const ECS_VERSION = "9.4.0";
/** event.type: the allowed values of category `network`. */
const TYPES: Readonly<Record<Event["verdict"], readonly string[]>> = {
  allow: ["connection", "allowed"],
  deny: ["connection", "denied"],
  "would-deny": ["connection", "allowed"],
  info: ["info"],
};
const CATEGORIES: Readonly<Record<Event["type"], string>> = {
  connection: "network",
  dns: "network",
  spoofed: "network",
  limit: "network",
  policy: "configuration",
  rules: "configuration",
  agent: "host",
};

/** Elastic Common Schema. What it has no field for is below `namegate`. */
export function ecs(event: BoundedEvent, origin: Origin): Record<string, unknown> {
  const { destination, source, evidence, pod, verdict } = event;
  const severity = severityOf(event);
  const name = destinationName(event);
  const asked = question(event);
  const address = destination?.address ?? source?.address;
  const number = protocolNumber(destination?.protocol);
  const said = serverName(event);
  const names = [...new Set([...(destination?.names ?? []), ...(said === undefined ? [] : [said])])];
  const ips = [destination?.address, source?.address].filter((one) => typeof one === "string");
  return {
    "@timestamp": event.time,
    ecs: { version: ECS_VERSION },
    ...(event.message !== null && { message: event.message }),
    event: {
      id: event.id,
      sequence: event.seq,
      kind: isAlert(event) ? "alert" : "event",
      category: [CATEGORIES[event.type]],
      type: CATEGORIES[event.type] === "network" ? TYPES[verdict] : ["info"],
      action: signature(event),
      outcome: verdict === "deny" ? "failure" : verdict === "info" ? "unknown" : "success",
      ...(event.why !== null && { reason: event.why }),
      severity: TEN[severity],
      module: "namegate",
      dataset: `namegate.${event.type}`,
      provider: "namegate",
      ...(event.folded !== undefined && { start: event.folded.first, end: event.folded.last }),
    },
    log: { level: severity },
    host: { name: origin.host },
    observer: { type: "firewall", vendor: "namegate", product: "namegate", version: origin.version, hostname: origin.host },
    ...(pod !== null && {
      orchestrator: {
        type: "kubernetes",
        namespace: pod.namespace,
        ...(origin.cluster !== undefined && { cluster: { name: origin.cluster } }),
        resource: { type: "pod", name: pod.name },
      },
    }),
    ...(source !== null && {
      source: present({ ip: source.address, address: source.address, port: source.port === 0 ? undefined : source.port }),
    }),
    ...(destination !== null && {
      destination: present({ ip: destination.address, address: destination.address ?? name, port: destination.port, domain: name }),
      network: present({
        direction: "egress",
        transport: destination.protocol?.toLowerCase(),
        iana_number: number === undefined ? undefined : String(number),
        type: typeof address === "string" ? (isIp6(address) ? "ipv6" : "ipv4") : undefined,
        protocol: event.type === "dns" ? "dns" : evidence?.application,
      }),
    }),
    ...(event.type === "dns" && {
      dns: present({
        type: "query",
        question: asked === undefined ? undefined : { name: asked },
        response_code: isRefused(event) ? "REFUSED" : undefined,
      }),
    }),
    ...(said !== undefined && {
      tls: present({
        client: { server_name: said },
        version: evidence?.application === "tls" ? evidence?.version : undefined,
      }),
    }),
    ...((event.rule ?? event.policy) !== null && { rule: present({ name: event.rule, ruleset: event.policy }) }),
    ...(ips.length + names.length > 0 && {
      related: present({ ip: ips.length > 0 ? ips : undefined, hosts: names.length > 0 ? names : undefined }),
    }),
    namegate: present({
      verdict,
      mode: event.mode,
      count: event.count,
      policies: event.policies.length > 0 ? event.policies : undefined,
      nearest: event.nearest,
      // A list: a label's name may have dots, which would be levels here, and anybody may choose it.
      labels: pod === null ? undefined : Object.entries(pod.labels).map(([key, value]) => `${key}=${value}`),
      service_account: pod?.serviceAccountName,
      interface: source?.interface,
      dns: evidence?.dns,
      ja4: evidence?.ja4,
      alpn: evidence?.alpn,
      ech: evidence?.ech,
      fields: evidence?.fields,
      suggestion: event.suggestion,
      exceeded: event.exceeded,
      change: event.change,
    }),
  };
}
