import assert from "node:assert/strict";
import { test } from "node:test";
import packet from "dns-packet";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { type Client, clientIn } from "../support/client.ts";
import { framed, query, RCODE, rcode } from "../support/dns.ts";
import { dnsServer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, labFor, until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";

/**
 * `dns.queries: AllowedOnly`: another name is answered with REFUSED, at once, and no resolver ever hears of it; a name
 * that a rule has works as ever, however it is asked for.
 */

const [V4, V6] = ["198.51.100.10", "2001:db8::10"];
/** Far below any resolver library's time-out. */
const AT_ONCE_MS = 300;

const NAMES = {
  "api.stripe.com": { A: [V4], AAAA: [V6] },
  "evil.example.net": { A: ["198.51.100.66"] },
};

/** What a stub resolver may be made to ask for, that no rule has: labels with dots, NULs, and worse. */
const WEIRD: Readonly<Record<string, readonly string[]>> = {
  "a label that contains a dot": ["api.stripe", "com"],
  another: ["x.api", "stripe", "com"],
  "a NUL behind the name": ["api", "stripe", "com\0"],
  "a NUL and the rest of another": ["evil\0", "api", "stripe", "com"],
  "the root": [],
  "octets that are no text": ["\xff\xfe", "stripe", "com"],
  "a space": ["a pi", "stripe", "com"],
  "data in a name (a tunnel)": ["a".repeat(60), "b".repeat(60), "c".repeat(60), "evil", "net"],
};

for (const kind of ["routed", "bridge"] as const) {
  test(`queries for other names are refused at once (${kind})`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "dig", "getent"] })) return;
    const lab = await labFor(t);
    const dns = await clusterDns(lab);
    await lab.addPod({ name: "client", kind });
    await lab.addServer({ name: "out", addresses: [V4, V6] });
    await serve(lab, "out", [{ kind: "echo", port: 443 }]);
    const server = await dnsServer(lab, dns.pod, { port: dns.port, names: { ...NAMES, "*": { A: ["198.51.100.99"] } } });
    putPolicy(
      lab,
      "all.yaml",
      policy("all", {
        mode: "Enforce",
        subject: { podSelector: {} },
        dns: { queries: "AllowedOnly" },
        egress: [{ name: "stripe", action: "Accept", to: [{ domainNames: ["*.stripe.com"] }], ports: [{ protocol: "TCP", port: 443 }] }],
      }),
    );
    const agent = await startAgent(lab);
    const client = await clientIn(lab, "client");
    let marks = 0;
    /** Every query that has reached the resolver: a last one, which may pass, shows that nothing is on its way. */
    const heard = async (): Promise<string[]> => {
      const mark = `mark${marks++}.stripe.com`;
      await client.datagram({ host: dns.v4, port: 53, send: query(mark) });
      await until("the last query", () => server.queries().some(({ name }) => name === mark));
      return server.queries().flatMap(({ name }) => (name.startsWith("mark") ? [] : [name]));
    };
    const over = (host: string, message: Uint8Array, tcp = false): Promise<{ data: string; ms: number; code: string | null }> =>
      tcp
        ? client
            .connect({ host, port: 53, send: framed(message), expect: 2 + message.length })
            .then((r) => ({ ...r, data: r.data.slice(2) }))
        : client.datagram({ host, port: 53, send: message });
    const connect = async (from: Client = client): Promise<(string | null)[]> =>
      Promise.all([V4, V6].map(async (host) => (await from.connect({ host, port: 443, send: "x" })).code));

    await t.test("REFUSED, over UDP and TCP, IPv4 and IPv6, the case kept, and an event", async () => {
      const name = "EvIl.eXample.NET";
      for (const host of [dns.v4, dns.v6]) {
        for (const tcp of [false, true]) {
          for (const type of [1, 28, 65]) {
            const id = 0x1000 + type;
            const reply = await over(host, query(name, { id, type }), tcp);
            assert.equal(rcode(reply.data), RCODE.refused, `${host} tcp:${tcp} ${type}: ${reply.code}`);
            assert.ok(reply.ms < AT_ONCE_MS, `${reply.ms} ms`);
            const read = packet.decode(Buffer.from(reply.data, "latin1"));
            assert.deepEqual([read.id, read.questions?.[0]?.name], [id, name]);
          }
        }
      }
      assert.deepEqual(await heard(), []);
      const event = await agent.event("the refusal", (e) => e.type === "dns");
      assert.deepEqual(
        [event.verdict, event.why, event.pod?.name, event.destination?.names],
        ["deny", "name-not-allowed", "client", ["evil.example.net"]],
      );
      assert.equal((await client.resolve({ name: "evil.example.net" })).code, "EREFUSED");
      const shown = await lab.run("client", ["dig", `@${dns.v4}`, "+tries=1", "evil.example.net"]);
      assert.match(shown, /status: REFUSED/);
      assert.match(shown, /EDE: 18/, "and why (RFC 8914)");
      assert.deepEqual(await heard(), []);
    });

    await t.test("an allowed name works, over UDP and TCP", async () => {
      assert.equal((await client.resolve({ name: "api.stripe.com" })).ok, true);
      const shown = await lab.run("client", ["dig", `@${dns.v6}`, "+tcp", "+short", "+tries=1", "api.stripe.com", "AAAA"]);
      assert.equal(shown.trim(), V6);
      assert.deepEqual(await connect(), [null, null]);
    });

    await t.test("an allowed name works through search domains (ndots:5)", async () => {
      const conf = lab.file(
        "resolv.conf",
        `nameserver ${dns.v4}\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:2 attempts:1\n`,
      );
      // The searched names do not exist, as in a cluster.
      await server.setNames(NAMES);
      const from = performance.now();
      const shown = await lab.run("client", ["sh", "-c", `mount --bind ${conf} /etc/resolv.conf && exec getent ahosts api.stripe.com`]);
      assert.ok(performance.now() - from < 1500, "no time-out on the way");
      assert.ok(shown.includes(V4) && shown.includes(V6), shown);
      assert.deepEqual(
        new Set(await heard()),
        new Set(["api.stripe.com", ...["shop.svc.", "svc.", ""].map((search) => `api.stripe.com.${search}cluster.local`)]),
      );
      const refused = await lab.exec("client", [
        "sh",
        "-c",
        `mount --bind ${conf} /etc/resolv.conf && exec getent ahosts evil.example.net`,
      ]);
      assert.equal(refused.status, 2, "not found");
      assert.deepEqual(
        (await heard()).filter((name) => name.startsWith("evil")),
        [],
      );
    });

    await t.test("names that are no host names are refused, and never forwarded", async () => {
      const before = await heard();
      for (const [what, labels] of Object.entries(WEIRD)) {
        for (const tcp of [false, true]) {
          const reply = await over(dns.v4, query(labels), tcp);
          assert.equal(rcode(reply.data), RCODE.refused, `${what} tcp:${tcp}: ${reply.code}`);
        }
      }
      assert.deepEqual(await heard(), before);
    });

    await t.test("messages that are no queries are answered with an error, or nothing, and never forwarded", async () => {
      const before = await heard();
      const good = query("api.stripe.com");
      const two = Uint8Array.from([...good.subarray(0, 5), 2, ...good.subarray(6), ...query("evil.example.net").subarray(12)]);
      assert.notEqual(rcode((await over(dns.v4, two)).data), RCODE.ok, "two questions");
      const trailing = Uint8Array.from([...good, 1, 2, 3, 4]);
      assert.notEqual(rcode((await over(dns.v4, trailing)).data), RCODE.ok, "octets behind the question");
      const short = await client.datagram({ host: dns.v4, port: 53, send: good.subarray(0, 7), timeoutMs: 300 });
      assert.equal(short.code, "ETIMEDOUT", "too short to be answered");
      assert.deepEqual(await heard(), before);
    });

    await t.test("TCP: an allowed query and then another on one connection", async () => {
      const before = (await heard()).filter((name) => name !== "api.stripe.com");
      const first = await client.connect({
        host: dns.v4,
        port: 53,
        send: framed(query("api.stripe.com", { id: 1 })),
        expect: 40,
        hold: true,
      });
      assert.equal(rcode(first.data.slice(2)), RCODE.ok);
      const second = await client.talk({ hold: first.hold as number, send: framed(query("evil.example.net", { id: 2 })), expect: 14 });
      assert.equal(rcode(second.data.slice(2)), RCODE.refused, String(second.code));
      assert.equal(second.data.slice(2, 4), "\0\x02");
      // In one segment behind an allowed one, and split between its length and its name.
      const both = Uint8Array.from([...framed(query("api.stripe.com", { id: 3 })), ...framed(query("evil.example.net", { id: 4 }))]);
      await client.connect({ host: dns.v4, port: 53, send: both, expect: 14, timeoutMs: 1000 });
      const evil = framed(query("evil.example.net", { id: 5 }));
      const begun = await client.connect({ host: dns.v6, port: 53, hold: true });
      await client.talk({ hold: begun.hold as number, send: evil.subarray(0, 20), expect: 0 });
      const split = await client.talk({ hold: begun.hold as number, send: evil.subarray(20), expect: 14 });
      assert.equal(rcode(split.data.slice(2)), RCODE.refused, String(split.code));
      assert.deepEqual(
        (await heard()).filter((name) => name !== "api.stripe.com"),
        before,
      );
    });

    await t.test("without an agent queries pass, and what is known stays known", async () => {
      const held = await client.connect({
        host: dns.v4,
        port: 53,
        send: framed(query("api.stripe.com", { id: 1 })),
        expect: 40,
        hold: true,
      });
      await agent.kill();
      const other = await client.datagram({ host: dns.v4, port: 53, send: query("evil.example.net") });
      assert.equal(rcode(other.data), RCODE.ok, `${other.code}`);
      const again = await client.talk({ hold: held.hold as number, send: framed(query("api.stripe.com", { id: 2 })), expect: 40 });
      assert.equal(rcode(again.data.slice(2)), RCODE.ok, "a TCP connection that was open before");
      assert.deepEqual(await connect(), [null, null]);
      const next = await startAgent(lab);
      await until(
        "refused again",
        async () => rcode((await client.datagram({ host: dns.v4, port: 53, send: query("evil.example.net") })).data) === RCODE.refused,
      );
      // The stream began before the agent: it cannot be followed, so the pod is told to connect anew rather than left waiting.
      const cut = await client.talk({ hold: held.hold as number, send: framed(query("api.stripe.com", { id: 3 })), expect: 40 });
      assert.ok(cut.code === "ECONNRESET" || cut.code === "EEND", `${cut.code} after ${cut.ms} ms`);
      assert.equal((await over(dns.v4, query("api.stripe.com"), true)).code, null);
      await next.stop();
    });
  });
}
