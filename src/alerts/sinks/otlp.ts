import type { Severity, TargetSettings } from "../../model/alerts.ts";
import { podName } from "../formats/words.ts";
import { HttpDoor, jsonObject, outcomeOf } from "./http.ts";
import type { Outcome, Outgoing, Sink } from "./sink.ts";
import { SecretFile } from "./watched-file.ts";

/** SeverityNumber of the OpenTelemetry log data model: INFO, INFO2, WARN, ERROR, FATAL. */
const NUMBERS: Readonly<Record<Severity, readonly [number, string]>> = {
  info: [9, "INFO"],
  low: [10, "INFO2"],
  medium: [13, "WARN"],
  high: [17, "ERROR"],
  critical: [21, "FATAL"],
};

export interface OtlpDeps {
  readonly host: string;
  readonly version: string;
  readonly cluster: string | undefined;
  readonly nowMs: () => number;
}

interface Attribute {
  readonly key: string;
  readonly value: { readonly stringValue: string };
}

function attributes(values: Readonly<Record<string, string | null | undefined>>): Attribute[] {
  return Object.entries(values).flatMap(([key, value]) =>
    value === null || value === undefined ? [] : [{ key, value: { stringValue: value } }],
  );
}

/** ExportLogsServiceRequest in the JSON encoding of OTLP (opentelemetry-proto: lowerCamelCase, 64-bit numbers as text). Pure. */
export function otlpRequest(batch: readonly Outgoing[], deps: OtlpDeps): unknown {
  const nanos = (ms: number): string => `${ms}000000`;
  return {
    resourceLogs: [
      {
        resource: {
          attributes: attributes({
            "service.name": "namegate",
            "service.version": deps.version,
            "k8s.node.name": deps.host,
            "k8s.cluster.name": deps.cluster,
          }),
        },
        scopeLogs: [
          {
            scope: { name: "namegate", version: deps.version },
            logRecords: batch.map(({ event, severity, text }) => ({
              timeUnixNano: nanos(Date.parse(event.time)),
              observedTimeUnixNano: nanos(deps.nowMs()),
              severityNumber: NUMBERS[severity][0],
              severityText: NUMBERS[severity][1],
              eventName: `namegate.${event.type}`,
              body: { stringValue: text },
              attributes: attributes({
                "namegate.event.id": event.id,
                "namegate.verdict": event.verdict,
                "namegate.why": event.why,
                "namegate.policy": event.policy,
                "namegate.rule": event.rule,
                "namegate.pod": podName(event),
                "k8s.namespace.name": event.pod?.namespace,
                "k8s.pod.name": event.pod?.name,
                "destination.address": event.destination?.names[0] ?? event.destination?.address,
              }),
            })),
          },
        ],
      },
    ],
  };
}

/** OTLP/HTTP, logs, JSON. */
export class Otlp implements Sink {
  private readonly deps: OtlpDeps;
  private readonly door: HttpDoor;
  private readonly authorization: SecretFile | undefined;

  constructor(target: TargetSettings & { readonly kind: "otlp" }, deps: OtlpDeps) {
    this.deps = deps;
    this.door = new HttpDoor(target.url, target.tls, deps.nowMs);
    this.authorization = target.authorizationFile === undefined ? undefined : new SecretFile(target.authorizationFile);
  }

  async send(batch: readonly Outgoing[], signal: AbortSignal): Promise<Outcome> {
    const secret = this.authorization?.read();
    if (secret !== undefined && "why" in secret) return { kind: "retry", why: secret.why };
    const headers = { "content-type": "application/json", ...(secret !== undefined && { authorization: secret.text }) };
    const body = Buffer.from(JSON.stringify(otlpRequest(batch, this.deps)));
    const answer = await this.door.post("/v1/logs", headers, body, signal);
    const outcome = outcomeOf(answer);
    if (outcome.kind !== "done" || answer.kind !== "answer") return outcome;
    // Partial success is final (OTLP, "Partial Success"): nothing may be sent again, and which were refused is not said.
    const partial = jsonObject(answer.body)?.["partialSuccess"] as
      | { rejectedLogRecords?: unknown; errorMessage?: unknown }
      | null
      | undefined;
    const rejected = Number(partial?.rejectedLogRecords ?? 0);
    if (!(rejected > 0)) return { kind: "done" };
    const refused = `${rejected} of these ${batch.length} were refused: ${String(partial?.errorMessage).slice(0, 200)}`;
    return { kind: "each", results: batch.map(() => ({ refused })), why: refused };
  }

  close(): void {
    this.door.close();
  }
}
