/**
 * What the public schemas say of the fields that the formats write, not made from the code. Looked up in stored copies of mixed
 * versions: most OCSF classes, profiles and objects (github.com/ocsf/ocsf-schema), and the orchestrator and tls fields of ECS
 * (github.com/elastic/ecs, schemas/*.yml). From memory: the numbers of disposition_id, and the other fields of ECS.
 */

const text = { type: "string" };
const int = { type: "integer" };
const closed = (properties: Record<string, unknown>, required: readonly string[] = []): object => ({
  type: "object",
  additionalProperties: false,
  properties,
  required,
});
const endpoint = closed({
  ip: text,
  port: { type: "integer", minimum: 0, maximum: 65_535 },
  name: text,
  hostname: text,
  interface_name: text,
});

const ocsfCommon = {
  metadata: closed(
    {
      version: { type: "string", pattern: "^\\d+\\.\\d+\\.\\d+$" },
      product: closed({ name: text, vendor_name: text, version: text }),
      profiles: { type: "array", items: { enum: ["host", "container", "security_control"] } },
      uid: text,
      sequence: int,
      log_name: text,
      log_provider: text,
      original_time: text,
      event_code: text,
    },
    ["version", "product"],
  ),
  category_uid: int,
  category_name: text,
  class_uid: int,
  class_name: text,
  activity_id: int,
  activity_name: text,
  type_uid: int,
  type_name: text,
  severity_id: { enum: [0, 1, 2, 3, 4, 5, 6, 99] },
  severity: text,
  time: { type: "integer", minimum: 1e12 }, // milliseconds
  start_time: { type: "integer", minimum: 1e12 },
  end_time: { type: "integer", minimum: 1e12 },
  count: int,
  message: text,
  status_id: { enum: [0, 1, 2, 99] },
  status: text,
  status_detail: text,
  device: closed({ hostname: text, type_id: { enum: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 99] }, type: text }, [
    "type_id",
  ]),
  container: closed({ name: text, orchestrator: text }, ["name"]),
  unmapped: { type: "object" },
};
const control = {
  action_id: { enum: [0, 1, 2] },
  action: { enum: ["Unknown", "Allowed", "Denied"] },
  disposition_id: { type: "integer", minimum: 0, maximum: 27 },
  disposition: text,
  is_alert: { type: "boolean" },
  policy: closed({ name: text, uid: text }),
  firewall_rule: closed({ name: text, uid: text, desc: text }),
};
const network = {
  src_endpoint: { ...endpoint, minProperties: 1 },
  dst_endpoint: endpoint,
  connection_info: closed(
    {
      direction_id: { enum: [0, 1, 2, 3, 99] },
      direction: text,
      protocol_num: { type: "integer", minimum: 0, maximum: 255 },
      protocol_name: text,
      protocol_ver_id: { enum: [0, 4, 6, 99] },
    },
    ["direction_id"],
  ),
  app_name: text,
  tls: closed({ version: text, sni: text }, ["version"]),
  ja4_fingerprint_list: {
    type: "array",
    items: closed({ type_id: { const: 1 }, type: { const: "JA4" }, value: text }, ["type_id", "value"]),
  },
};
const REQUIRED = ["metadata", "category_uid", "class_uid", "activity_id", "type_uid", "severity_id", "time"];

export const OCSF_SCHEMAS: Readonly<Record<number, object>> = {
  0: closed({ ...ocsfCommon, ...control }, REQUIRED),
  4001: {
    ...closed({ ...ocsfCommon, ...control, ...network, activity_id: { enum: [1, 2, 3, 4, 5, 6, 7] } }, REQUIRED),
    anyOf: [{ required: ["src_endpoint"] }, { required: ["dst_endpoint"] }],
  },
  4003: {
    ...closed(
      {
        ...ocsfCommon,
        ...control,
        ...network,
        activity_id: { enum: [1, 2, 6] },
        query: closed({ hostname: text }, ["hostname"]),
        rcode_id: { const: 5 },
        rcode: { const: "Refused" },
      },
      REQUIRED,
    ),
    anyOf: [{ required: ["src_endpoint"] }, { required: ["dst_endpoint"] }],
  },
};

/** Fields of ECS, by the type of one value; `namegate.*` is ours. */
export const ECS_FIELDS: Readonly<Record<string, "string" | "number" | "ip" | "strings" | "ips">> = {
  "@timestamp": "string",
  "ecs.version": "string",
  message: "string",
  "event.id": "string",
  "event.sequence": "number",
  "event.kind": "string",
  "event.category": "strings",
  "event.type": "strings",
  "event.action": "string",
  "event.outcome": "string",
  "event.reason": "string",
  "event.severity": "number",
  "event.module": "string",
  "event.dataset": "string",
  "event.provider": "string",
  "event.start": "string",
  "event.end": "string",
  "log.level": "string",
  "host.name": "string",
  "observer.type": "string",
  "observer.vendor": "string",
  "observer.product": "string",
  "observer.version": "string",
  "observer.hostname": "string",
  "orchestrator.type": "string",
  "orchestrator.namespace": "string",
  "orchestrator.cluster.name": "string",
  "orchestrator.resource.type": "string",
  "orchestrator.resource.name": "string",
  "source.ip": "ip",
  "source.address": "string",
  "source.port": "number",
  "destination.ip": "ip",
  "destination.address": "string",
  "destination.port": "number",
  "destination.domain": "string",
  "network.direction": "string",
  "network.transport": "string",
  "network.iana_number": "string",
  "network.type": "string",
  "network.protocol": "string",
  "dns.type": "string",
  "dns.question.name": "string",
  "dns.response_code": "string",
  "tls.client.server_name": "string",
  "tls.version": "string",
  "rule.name": "string",
  "rule.ruleset": "string",
  "related.ip": "ips",
  "related.hosts": "strings",
};
/** Allowed values of the categorization fields that are used here (ECS categorization). */
export const ECS_TYPES: Readonly<Record<string, readonly string[]>> = {
  network: ["access", "allowed", "connection", "denied", "end", "info", "protocol", "start"],
  configuration: ["access", "change", "creation", "deletion", "info"],
  host: ["access", "change", "end", "info", "start"],
};
