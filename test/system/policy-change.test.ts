import assert from "node:assert/strict";
import { test } from "node:test";
import { parse, stringify } from "yaml";
import type { Connected } from "../support/client.ts";
import { need } from "../support/need.ts";
import { until } from "../support/lab.ts";
import { CHECKOUT, NAMES, OUT, SHOP_NEEDS, type Shop, STRIPE, shop } from "../support/shop.ts";

/** A connection that is no longer allowed is reset within this. */
const REVOKED_MS = 1000;
const SERVICE = { v4: "10.96.0.50", v6: "fd00:10:96::50" };

const tcp = (port: number): unknown => ({ protocol: "TCP", port });
const FAR = { name: "far", action: "Accept", to: [{ networks: [`${OUT.far}/32`, `${OUT.evil6}/128`] }], ports: [tcp(5432)] };
const SVC = { name: "svc", action: "Accept", to: [{ domainNames: ["svc.example.com"] }], ports: [tcp(443)] };
const BOTH = { ...CHECKOUT, egress: [STRIPE, FAR, SVC] };

for (const kind of ["routed", "bridge"] as const) {
  test(`a change of policy reaches the live connections of a ${kind} pod`, async (t) => {
    if (!need(t, SHOP_NEEDS)) return;
    const it = await shop(t, {
      pods: [
        { name: "checkout", kind },
        { name: "twin", kind },
        { name: "free", kind },
      ],
      names: { ...NAMES, "other.example.com": { A: [OUT.stripe] }, "svc.example.com": { A: [SERVICE.v4], AAAA: [SERVICE.v6] } },
      policies: { checkout: BOTH, twin: { ...BOTH, subject: { podSelector: { matchLabels: { app: "twin" } } } } },
    });
    await it.lab.service({ address: SERVICE.v4, port: 443, target: OUT.far, targetPort: 8080 });
    await it.lab.service({ address: SERVICE.v6, port: 443, target: OUT.evil6, targetPort: 8080 });
    const client = await it.client("checkout");
    const twin = await it.client("twin");
    const free = await it.client("free");

    const open = async (who: typeof client, name: string, six = false): Promise<number> => {
      const { connected, resolved } = await who.resolveThenConnect({
        name,
        port: 443,
        send: "hi",
        expect: 2,
        hold: true,
        ...(six ? { type: "AAAA" as const } : {}),
      });
      assert.equal(connected?.data, "hi", `${name}: ${resolved.code ?? connected?.code}`);
      return connected?.hold as number;
    };
    const direct = async (who: typeof client, host: string): Promise<number> => {
      const connected = await who.connect({ host, port: 5432, send: "hi", expect: 2, hold: true });
      assert.equal(connected.data, "hi", host);
      return connected.hold as number;
    };
    /** The client waits in recv, as most connections of most pods do. */
    const waiting = (who: typeof client, hold: number): Promise<Connected> => who.talk({ hold, send: "", expect: 1, timeoutMs: 5000 });

    await t.test("what is no longer allowed is reset, also while nobody speaks; the rest goes on", async () => {
      const gone = await Promise.all([open(client, "api.stripe.com"), open(client, "api.stripe.com", true)]);
      const stay = await Promise.all([direct(client, OUT.far), direct(client, OUT.evil6)]);
      const others = await Promise.all([open(twin, "api.stripe.com"), open(twin, "svc.example.com", true)]);
      const unguarded = await direct(free, OUT.evil);
      const idle = gone.map((hold) => waiting(client, hold));
      const from = it.agent.events().length;
      const start = performance.now();
      await it.put("checkout", { ...CHECKOUT, egress: [FAR] });
      for (const [i, ended] of (await Promise.all(idle)).entries()) {
        assert.equal(ended.code, "ECONNRESET", `connection ${i}`);
      }
      const took = performance.now() - start;
      assert.ok(took < REVOKED_MS, `reset after ${took} ms`);
      t.diagnostic(`${kind}: idle connections reset ${Math.round(took)} ms after the change`);
      const event = await it.agent.event("revoked", (e) => e.verdict === "deny" && e.destination?.address === OUT.stripe, { from });
      assert.equal(event.pod?.name, "checkout");
      for (const hold of stay) assert.equal((await client.talk({ hold, send: "on", expect: 2 })).data, "on", "still allowed");
      for (const hold of others) assert.equal((await twin.talk({ hold, send: "on", expect: 2 })).data, "on", "another pod's");
      assert.equal((await free.talk({ hold: unguarded, send: "on", expect: 2 })).data, "on", "an unguarded pod's");
      assert.equal((await client.connect({ host: OUT.stripe, port: 443 })).code, "ECONNREFUSED", "and no new one");
    });

    await t.test("a port whose connection was revoked is as good as any other for the next one", async () => {
      const localPort = 41_000;
      await it.put("checkout", BOTH);
      const { connected } = await client.resolveThenConnect({
        name: "api.stripe.com",
        port: 443,
        localPort,
        send: "hi",
        expect: 2,
        hold: true,
      });
      assert.equal(connected?.data, "hi");
      const idle = waiting(client, connected.hold as number);
      await it.put("checkout", { ...CHECKOUT, egress: [{ ...STRIPE, to: [{ domainNames: ["other.example.com"] }] }] });
      assert.equal((await idle).code, "ECONNRESET");
      // The same address, by a name that is allowed.
      const next = await client.resolveThenConnect({ name: "other.example.com", port: 443, localPort, send: "hi", expect: 2 });
      assert.equal(next.connected?.data, "hi", JSON.stringify(next));
      await it.put("checkout", { ...CHECKOUT, egress: [FAR] });
    });

    // On a bridge the kernel's own reset would have the wrong source here (nf_send_reset).
    await t.test("so it is behind a ClusterIP", async () => {
      await it.put("checkout", BOTH);
      const gone = await Promise.all([open(client, "svc.example.com"), open(client, "svc.example.com", true)]);
      const idle = gone.map((hold) => waiting(client, hold));
      await it.put("checkout", { ...CHECKOUT, egress: [FAR] });
      const fresh = [SERVICE.v4, SERVICE.v6].map((host) => client.connect({ host, port: 443 }));
      assert.deepEqual(
        (await Promise.all([...idle, ...fresh])).map(({ code }) => code),
        ["ECONNRESET", "ECONNRESET", "ECONNREFUSED", "ECONNREFUSED"],
      );
    });

    await t.test("what is newly allowed works at once, without another DNS query", async () => {
      const queries = it.dns.queries().length;
      await it.put("checkout", BOTH);
      for (const host of [OUT.stripe, OUT.stripe6, SERVICE.v4, SERVICE.v6])
        assert.equal((await client.connect({ host, port: 443, send: "x" })).data, "x", host);
      assert.equal(it.dns.queries().length, queries);
    });

    await t.test("a Deny that arrives cuts what an Accept let through", async () => {
      const hold = await direct(client, OUT.far);
      const idle = waiting(client, hold);
      await it.put("checkout", {
        ...BOTH,
        egress: [...BOTH.egress, { name: "no", action: "Deny", to: [{ networks: ["203.0.113.0/24"] }] }],
      });
      assert.equal((await idle).code, "ECONNRESET");
    });

    await t.test("a policy that first comes cuts what an unguarded pod had open, and one that goes lets it alone", async () => {
      const hold = await direct(free, OUT.evil);
      const kept = await direct(free, OUT.far);
      const idle = waiting(free, hold);
      await it.put("free", { ...CHECKOUT, subject: { podSelector: { matchLabels: { app: "free" } } }, egress: [FAR] });
      const ended = await idle;
      assert.equal(ended.code, "ECONNRESET");
      assert.ok(ended.ms < REVOKED_MS + 500, `after ${ended.ms} ms`);
      assert.equal((await free.talk({ hold: kept, send: "on", expect: 2 })).data, "on");
      await it.drop("free");
      assert.equal((await free.talk({ hold: kept, send: "on", expect: 2 })).data, "on");
      assert.equal((await free.connect({ host: OUT.evil, port: 8080, send: "x" })).data, "x");
    });

    await t.test("a change takes the kernel less than 10 ms", async () => {
      const micros: number[] = [];
      for (let i = 0; i < 5; i++) {
        await it.put("checkout", { ...BOTH, dns: { grace: `${10 + i}s` } });
        micros.push((await it.agent.status()).lastUpdate?.microseconds as number);
      }
      micros.sort((a, b) => a - b);
      t.diagnostic(`${kind}: from change to kernel, median ${micros[2]} µs`);
      assert.ok((micros[2] as number) < 10_000, micros.join());
    });
  });
}

interface PodsFile {
  resolvers: string[];
  pods: { name: string; interface: string; addresses: string[]; labels: Record<string, string> }[];
}

/** Rewrites the pods file, in place. */
function repod(it: Shop, change: (file: PodsFile) => void): void {
  const file = parse(it.lab.podsFile()) as PodsFile;
  change(file);
  it.lab.file("pods.yaml", stringify(file));
}

test("the pods file may change: pods come, go, change labels, addresses and interfaces", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, {
    pods: [{ name: "checkout" }, { name: "later", labels: { app: "checkout" }, listed: false }],
    policies: { checkout: CHECKOUT },
  });
  const client = await it.client("checkout");
  const later = await it.client("later");
  const can = async (who: typeof client, host: string = OUT.bank): Promise<boolean> =>
    (await who.connect({ host, port: 5432, send: "x", timeoutMs: 500 })).ok;
  const pod = it.lab.pods.find(({ name }) => name === "later");
  const entry = {
    namespace: "shop",
    name: "later",
    labels: { app: "checkout" },
    interface: pod?.interface ?? "",
    addresses: [...(pod?.addresses ?? [])],
  };

  await t.test("a pod that is listed is guarded", async () => {
    assert.equal(await can(later), true);
    repod(it, (file) => file.pods.push(entry));
    await until("guarded", async () => !(await can(later)));
    assert.equal((await later.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
    assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
  });

  await t.test("another label, another policy", async () => {
    repod(it, (file) => file.pods.push({ ...entry, labels: { app: "else" } }));
    await until("unguarded", () => can(later));
    repod(it, (file) => file.pods.push(entry));
    await until("guarded", async () => !(await can(later)));
  });

  await t.test("another address: the old one is a stranger's, and what it had learned is gone", async () => {
    const [old4] = entry.addresses;
    const new4 = "10.244.0.77";
    await it.lab.run("node", ["ip", "route", "add", `${new4}/32`, "dev", entry.interface, "scope", "link"]);
    await it.lab.run("later", ["ip", "addr", "add", `${new4}/32`, "dev", "eth0"]);
    await it.lab.run("later", ["ip", "route", "replace", "default", "via", "169.254.1.1", "dev", "eth0", "src", new4]);
    repod(it, (file) => file.pods.push({ ...entry, addresses: [new4, ...entry.addresses.slice(1)] }));
    await until(
      "guarded by its new address",
      async () => (await later.connect({ host: OUT.bank, port: 5432, timeoutMs: 500 })).code === "ECONNREFUSED",
    );
    assert.equal((await later.connect({ host: OUT.stripe, port: 443, timeoutMs: 500 })).code, "ECONNREFUSED", "nothing is inherited");
    assert.equal((await later.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
    await it.lab.run("later", ["ip", "route", "replace", "default", "via", "169.254.1.1", "dev", "eth0", "src", old4 as string]);
    assert.equal(
      (await later.connect({ host: OUT.stripe, port: 443, timeoutMs: 500 })).code,
      "ETIMEDOUT",
      "the old address is spoofed now",
    );
    repod(it, (file) => file.pods.push(entry));
    await until(
      "guarded by its old address",
      async () => (await later.connect({ host: OUT.bank, port: 5432, timeoutMs: 500 })).code === "ECONNREFUSED",
    );
  });

  await t.test("a pod that is gone is not guarded, and leaves nothing behind", async () => {
    assert.equal((await later.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
    const before = (await it.agent.status()).sets;
    repod(it, () => undefined);
    await until("unguarded", () => can(later));
    const { sets, pods } = await it.agent.status();
    assert.deepEqual(
      pods.map(({ name }) => name),
      ["checkout"],
    );
    for (const set of ["ng-src4", "ng-guard4", "ng-guard6", "ng-allow4"])
      assert.ok((sets[set] as number) < (before[set] as number), `${set}: ${sets[set]}, before ${before[set]}`);
  });

  await t.test("an interface that comes later is guarded when it comes", async () => {
    const from = it.agent.events().length;
    repod(it, (file) => file.pods.push({ ...entry, name: "soon", interface: "cali77", addresses: ["10.244.0.99"] }));
    const said = await it.agent.event("not enforceable", (e) => e.why === "unenforceable", { from });
    assert.match(String(said.message), /shop\/soon.*cali77/);
    const pods = (await it.agent.status()).pods;
    assert.deepEqual(
      pods.map(({ name, attachment }) => [name, attachment.kind]),
      [
        ["checkout", "routed"],
        ["soon", "missing"],
      ],
    );
    const soon = await it.lab.addPod({ name: "soon", interface: "cali77", v4: "10.244.0.99", v6: false, listed: false });
    const new1 = await it.client(soon.name);
    await until("guarded", async () => (await new1.connect({ host: OUT.bank, port: 5432, timeoutMs: 500 })).code === "ECONNREFUSED");
    assert.equal((await it.agent.status()).pods.find(({ name }) => name === "soon")?.attachment.kind, "routed");
  });

  await t.test("a pods file with a mistake changes nothing, and is spoken of", async () => {
    const from = it.agent.events().length;
    it.lab.file("pods.yaml", `${it.lab.podsFile()}\npodz: []\n`);
    const said = await it.agent.event("told", (e) => e.why === "input-invalid", { from });
    assert.match(String(said.message), /pods\.yaml:\d+:\d+: .*podz/);
    assert.equal(await can(client), false);
  });
});
