import assert from "node:assert/strict";
import { test } from "node:test";
import { explained, policy, putPolicy, startAgent } from "../support/agent.ts";
import { clientIn } from "../support/client.ts";
import { dnsServer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, labFor, until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";

/**
 * A TTL governs new connections: clamp(TTL, minTtl, maxTtl) + grace. Every case runs beside the others in one lab, for
 * most of the time is waiting.
 */
test("how long a reply is good for", { concurrency: true }, async (t) => {
  if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS] })) return;
  const lab = await labFor(t);
  const dns = await clusterDns(lab);
  const SHORT = { minTtl: "1s", grace: "0s" };
  const HTTPS = [{ protocol: "TCP", port: 443 }];
  const cases = {
    ports: { kind: "routed", dns: SHORT, ports: HTTPS },
    any: { kind: "routed", dns: SHORT, ports: undefined },
    held: { kind: "bridge", dns: SHORT, ports: HTTPS },
    grace: { kind: "routed", dns: { minTtl: "1s", grace: "3s" }, ports: HTTPS },
    jvm: { kind: "bridge", dns: { minTtl: "30s", grace: "0s" }, ports: HTTPS },
    zero: { kind: "bridge", dns: { minTtl: "0s", grace: "0s" }, ports: HTTPS },
    max: { kind: "routed", dns: { minTtl: "1s", maxTtl: "2s", grace: "0s" }, ports: HTTPS },
  } as const;
  const names: Record<string, { A: string[]; AAAA: string[]; ttl: number }> = {};
  for (const [i, [name, { kind, ports, ...one }]] of Object.entries(cases).entries()) {
    await lab.addPod({ name, kind });
    names[`${name}.example.com`] = {
      A: [`198.51.100.${i + 1}`],
      AAAA: [`2001:db8::${i + 1}`],
      ttl: { held: 5, max: 3600, zero: 0 }[name] ?? 1,
    };
    const egress = [
      { name: "it", action: "Accept", to: [{ domainNames: [`${name}.example.com`] }], ...(ports === undefined ? {} : { ports }) },
    ];
    putPolicy(
      lab,
      `${name}.yaml`,
      policy(name, { mode: "Enforce", subject: { podSelector: { matchLabels: { app: name } } }, dns: one.dns, egress }),
    );
  }
  await lab.addServer({ name: "out", addresses: Object.values(names).flatMap(({ A, AAAA }) => [...A, ...AAAA]) });
  await serve(lab, "out", [{ kind: "echo", port: 443 }]);
  const server = await dnsServer(lab, dns.pod, { port: dns.port, names });
  const agent = await startAgent(lab);

  const one = async (
    name: keyof typeof cases,
    run: (of: {
      connect: (host?: string) => Promise<string | null>;
      learn: () => Promise<void>;
      v4: string;
      v6: string;
      client: Awaited<ReturnType<typeof clientIn>>;
    }) => Promise<void>,
  ): Promise<void> => {
    const client = await clientIn(lab, name);
    const asked = `${name}.example.com`;
    const [v4, v6] = [names[asked]?.A[0] as string, names[asked]?.AAAA[0] as string];
    await run({
      client,
      v4,
      v6,
      connect: async (host = v4) => (await client.connect({ host, port: 443, send: "x" })).code,
      learn: async () => {
        assert.equal((await client.resolve({ name: asked })).ok, true);
        assert.equal((await client.resolve({ name: asked, type: "AAAA", server: dns.v4 })).ok, true);
      },
    });
  };
  /** Asked, not tried: a connection that conntrack is read in the middle of keeps its name for a minute. */
  const runsOut = async (what: string, pod: string, host: string): Promise<void> => {
    await until(
      what,
      async () => {
        const { now } = await explained(lab, { pod: `shop/${pod}`, to: host.includes(":") ? `[${host}]:443` : `${host}:443` });
        return now?.cases[0]?.why === "stale-dns";
      },
      75_000,
      200,
    );
    // The kernel counts whole seconds, from when it was told.
    await new Promise((resolve) => setTimeout(resolve, 2000));
  };
  const stale = (name: string, address: string): Promise<unknown> =>
    agent.event(
      `${name} is stale`,
      (e) =>
        e.verdict === "deny" &&
        e.why === "stale-dns" &&
        e.pod?.name === name &&
        e.destination?.address === address &&
        e.nearest?.clause === "stale",
    );

  const expires = (name: "ports" | "any"): Promise<void> =>
    one(name, async ({ connect, learn, v4, v6 }) => {
      await learn();
      assert.deepEqual([await connect(), await connect(v6)], [null, null], `${name}: fresh`);
      for (const host of [v4, v6]) {
        // An any-port decision is the kernel's for as long as its name is fresh, not longer.
        await runsOut(`${name} ${host} runs out`, name, host);
        assert.equal(await connect(host), "ECONNREFUSED");
        await stale(name, host);
      }
      await learn();
      assert.deepEqual([await connect(), await connect(v6)], [null, null], `${name}: asked again, at once`);
    });

  const others = Promise.all([
    t.test("with minTtl 1s and no grace: stale-dns, and good again after the next query", () => expires("ports")),
    t.test("the same for a rule without ports, which the kernel has no element for in advance", () => expires("any")),
    t.test("maxTtl shortens a long TTL", () =>
      one("max", async ({ connect, learn, v4 }) => {
        await learn();
        assert.equal(await connect(), null);
        await runsOut("maxTtl is over", "max", v4);
        assert.equal(await connect(), "ECONNREFUSED");
        await stale("max", v4);
      }),
    ),
    t.test("a TTL of zero is good for the connection that it was asked for, at any moment of a second", () =>
      one("zero", async ({ client, connect, v4 }) => {
        const from = Date.now();
        const failed: (string | null)[] = [];
        let rounds = 0;
        for (; Date.now() - from < 3000; rounds++) {
          const { connected } = await client.resolveThenConnect({ name: "zero.example.com", server: dns.v4, port: 443, send: "x" });
          if (connected?.ok !== true) failed.push(connected?.code ?? null);
        }
        assert.ok(rounds > 50);
        assert.deepEqual(failed, [], `of ${rounds}`);
        await runsOut("and not for long", "zero", v4);
        assert.equal(await connect(), "ECONNREFUSED");
        await stale("zero", v4);
      }),
    ),
    t.test("grace comes on top of the TTL", () =>
      one("grace", async ({ connect, learn, v4 }) => {
        await learn();
        const from = Date.now();
        await until("the TTL is over", () => Date.now() - from > 2000);
        assert.equal(await connect(), null, "within the grace");
        await runsOut("the grace is over", "grace", v4);
        assert.equal(await connect(), "ECONNREFUSED");
        assert.ok(Date.now() - from >= 3000);
      }),
    ),
    t.test("minTtl lengthens a short one: a client that caches for longer than it should (JVM)", () =>
      one("jvm", async ({ connect, learn, v6 }) => {
        await learn();
        const queries = (): number => server.queries().filter(({ name }) => name === "jvm.example.com").length;
        const asked = queries();
        const from = Date.now();
        await until("the TTL was over long ago", () => Date.now() - from > 6000, 7000);
        assert.deepEqual([await connect(), await connect(v6)], [null, null]);
        assert.equal(queries(), asked, "nobody asked again");
      }),
    ),
  ]);
  await Promise.all([
    others,
    t.test("a live connection keeps its name: it goes on, and new ones may join it", () =>
      one("held", async ({ client, connect, learn, v4, v6 }) => {
        await learn();
        const held = await client.connect({ host: v4, port: 443, send: "x", hold: true });
        assert.equal(held.code, null);
        await runsOut("the other family's name runs out", "held", v6);
        assert.equal(await connect(v6), "ECONNREFUSED");
        await stale("held", v6);
        assert.equal(await connect(), null, "a new connection beside the live one");
        assert.equal((await client.talk({ hold: held.hold as number, send: "still there" })).data, "still there");
        await others;
        await agent.kill();
        assert.equal((await client.talk({ hold: held.hold as number, send: "and now" })).data, "and now", "without an agent too");
      }),
    ),
  ]);
});
