import {
  type AlertSettings,
  FACILITIES,
  type FilterSettings,
  FORMATS,
  OCSF_VERSIONS,
  SEVERITIES,
  type SinkSettings,
  type TargetSettings,
  type TlsSettings,
} from "../../model/alerts.ts";
import type { Path } from "../../policy/yaml.ts";
import { choice, duration, fields, flag, list, matching, number, type Reader, type Say, size, text } from "./fields.ts";

const TYPES = ["stdout", "file", "syslog", "splunk", "elastic", "otlp", "webhook"] as const;
type SinkType = (typeof TYPES)[number];
const TRANSPORTS = ["udp", "tcp", "tls"] as const;
const FRAMINGS = ["octet-counting", "newline"] as const;
const EVENT_TYPES = ["connection", "dns", "spoofed", "limit", "policy", "rules", "agent"] as const;
const VERDICTS = ["allow", "deny", "would-deny", "info"] as const;

const KIB = 1024;
const MIB = 1024 * KIB;
const file = matching(/^\//, "an absolute path");
const sinkName = matching(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, "lower case letters, digits and `-`");
const host = matching(
  /^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]):[0-9]{1,5}$/,
  "HOST:PORT, for example siem.example.com:6514 or [2001:db8::1]:514",
);
const namespace = matching(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, "the name of a namespace");
const policyId = matching(/^[a-z0-9.-]{1,253}(\/[a-z0-9.-]{1,253})?$/, "NAMESPACE/NAME, or NAME of a ClusterEgressPolicy");
const index = matching(/^[a-z0-9][a-z0-9._-]{0,254}$/, "lower case letters, digits, `.`, `_` and `-`");
const clusterName = matching(/^[\x21-\x7e]{1,253}$/, "printable ASCII without blanks");

const tlsFields = fields({ caFile: file, certFile: file, keyFile: file, serverName: matching(/^[A-Za-z0-9.-]{1,253}$/, "a host name") });
const tls: Reader<NonNullable<ReturnType<typeof tlsFields>>> = (value, path, say) => {
  const found = tlsFields(value, path, say);
  if (found !== undefined && (found.certFile === undefined) !== (found.keyFile === undefined))
    say(path, "`certFile` and `keyFile` are needed both, or neither", undefined);
  return found;
};

const url: Reader<string> = (value, path, say) => {
  const found = text(value, path, say);
  if (found === undefined) return undefined;
  const no = (message: string, hint: string): undefined => {
    say(path, message, hint);
    return undefined;
  };
  const parsed = URL.canParse(found) ? new URL(found) : undefined;
  if (parsed === undefined || (parsed.protocol !== "https:" && parsed.protocol !== "http:"))
    return no("is no URL of http or https", "for example https://siem.example.com:8088");
  if (parsed.username !== "" || parsed.password !== "")
    return no("has a secret in it", "secrets come from files: tokenFile, basicFile and so on");
  if (parsed.search !== "" || parsed.hash !== "") return no("has a query or a fragment", "end it with the path");
  return found;
};

const COMMON = {
  name: sinkName,
  type: choice(TYPES),
  format: choice(FORMATS),
  ocsfVersion: choice(OCSF_VERSIONS),
  filter: fields({
    severity: choice(SEVERITIES),
    types: list(choice(EVENT_TYPES)),
    verdicts: list(choice(VERDICTS)),
    namespaces: list(namespace),
    policies: list(policyId),
  }),
} as const;
const SPOOLED = {
  spool: size(MIB, 16 * KIB * MIB),
  batch: fields({ events: number(1, 10_000), bytes: size(KIB, 64 * MIB), linger: duration(0, 60_000), timeout: duration(100, 300_000) }),
  tls,
} as const;

/** What each type has beside COMMON. */
const OWN = {
  stdout: {},
  file: { path: file, size: size(KIB, 1024 * KIB * MIB), keep: number(1, 100) },
  syslog: {
    ...SPOOLED,
    address: host,
    transport: choice(TRANSPORTS),
    facility: choice(Object.keys(FACILITIES) as (keyof typeof FACILITIES)[]),
    framing: choice(FRAMINGS),
  },
  splunk: {
    ...SPOOLED,
    url,
    tokenFile: file,
    index: matching(/^[A-Za-z0-9_-]{1,80}$/, "the name of an index"),
    sourcetype: matching(/^[\x21-\x7e]{1,128}$/, "printable ASCII"),
    ack: flag,
  },
  elastic: { ...SPOOLED, url, index, apiKeyFile: file, basicFile: file },
  otlp: { ...SPOOLED, url, authorizationFile: file },
  webhook: { ...SPOOLED, url, secretFile: file },
} as const;
const REQUIRED: Readonly<Record<SinkType, readonly string[]>> = {
  stdout: [],
  file: ["path"],
  syslog: ["address"],
  splunk: ["url", "tokenFile"],
  elastic: ["url"],
  otlp: ["url"],
  webhook: ["url", "secretFile"],
};
/** These are sent as they are; without TLS anybody on the way has them. (The webhook's secret only signs.) */
const SENT_SECRETS = ["tokenFile", "apiKeyFile", "basicFile", "authorizationFile"] as const;
const DEFAULT_FORMAT: Readonly<Record<SinkType, (typeof FORMATS)[number]>> = {
  stdout: "json",
  file: "json",
  syslog: "json",
  splunk: "json",
  elastic: "ecs",
  otlp: "json",
  webhook: "json",
};

/** Every field of every type: their readers have said what they are. */
type Given = { readonly [K in keyof typeof COMMON]?: Read<(typeof COMMON)[K]> } & {
  readonly [K in keyof AllOwn]?: Read<AllOwn[K]>;
};
type AllOwn = typeof OWN.file & typeof OWN.syslog & typeof OWN.splunk & typeof OWN.elastic & typeof OWN.otlp & typeof OWN.webhook;
type Read<R> = R extends Reader<infer T> ? T | undefined : never;

const sink: Reader<SinkSettings> = (value, path, say) => {
  const { type } = (typeof value === "object" && value !== null ? value : {}) as { type?: unknown };
  const known = TYPES.find((one) => one === type);
  if (known === undefined) {
    say(
      [...path, ...(type === undefined ? [] : ["type"])],
      type === undefined ? "has no `type`" : "is no type of sink",
      `one of ${TYPES.join(", ")}`,
    );
    return undefined;
  }
  const given = fields({ ...COMMON, ...OWN[known] })(value, path, say) as Given | undefined;
  if (given === undefined) return undefined;
  const missing = REQUIRED[known].filter((field) => !(field in (value as object)));
  for (const field of missing) say(path, `\`${field}\` is missing`, `a sink of type ${known} needs it`);
  check(given, path, say);
  const target = targetOf(known, given);
  return target === undefined ? undefined : sinkOf(known, given, target);
};

function check(given: Given, path: Path, say: Say): void {
  const overTls = (given.transport ?? "tls") === "tls";
  if (given.ocsfVersion !== undefined && given.format !== "ocsf") say([...path, "ocsfVersion"], "needs `format: ocsf`", undefined, "key");
  if (given.apiKeyFile !== undefined && given.basicFile !== undefined)
    say([...path, "basicFile"], "`apiKeyFile` is given too", "remove one of them", "key");
  if (overTls && given.framing === "newline") say([...path, "framing"], "TLS has octet counting only (RFC 5425)", "remove it");
  if (given.address !== undefined && given.tls !== undefined && !overTls) say([...path, "tls"], "needs `transport: tls`", undefined, "key");
  const port = Number(/\d+$/.exec(given.address ?? "1")?.[0]);
  if (port < 1 || port > 65_535) say([...path, "address"], "has a port that there is not", undefined);
  if (given.url === undefined) return;
  const { protocol, hostname } = new URL(given.url);
  if (protocol === "https:") return;
  if (given.tls !== undefined) say([...path, "tls"], "needs a URL with https", undefined, "key");
  if (hostname === "localhost" || hostname === "127.0.0.1" || hostname === "[::1]") return;
  for (const field of SENT_SECRETS) if (given[field] !== undefined) say([...path, "url"], `would send ${field} in the clear`, "use https");
}

const NO_TLS: TlsSettings = { caFile: undefined, certFile: undefined, keyFile: undefined, serverName: undefined };

/** undefined: something that is needed is not there, and was said. */
function targetOf(type: SinkType, given: Given): TargetSettings | undefined {
  const common = { url: given.url ?? "", tls: { ...NO_TLS, ...given.tls } };
  if (type !== "stdout" && type !== "file" && type !== "syslog" && given.url === undefined) return undefined;
  switch (type) {
    case "stdout":
      return { kind: "stdout" };
    case "file":
      return given.path === undefined
        ? undefined
        : { kind: "file", path: given.path, maxBytes: given.size ?? 100 * MIB, keep: given.keep ?? 5 };
    case "syslog": {
      if (given.address === undefined) return undefined;
      const colon = given.address.lastIndexOf(":");
      return {
        kind: "syslog",
        transport: given.transport ?? "tls",
        host: given.address.slice(0, colon).replace(/^\[|\]$/g, ""),
        port: Number(given.address.slice(colon + 1)),
        facility: given.facility ?? "local0",
        framing: given.framing ?? "octet-counting",
        tls: common.tls,
      };
    }
    case "splunk": {
      const { tokenFile, index: into, sourcetype = "namegate", ack = false } = given;
      return tokenFile === undefined ? undefined : { kind: "splunk", ...common, tokenFile, index: into, sourcetype, ack };
    }
    case "elastic":
      // A data stream, which the templates that come with Elasticsearch have a mapping for.
      return {
        kind: "elastic",
        ...common,
        index: given.index ?? "logs-namegate-default",
        apiKeyFile: given.apiKeyFile,
        basicFile: given.basicFile,
      };
    case "otlp":
      return { kind: "otlp", ...common, authorizationFile: given.authorizationFile };
    case "webhook":
      return given.secretFile === undefined ? undefined : { kind: "webhook", ...common, secretFile: given.secretFile };
    default:
      return type satisfies never;
  }
}

function sinkOf(type: SinkType, given: Given, target: TargetSettings): SinkSettings {
  const filter: FilterSettings = {
    severity: given.filter?.severity ?? "info",
    types: given.filter?.types,
    verdicts: given.filter?.verdicts,
    namespaces: given.filter?.namespaces,
    policies: given.filter?.policies,
  };
  return {
    name: given.name ?? type,
    format: given.format ?? DEFAULT_FORMAT[type],
    ocsfVersion: given.ocsfVersion ?? "1.8.0",
    filter,
    target,
    spoolBytes: given.spool ?? 64 * MIB,
    batch: {
      events: given.batch?.events ?? 500,
      bytes: given.batch?.bytes ?? MIB,
      lingerMs: given.batch?.linger ?? 200,
      timeoutMs: given.batch?.timeout ?? 10_000,
    },
  };
}

const section = fields({
  cluster: clusterName,
  fold: fields({ window: duration(0, 3_600_000), podPerSecond: number(1, 100_000), nodePerSecond: number(1, 100_000) }),
  sinks: list(sink),
});

/** The section `alerts:` of the agent's configuration. Without sinks events go to stdout. */
export const alerts: Reader<AlertSettings> = (value, path, say) => {
  const given = section(value, path, say);
  if (given === undefined) return undefined;
  const sinks = given.sinks ?? [sinkOf("stdout", {}, { kind: "stdout" })];
  for (const [i, { name, target }] of sinks.entries()) {
    if (sinks.findIndex((other) => other.name === name) < i)
      say(
        [...path, "sinks", i],
        `another sink has the name \`${name}\` too`,
        "give them different names: their spools and metrics have them",
      );
    if (target.kind === "file" && sinks.findIndex((other) => other.target.kind === "file" && other.target.path === target.path) < i)
      say([...path, "sinks", i, "path"], "another sink writes to this file", undefined);
  }
  return {
    cluster: given.cluster,
    sinks,
    fold: {
      windowMs: given.fold?.window ?? 60_000,
      podPerSecond: given.fold?.podPerSecond ?? 20,
      nodePerSecond: given.fold?.nodePerSecond ?? 500,
    },
  };
};
