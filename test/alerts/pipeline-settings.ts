import type { SinkSettings, TargetSettings, TlsSettings } from "../../src/model/alerts.ts";

export const NO_TLS: TlsSettings = { caFile: undefined, certFile: undefined, keyFile: undefined, serverName: undefined };

const FILTER = { severity: "info", types: undefined, verdicts: undefined, namespaces: undefined, policies: undefined } as const;

export function sinkOf(name: string, target: TargetSettings, over: Partial<SinkSettings> = {}): SinkSettings {
  return {
    name,
    format: "json",
    ocsfVersion: "1.8.0",
    filter: FILTER,
    target,
    spoolBytes: 16 * 2 ** 20,
    batch: { events: 100, bytes: 2 ** 20, lingerMs: 5, timeoutMs: 300 },
    ...over,
  };
}

/** `_bulk` at `url`, or HEC where there is a file with a token. */
export function sinkTo(url: string, tokenFile?: string): SinkSettings {
  if (tokenFile !== undefined)
    return sinkOf("splunk", { kind: "splunk", url, tls: NO_TLS, tokenFile, index: undefined, sourcetype: "namegate", ack: false });
  return sinkOf("elastic", { kind: "elastic", url, tls: NO_TLS, index: "i", apiKeyFile: undefined, basicFile: undefined });
}
