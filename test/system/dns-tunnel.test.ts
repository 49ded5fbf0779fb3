import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { Event } from "../../src/model/event.ts";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { type Client, clientIn } from "../support/client.ts";
import { framed, query, RCODE, rcode } from "../support/dns.ts";
import { clusterDns, LAB_COMMANDS, labFor } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { unbound } from "../support/resolvers.ts";
import { CHECKOUT, SHOP_NEEDS, shop } from "../support/shop.ts";

/** Names that carry data: seen in the replies, and refused on their way out where a policy wants that. */

const chunk = (i: number, octets: number): string =>
  createHash("shake256", { outputLength: octets / 2 })
    .update(`${i}`)
    .digest("hex");
const sign = (e: Event): boolean => e.why === "dns-tunnel";

/** As resolver libraries do, it asks again where nothing comes back. */
async function askAll(client: Client, host: string, names: readonly string[]): Promise<number[]> {
  const codes: number[] = [];
  for (const name of names) {
    let code = -1;
    for (let tries = 0; tries < 3 && code < 0; tries++)
      code = rcode((await client.datagram({ host, port: 53, send: query(name), timeoutMs: 3000 })).data);
    codes.push(code);
  }
  return codes;
}

for (const kind of ["routed", "bridge"] as const) {
  test(`without any setting, a tunnel through unbound is said, and nothing is stopped (${kind})`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "unbound", "dig"] })) return;
    const lab = await labFor(t);
    const dns = await clusterDns(lab);
    await lab.addPod({ name: "client", kind });
    await unbound(lab, dns.pod, { port: dns.port, records: { "api.stripe.com": ["198.51.100.10"] } });
    putPolicy(lab, "all.yaml", policy("all", { ...CHECKOUT, subject: { podSelector: {} } }));
    const agent = await startAgent(lab);
    const client = await clientIn(lab, "client");
    const honest = ["api.stripe.com", "_sip._tcp.example.com", "25.113.0.203.in-addr.arpa", "d111111abcdef8.cloudfront.net"];
    await askAll(
      client,
      dns.v4,
      honest.flatMap((name) => [name, `${name}.shop.svc.cluster.local`]),
    );
    assert.ok(!agent.events().some(sign));
    // 62 octets of hexadecimal text are worth some 29; 4096 in a minute are too many.
    const data = Array.from({ length: 200 }, (_, i) => `${chunk(i, 62)}.t.evil.example`);
    const codes = await askAll(client, dns.v6, data);
    assert.ok(codes.every((code) => code === RCODE.nxdomain));
    const event = await agent.event("signs of a tunnel", sign);
    assert.deepEqual([event.type, event.verdict, event.policy, event.exceeded?.limit], ["dns", "allow", null, "data"]);
    assert.equal(event.exceeded?.domain, "evil.example");
    assert.match(event.message ?? "", /names below evil\.example may carry data: 4\d{3} octets in a minute \(at most 4096\)/);
    assert.equal(agent.events().filter(sign).length, 1, "once a minute");
    // Raw octets, and a type that nobody asks for; over TCP.
    const raw = query([Buffer.from(chunk(1, 100), "hex").toString("latin1"), "other", "example"], { type: 10 });
    await client.connect({ host: dns.v4, port: 53, send: framed(raw), expect: 14 });
    const typed = await agent.event("its type", (e) => sign(e) && e.exceeded?.limit === "types");
    assert.deepEqual([typed.exceeded?.domain, typed.destination?.names], ["other.example", []]);
    assert.match(typed.message ?? "", /type NULL for [\x20-\x7e]+…$/);
  });
}

test("a policy has them refused: the resolver hears no more of them, and everything else goes on", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const limits = { action: "Refuse", names: 20, nameLength: 100 };
  const it = await shop(t, {
    names: { "*": { A: ["198.51.100.99"] }, "api.stripe.com": { A: ["198.51.100.10"] } },
    policies: { checkout: { ...CHECKOUT, dns: { limits } } },
  });
  const client = await it.client("checkout");
  const { v4, v6 } = it.dnsAddress;
  const heard = (part: string): number => new Set(it.dns.queries().flatMap(({ name }) => (name.includes(part) ? [name] : []))).size;

  await t.test("beyond the names of a minute", async () => {
    const codes = await askAll(
      client,
      v4,
      Array.from({ length: 40 }, (_, i) => `n${i}.evil.example`),
    );
    const passed = codes.filter((code) => code === RCODE.ok).length;
    assert.ok(passed >= 19 && passed <= 21, `${passed}`);
    assert.deepEqual(new Set(codes.slice(passed)), new Set([RCODE.refused]));
    assert.equal(heard("evil.example"), passed);
    const event = await it.agent.event("refused", sign);
    assert.deepEqual(
      [event.verdict, event.mode, event.policy, event.exceeded?.limit, event.exceeded?.domain],
      ["deny", "Enforce", "shop/checkout", "names", "evil.example"],
    );
  });

  await t.test("other domains, names that are no host names, and the root go on", async () => {
    assert.deepEqual(await askAll(client, v6, ["api.stripe.com", "a.example.net"]), [RCODE.ok, RCODE.ok]);
    assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
    for (const labels of [["a b", "example", "org"], []])
      assert.notEqual(rcode((await client.datagram({ host: v4, port: 53, send: query(labels) })).data), RCODE.refused);
  });

  await t.test("too long a name, over UDP and TCP, whatever its octets", async () => {
    const long = ["\xff".repeat(60), "b".repeat(60), "long", "example"];
    assert.equal(rcode((await client.datagram({ host: v6, port: 53, send: query(long) })).data), RCODE.refused);
    const got = await client.connect({ host: v4, port: 53, send: framed(query(long)), expect: 14 });
    assert.equal(rcode(got.data.slice(2)), RCODE.refused);
    assert.equal(heard("long"), 0);
  });

  await t.test("what cannot be read is refused too", async () => {
    const two = Uint8Array.from(query("a.example.net"));
    two[5] = 2;
    assert.notEqual(rcode((await client.datagram({ host: v4, port: 53, send: two, timeoutMs: 1000 })).data), RCODE.ok);
  });

  await t.test("Monitor says what it would refuse; Alert in Enforce says it and stops nothing", async () => {
    for (const [mode, action, verdict, at] of [
      ["Monitor", "Refuse", "would-deny", "m"],
      ["Enforce", "Alert", "allow", "a"],
    ] as const) {
      await it.put("checkout", { ...CHECKOUT, mode, dns: { limits: { ...limits, action } } });
      const from = it.agent.events().length;
      const codes = await askAll(
        client,
        v4,
        Array.from({ length: 30 }, (_, i) => `n${i}.${at}.${at}-evil.example`),
      );
      assert.ok(codes.every((code) => code === RCODE.ok));
      const event = await it.agent.event(verdict, sign, { from });
      assert.deepEqual([event.verdict, event.mode, event.exceeded?.limit], [verdict, mode, "names"]);
    }
  });
});
