import assert from "node:assert/strict";
import { test } from "node:test";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { clientIn } from "../support/client.ts";
import { clusterDns, LAB_COMMANDS, labFor } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { dnsmasq } from "../support/resolvers.ts";
import { serve } from "../support/servers.ts";

const CHECKOUT = {
  mode: "Enforce",
  subject: { podSelector: { matchLabels: { app: "checkout" } } },
  egress: [{ name: "stripe", action: "Accept", to: [{ domainNames: ["*.stripe.com"] }], ports: [{ protocol: "TCP", port: 443 }] }],
};

for (const iptables of ["nft", "legacy"] as const) {
  for (const kind of ["routed", "bridge"] as const) {
    test(`a ${kind} pod reaches the names of its policy and nothing else (iptables-${iptables})`, async (t) => {
      if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "dnsmasq", "ipset"] })) return;
      const lab = await labFor(t, { iptables: `iptables-${iptables}` });
      const dns = await clusterDns(lab);
      const pod = await lab.addPod({ name: "checkout", kind });
      await lab.addServer({ name: "out", addresses: ["198.51.100.10", "198.51.100.11", "2001:db8::10", "2001:db8::11"] });
      await dnsmasq(lab, dns.pod, {
        port: dns.port,
        records: { "api.stripe.com": ["198.51.100.10", "2001:db8::10"], "evil.example.net": ["198.51.100.11", "2001:db8::11"] },
      });
      const servers = await serve(lab, "out", [
        { kind: "echo", port: 443 },
        { kind: "echo", port: 5432 },
      ]);
      putPolicy(lab, "checkout.yaml", policy("checkout", CHECKOUT));
      const agent = await startAgent(lab, { iptables });
      const client = await clientIn(lab, pod.name);

      for (const [server, good, bad] of [
        [dns.v4, "198.51.100.10", "198.51.100.11"],
        [dns.v6, "2001:db8::10", "2001:db8::11"],
      ] as const) {
        const type = good.includes(":") ? "AAAA" : "A";
        const before = await client.connect({ host: good, port: 443 });
        assert.equal(before.code, "ECONNREFUSED", "an address that no reply named");
        assert.deepEqual((await client.resolve({ name: "api.stripe.com", type, server })).addresses, [good]);
        const allowed = await client.connect({ host: good, port: 443, send: "hello", expect: 5 });
        assert.equal(allowed.data, "hello", "the first connection after the reply");
        assert.equal((await client.connect({ host: good, port: 5432 })).code, "ECONNREFUSED", "another port");
        await client.resolve({ name: "evil.example.net", type, server });
        assert.equal((await client.connect({ host: bad, port: 443 })).code, "ECONNREFUSED", "another name");
        const denied = await agent.event("denied", (e) => e.verdict === "deny" && e.destination?.address === bad);
        assert.equal(denied.why, "wrong-name");
        assert.deepEqual(denied.nearest, { policy: "shop/checkout", rule: "stripe", clause: "name" });
        assert.equal(denied.pod?.name, "checkout");
        assert.deepEqual(denied.destination?.names, ["evil.example.net"]);
        await agent.event("allowed, the first use of the rule", (e) => e.verdict === "allow" && e.rule === "stripe");
      }
      assert.deepEqual(
        new Set(servers.seen().map(({ local, port }) => `${local}:${port}`)),
        new Set(["198.51.100.10:443", "2001:db8::10:443"]),
      );
    });
  }
}
