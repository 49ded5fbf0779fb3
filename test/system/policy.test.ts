import assert from "node:assert/strict";
import { test } from "node:test";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, STRIPE, shop } from "../support/shop.ts";

/** What a denied datagram ends with: ICMP administratively prohibited, as Linux tells each family (net/ipv4/icmp.c, net/ipv6/icmp.c). */
const PROHIBITED = { v4: "EHOSTUNREACH", v6: "EACCES" };

for (const kind of ["routed", "bridge"] as const) {
  test(`what a ${kind} pod's denial is like, and what it leaves alone`, async (t) => {
    if (!need(t, SHOP_NEEDS)) return;
    const it = await shop(t, {
      pods: [
        { name: "checkout", kind },
        { name: "free", kind },
        { name: "other", kind: "routed" },
      ],
      policies: { checkout: CHECKOUT },
    });
    await serve(it.lab, "node", [
      { kind: "echo", port: 8443 },
      { kind: "udp-echo", port: 8443 },
    ]);
    await serve(it.lab, "checkout", [
      { kind: "echo", port: 9000 },
      { kind: "udp-echo", port: 9000 },
    ]);

    await t.test("TCP is reset at once", async () => {
      const client = await it.client("checkout");
      for (const host of [OUT.evil, OUT.evil6, it.lab.node.v4, it.lab.node.v6]) {
        const first = await client.connect({ host, port: 8443 });
        assert.deepEqual([first.code, first.data], ["ECONNREFUSED", ""], host);
        const took: number[] = [];
        for (let port = 20_000; port < 20_015; port++) took.push((await client.connect({ host, port })).ms);
        took.sort((a, b) => a - b);
        assert.ok((took[7] as number) < 20, `the median denial took ${took[7]} ms`); // generous: the machine may be busy
      }
    });

    await t.test("a datagram is answered with `administratively prohibited`", async () => {
      const client = await it.client("checkout");
      for (const host of [OUT.evil, OUT.evil6, it.lab.node.v4, it.lab.node.v6]) {
        const wanted = host.includes(":") ? PROHIBITED.v6 : PROHIBITED.v4;
        for (let i = 0; i < 2; i++)
          assert.equal((await client.datagram({ host, port: 8443, send: "x" })).code, wanted, `${host}, ${i === 0 ? "judged" : "cached"}`);
      }
    });

    await t.test("the event says who, where and why", async () => {
      const client = await it.client("checkout");
      const from = it.agent.events().length;
      await client.connect({ host: OUT.bank, port: 5432 });
      const event = await it.agent.event("denial", (e) => e.verdict === "deny" && e.destination?.address === OUT.bank, { from });
      assert.deepEqual(
        [
          event.type,
          event.mode,
          event.why,
          event.pod?.namespace,
          event.pod?.name,
          event.pod?.labels,
          event.policies,
          event.destination?.port,
          event.destination?.protocol,
        ],
        ["connection", "Enforce", "no-rule", "shop", "checkout", { app: "checkout" }, ["shop/checkout"], 5432, "TCP"],
      );
      assert.ok(event.source?.address.startsWith("10.244."));
    });

    await t.test("a denial ends when a reply names the address", async () => {
      const client = await it.client("checkout");
      for (const [host, server, type] of [
        [OUT.stripe, it.dnsAddress.v4, "A"],
        [OUT.stripe6, it.dnsAddress.v6, "AAAA"],
      ] as const) {
        assert.equal((await client.connect({ host, port: 443 })).code, "ECONNREFUSED");
        const both = await client.resolveThenConnect({ name: "api.stripe.com", type, server, port: 443, send: "now", expect: 3 });
        assert.equal(both.connected?.data, "now", "at once, although the denial was cached");
      }
    });

    await t.test("what one pod has learned opens nothing for another", async () => {
      const other = await it.client("free");
      await it.put("free", { ...CHECKOUT, subject: { podSelector: { matchLabels: { app: "free" } } } });
      assert.equal((await other.connect({ host: OUT.stripe, port: 443 })).code, "ECONNREFUSED");
      await it.drop("free");
      assert.equal((await other.connect({ host: OUT.stripe, port: 443, send: "x" })).data, "x", "unguarded again");
    });

    await t.test("a pod without a policy goes anywhere", async () => {
      for (const pod of ["free", "other"]) {
        const client = await it.client(pod);
        for (const host of [OUT.evil, OUT.evil6]) {
          assert.equal((await client.connect({ host, port: 5432, send: "x" })).data, "x");
          assert.equal((await client.datagram({ host, port: 7000, send: "u" })).data, "u");
        }
      }
    });

    await t.test("everybody reaches the guarded pod, and gets its answers", async () => {
      const pod = it.lab.pods.find(({ name }) => name === "checkout");
      for (const where of ["free", "other", "out", "node"]) {
        const client = await it.client(where);
        for (const host of pod?.addresses ?? []) {
          assert.equal((await client.connect({ host, port: 9000, send: "probe", expect: 5 })).data, "probe", `${where} → ${host}`);
          assert.equal((await client.datagram({ host, port: 9000, send: "probe" })).data, "probe", `${where} → ${host}, UDP`);
        }
      }
    });

    await t.test("the node's own traffic is nobody's business", async () => {
      const node = await it.client("node");
      for (const host of [OUT.evil, OUT.evil6]) assert.equal((await node.connect({ host, port: 5432, send: "x" })).data, "x");
      assert.equal(
        (await it.lab.exec("node", ["ping", "-c1", "-W2", it.lab.pods.find(({ name }) => name === "checkout")?.v4 as string])).status,
        0,
      );
    });

    await t.test("ping goes where the policy lets it", async () => {
      // Denied pings are answered too, but Linux sends one host only a few ICMP errors a second (icmp_ratelimit).
      const pings = async (host: string): Promise<boolean> =>
        (await it.lab.exec("checkout", ["ping", "-c1", "-W1", host])).stdout.includes(" 1 received");
      assert.deepEqual([await pings(OUT.far), await pings(OUT.evil6)], [false, false]);
      await it.put("checkout", {
        ...CHECKOUT,
        egress: [
          STRIPE,
          {
            name: "ping",
            action: "Accept",
            to: [{ networks: [`${OUT.far}/32`, `${OUT.evil6}/128`] }],
            ports: [
              { protocol: "ICMP", type: 8 },
              { protocol: "ICMPv6", type: 128 },
            ],
          },
        ],
      });
      assert.deepEqual([await pings(OUT.far), await pings(OUT.evil6), await pings(OUT.evil)], [true, true, false]);
      await it.put("checkout", CHECKOUT);
      assert.equal(await pings(OUT.far), false);
    });

    await t.test("no packet of a denied connection arrived anywhere", async () => {
      const own = it.lab.pods.find(({ name }) => name === "checkout")?.addresses ?? [];
      const seen = it.out.seen().filter(({ from }) => own.includes(from));
      assert.deepEqual(new Set(seen.map(({ local, port }) => `${local} ${port}`)), new Set([`${OUT.stripe} 443`, `${OUT.stripe6} 443`]));
    });
  });
}
