import { createHash, createHmac } from "node:crypto";
import type { TargetSettings } from "../../model/alerts.ts";
import { HttpDoor, outcomeOf, type SinkDeps } from "./http.ts";
import type { Outcome, Outgoing, Sink } from "./sink.ts";
import { SecretFile } from "./watched-file.ts";

/** `v1,BASE64` over `ID.TIMESTAMP.BODY` (Standard Webhooks 1.0; the timestamp in seconds). A secret `whsec_…` is base64, another is taken as it is. */
export function webhookSignature(secret: string, id: string, seconds: number, body: Buffer): string {
  const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret);
  return `v1,${createHmac("sha256", key).update(`${id}.${seconds}.`).update(body).digest("base64")}`;
}

/** A POST with a JSON list of events, signed with HMAC-SHA256 over its time, so that an old one cannot be played again. */
export class Webhook implements Sink {
  private readonly deps: SinkDeps;
  private readonly door: HttpDoor;
  private readonly secret: SecretFile;

  constructor(target: TargetSettings & { readonly kind: "webhook" }, deps: SinkDeps) {
    this.deps = deps;
    this.door = new HttpDoor(target.url, target.tls, deps.nowMs);
    this.secret = new SecretFile(target.secretFile);
  }

  async send(batch: readonly Outgoing[], signal: AbortSignal): Promise<Outcome> {
    const secret = this.secret.read();
    if ("why" in secret) return { kind: "retry", why: secret.why };
    const body = Buffer.from(`[${batch.map(({ text }) => (this.deps.json ? text : JSON.stringify(text))).join(",")}]`);
    // The same events, whenever they come again, have the same id.
    const ids = batch.map(({ event }) => `${this.deps.host}:${event.id}`).join("\n");
    const id = `msg_${createHash("sha256").update(ids).digest("hex").slice(0, 32)}`;
    const seconds = Math.floor(this.deps.nowMs() / 1000);
    const headers = {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": String(seconds),
      "webhook-signature": webhookSignature(secret.text, id, seconds, body),
    };
    return outcomeOf(await this.door.post("", headers, body, signal));
  }

  close(): void {
    this.door.close();
  }
}
