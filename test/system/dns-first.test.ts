import assert from "node:assert/strict";
import { test } from "node:test";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { burst, type BurstOptions, retransmitted } from "../support/dns.ts";
import { dnsServer, type NameAnswer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, labFor } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";

/**
 * The first connection right after a reply never loses (PEERS 6): a reply is released when the kernel has acknowledged
 * what it taught, so the first SYN finds its answer in a set. No upcall comes to its rescue, and nothing is sent twice.
 */

const NAMES = 250;
const IN_FLIGHT = 8;

type Client = Pick<BurstOptions, "how" | "tcp" | "type"> & {
  readonly kind: "routed" | "bridge";
  readonly over: 4 | 6;
  readonly cut?: boolean;
};

const CLIENTS: Readonly<Record<string, Client>> = {
  "glibc over UDP, IPv4, routed": { how: "glibc", kind: "routed", over: 4 },
  "glibc over UDP, IPv6, bridged": { how: "glibc", kind: "bridge", over: 6 },
  "glibc over TCP, IPv4, bridged": { how: "glibc", kind: "bridge", over: 4, tcp: true },
  "glibc over TCP, IPv6, routed": { how: "glibc", kind: "routed", over: 6, tcp: true },
  "c-ares over UDP, IPv4, bridged": { how: "c-ares", kind: "bridge", over: 4 },
  "c-ares, truncated and then TCP, IPv6, routed": { how: "c-ares", kind: "routed", over: 6, type: "AAAA", cut: true },
};

for (const { iptables, queries } of [
  { iptables: "nft", queries: "AllowedOnly" }, // the queries are queued too (PEERS 21)
  { iptables: "legacy", queries: "All" },
] as const) {
  test(`no first connection after a reply is lost, refused or sent twice (iptables-${iptables}, queries: ${queries})`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS] })) return;
    const lab = await labFor(t, { iptables: `iptables-${iptables}` });
    const dns = await clusterDns(lab);
    const names: Record<string, NameAnswer> = {};
    const addresses: string[] = [];
    for (let i = 0; i < NAMES; i++) {
      const own = { A: [`198.51.100.${i + 1}`], AAAA: [`2001:db8::1:${(i + 1).toString(16)}`] };
      names[`n${i}.example.com`] = own;
      names[`cut${i}.example.com`] = { ...own, truncate: true };
      addresses.push(...own.A, ...own.AAAA);
    }
    const pods = new Map<string, string>();
    for (const [i, what] of Object.keys(CLIENTS).entries()) {
      const pod = await lab.addPod({ name: `pod${i}`, kind: CLIENTS[what]?.kind ?? "routed", labels: { app: "client" } });
      pods.set(what, pod.name);
    }
    await lab.addServer({ name: "out", addresses });
    await serve(lab, "out", [{ kind: "echo", port: 443 }]);
    const server = await dnsServer(lab, dns.pod, { port: dns.port, names });
    putPolicy(
      lab,
      "all.yaml",
      policy("all", {
        mode: "Enforce",
        subject: { podSelector: {} },
        dns: { queries },
        egress: [{ action: "Accept", to: [{ domainNames: ["*.example.com"] }], ports: [{ protocol: "TCP", port: 443 }] }],
      }),
    );
    const agent = await startAgent(lab, { iptables });

    for (const [what, { over, kind: _, cut = false, ...how }] of Object.entries(CLIENTS)) {
      await t.test(what, async () => {
        const pod = pods.get(what) as string;
        lab.setResolvers([over === 4 ? dns.v4 : dns.v6]);
        const asked = server.queries().length;
        const result = await burst(lab, pod, {
          ...how,
          prefix: cut ? "cut" : "n",
          suffix: ".example.com",
          count: NAMES,
          port: 443,
          inFlight: IN_FLIGHT,
        });
        assert.deepEqual(result.failures, []);
        assert.equal(result.connects, how.how === "glibc" ? 2 * NAMES : NAMES);
        assert.equal(await retransmitted(lab, pod), 0, "segments sent twice");
        // glibc asks for both families, c-ares for one; a truncated reply is asked for again.
        assert.equal(server.queries().length - asked, how.how === "glibc" || cut ? 2 * NAMES : NAMES, "no query was sent twice");
        t.diagnostic(
          `${what}: ${result.connects} connects, slowest lookup ${result.lookupMs.toFixed(1)} ms, slowest connect ${result.connectMs.toFixed(1)} ms`,
        );
      });
    }
    const { counters } = await agent.status();
    // A thread that had to wait for a processor preloads nothing for that reply; the first SYN then asks, and is not lost.
    const connects = Object.values(CLIENTS).reduce((sum, { how }) => sum + (how === "glibc" ? 2 : 1) * NAMES, 0);
    t.diagnostic(`${counters["upcalls"]} of ${connects} first SYNs had to ask`);
    assert.ok((counters["upcalls"] as number) <= connects / 50, "the first SYNs found their answers in the kernel");
    assert.equal(counters["upcallsDenied"], 0);
    assert.equal(counters["bindingsRefused"], 0);
  });
}
