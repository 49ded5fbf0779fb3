import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { need } from "../support/need.ts";
import { until } from "../support/lab.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

interface Alerts {
  readonly alerts: {
    readonly folded: number;
    readonly sinks: readonly { name: string; failure: string | null; breaker: string | null; spool: { events: number } | null }[];
  };
}

test("an agent with sinks: denials reach the file in its format, a collector that is away holds up nothing", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const folder = mkdtempSync(join(tmpdir(), "namegate-alerts-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const log = join(folder, "events.cef");
  writeFileSync(join(folder, "secret"), "s");
  writeFileSync(
    join(folder, "config.yaml"),
    `alerts:
  cluster: lab
  sinks:
  - type: stdout
  - { type: file, format: cef, path: "${log}", filter: { types: [connection], verdicts: [deny] } }
  - { type: webhook, name: away, url: "http://127.0.0.1:1/", secretFile: "${folder}/secret", batch: { linger: 10ms } }
`,
  );
  const it = await shop(t, {
    pods: [{ name: "checkout", kind: "routed" }],
    policies: { checkout: CHECKOUT },
    args: ["--config", join(folder, "config.yaml")],
  });
  const client = await it.client("checkout");
  for (const port of [443, 443, 443, 8080]) {
    // The kernel remembers a denial for a few seconds: another one is only seen behind that.
    const { code, ms } = await client.connect({ host: OUT.evil, port });
    assert.equal(code, "ECONNREFUSED");
    assert.ok(ms < 500, `${ms} ms`);
  }
  const denied = await it.agent.event("denied", ({ verdict, destination }) => verdict === "deny" && destination?.port === 8080);
  assert.equal(denied.why, "no-rule");
  const lines = (): string[] =>
    readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => line !== "");
  await until("both in the file", () => lines().length >= 2 || undefined, 5000);
  assert.match(
    lines()[0] ?? "",
    /^CEF:0\|namegate\|namegate\|[^|]+\|connection\.no-name\|Connection denied\|5\|rt=\d+ .* dst=198\.51\.100\.11 dpt=443 .* cs1=shop\/checkout /,
  );
  const status = (await it.agent.status()) as unknown as Alerts;
  const away = status.alerts.sinks.find(({ name }) => name === "away");
  assert.match(away?.failure ?? "", /ECONNREFUSED/);
  assert.ok((away?.spool?.events ?? 0) >= 2);
  assert.deepEqual(
    status.alerts.sinks.map(({ name }) => name),
    ["stdout", "file", "away"],
  );
  await it.agent.stop();
});
