import assert from "node:assert/strict";
import { test } from "node:test";
import type { Connected } from "../support/client.ts";
import { namegate, policy, putPolicy } from "../support/agent.ts";
import { need } from "../support/need.ts";
import { until } from "../support/lab.ts";
import { CHECKOUT, NAMES, OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

for (const [kind, iptables] of [
  ["routed", "nft"],
  ["bridge", "legacy"],
] as const) {
  test(`kill -9 and back: a ${kind} pod (iptables-${iptables})`, async (t) => {
    if (!need(t, SHOP_NEEDS)) return;
    const it = await shop(t, { pods: [{ name: "checkout", kind }], iptables, policies: { checkout: CHECKOUT } });
    const client = await it.client("checkout");
    const resolved = async (six = false): Promise<void> =>
      assert.ok((await client.resolve({ name: "api.stripe.com", ...(six ? { type: "AAAA" as const } : {}) })).ok);
    await resolved();
    await resolved(true);
    const held: number[] = [];
    for (const host of [OUT.stripe, OUT.stripe6])
      held.push((await client.connect({ host, port: 443, send: "hi", expect: 2, hold: true })).hold as number);
    const alive = async (why: string): Promise<void> => {
      for (const hold of held) {
        const said = await client.talk({ hold, send: "on", expect: 2, timeoutMs: 1000 });
        assert.equal(said.data, "on", `${why}: ${said.code}`);
        assert.ok(said.ms < 180, `${why}: no retransmission (${said.ms} ms)`); // TCP's least time-out is 200 ms
      }
    };
    let unknown: Promise<Connected>[] = [];

    await t.test("dead: what is open goes on, what was learned can be opened, DNS works, the unknown waits", async () => {
      await it.agent.kill();
      await alive("established");
      for (const host of [OUT.stripe, OUT.stripe6]) {
        const known = await client.connect({ host, port: 443, send: "new", expect: 3 });
        assert.equal(known.data, "new");
        assert.ok(known.ms < 500);
      }
      assert.deepEqual((await client.resolve({ name: "bank.example.com" })).addresses, [OUT.bank]);
      const queries = it.dns.queries().length;
      unknown = [
        client.connect({ host: OUT.evil, port: 443, timeoutMs: 15_000 }),
        client.connect({ host: OUT.evil6, port: 443, timeoutMs: 15_000 }),
      ];
      let settled = false;
      void Promise.race(unknown).then(() => {
        settled = true;
      });
      await new Promise((resolve) => setTimeout(resolve, 700));
      assert.equal(settled, false, "neither allowed nor refused");
      assert.equal(it.dns.queries().length, queries);
    });

    await t.test("back: nothing was forgotten, nothing is interrupted, what waited is answered", async () => {
      const queries = it.dns.queries().length;
      const agent = await it.start();
      await alive("while it comes back");
      for (const host of [OUT.stripe, OUT.stripe6]) assert.equal((await client.connect({ host, port: 443, send: "x" })).data, "x");
      assert.equal(it.dns.queries().length, queries, "without another DNS query");
      for (const answer of await Promise.all(unknown)) assert.equal(answer.code, "ECONNREFUSED");
      const status = await agent.status();
      assert.equal(status.pods[0]?.bindings, 2, "the bindings were read back");
      assert.equal(status.effectiveMode, "Enforce");
      assert.ok(
        !agent.events().some(({ why }) => why === "rules-restored" || why === "set-repaired"),
        "its predecessor's rules and sets were recognised",
      );
      await resolved();
      await alive("later");
      assert.equal(
        (await client.connect({ host: OUT.bank, port: 443 })).code,
        "ECONNREFUSED",
        "a name heard while it was dead taught nothing",
      );
    });

    await t.test("an allowed connection that waits is opened", async () => {
      await it.agent.kill();
      putPolicy(
        it.lab,
        "checkout.yaml",
        policy("checkout", {
          ...CHECKOUT,
          egress: [
            ...CHECKOUT.egress,
            { name: "far", action: "Accept", to: [{ networks: [`${OUT.far}/32`] }], ports: [{ protocol: "TCP", port: 5432 }] },
          ],
        }),
      );
      const waits = client.connect({ host: OUT.far, port: 5432, send: "x", timeoutMs: 15_000 });
      await it.start();
      const got = await waits;
      assert.equal(got.data, "x", "by TCP's own retransmission");
    });

    await t.test("a graceful stop leaves the rules", async () => {
      await it.agent.stop();
      assert.equal(it.agent.child.status, 0);
      assert.ok(it.agent.events().some(({ why }) => why === "stopped"));
      await alive("stopped");
      assert.equal((await client.connect({ host: OUT.stripe, port: 443, send: "x" })).data, "x");
      assert.equal((await client.connect({ host: OUT.bank, port: 8080, timeoutMs: 600 })).code, "ETIMEDOUT", "nobody is there to decide");
      assert.ok((await client.resolve({ name: "bank.example.com" })).ok);
      await it.start();
      await alive("started again");
    });
  });
}

test("kill -9 at any moment: starting, learning, changing", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, {
    policies: { checkout: CHECKOUT },
    names: { ...NAMES, "many.stripe.com": { A: [OUT.stripe, OUT.evil, OUT.bank, OUT.far] } },
  });
  const client = await it.client("checkout");
  await client.resolve({ name: "api.stripe.com" });
  const hold = (await client.connect({ host: OUT.stripe, port: 443, send: "hi", expect: 2, hold: true })).hold as number;
  let random = 7; // a fixed walk, so that a failure can be seen again
  const next = (below: number): number => {
    random = (random * 1103515245 + 12345) % 2147483648;
    return random % below;
  };
  for (let round = 0; round < 10; round++) {
    // Five while it starts (one to two seconds), five while a policy changes.
    if (round < 5) {
      await it.agent.kill();
      const agent = await it.start({ ready: false });
      await new Promise((resolve) => setTimeout(resolve, round * 400 + next(400)));
      await agent.kill();
    } else {
      const more = { name: "far", action: "Accept", to: [{ networks: [`${OUT.far}/32`] }], ports: [{ protocol: "TCP", port: 5432 }] };
      putPolicy(
        it.lab,
        "checkout.yaml",
        policy("checkout", round % 2 === 0 ? CHECKOUT : { ...CHECKOUT, egress: [...CHECKOUT.egress, more] }),
      );
      void client.resolve({ name: "many.stripe.com" });
      await new Promise((resolve) => setTimeout(resolve, next(20)));
      await it.agent.kill();
    }
    const said = await client.talk({ hold, send: "on", expect: 2, timeoutMs: 3000 });
    assert.equal(said.data, "on", `round ${round}, dead: ${said.code}`);
    await it.start();
    assert.equal((await client.talk({ hold, send: "on", expect: 2, timeoutMs: 3000 })).data, "on", `round ${round}, back`);
    const known = await client.connect({ host: OUT.stripe, port: 443, send: "x" });
    assert.equal(known.data, "x", `round ${round}: the name it knows (${known.code})`);
    assert.equal(
      (await client.connect({ host: OUT.evil6, port: 443 })).code,
      "ECONNREFUSED",
      `round ${round}: the address it does not know`,
    );
    // The rules of two agents' starts are not there twice.
    const jumps = (await it.lab.run("node", ["iptables-nft-save", "-t", "mangle"]))
      .split("\n")
      .filter((line) => line === "-A PREROUTING -j NG-ADMIT");
    assert.equal(jumps.length, 1);
  }
});

test("an invalid policy: the last good one stays, also over a restart; status, event and `check` say where", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT } });
  const client = await it.client("checkout");
  const holds = async (why: string): Promise<void> => {
    assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x", why);
    assert.equal((await client.connect({ host: OUT.bank, port: 443 })).code, "ECONNREFUSED", why);
  };
  await holds("good");
  const broken = [
    ["a misspelt mode", policy("checkout", { ...CHECKOUT, mode: "Enforced" }), /checkout\.yaml:\d+:\d+: .*mode/],
    ["an unknown field", policy("checkout", { ...CHECKOUT, egres: [] }), /checkout\.yaml:\d+:\d+: .*egres/],
    ["not YAML", "kind: ConfigMap\n  data: [", /checkout\.yaml:\d+:\d+: /],
  ] as const;
  for (const [why, text, place] of broken) {
    await t.test(why, async () => {
      const from = it.agent.events().length;
      putPolicy(it.lab, "checkout.yaml", text);
      const event = await it.agent.event("invalid", (e) => e.why === "policy-invalid" || e.why === "input-invalid", { from });
      assert.match(String(event.message), place);
      await holds(why);
      const [state] = (await it.agent.status()).policies;
      assert.deepEqual([state?.name, state?.valid, state?.inForce], ["shop/checkout", false, true]);
      assert.match(String(state?.errors[0]), place);
      const checked = await namegate(it.lab, "check", `${it.lab.dir}/policies/checkout.yaml`);
      assert.equal(checked.status, 1);
      assert.match(checked.stdout + checked.stderr, place);
      await it.agent.kill();
      await it.start();
      await holds(`${why}, after a restart`);
    });
  }
  await t.test("put right, it is in force", async () => {
    await it.put("checkout", {
      ...CHECKOUT,
      egress: [{ action: "Accept", to: [{ networks: [`${OUT.bank}/32`] }], ports: [{ protocol: "TCP", port: 443 }] }],
    });
    assert.equal((await client.connect({ host: OUT.bank, port: 443, send: "x" })).data, "x");
    await until("valid", async () => (await it.agent.status()).policies.every(({ valid }) => valid));
  });
});

test("a second agent on the node is refused before it touches anything", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT } });
  const client = await it.client("checkout");
  const first = await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" });
  assert.equal(first.connected?.data, "x", JSON.stringify(first));
  const sets = (): Promise<string> => it.lab.run("node", ["ipset", "save", "ng-net4"]);
  const before = await sets();
  // It knows no policies, and would take everything away.
  const empty = it.lab.file("empty.yaml", `${it.lab.podsFile().split("pods:")[0]}pods: []\n`);
  const args = ["agent", "--policies", it.lab.dir, "--pods", empty, "--socket", `${it.lab.dir}/other.sock`, "--metrics", "off"];
  const second = await namegate(it.lab, ...args, "--state", `${it.lab.dir}/other`);
  assert.equal(second.status, 2);
  assert.match(second.stderr, /another process listens on NFQUEUE \d+[^]*fix: is another agent running on this node\?/);
  assert.equal(await sets(), before);
  const next = await client.connect({ host: OUT.stripe, port: 443, send: "x" });
  assert.equal(next.data, "x", JSON.stringify(next));
  assert.equal((await client.connect({ host: OUT.evil, port: 443 })).code, "ECONNREFUSED");
});
