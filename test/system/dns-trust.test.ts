import assert from "node:assert/strict";
import { test } from "node:test";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { type Client, clientIn } from "../support/client.ts";
import packet from "dns-packet";
import { query, rcode } from "../support/dns.ts";
import { dnsServer, reply } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, labFor } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { dnsmasq, unbound } from "../support/resolvers.ts";
import { serve } from "../support/servers.ts";

/** Whose replies teach: only a trusted resolver's, only on the pod's own connection to it, only this pod. */

const HTTPS = [{ protocol: "TCP", port: 443 }];
const EXAMPLE = { name: "example", action: "Accept", to: [{ domainNames: ["*.example.com"] }], ports: HTTPS };
const ALL = { mode: "Enforce", subject: { podSelector: {} } };

async function code(client: Client, host: string, port = 443): Promise<string | null> {
  return (await client.connect({ host, port, send: "x" })).code;
}

const UNASKED = `
import { createSocket } from "node:dgram";
const socket = createSocket("udp4");
socket.bind(53, () => socket.send(Buffer.from(process.argv[2], "hex"), 40000, process.argv[1], () => socket.close()));
`;

test("a reply of another server on port 53 teaches nothing, nor does one that nobody asked for", async (t) => {
  if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS] })) return;
  const lab = await labFor(t);
  const dns = await clusterDns(lab);
  const [v4, v6] = ["198.51.100.10", "2001:db8::10"];
  const rogue = { v4: "198.51.100.53", v6: "2001:db8::53" };
  await lab.addPod({ name: "routed" });
  await lab.addPod({ name: "bridged", kind: "bridge" });
  await lab.addServer({ name: "out", addresses: [v4, v6] });
  await lab.addServer({ name: "rogue", addresses: [rogue.v4, rogue.v6] });
  await serve(lab, "out", [{ kind: "echo", port: 443 }]);
  const names = { "api.example.com": { A: [v4], AAAA: [v6] } };
  await dnsServer(lab, "rogue", { names });
  await dnsServer(lab, dns.pod, { port: dns.port, names });
  const anyDns = {
    name: "dns",
    action: "Accept",
    to: [{ networks: [`${rogue.v4}/32`, `${rogue.v6}/128`] }],
    ports: [
      { protocol: "UDP", port: 53 },
      { protocol: "TCP", port: 53 },
    ],
  };
  putPolicy(lab, "all.yaml", policy("all", { ...ALL, egress: [EXAMPLE, anyDns] }));
  const agent = await startAgent(lab);

  for (const name of ["routed", "bridged"]) {
    const client = await clientIn(lab, name);
    for (const server of [rogue.v4, `[${rogue.v6}]`]) {
      assert.deepEqual((await client.resolve({ name: "api.example.com", server })).addresses, [v4], `${name} hears ${server}`);
      assert.deepEqual((await client.resolve({ name: "api.example.com", type: "AAAA", server })).addresses, [v6]);
    }
    // Nobody asked: from the resolver's own pod and from port 53.
    const unasked = reply(packet.decode(Buffer.from(query("api.example.com"))), names, "udp") as Buffer;
    const pod = lab.pods.find((one) => one.name === name)?.v4 as string;
    await lab.script(dns.pod, UNASKED, [pod, unasked.toString("hex")]).exited;
    assert.deepEqual([await code(client, v4), await code(client, v6)], ["ECONNREFUSED", "ECONNREFUSED"], name);
    const denied = await agent.event("denied", (e) => e.verdict === "deny" && e.pod?.name === name);
    assert.equal(denied.why, "no-name");
    assert.equal((await agent.status()).counters["replies"], name === "routed" ? 0 : 2, "nobody even read them");
    // The same reply, of the resolver.
    await client.resolve({ name: "api.example.com", server: dns.v4 });
    await client.resolve({ name: "api.example.com", type: "AAAA", server: `[${dns.v6}]` });
    assert.deepEqual([await code(client, v4), await code(client, v6)], [null, null], name);
  }
});

test("a reply to one pod opens nothing for another, whoever of them has the wider policy", async (t) => {
  if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS] })) return;
  const lab = await labFor(t);
  const dns = await clusterDns(lab);
  const [shared, shared6] = ["198.51.100.10", "2001:db8::10"];
  const kinds = { a: "routed", b: "routed", c: "bridge" } as const;
  for (const [name, kind] of Object.entries(kinds)) await lab.addPod({ name, kind });
  await lab.addServer({ name: "out", addresses: [shared, shared6] });
  await serve(lab, "out", [
    { kind: "echo", port: 443 },
    { kind: "echo", port: 5432 },
  ]);
  const both = { A: [shared], AAAA: [shared6] };
  await dnsServer(lab, dns.pod, { port: dns.port, names: { "one.example.com": both, "two.example.org": both } });
  const only = (app: string, pattern: string, port: number): string =>
    policy(app, {
      mode: "Enforce",
      subject: { podSelector: { matchLabels: { app } } },
      egress: [{ name: app, action: "Accept", to: [{ domainNames: [pattern] }], ports: [{ protocol: "TCP", port }] }],
    });
  putPolicy(lab, "a.yaml", only("a", "*.example.com", 443));
  putPolicy(lab, "b.yaml", only("b", "*.example.org", 5432));
  putPolicy(lab, "c.yaml", only("c", "*.example.com", 443));
  const agent = await startAgent(lab);
  const [a, b, c] = [await clientIn(lab, "a"), await clientIn(lab, "b"), await clientIn(lab, "c")];
  const learn = async (client: Client, name: string): Promise<void> => {
    await client.resolve({ name, server: dns.v4 });
    await client.resolve({ name, type: "AAAA", server: dns.v4 });
  };
  for (const host of [shared, shared6])
    assert.deepEqual(await Promise.all([code(a, host), code(b, host, 5432), code(c, host)]), Array(3).fill("ECONNREFUSED"));
  await learn(a, "one.example.com");
  // The same rule, the same address, another pod: it never asked.
  for (const host of [shared, shared6])
    assert.deepEqual(await Promise.all([code(a, host), code(b, host, 5432), code(c, host)]), [null, "ECONNREFUSED", "ECONNREFUSED"]);
  await learn(b, "one.example.com"); // a name that is not its own
  for (const host of [shared, shared6])
    assert.deepEqual(await Promise.all([code(b, host), code(b, host, 5432)]), ["ECONNREFUSED", "ECONNREFUSED"]);
  await learn(b, "two.example.org");
  // Two wildcards, one address (PEERS 3): each pod has its own, on its own port, and neither takes the other's.
  for (const host of [shared, shared6]) {
    assert.deepEqual(await Promise.all([code(a, host), code(b, host, 5432)]), [null, null]);
    assert.deepEqual(await Promise.all([code(a, host, 5432), code(b, host), code(c, host)]), Array(3).fill("ECONNREFUSED"));
  }
  const denied = await agent.event(
    "b on a's port",
    (e) => e.verdict === "deny" && e.pod?.name === "b" && e.destination?.port === 443 && e.destination.names.length === 2,
  );
  assert.equal(denied.why, "wrong-port");
});

for (const iptables of ["nft", "legacy"] as const) {
  test(`a cache on the node, untracked, teaches as the cluster's DNS does (NodeLocal, iptables-${iptables})`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "dig", "unbound"] })) return;
    const lab = await labFor(t, { iptables: `iptables-${iptables}` });
    const local = ["169.254.20.10", "10.96.0.10", "fd00:10:96::a"];
    await lab.addPod({ name: "routed" });
    await lab.addPod({ name: "bridged", kind: "bridge" });
    const wide = Array.from({ length: 3 }, (_, i) => [`198.51.100.${i + 1}`, `2001:db8::${i + 1}`]);
    await lab.addServer({ name: "out", addresses: [...wide.flat(), "198.51.100.150", "198.51.100.200"] });
    await serve(lab, "out", [{ kind: "echo", port: 443 }]);
    const many = ["198.51.100.150", ...Array.from({ length: 400 }, (_, i) => `198.18.${i >> 8}.${i & 255}`)];
    await lab.nodeLocal(local, { notrack: true });
    lab.setResolvers(local);
    const records = Object.fromEntries([
      ...wide.map((list, i) => [`n${i}.example.com`, list] as const),
      ["evil.example.net", ["198.51.100.200"]],
    ]);
    if (iptables === "nft") await unbound(lab, "node", { records });
    else {
      const of = (list: readonly string[]): object => ({
        A: list.filter((one) => !one.includes(":")),
        AAAA: list.filter((one) => one.includes(":")),
      });
      const names = { ...records, "wide.example.com": many };
      await dnsServer(lab, "node", { names: Object.fromEntries(Object.entries(names).map(([name, list]) => [name, of(list)])) });
    }
    // AllowedOnly: its refusals take the untracked way too.
    putPolicy(lab, "all.yaml", policy("all", { ...ALL, dns: { queries: "AllowedOnly" }, egress: [EXAMPLE] }));
    await startAgent(lab, { iptables });
    for (const name of ["routed", "bridged"]) {
      const client = await clientIn(lab, name);
      for (const [i, server] of local.entries()) {
        const what = `${name}, ${server}`;
        const [v4, v6] = wide[i] as [string, string];
        const of = `n${i}.example.com`;
        assert.deepEqual([await code(client, v4), await code(client, v6)], ["ECONNREFUSED", "ECONNREFUSED"], `${what} before`);
        const at = server.includes(":") ? `[${server}]` : server;
        assert.deepEqual((await client.resolve({ name: of, server: at })).addresses, [v4], what);
        assert.equal(await code(client, v4), null, `${what}, UDP`);
        const shown = await lab.run(name, ["dig", `@${server}`, "+tcp", "+short", "+tries=1", of, "AAAA"]);
        assert.equal(shown.trim(), v6, `${what}, TCP`);
        assert.equal(await code(client, v6), null, `${what}, TCP`);
        const refusal = await client.datagram({ host: server, port: 53, send: query("evil.example.net") });
        assert.equal(rcode(refusal.data), 5, `${what}: ${refusal.code}`);
        assert.ok(refusal.ms < 500, `refused at once: ${refusal.ms}`);
      }
      assert.equal(await code(client, "198.51.100.200"), "ECONNREFUSED");
      if (iptables === "nft") continue; // unbound says little over UDP
      const shown = await lab.run(name, [
        "dig",
        `@${local[0]}`,
        "+notcp",
        "+ignore",
        "+bufsize=65535",
        "+short",
        "+tries=1",
        "wide.example.com",
      ]);
      assert.equal(shown.trim().split("\n").length, many.length, "in fragments, untracked");
      assert.equal(await code(client, "198.51.100.150"), null);
    }
  });
}

for (const kind of ["routed", "bridge"] as const) {
  test(`dnsmasq and unbound behind a ClusterIP, ${kind} pod, glibc and curl`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "curl", "dnsmasq", "unbound", "getent"] })) return;
    const lab = await labFor(t);
    const dns = await clusterDns(lab);
    await lab.addPod({ name: "client", kind });
    const [v4, v6, w4, w6] = ["198.51.100.10", "2001:db8::10", "198.51.100.11", "2001:db8::11"];
    await lab.addServer({ name: "out", addresses: [v4, v6, w4, w6] });
    await serve(lab, "out", [{ kind: "http", port: 443 }]);
    putPolicy(lab, "all.yaml", policy("all", { ...ALL, egress: [EXAMPLE] }));
    await startAgent(lab);
    const start = { dnsmasq, unbound };
    for (const [which, addresses] of [
      ["dnsmasq", [v4, v6]],
      ["unbound", [w4, w6]],
    ] as const) {
      const resolver = await start[which](lab, dns.pod, { port: dns.port, records: { [`${which}.example.com`]: addresses } });
      for (const server of [dns.v4, dns.v6]) {
        lab.setResolvers([server]);
        const shown = await lab.run("client", ["getent", "ahosts", `${which}.example.com`]);
        assert.deepEqual(
          new Set(shown.split("\n").flatMap((line) => line.split(/\s+/)[0] || [])),
          new Set(addresses),
          `${which} ${server}`,
        );
        for (const family of ["-4", "-6"]) {
          const got = await lab.exec("client", ["curl", "-sS", family, "--max-time", "3", `http://${which}.example.com:443/`]);
          assert.ok(got.stdout.includes(`"host":"${which}.example.com:443"`), `${which} ${server} ${family}: ${got.stderr}`);
        }
      }
      await resolver.stop();
    }
  });
}
