import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createServer as createTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Pipeline } from "../src/alerts/pipeline.ts";
import { stamper } from "../src/alerts/stamp.ts";
import type { SinkSettings } from "../src/model/alerts.ts";
import { suggestionText } from "../src/policy/suggest.ts";
import { DRAFTS, ORIGIN } from "../test/alerts/events.ts";
import { NO_TLS, sinkOf } from "../test/alerts/pipeline-settings.ts";
import { report } from "./support/report.ts";

const WORKLOAD =
  "denials (each with the rule that would allow it) of one pod to ever new addresses, through folding, filter and format, 64 a turn of the event loop, to a file, to a spool whose collector never answers, and to both; " +
  "CPU time is that of the whole process. Then kill -9 at random moments while the collector fails half of its requests";
const EVENTS = 60_000;
const TURN = 64;
const WANTED = 20_000;
const KILLS = Number(process.argv[2] ?? 200);

const folder = mkdtempSync(join(tmpdir(), "namegate-bench-"));
const silent = createTcp((socket) => void socket.on("error", () => undefined));
await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
writeFileSync(join(folder, "secret"), "s");

const file = (name: string): SinkSettings => sinkOf("file", { kind: "file", path: join(folder, name), maxBytes: 2 ** 30, keep: 1 });
const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
const hanging = (name: string): SinkSettings =>
  sinkOf(name, { kind: "webhook", url, tls: NO_TLS, secretFile: join(folder, "secret") }, { spoolBytes: 2 ** 28 });

async function rate(sinks: readonly SinkSettings[]): Promise<number> {
  const stamp = stamper("bench");
  const pipeline = new Pipeline(
    { sinks, fold: { windowMs: 60_000, podPerSecond: 100_000, nodePerSecond: 100_000 }, cluster: undefined },
    {
      state: folder,
      origin: ORIGIN,
      pid: 1,
      say: () => undefined,
      stdout: () => undefined,
      nowMs: Date.now,
      random: Math.random,
      suggest: suggestionText,
    },
  );
  const draft = DRAFTS["denied"] as Parameters<typeof stamp>[0];
  const from = process.cpuUsage();
  for (let i = 0; i < EVENTS; ) {
    for (let k = 0; k < TURN; k++, i++)
      pipeline.push(
        stamp(
          { ...draft, destination: { address: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, port: 443, protocol: "TCP", names: [] } },
          Date.now(),
        ),
      );
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { user, system } = process.cpuUsage(from);
  await pipeline.close();
  return EVENTS / ((user + system) / 1e6);
}

async function kills(times: number): Promise<{ kept: number; lost: number; doubled: number }> {
  const stored = new Map<string, number>();
  let n = 0;
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part: Buffer) => (body += part.toString()));
    request.on("error", () => undefined);
    request.on("end", () => {
      const ids = [...body.matchAll(/"_id":"[^"]*:([^"]+)"/g)].map((match) => match[1] as string);
      const items = ids.map((id) => ({ create: { status: stored.has(id) ? 409 : 201 } }));
      const turn = n++ % 6;
      if (turn === 0) return void response.writeHead(503).end();
      if (turn === 1) return void response.destroy();
      for (const id of ids) stored.set(id, (stored.get(id) ?? 0) + 1);
      if (turn === 2) return void response.destroy();
      response.end(JSON.stringify({ errors: true, items }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const kept = new Set<string>();
  const child = fileURLToPath(new URL("../test/alerts/pipeline-child.js", import.meta.url));
  for (let round = 0; round <= times; round++) {
    const running = spawn(process.execPath, [child, at, join(folder, "kills"), `r${round}`, round === times ? "idle" : "live"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    let timer: NodeJS.Timeout | undefined;
    running.stdout.on("data", (part: Buffer) => {
      text += part.toString();
      timer ??= setTimeout(() => running.kill("SIGKILL"), Math.random() * 100);
    });
    await new Promise((resolve) => running.on("close", resolve));
    for (const line of text.split("\n").slice(0, -1)) kept.add(line);
  }
  server.closeAllConnections();
  server.close();
  const lost = [...kept].filter((id) => !stored.has(id)).length;
  return { kept: kept.size, lost, doubled: [...stored.values()].filter((count) => count > 1).length };
}

try {
  await rate([file("warm.log")]);
  const rates: Record<string, number> = {
    file: await rate([file("a.log")]),
    "hanging collector": await rate([hanging("b")]),
    "file and hanging collector": await rate([file("c.log"), hanging("c")]),
  };
  const { kept, lost, doubled } = await kills(KILLS);
  report("alerts", WORKLOAD, [
    ...Object.entries(rates).map(([what, value]) => ({
      what: `events a second of CPU: ${what}`,
      value: Math.round(value),
      unit: "",
      target: { least: WANTED },
    })),
    { what: `kept by an agent that was killed ${KILLS} times`, value: kept, unit: "" },
    { what: "of these lost", value: lost, unit: "", target: { most: 0 } },
    { what: "delivered more than once, with the same id", value: doubled, unit: "" },
  ]);
} finally {
  silent.close();
  rmSync(folder, { recursive: true, force: true });
  setImmediate(() => process.exit());
}
