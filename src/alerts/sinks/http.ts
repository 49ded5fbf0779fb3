import { Agent as HttpAgent, request as httpRequest, type ClientRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { messageOf } from "../../base/fault.ts";
import type { TlsSettings } from "../../model/alerts.ts";
import type { Outcome } from "./sink.ts";
import { TlsFiles, type TlsMaterial } from "./watched-file.ts";

/** Of an answer; a bulk answer about a thousand events has some hundred kilobytes. */
const ANSWER_BYTES_MAX = 1024 * 1024;
const WHY_CHARS_MAX = 300;

/** What a sink of events over HTTP knows of its surroundings. */
export interface SinkDeps {
  /** The node's name. */
  readonly host: string;
  /** Are texts JSON? */
  readonly json: boolean;
  readonly nowMs: () => number;
}

export type Answer =
  | { readonly kind: "answer"; readonly status: number; readonly body: string; readonly afterMs: number | undefined }
  | { readonly kind: "failed"; readonly why: string };

/**
 * Posts to one collector over one connection that is kept. node:http and not undici: client certificates that change
 * would need a package of its own there. Redirects are answers like others.
 */
export class HttpDoor {
  private readonly url: URL;
  private readonly files: TlsFiles;
  private readonly nowMs: () => number;
  private agent: HttpAgent | HttpsAgent | undefined;
  private material: TlsMaterial | undefined;

  constructor(url: string, tls: TlsSettings, nowMs: () => number) {
    this.url = new URL(url);
    this.files = new TlsFiles(tls);
    this.nowMs = nowMs;
  }

  /** `path` goes behind the path of the URL; it may have a query. Never throws. */
  async post(path: string, headers: Readonly<Record<string, string>>, body: Buffer, signal: AbortSignal): Promise<Answer> {
    const found = this.files.read();
    if ("why" in found) return { kind: "failed", why: found.why };
    if (JSON.stringify(found.material) !== JSON.stringify(this.material)) {
      this.close();
      this.material = found.material;
    }
    const secure = this.url.protocol === "https:";
    this.agent ??= secure
      ? new HttpsAgent({ keepAlive: true, maxSockets: 2, ...found.material })
      : new HttpAgent({ keepAlive: true, maxSockets: 2 });
    const target = new URL(`${this.url.pathname.replace(/\/$/, "")}${path}`, this.url);
    const options = { method: "POST", agent: this.agent, headers: { ...headers, "content-length": String(body.length) }, signal };
    return new Promise((resolve) => {
      const fail = (error: unknown): void => resolve({ kind: "failed", why: messageOf(error).slice(0, WHY_CHARS_MAX) });
      let request: ClientRequest;
      try {
        request = secure ? httpsRequest(target, options) : httpRequest(target, options);
      } catch (error) {
        return fail(error);
      }
      request.on("error", fail);
      request.on("response", (response) => {
        readBody(response).then(
          (text) =>
            resolve({
              kind: "answer",
              status: response.statusCode ?? 0,
              body: text,
              afterMs: retryAfter(response.headers["retry-after"], this.nowMs()),
            }),
          fail,
        );
      });
      request.end(body);
    });
  }

  close(): void {
    this.agent?.destroy();
    this.agent = undefined;
  }
}

function readBody(response: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let size = 0;
    response.on("data", (part: Buffer) => {
      size += part.length;
      if (size > ANSWER_BYTES_MAX) response.destroy(new Error(`the answer has more than ${ANSWER_BYTES_MAX} bytes`));
      else parts.push(part);
    });
    response.on("end", () => resolve(Buffer.concat(parts).toString("utf8")));
    response.on("error", reject);
    response.on("close", () => reject(new Error("the answer was cut off")));
  });
}

/** RFC 9110 §10.2.3: seconds, or a date. */
export function retryAfter(text: string | undefined, nowMs: number): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const date = /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** What is the matter with the events themselves; anything else may be another matter tomorrow (a token, an index, an address). */
const REFUSALS: ReadonlySet<number> = new Set([400, 413, 422]);

/** The outcome by status alone. */
export function outcomeOf(answer: Answer): Outcome {
  if (answer.kind === "failed") return { kind: "retry", why: answer.why };
  if (answer.status >= 200 && answer.status < 300) return { kind: "done" };
  const why = `${answer.status} ${said(answer.body)}`.trim();
  return REFUSALS.has(answer.status) ? { kind: "refused", why } : { kind: "retry", why, afterMs: answer.afterMs };
}

/** A collector's own words, on one line and short. */
export function said(body: string): string {
  return body.slice(0, WHY_CHARS_MAX).replace(/\p{Cc}+/gu, " ");
}

/** JSON of a collector, which may be anything; undefined: it is no JSON object. */
export function jsonObject(body: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const found: unknown = JSON.parse(body);
    return typeof found === "object" && found !== null && !Array.isArray(found) ? (found as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
