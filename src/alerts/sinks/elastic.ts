import type { TargetSettings } from "../../model/alerts.ts";
import { HttpDoor, jsonObject, outcomeOf, type SinkDeps } from "./http.ts";
import type { ItemOutcome, Outcome, Outgoing, Sink } from "./sink.ts";
import { SecretFile } from "./watched-file.ts";

/** Only what is looked at. */
const ANSWER = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";
/** Elasticsearch allows an _id of 512 octets. */
const ID_MAX = 512;

/**
 * `_bulk` of Elasticsearch and OpenSearch. Each event is created under its own `_id`, so that a batch that comes again doubles
 * nothing: 409 is as good as 201. Works for indices and data streams.
 */
export class Elastic implements Sink {
  private readonly target: TargetSettings & { readonly kind: "elastic" };
  private readonly deps: SinkDeps;
  private readonly door: HttpDoor;
  private readonly apiKey: SecretFile | undefined;
  private readonly basic: SecretFile | undefined;

  constructor(target: TargetSettings & { readonly kind: "elastic" }, deps: SinkDeps) {
    this.target = target;
    this.deps = deps;
    this.door = new HttpDoor(target.url, target.tls, deps.nowMs);
    this.apiKey = target.apiKeyFile === undefined ? undefined : new SecretFile(target.apiKeyFile);
    this.basic = target.basicFile === undefined ? undefined : new SecretFile(target.basicFile);
  }

  async send(batch: readonly Outgoing[], signal: AbortSignal): Promise<Outcome> {
    const secret = (this.apiKey ?? this.basic)?.read();
    if (secret !== undefined && "why" in secret) return { kind: "retry", why: secret.why };
    const scheme = this.apiKey === undefined ? "Basic" : "ApiKey";
    const value = secret === undefined || this.apiKey !== undefined ? secret?.text : Buffer.from(secret.text).toString("base64");
    const headers = { "content-type": "application/x-ndjson", ...(value !== undefined && { authorization: `${scheme} ${value}` }) };
    const body = Buffer.from(batch.map((one) => this.lines(one)).join(""));
    const answer = await this.door.post(`/_bulk?${ANSWER}`, headers, body, signal);
    const outcome = outcomeOf(answer);
    if (outcome.kind !== "done" || answer.kind !== "answer") return outcome;
    const found = jsonObject(answer.body);
    if (found?.["errors"] === false) return { kind: "done" };
    const items = found?.["items"];
    if (!Array.isArray(items) || items.length !== batch.length) return { kind: "retry", why: "the answer is not one of _bulk" };
    const results = items.map(itemOutcome);
    return { kind: "each", results, why: "some events were refused or put off", afterMs: answer.afterMs };
  }

  private lines({ event, text }: Outgoing): string {
    const id = `${this.deps.host}:${event.id}`.slice(-ID_MAX);
    const time = `"@timestamp":${JSON.stringify(event.time)}`;
    const document = !this.deps.json
      ? `{${time},"message":${JSON.stringify(text)}}`
      : text.startsWith('{"@timestamp"')
        ? text
        : `{${time},${text.slice(1)}`;
    return `${JSON.stringify({ create: { _index: this.target.index, _id: id } })}\n${document}\n`;
  }

  close(): void {
    this.door.close();
  }
}

/** 429 and 5xx: later. 401, 403 and 404: an operator's matter, later too. */
function itemOutcome(item: unknown): ItemOutcome {
  const create = (item as { create?: { status?: unknown; error?: { type?: unknown; reason?: unknown } } } | null)?.create;
  const status = create?.status;
  if (typeof status !== "number") return "retry";
  if ((status >= 200 && status < 300) || status === 409) return "done";
  if (status !== 400 && status !== 413) return "retry";
  return { refused: `${status} ${String(create?.error?.type)}: ${String(create?.error?.reason)}`.slice(0, 300) };
}
