import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../support/lab.ts";
import { need, ROOT } from "../support/need.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, type Shop, shop, STRIPE } from "../support/shop.ts";

/**
 * Istio's redirection lives in the pod's own network namespace. An application's connection ends at the proxy beside it; what
 * we see on the pod's veth, and judge, is what the proxy dials.
 */

const NEEDS = { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3"] };
const PROXY = join(ROOT, "test", "support", "istio-proxy.py");
const POLICY = {
  ...CHECKOUT,
  egress: [
    { ...STRIPE, application: "tls" },
    { ...STRIPE, name: "plain", ports: [{ port: 5432 }] },
  ],
};
const SIDECAR_UID = "1337";
const HBONE = 15008;

async function lab(t: TestContext, iptables: "nft" | "legacy"): Promise<Shop> {
  return shop(t, {
    iptables,
    policies: { checkout: POLICY },
    listen: [
      { kind: "https", port: 443 },
      { kind: "echo", port: 5432 },
      { kind: "https", port: HBONE },
    ],
  });
}

async function podRules(it: Shop, table: string, text: string): Promise<void> {
  for (const family of ["iptables", "ip6tables"]) {
    const rules = text.replaceAll("LOOPBACK", family === "iptables" ? "127.0.0.1/32" : "::1/128").replaceAll(/^ +/gm, "");
    await it.lab.run("checkout", [
      `${family}-${it.iptables}-restore`,
      "--noflush",
      it.lab.file("pod-rules", `*${table}\n${rules}\nCOMMIT\n`),
    ]);
  }
}

for (const iptables of ["nft", "legacy"] as const)
  test(`Istio sidecar: what leaves the pod is judged, not what the application dialled (iptables-${iptables})`, async (t) => {
    if (!need(t, NEEDS)) return;
    const it = await lab(t, iptables);
    await podRules(
      it,
      "nat",
      `:ISTIO_OUTPUT - [0:0]
       :ISTIO_REDIRECT - [0:0]
       -A OUTPUT -j ISTIO_OUTPUT
       -A ISTIO_OUTPUT -o lo -m owner ! --uid-owner ${SIDECAR_UID} -j RETURN
       -A ISTIO_OUTPUT -m owner --uid-owner ${SIDECAR_UID} -j RETURN
       -A ISTIO_OUTPUT -d LOOPBACK -j RETURN
       -A ISTIO_OUTPUT -j ISTIO_REDIRECT
       -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001`,
    );
    const routes = {
      [`${OUT.stripe} 7001`]: { to: [OUT.bank, 5432] },
      [`${OUT.evil} 7002`]: { to: [OUT.stripe, 5432] },
    };
    const proxy = it.lab.spawn("checkout", ["python3", PROXY, "15001", SIDECAR_UID, "0", JSON.stringify(routes)]);
    await proxy.line((line) => line === "ready");
    const client = await it.client("checkout");
    for (const type of ["A", "AAAA"] as const) {
      const first = await client.resolveThenConnect({ name: "api.stripe.com", type, port: 5432, send: "x" });
      assert.equal(first.connected?.data, "x", `${type}: through the sidecar, at the first packet: ${JSON.stringify(first)}`);
      const host = type === "A" ? OUT.stripe : OUT.stripe6;
      assert.equal((await client.connect({ host, port: 443, serverName: "api.stripe.com" })).code, null);
      assert.notEqual((await client.connect({ host, port: 443, serverName: "paste.example.net" })).code, null);
      const other = await client.connect({ host: type === "A" ? OUT.evil : OUT.evil6, port: 5432, send: "x" });
      assert.ok(["EEND", "ECONNRESET", "EPIPE"].includes(other.code ?? ""), `${type}: the sidecar is refused: ${other.code}`);
      assert.ok(other.ms < 1000, `${type}: at once: ${other.ms}`);
    }
    const from = it.agent.events().length;
    const rerouted = await client.connect({ host: OUT.stripe, port: 7001, send: "x" });
    assert.notEqual(rerouted.code, null, "an allowed destination that the sidecar routes elsewhere");
    await it.agent.event("the real destination", (e) => e.verdict === "deny" && e.destination?.address === OUT.bank, { from });
    const good = await client.connect({ host: OUT.evil, port: 7002, send: "x" });
    assert.equal(good.data, "x", "and the other way round");
    const live = await client.connect({ host: OUT.stripe, port: 5432, send: "x", hold: true });
    await it.put("checkout", { ...POLICY, egress: [STRIPE] });
    const ended = await until("revoked", async () => {
      const talk = await client.talk({ hold: live.hold as number, send: "x", timeoutMs: 300 });
      return talk.code === null ? undefined : talk;
    });
    assert.ok(["EEND", "ECONNRESET", "EPIPE"].includes(ended.code ?? ""), `revoked through the sidecar: ${ended.code}`);
  });

test("Istio ambient: what is in the mesh shows nothing but HBONE, and the event says so", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await lab(t, "nft");
  // ztunnel's sockets live in the pod's namespace (in-pod redirection) and are told by the mark 0x539.
  await podRules(
    it,
    "mangle",
    `:ISTIO_PRERT - [0:0]
     :ISTIO_OUTPUT - [0:0]
     -A PREROUTING -j ISTIO_PRERT
     -A OUTPUT -j ISTIO_OUTPUT
     -A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
     -A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff`,
  );
  await podRules(
    it,
    "nat",
    `:ISTIO_OUTPUT - [0:0]
     -A OUTPUT -j ISTIO_OUTPUT
     -A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
     -A ISTIO_OUTPUT ! -d LOOPBACK -o lo -j ACCEPT
     -A ISTIO_OUTPUT ! -d LOOPBACK -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001`,
  );
  const routes = { [`${OUT.bank} 8080`]: { to: [OUT.far, HBONE], tls: true } };
  const ztunnel = it.lab.spawn("checkout", ["python3", PROXY, "15001", "0", "0x539", JSON.stringify(routes)]);
  await ztunnel.line((line) => line === "ready");
  const client = await it.client("checkout");

  const first = await client.resolveThenConnect({ name: "api.stripe.com", port: 5432, send: "x" });
  assert.equal(first.connected?.data, "x", "outside the mesh ztunnel passes it on in plain, and it is judged as ever");
  assert.notEqual((await client.connect({ host: OUT.evil, port: 5432, send: "x" })).code, null);

  const from = it.agent.events().length;
  const mesh = await client.connect({ host: OUT.bank, port: 8080, send: "GET / HTTP/1.1\r\nhost: x\r\n\r\n" });
  assert.notEqual(mesh.code, null, "no rule has the tunnel");
  const event = await it.agent.event("HBONE is denied", (e) => e.verdict === "deny" && e.destination?.port === HBONE, { from });
  assert.equal(event.destination?.address, OUT.far);
  assert.match(String(event.message), /HBONE.*real destination/);

  const tunnel = { name: "mesh", action: "Accept", to: [{ networks: [`${OUT.far}/32`] }], ports: [{ port: HBONE }] };
  await it.put("checkout", { ...POLICY, egress: [...POLICY.egress, tunnel] });
  await until("a rule for the tunnel lets everything in it pass", async () => {
    const open = await client.connect({ host: OUT.bank, port: 8080, send: "GET / HTTP/1.1\r\nhost: x\r\n\r\n" });
    return /HTTP/.test(open.data) ? true : undefined;
  });
});
