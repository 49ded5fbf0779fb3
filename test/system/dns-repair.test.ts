import assert from "node:assert/strict";
import { test } from "node:test";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { clientIn } from "../support/client.ts";
import { dnsServer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, labFor } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";

/**
 * "Learned, but not in the datapath" (PEERS 2): what the kernel holds is compared with what was learned every half second
 * and more; the difference is repaired, and said.
 */

/** An idle agent with few elements compares twice a second; the machine may be busy. */
const REPAIR_MS = 5000;

for (const kind of ["routed", "bridge"] as const) {
  test(`sets that somebody has meddled with are put right in seconds, and it is said (${kind})`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "ipset"] })) return;
    const lab = await labFor(t);
    const dns = await clusterDns(lab);
    const pod = await lab.addPod({ name: "client", kind });
    const of = {
      4: { good: "198.51.100.10", bad: "198.51.100.11", own: pod.v4 as string, later: "198.51.100.12", net: "203.0.113.10" },
      6: { good: "2001:db8::10", bad: "2001:db8::11", own: pod.v6 as string, later: "2001:db8::12", net: "2001:db8:1::10" },
    } as const;
    await lab.addServer({
      name: "out",
      addresses: [4, 6].flatMap((v) => [of[v as 4].good, of[v as 4].bad, of[v as 4].later, of[v as 4].net]),
    });
    await serve(lab, "out", [{ kind: "echo", port: 443 }]);
    const names = {
      "good.example.com": { A: [of[4].good], AAAA: [of[6].good] },
      "later.example.com": { A: [of[4].later], AAAA: [of[6].later] },
    };
    await dnsServer(lab, dns.pod, { port: dns.port, names });
    const rule = { action: "Accept", ports: [{ protocol: "TCP", port: 443 }] };
    const egress = [
      { ...rule, to: [{ domainNames: ["*.example.com"] }] },
      { ...rule, to: [{ networks: ["203.0.113.0/24", "2001:db8:1::/48"] }] },
    ];
    putPolicy(lab, "all.yaml", policy("all", { mode: "Enforce", subject: { podSelector: {} }, dns: { queries: "AllowedOnly" }, egress }));
    const agent = await startAgent(lab);
    const client = await clientIn(lab, "client");
    const code = async (host: string): Promise<string | null> => (await client.connect({ host, port: 443, send: "x" })).code;
    const learn = async (name: string): Promise<void> => {
      await client.resolve({ name, server: dns.v4 });
      await client.resolve({ name, type: "AAAA", server: dns.v4 });
    };
    const ipset = (...words: readonly string[]): Promise<string> => lab.run("node", ["ipset", ...words]);
    const elements = async (set: string): Promise<string[]> => {
      const text = await ipset("list", set);
      return text
        .slice(text.indexOf("Members:\n") + 9)
        .split("\n")
        .flatMap((line) => (line === "" ? [] : [line.split(" ")[0] as string]))
        .sort();
    };
    const said = (set: string, from: number): Promise<unknown> =>
      agent.event(`${set} was repaired`, (e) => e.why === "set-repaired" && (e.message ?? "").startsWith(`${set} `), {
        from,
        timeoutMs: REPAIR_MS,
      });

    await learn("good.example.com");
    for (const role of ["src", "resolver", "guard", "query", "net", "allow", "name"]) {
      await t.test(`ng-${role} emptied`, async () => {
        const sets = [`ng-${role}4`, `ng-${role}6`];
        const before = await Promise.all(sets.map(elements));
        for (const list of before) assert.ok(list.length > 0);
        const from = agent.events().length;
        for (const set of sets) await ipset("flush", set);
        for (const set of sets) await said(set, from);
        assert.deepEqual(await Promise.all(sets.map(elements)), before);
      });
    }
    for (const v of [4, 6] as const) {
      await t.test(`one element of ng-allow${v} deleted: the pod can connect all the while, and without asking in the end`, async () => {
        await ipset("del", `ng-allow${v}`, `${of[v].good},tcp:443,${of[v].own}`);
        assert.equal(await code(of[v].good), null, "an upcall stands in");
        const { upcalls } = (await agent.status()).counters;
        for (let i = 0; i < 5; i++) assert.equal(await code(of[v].good), null);
        assert.equal((await agent.status()).counters["upcalls"], upcalls);
      });
      await t.test(`a stranger's element in ng-allow${v}, and one of ours changed to let everything in`, async () => {
        assert.equal(await code(of[v].bad), "ECONNREFUSED");
        let from = agent.events().length;
        await ipset("add", `ng-allow${v}`, `${of[v].bad},tcp:443,${of[v].own}`, "skbmark", "0x40/0x3040", "timeout", "600");
        await said(`ng-allow${v}`, from);
        assert.equal(await code(of[v].bad), "ECONNREFUSED");
        from = agent.events().length;
        const [member] = (await elements(`ng-src${v}`)).filter((one) => one.startsWith(of[v].own));
        await ipset("add", `ng-src${v}`, member as string, "skbmark", "0x1040/0x3040", "-exist"); // "unguarded"
        await said(`ng-src${v}`, from);
        assert.equal(await code(of[v].bad), "ECONNREFUSED");
      });
    }
    await t.test("afterwards everything is as it was", async () => {
      assert.equal((await client.resolve({ name: "evil.example.net", server: dns.v4 })).code, "EREFUSED");
      await learn("later.example.com");
      const { upcalls } = (await agent.status()).counters;
      for (const v of [4, 6] as const) {
        for (const host of [of[v].good, of[v].later, of[v].net]) assert.equal(await code(host), null, host);
      }
      assert.equal((await agent.status()).counters["upcalls"], upcalls, "the kernel answers alone");
      const { counters } = await agent.status();
      assert.ok((counters["repaired"] as number) >= 14);
      assert.equal(counters["faults"], 0);
    });
  });
}
