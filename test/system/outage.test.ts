import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { outage } from "../../bench/support/outage.ts";
import { need } from "../support/need.ts";
import { SHOP_NEEDS } from "../support/shop.ts";

/** Seconds without an agent, under load; `bench/outage` does it for a minute. */
const AWAY_MS = 5000;
const AROUND_MS = 1000;

test("an agent in a cluster is away for five seconds: established and new connections to learned names go on, none is lost", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "gcc", "openssl"] })) return;
  await outage({ names: 300, held: 50, perSecond: 50 }, async (it) => {
    for (const how of ["stop", "kill"] as const) {
      const counted = await it.load(async () => {
        await sleep(AROUND_MS);
        await it.agent()[how]();
        await sleep(AWAY_MS);
        await it.start();
        await sleep(AROUND_MS);
      });
      const { held, heldLost, exchanges, opened, ok, refused, lost } = counted;
      t.diagnostic(`${how}: ${exchanges} answers to ${held} connections, ${opened} new ones, longest ${counted["max"]} µs`);
      assert.deepEqual({ held, heldLost, refused, lost }, { held: 50, heldLost: 0, refused: 0, lost: 0 }, how);
      assert.ok((exchanges as number) >= 50 * ((AWAY_MS + AROUND_MS) / 1000), "they talk");
      assert.ok((opened as number) >= 45 * ((AWAY_MS + AROUND_MS) / 1000) && ok === opened, "new ones are answered");
    }
  });
});
