import assert from "node:assert/strict";
import { test } from "node:test";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { type Client, clientIn } from "../support/client.ts";
import { dnsServer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, labFor, until } from "../support/lab.ts";
import { accept, code, enforcing } from "../support/names.ts";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";

/** Which of the connections fail, eight at a time. */
async function failing(client: Client, hosts: readonly string[]): Promise<string[]> {
  const failed: string[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let host = hosts[next++]; host !== undefined; host = hosts[next++]) {
      const got = await code(client, host);
      if (got !== null) failed.push(`${host} ${got}`);
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));
  return failed;
}

test("a name with 1000 addresses: all are usable, newer ones take the place of the oldest, a live one stays", async (t) => {
  if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS] })) return;
  const lab = await labFor(t);
  const dns = await clusterDns(lab);
  await lab.addPod({ name: "client" });
  const six = (i: number): string => `2001:db8::2:${i.toString(16)}`;
  const first = Array.from({ length: 1000 }, (_, i) => six(i));
  const more = Array.from({ length: 200 }, (_, i) => six(1000 + i));
  const probe = "198.51.100.10";
  await lab.addServer({ name: "out", addresses: [...first, ...more, probe] });
  await serve(lab, "out", [{ kind: "echo", port: 443 }]);
  const server = await dnsServer(lab, dns.pod, {
    port: dns.port,
    names: { "many.example.com": { AAAA: first }, "probe.example.org": { A: [probe], ttl: 1 } },
  });
  putPolicy(lab, "client.yaml", enforcing("client", accept(["*.example.com"], 443)));
  putPolicy(
    lab,
    "short.yaml",
    policy("short", {
      mode: "Enforce",
      subject: { podSelector: {} },
      dns: { minTtl: "1s", grace: "0s" },
      egress: [accept(["probe.example.org"], 443)],
    }),
  );
  const agent = await startAgent(lab);
  const client = await clientIn(lab, "client");
  const learn = async (wanted: readonly string[]): Promise<void> => {
    const { addresses } = await client.resolve({ name: "many.example.com", type: "AAAA" });
    assert.deepEqual(new Set(addresses), new Set(wanted));
  };

  await learn(first);
  assert.deepEqual(await failing(client, first), []);
  const held = await client.connect({ host: six(0), port: 443, send: "x", hold: true });
  assert.equal(held.ok, true);
  // Conntrack is read every few seconds. When another live connection has brought its short-lived name back, it has been.
  assert.equal((await client.resolve({ name: "probe.example.org" })).ok, true);
  assert.equal((await client.connect({ host: probe, port: 443, send: "x", hold: true })).ok, true);
  const from = Date.now();
  await until("conntrack was read", async () => (await code(client, probe)) === null && Date.now() - from > 3000, 40_000, 200);
  for (let from = 0; from < more.length; from += 50) {
    await server.setNames({ "many.example.com": { AAAA: more.slice(from, from + 50) } });
    await learn(more.slice(from, from + 50));
  }
  assert.deepEqual(await failing(client, more), [], "the new ones");
  assert.deepEqual(await failing(client, [six(0)]), [], "the one with a live connection");
  assert.equal((await client.talk({ hold: held.hold as number, send: "y" })).data, "y");
  const gone = await failing(client, first);
  assert.equal(gone.length, more.length, "as many as came");
  assert.ok(gone.every((text) => text.endsWith("ECONNREFUSED")));
  const { counters, pods } = await agent.status();
  assert.equal(pods.find(({ name }) => name === "client")?.bindings, 1001);
  assert.equal(counters["bindingsRefused"], 0);
});
