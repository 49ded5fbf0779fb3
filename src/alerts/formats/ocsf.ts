import type { OcsfVersion, Severity } from "../../model/alerts.ts";
import type { Event } from "../../model/event.ts";
import { severityOf } from "../severity.ts";
import type { BoundedEvent } from "./bound.ts";
import type { Origin } from "./format.ts";
import {
  destinationName,
  isAlert,
  isIp6,
  isRefused,
  nearestText,
  podName,
  present,
  protocolNumber,
  question,
  serverName,
} from "./words.ts";

/**
 * Open Cybersecurity Schema Framework (github.com/ocsf/ocsf-schema): Network Activity (4001) for connections and spoofed
 * packets, DNS Activity (4003) for queries, the base event (0) for what the agent says of itself and its policies; with the
 * profiles security_control, container and host. Captions and numbers are the schema's.
 */

const SEVERITY: Readonly<Record<Severity, readonly [number, string]>> = {
  info: [1, "Informational"],
  low: [2, "Low"],
  medium: [3, "Medium"],
  high: [4, "High"],
  critical: [5, "Critical"],
};

const ALERTED = [1, "Allowed", 19, "Alert"] as const;
/** action_id, action, disposition_id, disposition: profile security_control. */
const OUTCOME: Readonly<Record<Event["verdict"], readonly [number, string, number, string] | undefined>> = {
  allow: [1, "Allowed", 1, "Allowed"],
  deny: [2, "Denied", 2, "Blocked"],
  "would-deny": ALERTED,
  info: undefined,
};
const DROPPED = [2, "Denied", 6, "Dropped"] as const; // nobody is answered

interface Class {
  readonly category: readonly [number, string];
  readonly uid: number;
  readonly name: string;
  readonly activity: readonly [number, string];
}

function classOf(event: Event): Class {
  const { type, verdict } = event;
  const network = [4, "Network Activity"] as const;
  switch (type) {
    case "connection":
    case "spoofed":
      return { category: network, uid: 4001, name: "Network Activity", activity: verdict === "deny" ? [5, "Refuse"] : [1, "Open"] };
    case "dns":
      // A refusal is a query and its answer.
      return { category: network, uid: 4003, name: "DNS Activity", activity: isRefused(event) ? [6, "Traffic"] : [1, "Query"] };
    case "limit":
    case "policy":
    case "rules":
    case "agent":
      return { category: [0, "Uncategorized"], uid: 0, name: "Base Event", activity: [99, type] };
    default:
      return type satisfies never;
  }
}

export function ocsf(event: BoundedEvent, origin: Origin, version: OcsfVersion): Record<string, unknown> {
  const { category, uid, name, activity } = classOf(event);
  const [severityId, severity] = SEVERITY[severityOf(event)];
  const networked = category[0] === 4;
  const outcome = event.type === "spoofed" ? DROPPED : event.verdict === "allow" && isAlert(event) ? ALERTED : OUTCOME[event.verdict];
  const profiles = ["host", ...(outcome === undefined ? [] : ["security_control"]), ...(event.pod === null ? [] : ["container"])];
  return {
    metadata: {
      version,
      product: { name: "namegate", vendor_name: "namegate", version: origin.version },
      profiles,
      uid: event.id,
      sequence: event.seq,
      log_name: "egress",
      log_provider: "namegate",
      original_time: event.time,
      ...(event.why !== null && { event_code: event.why }),
    },
    category_uid: category[0],
    category_name: category[1],
    class_uid: uid,
    class_name: name,
    activity_id: activity[0],
    activity_name: activity[1],
    type_uid: uid * 100 + activity[0],
    type_name: `${name}: ${activity[1]}`,
    severity_id: severityId,
    severity,
    time: Date.parse(event.time),
    ...(event.folded !== undefined && { start_time: Date.parse(event.folded.first), end_time: Date.parse(event.folded.last) }),
    count: event.count,
    ...(event.message !== null && { message: event.message }),
    ...(networked && { status_id: event.verdict === "deny" ? 2 : 1, status: event.verdict === "deny" ? "Failure" : "Success" }),
    ...(event.why !== null && { status_detail: event.why }),
    device: { hostname: origin.host, type_id: 1, type: "Server" },
    ...(event.pod !== null && { container: { name: event.pod.name, orchestrator: "kubernetes" } }),
    ...(outcome !== undefined && control(event, outcome)),
    ...(networked && network(event)),
    ...(event.type === "dns" && dns(event)),
    unmapped: present({
      cluster: origin.cluster,
      mode: event.mode,
      pod: event.pod,
      policies: event.policies.length > 0 ? event.policies : undefined,
      nearest: event.nearest,
      names: event.destination?.names,
      dns: event.evidence?.dns,
      fields: event.evidence?.fields,
      suggestion: event.suggestion,
      exceeded: event.exceeded,
      change: event.change,
    }),
  };
}

function control(event: BoundedEvent, [actionId, action, dispositionId, disposition]: readonly [number, string, number, string]): object {
  const nearest = nearestText(event);
  return {
    action_id: actionId,
    action,
    disposition_id: dispositionId,
    disposition,
    is_alert: isAlert(event),
    ...(event.policy !== null && { policy: { name: event.policy, uid: event.policy } }),
    ...(event.rule !== null && { firewall_rule: { name: event.rule, uid: `${event.policy ?? ""}/${event.rule}` } }),
    ...(event.rule === null && nearest !== undefined && { firewall_rule: { name: "default deny", desc: `nearest rule: ${nearest}` } }),
  };
}

function network(event: BoundedEvent): object {
  const { destination, source, evidence } = event;
  const number = protocolNumber(destination?.protocol);
  const pod = podName(event);
  const address = destination?.address ?? source?.address;
  const name = destinationName(event);
  const sni = serverName(event);
  return {
    src_endpoint: present({
      ip: source?.address,
      port: source === null || source.port === 0 ? undefined : source.port,
      name: pod ?? (source === null ? "unknown" : undefined),
      interface_name: source?.interface,
    }),
    ...(destination !== null && {
      dst_endpoint: present({ ip: destination.address, port: destination.port, hostname: name }),
    }),
    connection_info: {
      direction_id: 2,
      direction: "Outbound",
      ...(number !== undefined && { protocol_num: number }),
      ...(typeof destination?.protocol === "string" && { protocol_name: destination.protocol.toLowerCase() }),
      ...(typeof address === "string" && { protocol_ver_id: isIp6(address) ? 6 : 4 }),
    },
    ...(typeof evidence?.application === "string" && { app_name: evidence.application }),
    // The schema wants a version in `tls`.
    ...(sni !== undefined && evidence?.version !== undefined && { tls: { version: evidence.version, sni } }),
    ...(typeof evidence?.ja4 === "string" && { ja4_fingerprint_list: [{ type_id: 1, type: "JA4", value: evidence.ja4 }] }),
  };
}

function dns(event: BoundedEvent): object {
  const name = question(event);
  return {
    ...(name !== undefined && { query: { hostname: name } }),
    ...(isRefused(event) && { rcode_id: 5, rcode: "Refused" }),
  };
}
