import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { metricsText } from "../../src/metrics/text.ts";
import { newCounters } from "../../src/worker/context.ts";
import { parseExposition } from "../support/exposition.ts";
import { FULL_MEASURES, FULL_STATUS } from "../support/measures.ts";
import { need, ROOT } from "../support/need.ts";

const CHART = join(ROOT, "daemonset", "chart");

test("alerts and dashboard ask for metrics that there are", () => {
  const known = new Set(
    [...parseExposition(metricsText(FULL_STATUS, FULL_MEASURES))].flatMap(([name, { samples }]) => [
      name,
      ...samples.map((one) => one.name),
    ]),
  );
  const asked = ["alerts.yaml", "dashboard.json"].flatMap((file) => [
    ...new Set([...readFileSync(join(CHART, file), "utf8").matchAll(/\b(?:namegate|process|nodejs)_\w+/g)].map(([name]) => name)),
  ]);
  assert.ok(asked.length > 30);
  for (const name of asked) assert.ok(known.has(name), `${name} is none of ${[...known].join(" ")}`);
});

test("the expressions of alerts and dashboard are PromQL", (t) => {
  if (!need(t, { commands: ["promtool"] })) return;
  const folder = mkdtempSync(join(tmpdir(), "namegate-rules-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const { panels } = JSON.parse(readFileSync(join(CHART, "dashboard.json"), "utf8")) as { panels: { targets: { expr: string }[] }[] };
  const rules = panels.flatMap(({ targets }) => targets.map(({ expr }, i) => ({ record: `panel:target${i}`, expr })));
  const file = join(folder, "dashboard.json");
  writeFileSync(
    file,
    JSON.stringify({
      groups: panels.map((_, i) => ({ name: `panel${i}`, rules: rules.slice(i, i + 1) })).concat([{ name: "all", rules }]),
    }),
  );
  for (const one of [file, join(CHART, "alerts.yaml")]) {
    const { status, stdout, stderr } = spawnSync("promtool", ["check", "rules", one], { encoding: "utf8" });
    assert.equal(status, 0, `${stdout}${stderr}`);
  }
});

test("alerts fire, and do not, on what they are about", (t) => {
  if (!need(t, { commands: ["promtool"] })) return;
  const folder = mkdtempSync(join(tmpdir(), "namegate-rules-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const series = (name: string, values: string): object => ({ series: name, values });
  const on = (name: string, labels = ""): string => `${name}{instance="a:9810",node="a"${labels}}`;
  const mode = (name: string, of: string): string => on(`namegate_${name}_mode`, `,mode="${of}"`);
  /** Alert, its series (a sample a minute), when it is looked at, does it fire? */
  const rows: readonly (readonly [string, object[], string, boolean])[] = [
    ["NamegateNotEnforcing", [series(mode("configured", "Enforce"), "1x10"), series(mode("effective", "Enforce"), "0x10")], "5m", true],
    ["NamegateNotEnforcing", [series(mode("configured", "Enforce"), "1x10"), series(mode("effective", "Enforce"), "1x10")], "5m", false],
    ["NamegateNotEnforcing", [series(mode("configured", "Enforce"), "0x10"), series(mode("effective", "Enforce"), "0x10")], "5m", false],
    [
      "NamegateSelfTestFailing",
      [series(mode("configured", "Enforce"), "1x10"), series(on("namegate_self_test_passed"), "0x10")],
      "5m",
      true,
    ],
    [
      "NamegateSelfTestFailing",
      [series(mode("configured", "Enforce"), "0x10"), series(on("namegate_self_test_passed"), "0x10")],
      "5m",
      false,
    ],
    ["NamegateModeLowered", [series(mode("configured", "Enforce"), "1x60 0x20")], "75m", true],
    ["NamegateModeLowered", [series(mode("configured", "Enforce"), "0x80")], "75m", false],
    ["NamegateQueueDrops", [series(on("namegate_queue_dropped_total", ',queue="admission"'), "0 0 0 7 7 7")], "4m", true],
    ["NamegateQueueDrops", [series(on("namegate_queue_dropped_total", ',queue="admission"'), "7x10")], "4m", false],
    ["NamegateInformerStale", [series(on("namegate_informer_stale_seconds", ',resource="pods"'), "0+60x30")], "25m", true],
    ["NamegateInformerStale", [series(on("namegate_informer_stale_seconds", ',resource="pods"'), "2x30")], "25m", false],
    ["NamegateRepairsRepeating", [series(on("namegate_rule_repairs_total"), "0+1x60")], "30m", true],
    ["NamegateRepairsRepeating", [series(on("namegate_rule_repairs_total"), "0 1 1x60")], "30m", false],
    [
      "NamegateSpoolFilling",
      [series(on("namegate_alert_spool_bytes", ',sink="s"'), "90x10"), series(on("namegate_alert_spool_max_bytes", ',sink="s"'), "100x10")],
      "8m",
      true,
    ],
    [
      "NamegateDnsHoldSlow",
      [
        series(on("namegate_dns_hold_seconds_bucket", ',le="0.016384"'), "0+10x40"),
        series(on("namegate_dns_hold_seconds_bucket", ',le="0.131072"'), "0+20x40"),
        series(on("namegate_dns_hold_seconds_bucket", ',le="+Inf"'), "0+20x40"),
      ],
      "30m",
      true,
    ],
    [
      "NamegateDnsHoldSlow",
      [
        series(on("namegate_dns_hold_seconds_bucket", ',le="0.016384"'), "0+20x40"),
        series(on("namegate_dns_hold_seconds_bucket", ',le="+Inf"'), "0+20x40"),
      ],
      "30m",
      false,
    ],
  ];
  const tests = rows.map(([alert, input_series, eval_time, fires], i) => ({
    name: `${i} ${alert}`,
    interval: "1m",
    input_series,
    promql_expr_test: [
      {
        expr: `count(ALERTS{alertname="${alert}",alertstate="firing"})`,
        eval_time,
        exp_samples: fires ? [{ value: 1 }] : [],
      },
    ],
  }));
  const file = join(folder, "test.json");
  writeFileSync(file, JSON.stringify({ rule_files: [join(CHART, "alerts.yaml")], evaluation_interval: "1m", tests }));
  const { status, stdout, stderr } = spawnSync("promtool", ["test", "rules", file], { encoding: "utf8" });
  assert.equal(status, 0, `${stdout}${stderr}`);
});

test("the table of metrics has every metric, and no other", () => {
  const readme = readFileSync(join(ROOT, "daemonset", "README.md"), "utf8");
  const section = readme.slice(readme.indexOf("## Metrics"), readme.indexOf("No label has what a pod chooses"));
  const told = new Set(
    section.split("\n").flatMap((line) => {
      if (line.startsWith("And `process_")) return [...line.matchAll(/`(\w+)`/g)].map(([, name]) => name);
      const [, names = ""] = /^\| (`[^|]+) \|/.exec(line) ?? [];
      return [...names.matchAll(/`([a-z_]+)`/g)].map(([, name]) => `namegate_${name}`);
    }),
  );
  const counters = { ...newCounters(), bindingsEvicted: 0, setWrites: 0, setFull: 0, setFailures: 0 };
  const real = new Set(parseExposition(metricsText({ ...FULL_STATUS, counters }, FULL_MEASURES)).keys());
  assert.deepEqual(told, real);
});
