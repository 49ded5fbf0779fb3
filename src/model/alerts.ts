/** How alerts are sent: the settings of `alerts:` in the agent's configuration, defaults filled in. */

export const SEVERITIES = ["info", "low", "medium", "high", "critical"] as const;
/** In rising order, as in SEVERITIES. */
export type Severity = (typeof SEVERITIES)[number];

export const FORMATS = ["json", "ocsf", "ecs", "cef", "leef"] as const;
export type FormatName = (typeof FORMATS)[number];

/** metadata.version of OCSF. Earlier ones have no `ja4_fingerprint_list`. */
export const OCSF_VERSIONS = ["1.4.0", "1.5.0", "1.6.0", "1.7.0", "1.8.0"] as const;
export type OcsfVersion = (typeof OCSF_VERSIONS)[number];

export interface AlertSettings {
  readonly sinks: readonly SinkSettings[];
  readonly fold: FoldSettings;
  /** Of the cluster, in every event of the formats that have a place for it. */
  readonly cluster: string | undefined;
}

export interface FoldSettings {
  /** Repeats of one event are folded for this long; 0: nothing is folded. */
  readonly windowMs: number;
  /** Lines of one pod a second, and of all together. */
  readonly podPerSecond: number;
  readonly nodePerSecond: number;
}

/** Every condition that is given must hold. */
export interface FilterSettings {
  /** This or worse. */
  readonly severity: Severity;
  readonly types: readonly string[] | undefined;
  readonly verdicts: readonly string[] | undefined;
  /** Namespaces of the pod; an event without a pod passes only where this is not given. */
  readonly namespaces: readonly string[] | undefined;
  /** The policy that decided, or one that selects the pod. */
  readonly policies: readonly string[] | undefined;
}

export interface SinkSettings {
  /** Names its spool's folder, its metrics, its dead letters. */
  readonly name: string;
  readonly format: FormatName;
  readonly ocsfVersion: OcsfVersion;
  readonly filter: FilterSettings;
  readonly target: TargetSettings;
  readonly spoolBytes: number;
  readonly batch: BatchSettings;
}

export interface BatchSettings {
  readonly events: number;
  readonly bytes: number;
  /** How long the first event of a batch waits for others. */
  readonly lingerMs: number;
  /** An answer that has not come by then is a failure. */
  readonly timeoutMs: number;
}

/** PEM files, read again when they change. */
export interface TlsSettings {
  readonly caFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** In place of the host in the address. */
  readonly serverName: string | undefined;
}

export const FACILITIES = {
  user: 1,
  daemon: 3,
  auth: 4,
  authpriv: 10,
  audit: 13,
  alert: 14,
  local0: 16,
  local1: 17,
  local2: 18,
  local3: 19,
  local4: 20,
  local5: 21,
  local6: 22,
  local7: 23,
} as const; // RFC 5424 §6.2.1
export type Facility = keyof typeof FACILITIES;

interface HttpTarget {
  /** http: or https:. */
  readonly url: string;
  readonly tls: TlsSettings;
}

export type TargetSettings =
  | { readonly kind: "stdout" }
  | { readonly kind: "file"; readonly path: string; readonly maxBytes: number; readonly keep: number }
  | {
      readonly kind: "syslog";
      readonly transport: "udp" | "tcp" | "tls";
      readonly host: string;
      readonly port: number;
      readonly facility: Facility;
      /** RFC 6587 §3.4: octet counting, or a line feed behind each message. TLS: counting only (RFC 5425 §4.3). */
      readonly framing: "octet-counting" | "newline";
      readonly tls: TlsSettings;
    }
  | (HttpTarget & {
      readonly kind: "splunk";
      readonly tokenFile: string;
      readonly index: string | undefined;
      readonly sourcetype: string;
      /** Wait for the indexer's acknowledgement. */
      readonly ack: boolean;
    })
  | (HttpTarget & {
      readonly kind: "elastic";
      readonly index: string;
      /** Either, or neither: an API key as it is sent, or `user:password`. */
      readonly apiKeyFile: string | undefined;
      readonly basicFile: string | undefined;
    })
  | (HttpTarget & {
      readonly kind: "otlp";
      /** Of the Authorization header, for example `Bearer …`. */
      readonly authorizationFile: string | undefined;
    })
  | (HttpTarget & { readonly kind: "webhook"; readonly secretFile: string });
