import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { until } from "../../src/cli/lab-process.ts";
import type { AgentStatus } from "../support/agent.ts";
import { namegate, socketOf } from "../support/agent.ts";
import { parseExposition } from "../support/exposition.ts";
import { need, ROOT } from "../support/need.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, shop, type Shop, STRIPE } from "../support/shop.ts";

const PORT = 9810;
const POLICY = {
  ...CHECKOUT,
  egress: [
    STRIPE,
    { name: "office", action: "Accept", to: [{ networks: ["203.0.113.0/24"] }], ports: [{ protocol: "TCP", port: 8080 }] },
    {
      name: "many-ports",
      action: "Accept",
      to: [{ networks: ["198.51.100.12/32"] }],
      ports: [{ protocol: "TCP", port: 8000, endPort: 9000 }],
    },
    { name: "blocked", action: "Deny", to: [{ networks: [`${OUT.evil}/32`] }] },
    { name: "bank", action: "Accept", to: [{ domainNames: ["bank.example.com"] }], ports: [{ protocol: "TCP", port: 443 }] },
  ],
};

interface Use {
  readonly name: string;
  readonly hits: number;
  readonly lastHit: string | null;
}

async function uses({ agent }: Shop): Promise<ReadonlyMap<string, Use>> {
  const status = (await agent.status()) as AgentStatus & { policies: { rules: Use[] }[] };
  return new Map((status.policies[0]?.rules ?? []).map((rule) => [rule.name, rule]));
}

/** Waits until the rule has so many hits, and not more. */
async function hits(made: Shop, rule: string, count: number): Promise<void> {
  await until(
    `${rule} has ${count} hits`,
    async () => {
      const now = (await uses(made)).get(rule)?.hits ?? 0;
      assert.ok(now <= count, `${rule} has ${now} hits, not ${count}`);
      return now === count ? true : undefined;
    },
    20_000,
  );
}

interface Unused {
  readonly policy: string;
  readonly rule: string;
  readonly hits: number;
  readonly lastHit: string | null;
  readonly observedSince: string;
  readonly conclusive: boolean;
}

async function unused({ lab }: Shop, ...args: string[]): Promise<Unused[]> {
  const { stdout } = await namegate(lab, "unused", "-o", "json", "--socket", socketOf(lab), ...args);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Unused);
}

test("uses of rules: also those that the kernel answers alone; over a graceful restart and kill -9", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const made = await shop(t, { policies: { checkout: POLICY }, args: ["--metrics", `127.0.0.1:${PORT}`] });
  const { lab, dnsAddress } = made;
  const client = await made.client("checkout");
  const open = async (host: string, port: number): Promise<void> => {
    assert.equal((await client.connect({ host, port, send: "hello", expect: 5 })).data, "hello", `${host}:${port}`);
  };
  await client.resolve({ name: "api.stripe.com", type: "A", server: dnsAddress.v4 });

  await t.test("a name and a network that the kernel knows, an upcall and its cached decision, a denial", async () => {
    const before = (await made.agent.status()).counters["upcalls"];
    for (let i = 0; i < 3; i++) await open(OUT.stripe, 443);
    for (let i = 0; i < 2; i++) await open(OUT.far, 8080);
    await hits(made, "stripe", 3);
    await hits(made, "office", 2);
    assert.equal((await made.agent.status()).counters["upcalls"], before, "nobody was asked");
    for (let i = 0; i < 4; i++) await open(OUT.bank, 8080);
    await hits(made, "many-ports", 4);
    assert.equal((await made.agent.status()).counters["upcalls"], (before ?? 0) + 1, "asked once");
    assert.equal((await client.connect({ host: OUT.evil, port: 443 })).code, "ECONNREFUSED");
    await hits(made, "blocked", 1);
    const first = await made.agent.event("first use of the network", (e) => e.verdict === "allow" && e.rule === "office");
    assert.equal(first.destination?.port, 8080);
  });

  await t.test("unused: the rule that nobody used, and since when that is known", async () => {
    const [rule, ...others] = await unused(made, "--since", "1h", "--policy", "shop/checkout");
    assert.deepEqual(others, []);
    assert.equal(rule?.rule, "bank");
    assert.equal(rule?.hits, 0);
    assert.equal(rule?.lastHit, null);
    assert.equal(rule?.conclusive, false, "it is younger than an hour");
    assert.ok(Date.now() - Date.parse(rule?.observedSince ?? "") < 600_000);
    const text = (await namegate(lab, "unused", "--since", "1h", "--socket", socketOf(lab))).stdout;
    assert.match(text, /1 of 1 are observed for less than that/);
    assert.match(text, /shop\/checkout +bank +Accept +Enforce +0 +never /);
    const wrong = await namegate(lab, "unused", "--policy", "shop/nobody", "--socket", socketOf(lab));
    assert.equal(wrong.status, 2);
    assert.match(wrong.stderr, /shop\/nobody.*not in force/);
    assert.equal((await namegate(lab, "unused", "--since", "soon")).status, 2);
  });

  await t.test("/metrics: verdicts and last hits by rule, durations, and what dashboard and alerts ask for", async () => {
    const text = await scrape(made);
    const families = parseExposition(text);
    const value = (name: string, labels: Record<string, string>): number | undefined =>
      families.get(name)?.samples.find((one) => Object.entries(labels).every(([key, wanted]) => one.labels[key] === wanted))?.value;
    const rule = (name: string): Record<string, string> => ({ policy: "shop/checkout", rule: name, mode: "Enforce" });
    assert.equal(value("namegate_verdicts_total", { ...rule("stripe"), verdict: "allow" }), 3);
    assert.equal(value("namegate_verdicts_total", { ...rule("bank"), verdict: "allow" }), 0);
    assert.equal(value("namegate_verdicts_total", { ...rule("blocked"), verdict: "deny" }), 1);
    assert.equal(value("namegate_denials_total", { why: "denied-by-rule", verdict: "deny" }), 1);
    const last = value("namegate_rule_last_hit_timestamp_seconds", { policy: "shop/checkout", rule: "office" }) ?? 0;
    assert.ok(Math.abs(Date.now() / 1000 - last) < 300);
    assert.equal(value("namegate_rule_last_hit_timestamp_seconds", { policy: "shop/checkout", rule: "bank" }), 0);
    assert.ok(
      (value("namegate_upcall_duration_seconds_count", {}) ??
        families.get("namegate_upcall_duration_seconds")?.samples.at(-1)?.value ??
        0) >= 2,
    );
    assert.ok((families.get("namegate_dns_hold_seconds")?.samples.at(-1)?.value ?? 0) >= 1);
    assert.equal(value("namegate_queue_length", { queue: "admission" }), 0);
    for (const file of ["alerts.yaml", "dashboard.json"]) {
      const asked = new Set(
        [...readFileSync(join(ROOT, "daemonset", "chart", file), "utf8").matchAll(/\bnamegate_\w+/g)].map(([name]) => name),
      );
      for (const name of asked) {
        if (/^namegate_(alerts?|informer)_/.test(name)) continue; // no sinks and no API here: test/daemonset/prometheus.test.ts has them
        assert.ok(families.has(name.replace(/_(bucket|sum|count)$/, "")) || families.has(name), `${file}: ${name}`);
      }
    }
  });

  await t.test("promtool has nothing to say about it", async (inner) => {
    if (!need(inner, { commands: ["promtool"] })) return;
    const { status, stdout, stderr } = spawnSync("promtool", ["check", "metrics"], { input: await scrape(made), encoding: "utf8" });
    assert.equal(`${stdout}${stderr}`, "");
    assert.equal(status, 0);
  });

  const kept = new Map<string, Use>();
  await t.test("kill -9: what was written is known again, nothing counts twice", async () => {
    await until("it is on disk", () => written(made, "office"), 30_000);
    for (const [name, use] of await uses(made)) kept.set(name, use);
    await made.agent.kill();
    await open(OUT.stripe, 443); // the kernel answers meanwhile
    await made.start();
    const again = await uses(made);
    for (const rule of ["stripe", "office", "bank"]) assert.equal(again.get(rule)?.hits, kept.get(rule)?.hits, rule);
    assert.equal(again.get("stripe")?.lastHit, kept.get("stripe")?.lastHit);
    await open(OUT.stripe, 443);
    await open(OUT.far, 8080);
    await hits(made, "stripe", 4);
    await hits(made, "office", 3);
    assert.deepEqual(
      (await unused(made)).map(({ rule }) => rule),
      ["bank"],
    );
  });

  await t.test("a graceful restart loses nothing", async () => {
    const before = await uses(made);
    await made.agent.stop();
    await made.start();
    assert.deepEqual(await uses(made), before);
  });

  await t.test("a pod that is gone right after it used a rule", async () => {
    const job = await lab.addPod({ name: "job", labels: { app: "checkout" } });
    lab.writePodsFile();
    await until(
      "job is guarded",
      async () => (await made.agent.status()).pods.some(({ name, guarded }) => name === job.name && guarded),
      10_000,
    );
    const short = await made.client("job");
    await short.resolve({ name: "bank.example.com", type: "A", server: dnsAddress.v4 });
    assert.equal((await short.connect({ host: OUT.bank, port: 443, send: "hello", expect: 5 })).data, "hello");
    await lab.removePod("job");
    lab.writePodsFile();
    await hits(made, "bank", 1);
    assert.deepEqual(await unused(made), []);
    const text = (await namegate(lab, "unused", "--socket", socketOf(lab))).stdout;
    assert.match(text, /^every rule in force on this node was used in the last 30d\n/);
  });

  await t.test("a torn file is refused and said, and counting goes on", async () => {
    await made.agent.stop();
    const file = join(lab.dir, "state", "usage.json");
    writeFileSync(file, readFileSync(file, "utf8").slice(0, -3));
    await made.start();
    assert.ok(made.agent.child.err.some((line) => line.includes("its checksum is wrong")));
    await open(OUT.far, 8080);
    await until("office is used", async () => ((await uses(made)).get("office")?.hits ?? 0) > 0, 20_000);
  });
});

async function scrape({ lab }: Shop): Promise<string> {
  const script = `fetch("http://127.0.0.1:${PORT}/metrics").then(async (r) => process.stdout.write(await r.text()))`;
  return (await lab.exec("node", [process.execPath, "-e", script], { timeoutMs: 20_000 })).stdout;
}

/** Does the file on disk have uses of this rule? */
function written({ lab }: Shop, rule: string): boolean | undefined {
  const file = join(lab.dir, "state", "usage.json");
  if (!existsSync(file)) return undefined;
  const { rules } = JSON.parse(readFileSync(file, "utf8").split("\n")[1] ?? "{}") as { rules: [string, string, string, number][] };
  return rules.some(([, , name, count]) => name === rule && count > 0) ? true : undefined;
}
