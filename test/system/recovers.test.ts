import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { MAIN, namegate, socketOf } from "../support/agent.ts";
import { until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { SELF_TEST_ARGS, SELF_TEST_NEEDS, statusOf } from "../support/self-test.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

/** What goes wrong once does not stay wrong, and what is no harm is not called one. */

test("rules that are refused when they are first wanted are installed with the next change", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const discover = { ...CHECKOUT, mode: "Discover" };
  const it = await shop(t, { agent: false, policies: { checkout: discover } });
  const broken = join(it.lab.dir, "broken");
  const restore = join(it.lab.dir, "iptables-nft-restore");
  writeFileSync(
    restore,
    `#!/bin/sh\n[ -e ${broken} ] && { echo "another program has the lock" >&2; exit 4; }\nPATH=$REAL exec iptables-nft-restore "$@"\n`,
    {
      mode: 0o755,
    },
  );
  const path = process.env["PATH"] as string;
  await it.start({ program: ["env", `REAL=${path}`, `PATH=${it.lab.dir}:${path}`, process.execPath, MAIN] });
  assert.equal((await it.agent.status()).effectiveMode, "Discover");
  const client = await it.client("checkout");
  const open = async (): Promise<string> => {
    const { code, data } = await client.connect({ host: OUT.evil, port: 443, send: "x", timeoutMs: 2000 });
    return code ?? data;
  };
  writeFileSync(broken, "");
  it.put("checkout", CHECKOUT).catch(() => undefined); // it is not accepted yet
  await it.agent.event("refused", (e) => e.why === "degraded" && /could not be applied: .*lock/.test(e.message ?? ""));
  const failed = await it.agent.status();
  assert.deepEqual([failed.ready, failed.mode, failed.effectiveMode], [false, "Enforce", "None"]);
  rmSync(broken);
  await it.put("other", { ...CHECKOUT, subject: { podSelector: { matchLabels: { app: "other" } } } });
  const status = await it.agent.status();
  assert.deepEqual([status.ready, status.effectiveMode], [true, "Enforce"]);
  assert.equal(await open(), "ECONNREFUSED");
});

test("a pod whose interface has gone before the inputs say so is not said to be past our rules", async (t) => {
  if (!need(t, SELF_TEST_NEEDS)) return;
  const pods = [{ name: "checkout" }, { name: "leaving", labels: { app: "checkout" } }];
  const it = await shop(t, { pods, policies: { checkout: CHECKOUT }, args: SELF_TEST_ARGS });
  await until("both are seen", async () => (await statusOf(it)).selfTest.podsSeen === 2, 10_000);
  const from = it.agent.events().length;
  await it.lab.run("node", ["ip", "link", "del", it.lab.pods.find(({ name }) => name === "leaving")?.interface as string]);
  await until("a round without it", async () => (await statusOf(it)).selfTest.podsSeen === 1, 15_000);
  assert.deepEqual(
    it.agent
      .events()
      .slice(from)
      .filter(({ why }) => why === "not-enforcing")
      .map(({ message }) => message),
    [],
  );
});

test("a second agent by mistake is refused before it touches what the first one has in the kernel", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT } });
  const others = join(it.lab.dir, "others");
  mkdirSync(others);
  const places = ["--policies", others, "--pods", it.lab.writePodsFile(), "--state", join(it.lab.dir, "state2")];
  const second = await namegate(it.lab, "agent", ...places, "--socket", socketOf(it.lab), "--iptables", "nft", "--metrics", "off");
  assert.equal(second.status, 2);
  assert.match(second.stderr, /already listens/);
  await new Promise((resolve) => setTimeout(resolve, 2500)); // more than a comparison of ours with the kernel's
  assert.deepEqual(
    it.agent.events().filter(({ why }) => why === "set-repaired" || why === "rules-restored"),
    [],
  );
});
