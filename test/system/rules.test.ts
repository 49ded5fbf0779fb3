import assert from "node:assert/strict";
import { test } from "node:test";
import { need } from "../support/need.ts";
import { until } from "../support/lab.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

/** The agent looks this often in these tests; three seconds by default. */
const CHECK = ["--check-interval", "0.5"];
const RESTORED_MS = 4000;

for (const iptables of ["nft", "legacy"] as const) {
  test(`rules that somebody tampers with are restored, with an alert (iptables-${iptables})`, async (t) => {
    if (!need(t, SHOP_NEEDS)) return;
    // Repairs that come too often are a war, and the agent slows down: two labs share the damage.
    const tool = `iptables-${iptables}`;
    const tool6 = `ip6tables-${iptables}`;
    const damages: readonly (readonly [what: string, table: string, commands: readonly (readonly string[])[]])[] = [
      ["a chain is flushed", "mangle/NG-ADMIT", [[tool, "-w", "-t", "mangle", "-F", "NG-ADMIT"]]],
      ["our jump is deleted", "mangle/PREROUTING", [[tool, "-w", "-t", "mangle", "-D", "PREROUTING", "-j", "NG-ADMIT"]]],
      ["a rule is put in front of ours", "mangle/PREROUTING", [[tool, "-w", "-t", "mangle", "-I", "PREROUTING", "-j", "ACCEPT"]]],
      ["every table is flushed", "filter/FORWARD", ["raw", "mangle", "filter", "security"].map((table) => [tool, "-w", "-t", table, "-F"])],
      [
        "our chains are deleted, IPv6",
        "mangle/NG-ADMIT",
        [
          [tool6, "-w", "-t", "mangle", "-F"],
          [tool6, "-w", "-t", "mangle", "-X"],
        ],
      ],
      [
        "the rejecting rule is replaced, IPv6",
        "filter/NG-DENY",
        [[tool6, "-w", "-t", "filter", "-R", "NG-DENY", "1", "-p", "tcp", "-j", "ACCEPT"]],
      ],
      ["a rule is slipped into our chain", "mangle/NG-VERDICT", [[tool, "-w", "-t", "mangle", "-I", "NG-VERDICT", "-j", "ACCEPT"]]],
    ];
    for (const half of [damages.slice(0, 4), damages.slice(4)]) {
      const it = await shop(t, { iptables, policies: { checkout: CHECKOUT }, args: CHECK });
      const client = await it.client("checkout");
      const known = async (): Promise<void> =>
        assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
      const refused = async (): Promise<boolean> => {
        for (const host of [OUT.bank, OUT.evil6])
          if ((await client.connect({ host, port: 443, timeoutMs: 500 })).code !== "ECONNREFUSED") return false;
        return true;
      };
      await known();
      const hold = (await client.connect({ host: OUT.stripe, port: 443, send: "hi", expect: 2, hold: true })).hold as number;
      for (const [what, table, commands] of half) {
        await t.test(what, async () => {
          assert.ok(await refused());
          const from = it.agent.events().length;
          const start = performance.now();
          for (const command of commands) await it.lab.run("node", command);
          const event = await it.agent.event("restored", (e) => e.why === "rules-restored", { from, timeoutMs: RESTORED_MS });
          t.diagnostic(`${iptables}: ${what}: restored after ${Math.round(performance.now() - start)} ms`);
          assert.ok(String(event.message).includes(table), String(event.message));
          await until("guarded again", refused, RESTORED_MS);
          await known();
          assert.equal((await client.talk({ hold, send: "on", expect: 2 })).data, "on", "what is open goes on");
        });
      }
      await it.agent.stop();
    }
  });
}

test("sets that somebody tampers with are repaired, with an alert", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, {
    policies: {
      checkout: {
        ...CHECKOUT,
        egress: [
          ...CHECKOUT.egress,
          { action: "Accept", to: [{ networks: ["203.0.113.0/24"] }], ports: [{ protocol: "TCP", port: 5432 }] },
        ],
      },
    },
  });
  const client = await it.client("checkout");
  const pod = it.lab.pods.find(({ name }) => name === "checkout");
  await client.resolve({ name: "api.stripe.com" });
  const members = async (set: string): Promise<string> =>
    ((await it.lab.run("node", ["ipset", "list", set])).split("Members:\n")[1] ?? "")
      .replace(/ (timeout [1-9]\d*|packets \d+|bytes \d+)/g, "")
      .split("\n")
      .sort()
      .join("\n");
  const damages: readonly (readonly [what: string, set: string, command: readonly string[]])[] = [
    ["the pod is no longer a source", "ng-src4", ["ipset", "del", "ng-src4", `${pod?.v4},${pod?.interface}`]],
    ["a network is gone", "ng-net4", ["ipset", "flush", "ng-net4"]],
    ["the resolver is gone", "ng-resolver4", ["ipset", "flush", "ng-resolver4"]],
    ["what was learned is gone", "ng-allow4", ["ipset", "flush", "ng-allow4"]],
    ["the memory is gone", "ng-name4", ["ipset", "flush", "ng-name4"]],
    [
      "an address is let through by hand",
      "ng-allow4",
      ["ipset", "add", "ng-allow4", `${OUT.evil},tcp:8080,${pod?.v4}`, "skbmark", "0x40/0x3040"],
    ],
    [
      "an address is let through by hand, for a while",
      "ng-allow4",
      ["ipset", "add", "ng-allow4", `${OUT.evil},tcp:8080,${pod?.v4}`, "timeout", "600", "skbmark", "0x40/0x3040"],
    ],
    [
      "what was learned is made to last for ever",
      "ng-allow4",
      ["ipset", "add", "-exist", "ng-allow4", `${OUT.stripe},tcp:443,${pod?.v4}`, "timeout", "0", "skbmark", "0x40/0x3040"],
    ],
    [
      "a network is let through by hand",
      "ng-net6",
      ["ipset", "add", "ng-net6", `${pod?.v6},tcp:8080,2001:db8::/32`, "skbmark", "0x40/0x3040"],
    ],
  ];
  for (const [what, set, command] of damages) {
    await t.test(what, async () => {
      const wanted = await members(set);
      const from = it.agent.events().length;
      await it.lab.run("node", command);
      await it.agent.event("repaired", (e) => e.why === "set-repaired" && String(e.message).startsWith(set), {
        from,
        timeoutMs: RESTORED_MS,
      });
      await until("as it was", async () => (await members(set)) === wanted, RESTORED_MS);
      assert.equal((await client.connect({ host: OUT.stripe, port: 443, send: "x" })).data, "x");
      assert.equal((await client.connect({ host: OUT.far, port: 5432, send: "x" })).data, "x");
      assert.equal((await client.connect({ host: OUT.evil, port: 8080 })).code, "ECONNREFUSED");
      assert.equal((await client.connect({ host: OUT.evil6, port: 8080 })).code, "ECONNREFUSED");
    });
  }
});

test("a component that keeps changing the rules is named, and the node is not worn out", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT }, args: ["--check-interval", "0.2"] });
  for (let i = 0; i < 5; i++) {
    const from = it.agent.events().length;
    await it.lab.run("node", ["iptables-nft", "-w", "-t", "mangle", "-F", "NG-ADMIT"]);
    const event = await it.agent.event("restored", (e) => e.type === "rules", { from, timeoutMs: RESTORED_MS });
    assert.equal(event.why, i < 4 ? "rules-restored" : "rules-contended");
  }
  const client = await it.client("checkout");
  assert.equal((await client.connect({ host: OUT.bank, port: 443 })).code, "ECONNREFUSED", "restored all the same");
});
