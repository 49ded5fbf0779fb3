import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv } from "ajv";
import type { Event } from "../../src/model/event.ts";
import { query } from "../support/dns.ts";
import { need, ROOT } from "../support/need.ts";
import { dnsmasq, unbound } from "../support/resolvers.ts";
import { NAMES, OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

/** DNS with servers that nobody trusts: said, whatever the rules make of the connection, and however it is wrapped. */

const to = (address: string, protocol: string, port: number, application?: string): object => ({
  action: "Accept",
  to: [{ networks: [`${address}/${address.includes(":") ? 128 : 32}`] }],
  ports: [{ protocol, port }],
  ...(application === undefined ? {} : { application }),
});
const named = (name: string, application?: string): object => ({
  action: "Accept",
  to: [{ domainNames: [name] }],
  ports: [{ protocol: "TCP", port: 443 }],
  ...(application === undefined ? {} : { application }),
});
const EGRESS = [
  // The kernel answers for these alone: no packet of theirs comes to userspace.
  { name: "udp", ...to(OUT.far, "UDP", 53) },
  { name: "tcp", ...to(OUT.far, "TCP", 53) },
  { name: "six", ...to(OUT.evil6, "UDP", 53) },
  { name: "dot", ...to(OUT.far, "TCP", 853) },
  { name: "google", ...named("dns.google") },
  // First bytes of these are read.
  { name: "odd-port", ...to(OUT.far, "UDP", 5353, "dns") },
  { name: "path", ...to(OUT.far, "TCP", 8080, "http") },
  { name: "cloudflare", ...named("cloudflare-dns.com", "tls") },
  { name: "plain", ...named("web.example.com", "tls") },
];
const SUBJECT = { podSelector: { matchLabels: { app: "checkout" } } };
const LISTEN = [
  { kind: "echo", port: 853 },
  { kind: "https", port: 443 },
  { kind: "http", port: 8080 },
] as const;
/** Connections that the kernel lets go are met in conntrack, which is read less often where that takes long. */
const SOON = { timeoutMs: 40_000 };

/** Every event of the agent's is what the schema says. */
function valid(events: readonly Event[]): void {
  const check = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(
    JSON.parse(readFileSync(join(ROOT, "src", "model", "event.schema.json"), "utf8")) as object,
  );
  assert.ok(events.length > 0);
  for (const event of events) assert.ok(check(event), `${JSON.stringify(check.errors)}: ${JSON.stringify(event)}`);
}

for (const kind of ["routed", "bridge"] as const) {
  test(`DNS with others is said, allowed and denied (${kind})`, async (t) => {
    const commands = [...SHOP_NEEDS.commands, "dig", "curl", "openssl", "dnsmasq", "unbound"];
    if (!need(t, { ...SHOP_NEEDS, commands })) return;
    const it: Shop = await shop(t, {
      pods: [{ name: "checkout", kind }],
      listen: LISTEN,
      names: {
        ...NAMES,
        "dns.google": { A: [OUT.bank] },
        "cloudflare-dns.com": { A: [OUT.stripe] },
        "web.example.com": { A: [OUT.stripe] },
      },
      policies: { checkout: { mode: "Enforce", subject: SUBJECT, egress: EGRESS } },
    });
    const records = { "api.example.com": ["198.51.100.77"] };
    await dnsmasq(it.lab, "out", { records });
    await unbound(it.lab, "out", { records, port: 5353 });
    const client = await it.client("checkout");
    const dig = (...argv: string[]): Promise<string> =>
      it.lab.run("checkout", ["dig", "+short", "+tries=1", "+time=3", "api.example.com", "A", ...argv]);
    const said = (why: string, address: string, port: number): Promise<Event> =>
      it.agent.event(`${why} ${address}`, (e) => e.why === why && e.destination?.address === address && e.destination.port === port, SOON);
    const curl = (...argv: string[]): Promise<unknown> => it.lab.exec("checkout", ["curl", "-sk", "-m", "5", ...argv]);

    await t.test("a trusted resolver is none of them, nor is what is no DNS", async () => {
      await client.resolve({ name: "web.example.com" });
      const got = await client.connect({ host: OUT.stripe, port: 443, serverName: "web.example.com", send: "GET / HTTP/1.1\r\n\r\n" });
      assert.equal(got.code, null);
    });

    await t.test("a rule's resolver, over UDP, TCP and IPv6, which the kernel lets go", async () => {
      for (const at of [[`@${OUT.far}`], [`@${OUT.far}`, "+tcp"], [`@${OUT.evil6}`]])
        assert.equal((await dig(...at)).trim(), "198.51.100.77");
      const udp = await said("untrusted-resolver", OUT.far, 53);
      assert.deepEqual([udp.type, udp.verdict, udp.policy, udp.pod?.name], ["dns", "allow", "shop/checkout", "checkout"]);
      await it.agent.event("over TCP", (e) => e.why === "untrusted-resolver" && e.rule === "tcp", SOON);
      assert.equal((await said("untrusted-resolver", OUT.evil6, 53)).rule, "six");
    });

    await t.test("one that no rule has: denied as before, and said", async () => {
      await client.datagram({ host: OUT.evil, port: 53, send: query("api.example.com"), timeoutMs: 300 });
      const event = await said("untrusted-resolver", OUT.evil, 53);
      assert.deepEqual([event.verdict, event.suggestion], ["deny", undefined]);
      const denial = await it.agent.event("the denial", (e) => e.type === "connection" && e.destination?.address === OUT.evil);
      assert.deepEqual([denial.verdict, denial.why], ["deny", "no-rule"]);
      assert.match(denial.suggestion ?? "", /^# for spec\.egress of shop\/checkout\n[^]*\n {2}- networks: \["198\.51\.100\.11"\]\n/);
    });

    await t.test("a question on another port, where first bytes are read", async () => {
      assert.equal((await dig(`@${OUT.far}`, "-p", "5353")).trim(), "198.51.100.77");
      const event = await said("untrusted-resolver", OUT.far, 5353);
      assert.deepEqual([event.verdict, event.rule, event.evidence?.fields?.query], ["allow", "odd-port", "api.example.com"]);
    });

    await t.test("over TLS, by its port", async () => {
      assert.equal((await client.connect({ host: OUT.far, port: 853, send: "x" })).data, "x");
      assert.equal((await said("dns-over-tls", OUT.far, 853)).verdict, "allow");
      await client.connect({ host: OUT.evil, port: 853, timeoutMs: 500 });
      assert.equal((await said("dns-over-tls", OUT.evil, 853)).verdict, "deny");
    });

    await t.test("over HTTPS: by the name resolved, the server name, and the path", async () => {
      await client.resolve({ name: "dns.google" });
      await curl(`https://${OUT.bank}/dns-query`);
      const resolved = await said("dns-over-https", OUT.bank, 443);
      assert.deepEqual([resolved.verdict, resolved.rule, resolved.destination?.names], ["allow", "google", ["dns.google"]]);
      await client.resolve({ name: "cloudflare-dns.com" });
      await curl("--resolve", `cloudflare-dns.com:443:${OUT.stripe}`, "https://cloudflare-dns.com/dns-query");
      const event = await said("dns-over-https", OUT.stripe, 443);
      assert.deepEqual([event.verdict, event.rule, event.evidence?.serverName], ["allow", "cloudflare", "cloudflare-dns.com"]);
      await curl(`http://${OUT.far}:8080/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB`);
      assert.equal((await said("dns-over-https", OUT.far, 8080)).rule, "path");
    });

    await t.test("each once, and nothing of the trusted resolver", () => {
      const of = it.agent.events().filter(({ why }) => why === "untrusted-resolver" || (why ?? "").startsWith("dns-over-"));
      const keys = of.map(({ why, verdict, destination: d }) => `${why} ${verdict} ${d?.address} ${d?.port}/${d?.protocol}`);
      assert.deepEqual(keys.toSorted(), [...new Set(keys)].toSorted());
      assert.ok(of.every(({ destination }) => destination?.address !== it.dnsAddress.v4 && destination?.address !== it.dnsAddress.v6));
      valid(it.agent.events());
    });
  });
}

test("Monitor says that it would be denied; a list of one's own takes the place of the built-in one", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "openssl"] })) return;
  const it = await shop(t, {
    agent: false,
    listen: LISTEN,
    names: { "dns.google": { A: [OUT.bank] }, "resolver.dns.example": { A: [OUT.stripe] } },
    policies: { checkout: { mode: "Monitor", subject: SUBJECT, egress: [{ name: "mine", ...named("*.dns.example") }] } },
  });
  await it.start({ args: ["--config", it.lab.file("config.yaml", 'dnsOverHttps: [ "*.dns.example" ]\n')] });
  const client = await it.client("checkout");
  await client.datagram({ host: OUT.evil, port: 53, send: query("api.example.com"), timeoutMs: 300 });
  const event = await it.agent.event("would be denied", (e) => e.why === "untrusted-resolver");
  assert.deepEqual([event.verdict, event.mode], ["would-deny", "Monitor"]);
  for (const [name, host] of [
    ["dns.google", OUT.bank],
    ["resolver.dns.example", OUT.stripe],
  ] as const) {
    await client.resolve({ name });
    await client.connect({ host, port: 443, serverName: name, send: "GET / HTTP/1.1\r\n\r\n" });
  }
  await it.agent.event("of the list", (e) => e.why === "dns-over-https" && e.destination?.address === OUT.stripe, SOON);
  assert.ok(!it.agent.events().some((e) => e.why === "dns-over-https" && e.destination?.address === OUT.bank));
});
