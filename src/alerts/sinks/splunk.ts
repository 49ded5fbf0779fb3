import { randomUUID } from "node:crypto";
import type { TargetSettings } from "../../model/alerts.ts";
import { type Answer, HttpDoor, jsonObject, outcomeOf, said, type SinkDeps } from "./http.ts";
import type { ItemOutcome, Outcome, Outgoing, Sink } from "./sink.ts";
import { SecretFile } from "./watched-file.ts";

/** Codes of HEC that are about one event (Splunk, "HTTP Event Collector error codes"): no data, invalid data format, event missing, event blank, fields. */
const ABOUT_EVENTS: ReadonlySet<unknown> = new Set([5, 6, 12, 13, 15]);
const ACK_POLL_MS = 500;

/** Splunk HTTP Event Collector, `/services/collector/event`; with `ack` a batch is done when an indexer has it. */
export class Splunk implements Sink {
  private readonly target: TargetSettings & { readonly kind: "splunk" };
  private readonly deps: SinkDeps;
  private readonly door: HttpDoor;
  private readonly token: SecretFile;
  private readonly channel = randomUUID();

  constructor(target: TargetSettings & { readonly kind: "splunk" }, deps: SinkDeps) {
    this.target = target;
    this.deps = deps;
    this.door = new HttpDoor(target.url, target.tls, deps.nowMs);
    this.token = new SecretFile(target.tokenFile);
  }

  async send(batch: readonly Outgoing[], signal: AbortSignal): Promise<Outcome> {
    const token = this.token.read();
    if ("why" in token) return { kind: "retry", why: token.why };
    const headers = {
      authorization: `Splunk ${token.text}`,
      "content-type": "application/json",
      ...(this.target.ack && { "x-splunk-request-channel": this.channel }),
    };
    const body = Buffer.from(batch.map((one) => this.event(one)).join("\n"));
    const answer = await this.door.post("/services/collector/event", headers, body, signal);
    const outcome = this.outcome(answer, batch.length);
    if (outcome.kind !== "done" || !this.target.ack) return outcome;
    const id = answer.kind === "answer" ? jsonObject(answer.body)?.["ackId"] : undefined;
    if (typeof id !== "number") return { kind: "retry", why: "no ackId in the answer: are acknowledgements on for this token?" };
    return this.acknowledged(id, headers, signal);
  }

  private event({ event, text }: Outgoing): string {
    const { index, sourcetype } = this.target;
    const around = {
      time: (Date.parse(event.time) / 1000).toFixed(3),
      host: this.deps.host,
      source: "namegate",
      sourcetype,
      ...(index !== undefined && { index }),
      fields: { event_id: event.id },
    };
    return `${JSON.stringify(around).slice(0, -1)},"event":${this.deps.json ? text : JSON.stringify(text)}}`;
  }

  private outcome(answer: Answer, length: number): Outcome {
    if (answer.kind === "failed" || answer.status !== 400) return outcomeOf(answer);
    const found = jsonObject(answer.body);
    const why = `400 ${said(answer.body)}`;
    // A wrong index or channel is the operator's matter; the events can go when it is put right.
    if (!ABOUT_EVENTS.has(found?.["code"])) return { kind: "retry", why };
    const number = found?.["invalid-event-number"];
    if (typeof number !== "number" || !Number.isInteger(number) || number < 0 || number >= length) return { kind: "refused", why };
    // Those before it may have been taken, those behind it were not: all others go again.
    const results: ItemOutcome[] = Array.from({ length }, (_, i) => (i === number ? { refused: why } : "retry"));
    return { kind: "each", results, why };
  }

  private async acknowledged(id: number, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Outcome> {
    const body = Buffer.from(JSON.stringify({ acks: [id] }));
    while (!signal.aborted) {
      const answer = await this.door.post(`/services/collector/ack?channel=${this.channel}`, headers, body, signal);
      const outcome = outcomeOf(answer);
      if (outcome.kind !== "done" || answer.kind !== "answer")
        return outcome.kind === "retry" ? outcome : { kind: "retry", why: "the question for acknowledgement was refused" };
      const acks = jsonObject(answer.body)?.["acks"] as Readonly<Record<string, unknown>> | undefined;
      if (acks?.[String(id)] === true) return { kind: "done" };
      await new Promise((resolve) => setTimeout(resolve, ACK_POLL_MS));
    }
    return { kind: "retry", why: "no acknowledgement within the time limit" };
  }

  close(): void {
    this.door.close();
  }
}
