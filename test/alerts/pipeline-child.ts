import { writeSync } from "node:fs";
import { Pipeline } from "../../src/alerts/pipeline.ts";
import { stamper } from "../../src/alerts/stamp.ts";
import type { EventDraft } from "../../src/model/event.ts";
import { ORIGIN } from "./events.ts";
import { sinkTo } from "./pipeline-settings.ts";

/**
 * An agent's alerts for the collector at argv[2], spooled below argv[3], its ids beginning with argv[4]: some events every few
 * milliseconds, and their ids on stdout once they are kept. `idle` as argv[5]: none, only what is left. argv[6]: a token; HEC.
 */
const [url = "", state = "", run = "", mode, tokenFile] = process.argv.slice(2);
const stamp = stamper(run);
const pipeline = new Pipeline(
  { sinks: [sinkTo(url, tokenFile)], fold: { windowMs: 0, podPerSecond: 100_000, nodePerSecond: 100_000 }, cluster: undefined },
  {
    state,
    origin: ORIGIN,
    pid: process.pid,
    say: () => undefined,
    stdout: () => undefined,
    nowMs: Date.now,
    random: Math.random,
    limits: { baseMs: 5, capMs: 20, breakAfter: 1000, openMs: 0, afterMaxMs: 100 },
  },
);

const draft: EventDraft = { type: "agent", verdict: "info", why: "degraded", message: "m".repeat(200) };
function some(): void {
  const ids: string[] = [];
  for (let i = 0; i < 20; i++) {
    const event = stamp(draft, Date.now());
    ids.push(event.id);
    pipeline.push(event);
  }
  // The pipeline's own microtask has run by then.
  queueMicrotask(() => writeSync(1, `${ids.join("\n")}\n`));
}

if (mode !== "idle") setInterval(some, 3);
else
  setInterval(() => {
    if (pipeline.status().sinks[0]?.spool?.bytes === 0) void pipeline.close().then(() => process.exit(0));
  }, 20);
