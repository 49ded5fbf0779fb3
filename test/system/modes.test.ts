import assert from "node:assert/strict";
import { test } from "node:test";
import type { Event } from "../../src/model/event.ts";
import { ACCEPTED } from "../support/agent.ts";
import type { Client } from "../support/client.ts";
import { need } from "../support/need.ts";
import { until } from "../support/lab.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

const MONITOR = { ...CHECKOUT, mode: "Monitor" };
const DISCOVER = { ...CHECKOUT, mode: "Discover" };

const reaches = async (client: Client, host: string, port = 5432): Promise<boolean> =>
  (await client.connect({ host, port, send: "x", timeoutMs: 2000 })).ok;

function wouldDeny(it: Shop, address: string, from: number): Promise<Event> {
  return it.agent.event(`would deny ${address}`, (e) => e.verdict === "would-deny" && e.destination?.address === address, { from });
}

for (const kind of ["routed", "bridge"] as const) {
  test(`Monitor lets a ${kind} pod do everything and says what Enforce would deny`, async (t) => {
    if (!need(t, SHOP_NEEDS)) return;
    const it = await shop(t, { pods: [{ name: "checkout", kind }], policies: { checkout: MONITOR } });
    const client = await it.client("checkout");

    await t.test("what no rule has passes, and is spoken of", async () => {
      for (const host of [OUT.bank, OUT.evil6]) {
        const from = it.agent.events().length;
        assert.equal(await reaches(client, host), true);
        const event = await wouldDeny(it, host, from);
        assert.deepEqual([event.mode, event.why, event.policies], ["Monitor", "no-rule", ["shop/checkout"]]);
        assert.equal((await client.datagram({ host, port: 7000, send: "u" })).data, "u");
      }
      assert.equal((await it.lab.exec("checkout", ["ping", "-c1", "-W2", OUT.far])).status, 0);
      assert.equal((await client.resolve({ name: "evil.example.net" })).ok, true);
    });

    await t.test("a Deny rule is named", async () => {
      await it.put("checkout", {
        ...MONITOR,
        egress: [...MONITOR.egress, { name: "never", action: "Deny", to: [{ networks: [`${OUT.far}/32`] }] }],
      });
      const from = it.agent.events().length;
      assert.equal(await reaches(client, OUT.far), true);
      const event = await wouldDeny(it, OUT.far, from);
      assert.deepEqual([event.why, event.policy, event.rule], ["denied-by-rule", "shop/checkout", "never"]);
      await it.put("checkout", MONITOR);
    });

    await t.test("what a rule has passes in silence", async () => {
      const from = it.agent.events().length;
      assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
      await it.agent.event("first use", (e) => e.verdict === "allow" && e.rule === "stripe", { from });
      assert.ok(
        !it.agent
          .events()
          .slice(from)
          .some(({ verdict }) => verdict === "would-deny" || verdict === "deny"),
      );
    });

    await t.test("a frozen agent keeps new connections waiting, no longer; a dead one not at all", async () => {
      it.agent.child.kill("SIGSTOP");
      const held = [
        client.connect({ host: OUT.evil, port: 8085, send: "x", timeoutMs: 8000 }),
        client.datagram({ host: OUT.evil6, port: 7000, send: "x", timeoutMs: 8000 }),
      ];
      await new Promise((resolve) => setTimeout(resolve, 2500)); // longer than the watchdog's deadline of 2 s
      it.agent.child.kill("SIGCONT");
      for (const got of await Promise.all(held)) assert.equal(got.data, "x");
      await it.agent.kill();
      for (const host of [OUT.far, OUT.evil6]) {
        const got = await client.connect({ host, port: 8080, send: "x" });
        assert.equal(got.data, "x");
        assert.ok(got.ms < 500, `${got.ms} ms`);
      }
      assert.equal((await client.resolve({ name: "far.example.com" })).ok, true);
    });
  });
}

test("Monitor and Enforce on one pod: only Enforce denies, and Monitor says what it would add", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const net = (name: string, address: string): object => ({
    name,
    action: "Accept",
    to: [{ networks: [`${address}/32`] }],
    ports: [{ protocol: "TCP" }],
  });
  const it = await shop(t, {
    policies: {
      real: { ...CHECKOUT, egress: [net("bank", OUT.bank), net("far", OUT.far)] },
      trial: { ...MONITOR, egress: [net("evil", OUT.evil), { name: "no-far", action: "Deny", to: [{ networks: [`${OUT.far}/32`] }] }] },
    },
  });
  const client = await it.client("checkout");
  assert.equal(await reaches(client, OUT.bank), true);
  assert.equal(await reaches(client, OUT.evil), false, "a trial Accept opens nothing");
  const from = it.agent.events().length;
  assert.equal(await reaches(client, OUT.far), true);
  const event = await wouldDeny(it, OUT.far, from);
  assert.deepEqual([event.policy, event.rule, event.mode], ["shop/trial", "no-far", "Monitor"]);
  await it.put("trial", {
    ...CHECKOUT,
    egress: [net("evil", OUT.evil), { name: "no-far", action: "Deny", to: [{ networks: [`${OUT.far}/32`] }] }],
  });
  assert.equal(await reaches(client, OUT.far), false, "in force now");
  assert.equal(await reaches(client, OUT.evil), true);
});

const TOOLS = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"] as const;

/** Every rule of the node, without counters and comments, and every set. */
async function kernelState(it: Shop): Promise<string> {
  let text = "";
  for (const tool of TOOLS) text += (await it.lab.run("node", [tool])).replace(/^#.*$/gm, "").replace(/\[\d+:\d+\]/g, "");
  return text + (await it.lab.run("node", ["ipset", "list", "-n"]));
}

test("Discover touches no rule and no packet, and says what the policies would decide", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { agent: false, policies: { checkout: DISCOVER } });
  const before = await kernelState(it);
  await it.start();
  assert.match((await it.agent.event("the start", ({ why }) => why === "started")).message ?? "", /nothing is touched$/);
  const client = await it.client("checkout");
  const from = it.agent.events().length;
  assert.equal((await client.resolve({ name: "evil.example.net" })).ok, true);
  assert.equal(await reaches(client, OUT.evil, 443), true);
  const event = await wouldDeny(it, OUT.evil, from);
  assert.deepEqual(
    [event.mode, event.why, event.pod?.name, event.destination?.names],
    ["Discover", "wrong-name", "checkout", ["evil.example.net"]],
  );
  assert.equal(await reaches(client, OUT.evil6), true);
  await wouldDeny(it, OUT.evil6, from);
  await client.resolve({ name: "api.stripe.com" });
  await until("allowed", async () => {
    await client.connect({ host: OUT.stripe, port: 443, send: "x" });
    return it.agent.events().some((e) => e.verdict === "allow" && e.mode === "Discover" && e.rule === "stripe");
  });
  assert.equal(await kernelState(it), before);
  const status = await it.agent.status();
  assert.deepEqual([status.ready, status.mode, status.effectiveMode, status.pods[0]?.guarded], [true, "Discover", "Discover", false]);
});

const RANK = { Discover: 0, Monitor: 1, Enforce: 2 } as const;

test("a mode may change while the agent runs, and status and events say so", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT } });
  const client = await it.client("checkout");
  const modes = async (): Promise<unknown[]> => {
    const { mode, effectiveMode, pods, policies } = await it.agent.status();
    return [mode, effectiveMode, pods[0]?.mode, pods[0]?.guarded, policies[0]?.valid];
  };
  const walk = [
    ["Enforce", false, true],
    ["Monitor", true, true],
    ["Discover", true, false],
    ["Monitor", true, true],
    ["Enforce", false, true],
    ["Discover", true, false],
    ["Enforce", false, true],
  ] as const;
  for (const [i, [mode, open, guarded]] of walk.entries()) {
    const from = it.agent.events().length;
    if (i > 0) await it.put("checkout", { ...CHECKOUT, mode });
    assert.equal(await reaches(client, OUT.bank), open, `${i}: ${mode}`);
    assert.equal(await reaches(client, OUT.evil6), open, `${i}: ${mode}`);
    assert.deepEqual(await modes(), [mode, mode, mode, guarded, true], `${i}`);
    if (i > 0)
      assert.equal(
        it.agent
          .events()
          .slice(from)
          .find(({ why }) => ACCEPTED.has(why))?.mode,
        mode,
      );
    // A lowered mode is said by itself, of the policy and of the node, and so is who has written the file.
    const lower = i > 0 && RANK[mode] < RANK[walk[i - 1]?.[0] ?? mode];
    if (i > 0) {
      const of = await it.agent.event("the policy's mode", ({ why }) => why === `policy-mode-${lower ? "lowered" : "raised"}`, { from });
      assert.deepEqual([of.change?.by, of.change?.what], [`uid ${process.getuid?.()}`, [`mode: ${walk[i - 1]?.[0]} → ${mode}`]]);
      await it.agent.event("the node's mode", ({ why }) => why === (lower ? "effective-mode-lowered" : "effective-mode"), { from });
    }
    // Whatever the mode, a name that a rule has can be reached; in Enforce, at once.
    assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x", `${i}: ${mode}`);
  }
});
