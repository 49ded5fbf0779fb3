import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Fault, messageOf } from "../base/fault.ts";
import type { Measures } from "./measures.ts";
import { metricsText } from "./text.ts";

export interface MetricsSource {
  readonly ready: () => boolean;
  /** As `status -o json` prints it. */
  readonly status: () => Promise<unknown>;
  readonly measures: () => Measures;
  /** Answers every other path (page/page.ts); false, or none: there is nothing there. */
  readonly page?: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;
}

/** `/metrics`, `/healthz`, `/readyz` and the page on `ADDR:PORT`. */
export async function serveMetrics(at: string, source: MetricsSource): Promise<Server> {
  const colon = at.lastIndexOf(":");
  const port = Number(at.slice(colon + 1));
  if (colon < 1 || !Number.isInteger(port) || port < 0 || port > 65535)
    throw new Fault("metrics", `${at} is not ADDR:PORT`, "for example --metrics 127.0.0.1:9810");
  const server = createServer((request, response) => {
    const answer = (code: number, body: string, type = "text/plain; charset=utf-8"): void => {
      response.writeHead(code, { "content-type": type });
      response.end(body);
    };
    if (request.method !== "GET") answer(405, "only GET\n");
    else if (request.url === "/healthz") answer(200, "ok\n");
    else if (request.url === "/readyz") answer(source.ready() ? 200 : 503, source.ready() ? "ready\n" : "not ready\n");
    else if (request.url === "/metrics") {
      source.status().then(
        (status) => answer(200, metricsText(status, source.measures()), "text/plain; version=0.0.4; charset=utf-8"),
        (error: unknown) => answer(503, `${messageOf(error)}\n`),
      );
    } else if (source.page?.(request, response) !== true) answer(404, "known: /metrics /healthz /readyz\n");
  });
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) =>
      reject(
        new Fault(
          "metrics",
          `cannot listen on ${at}: ${messageOf(error)}`,
          "choose another place with --metrics ADDR:PORT, or --metrics off",
          error,
        ),
      ),
    );
    server.listen(port, at.slice(0, colon).replace(/^\[|\]$/g, ""), resolve);
  });
  return server;
}
