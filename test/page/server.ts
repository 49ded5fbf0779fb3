import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { History } from "../../src/alerts/history.ts";
import { serveMetrics } from "../../src/metrics/server.ts";
import type { Event } from "../../src/model/event.ts";
import { openPage, type Page } from "../../src/page/page.ts";
import { suggestRule } from "../../src/policy/suggest.ts";
import { HOST, RUN } from "./sample.ts";
import { FULL_MEASURES } from "../support/measures.ts";

export interface PageServer {
  readonly port: number;
  readonly url: string;
  readonly page: Page;
  readonly state: string;
  readonly close: () => Promise<void>;
}

/** The page behind the server of the metrics, as the agent has it. */
export async function servePage(
  t: { after(done: () => unknown): void },
  {
    history,
    events = [],
    status,
    run = RUN,
    port = 0,
    state = mkdtempSync(join(tmpdir(), "namegate-page-")),
    nowMs = Date.now,
  }: {
    readonly history: History;
    /** For the destinations. */
    readonly events?: readonly Event[];
    readonly status: () => Promise<unknown>;
    readonly run?: string;
    readonly port?: number;
    readonly state?: string;
    readonly nowMs?: () => number;
  },
): Promise<PageServer> {
  const page = openPage({
    host: HOST,
    version: "0.1.0",
    run,
    state,
    events: history,
    status,
    suggest: suggestRule,
    nowMs,
    log: (message) => console.error(message),
  });
  for (const event of events) page.push(event);
  const server = await serveMetrics(`127.0.0.1:${port}`, { ready: () => true, status, measures: () => FULL_MEASURES, page: page.handle });
  const bound = (server.address() as AddressInfo).port;
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> =>
    (closed ??= new Promise((resolve) => {
      server.close(() => resolve());
      page.close();
      server.closeAllConnections();
    }));
  t.after(async () => {
    await close();
    rmSync(state, { recursive: true, force: true });
  });
  return { port: bound, url: `http://127.0.0.1:${bound}/`, page, state, close };
}
