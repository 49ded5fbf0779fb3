import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { passes } from "../../src/alerts/filter.ts";
import { Pipeline } from "../../src/alerts/pipeline.ts";
import { severityOf } from "../../src/alerts/severity.ts";
import { stamper } from "../../src/alerts/stamp.ts";
import type { SinkSettings } from "../../src/model/alerts.ts";
import type { Event, EventDraft } from "../../src/model/event.ts";
import { metricsText } from "../../src/metrics/text.ts";
import { collector, NO_TLS, tempFolder } from "./collectors.ts";
import { DRAFTS, ORIGIN, samples } from "./events.ts";
import { sinkOf, sinkTo } from "./pipeline-settings.ts";

const FOLD = { windowMs: 60_000, podPerSecond: 100_000, nodePerSecond: 100_000 };

interface World {
  readonly pipeline: Pipeline;
  readonly stdout: string[];
  readonly emit: (draft: EventDraft) => Event;
}

function world(t: TestContext, state: string, sinks: readonly SinkSettings[], fold = FOLD): World {
  const stamp = stamper("run");
  const stdout: string[] = [];
  const emit = (draft: EventDraft): Event => {
    const event = stamp(draft, Date.now());
    pipeline.push(event);
    return event;
  };
  const pipeline = new Pipeline(
    { sinks, fold, cluster: "prod" },
    { state, origin: ORIGIN, pid: 7, say: emit, stdout: (line) => void stdout.push(line), nowMs: Date.now, random: Math.random },
  );
  t.after(() => pipeline.close());
  return { pipeline, stdout, emit };
}

async function until(what: () => boolean, ms = 8000): Promise<void> {
  for (const end = performance.now() + ms; !what(); ) {
    assert.ok(performance.now() < end, "it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("filters: every condition that is given must hold", () => {
  const of = (name: string): Event => samples().find(([one]) => one === name)?.[1] as Event;
  const any = { severity: "info", types: undefined, verdicts: undefined, namespaces: undefined, policies: undefined } as const;
  const passing = (filter: Partial<typeof any> | object): string[] =>
    samples().flatMap(([name, event]) => (name in DRAFTS && passes({ ...any, ...filter }, event, severityOf(event)) ? [name] : []));
  assert.deepEqual(passing({}), Object.keys(DRAFTS));
  assert.deepEqual(passing({ severity: "high" }), ["spoofed", "policy", "hostile"]);
  assert.deepEqual(passing({ types: ["dns", "policy"] }), ["refusedQuery", "policy"]);
  assert.deepEqual(passing({ verdicts: ["would-deny"] }), ["wouldDeny"]);
  assert.deepEqual(passing({ namespaces: ["shop"] }), ["allowed", "denied", "wouldDeny", "refusedQuery", "hostile"]);
  assert.deepEqual(passing({ namespaces: ["other"] }), []);
  assert.deepEqual(passing({ policies: ["guardrails"] }), ["denied", "wouldDeny"]);
  assert.deepEqual(passing({ policies: ["shop/checkout"], types: ["policy"] }), ["policy"]);
  assert.equal(passes({ ...any, severity: "medium" }, of("denied"), "low"), false);
});

test("several sinks: each has its filter and format, and one that hangs holds up none of the others, nor push()", {
  timeout: 20_000,
}, async (t) => {
  const state = tempFolder(t);
  const hanging = createServer(() => undefined);
  await new Promise<void>((resolve) => hanging.listen(0, "127.0.0.1", resolve));
  t.after(() => hanging.close());
  writeFileSync(join(state, "secret"), "s");
  const good = await collector(t, (_, response) => response.end());
  const secretFile = join(state, "secret");
  const webhook = (url: string) => ({ kind: "webhook" as const, url, tls: NO_TLS, secretFile });
  const file = join(state, "events.log");
  const { pipeline, stdout, emit } = world(t, state, [
    sinkOf("hangs", webhook(`http://127.0.0.1:${(hanging.address() as AddressInfo).port}`)),
    sinkOf("gone", webhook("http://127.0.0.1:1")),
    sinkOf("good", webhook(good.url), { filter: { ...sinkTo("").filter, severity: "high" } }),
    sinkOf("file", { kind: "file", path: file, maxBytes: 2 ** 20, keep: 1 }, { format: "cef" }),
    sinkOf("out", { kind: "stdout" }, { format: "ocsf", filter: { ...sinkTo("").filter, types: ["dns"] } }),
  ]);
  let slowest = 0;
  for (let i = 0; i < 50; i++) {
    for (const draft of Object.values(DRAFTS)) {
      const from = performance.now();
      emit({ ...draft, destination: { address: `203.0.113.${i}`, port: 443, protocol: "TCP", names: [] } });
      slowest = Math.max(slowest, performance.now() - from);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until(() => good.requests.flatMap(({ body }) => JSON.parse(body) as unknown[]).length === 150);
  assert.equal(readFileSync(file, "utf8").split("\n").length - 1, 350);
  assert.match(readFileSync(file, "utf8"), /^CEF:0\|/);
  assert.equal(stdout.length, 50);
  assert.equal((JSON.parse(stdout[0] as string) as { class_uid: number }).class_uid, 4003);
  await until(() =>
    pipeline
      .status()
      .sinks.slice(0, 2)
      .every(({ failures }) => failures > 0),
  );
  await until(() => pipeline.status().sinks[2]?.sent === 150); // its last answer may be on its way
  const [hangs, gone, fine] = pipeline.status().sinks;
  assert.match(hangs?.failure ?? "", /no answer within 300 ms|abort/);
  assert.match(gone?.failure ?? "", /ECONNREFUSED/);
  assert.equal(hangs?.spool?.events, 350);
  assert.deepEqual([fine?.sent, fine?.failure, fine?.breaker], [150, null, "closed"]);
  assert.ok(slowest < 100, `${slowest} ms`);
  const text = metricsText({ alerts: { events: 350, ...pipeline.status() } });
  assert.match(text, /namegate_alert_sent_total\{sink="good"\} 150\n/);
  assert.match(text, /namegate_alert_spool_events\{sink="hangs"\} 350\n/);
  assert.match(text, /namegate_alert_breaker_state\{sink="good",state="closed"\} 1\n/);
  assert.match(text, /namegate_alert_lost_total\{sink="gone",severity="critical"\} 0\n/);
});

test("what is given up for want of room is counted and said in an event, which the sinks get", { timeout: 20_000 }, async (t) => {
  const state = tempFolder(t);
  const { pipeline, stdout, emit } = world(t, state, [
    sinkOf("gone", { kind: "otlp", url: "http://127.0.0.1:1", tls: NO_TLS, authorizationFile: undefined }, { spoolBytes: 2 ** 20 }),
    sinkOf("out", { kind: "stdout" }),
  ]);
  const draft = DRAFTS["allowed"] as EventDraft;
  for (let i = 0; i < 3000; i++)
    emit({ ...draft, destination: { address: `10.0.${i >> 8}.${i & 255}`, port: 443, protocol: "TCP", names: [] } });
  await until(() => stdout.some((line) => line.includes('"alerts-lost"')));
  const said = stdout.map((line) => JSON.parse(line) as Event).find(({ why }) => why === "alerts-lost");
  const { lost, spool } = pipeline.status().sinks[0] as { lost: number; spool: { events: number; bytes: number } };
  assert.equal(said?.count, lost);
  assert.match(said?.message ?? "", /^sink gone: \d+ events were given up \(in all: info \d+, low 0/);
  assert.equal(lost + spool.events, 3001);
  assert.ok(spool.bytes <= 2 ** 20);
});

test("an agent that stops sends what is folded, and what a collector did not take is there after the start", async (t) => {
  const state = tempFolder(t);
  let up = false;
  const { url, requests } = await collector(t, (request, response) => {
    if (!up) return void response.writeHead(503).end();
    const items = request.body.split("\n").length - 1;
    response.end(JSON.stringify({ errors: false, items: Array(items / 2).fill({ create: { status: 201 } }) }));
  });
  const first = world(t, state, [sinkTo(url)]);
  for (let i = 0; i < 5; i++) first.emit(DRAFTS["denied"] as EventDraft);
  await first.pipeline.close();
  assert.ok(requests.length > 0);
  up = true;
  const second = world(t, state, [sinkTo(url)]);
  await until(() => second.pipeline.status().sinks[0]?.spool?.bytes === 0);
  const sent = (requests.at(-1)?.body ?? "")
    .split("\n")
    .filter((line) => line.includes("@timestamp"))
    .map((line) => JSON.parse(line) as Event);
  assert.deepEqual(
    sent.map(({ count, folded }) => [count, folded !== undefined]),
    [
      [17, true],
      [68, true],
    ],
  );
});

/** Ids of a request, of either kind. */
const idsOf = (body: string): string[] =>
  [...body.matchAll(/"_id":"[^"]*:([^"]+)"|"event_id":"([^"]+)"/g)].map((match) => (match[1] ?? match[2]) as string);

for (const kind of ["elastic", "splunk"] as const) {
  test(`kill -9 at random moments, 10 times, while ${kind} fails half of its requests: nothing is lost, doubles only by id`, {
    timeout: 60_000,
  }, async (t) => {
    const stored = new Map<string, number>();
    let n = 0;
    const { url } = await collector(t, (request, response) => {
      const ids = idsOf(request.body);
      const items = ids.map((id) => ({ create: { status: stored.has(id) ? 409 : 201 } }));
      const turn = n++ % 6;
      if (turn === 0) return void response.writeHead(503).end();
      if (turn === 1) return void response.destroy();
      for (const id of ids) stored.set(id, (stored.get(id) ?? 0) + 1);
      // Taken, and nobody hears of it.
      if (turn === 2) return void response.destroy();
      response.end(JSON.stringify(kind === "elastic" ? { errors: true, items } : { text: "Success", code: 0 }));
    });
    const state = tempFolder(t);
    writeFileSync(join(state, "token"), "t");
    const kept = new Set<string>();
    const child = fileURLToPath(new URL("./pipeline-child.js", import.meta.url));
    const run = async (name: string, mode: "live" | "idle", killAfterMs: number | undefined): Promise<void> => {
      const args = [child, url, state, name, mode, ...(kind === "splunk" ? [join(state, "token")] : [])];
      const running = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      let text = "";
      let timer: NodeJS.Timeout | undefined;
      running.stdout.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        if (killAfterMs !== undefined) timer ??= setTimeout(() => running.kill("SIGKILL"), killAfterMs);
      });
      await new Promise((resolve) => running.on("close", resolve));
      for (const line of text.split("\n").slice(0, -1)) kept.add(line);
    };
    for (let round = 0; round < 10; round++) await run(`r${round}`, "live", (round * 53) % 150);
    await run("last", "idle", undefined);
    assert.deepEqual(
      [...kept].filter((id) => !stored.has(id)),
      [],
    );
    assert.ok(kept.size > 200, `${kept.size} events`);
    const doubled = [...stored.values()].filter((count) => count > 1).length;
    t.diagnostic(`${kept.size} events kept, ${stored.size} stored, ${doubled} came more than once, ${n} requests`);
  });
}
