import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { KUBE_NEEDS, kubeShop, NODE, TAINT } from "../support/kube-shop.ts";
import { CHECKOUT, OUT } from "../support/shop.ts";

/** The agent of a node of a real cluster: what the API says is what the kernel does. */

test("a policy ConfigMap guards a pod: created, changed, invalid, deleted", async (t) => {
  if (!need(t, KUBE_NEEDS)) return;
  const it = await kubeShop(t);
  await it.addPod({ name: "checkout" });
  await it.addPod({ name: "free" });
  await it.start({ config: { startup: { taint: TAINT } } });
  const checkout = await it.client("checkout");
  const free = await it.client("free");
  const open = async (client: typeof checkout, host: string): Promise<boolean> =>
    (await client.connect({ host, port: 443, send: "x", timeoutMs: 2000 })).ok;
  assert.equal(await open(checkout, OUT.evil), true, "no policy yet");

  await it.enforce("checkout", CHECKOUT);
  assert.equal((await checkout.connect({ host: OUT.evil, port: 443 })).code, "ECONNREFUSED");
  assert.equal((await checkout.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
  assert.equal(await open(free, OUT.evil), true, "a pod that no policy selects is let go");

  await until("PolicyAccepted on the ConfigMap", async () => (await it.apiEvents()).some(({ reason }) => reason === "PolicyAccepted"));
  const evil = { ...CHECKOUT, egress: [...CHECKOUT.egress, { name: "evil", action: "Accept", to: [{ networks: [`${OUT.evil}/32`] }] }] };
  await it.enforce("checkout", evil);
  assert.equal(await open(checkout, OUT.evil), true, "the changed policy");
  const { change } = await it.agent.event("who and what", ({ why }) => why === "policy-changed");
  assert.deepEqual([change?.source, change?.what], ["configmap/shop/policy-checkout:checkout.yaml", ["rule evil: added (Accept)"]]);
  const written = await it.api.must("GET", "/api/v1/namespaces/shop/configmaps/policy-checkout");
  const text = (written["data"] as Record<string, string>)["checkout.yaml"] as string;
  assert.equal(change?.digest, `sha256:${createHash("sha256").update(text).digest("hex")}`);
  assert.equal(change.version, (written["metadata"] as { resourceVersion: string }).resourceVersion);
  assert.match(change.by ?? "", /^[\x21-\x7e]+ \((Update|Apply)\)$/);
  assert.ok(Math.abs(Date.parse(change.at ?? "") - Date.now()) < 3_600_000, String(change.at));

  await it.put("checkout", { ...CHECKOUT, mode: "Enforced", egres: [] });
  await it.agent.event("invalid", ({ why }) => why === "policy-invalid");
  assert.equal(await open(checkout, OUT.evil), true, "the last good version stays");
  assert.equal(await open(checkout, OUT.bank), false);
  const [said] = await until("PolicyInvalid on the ConfigMap", async () => {
    const found = (await it.apiEvents()).filter(({ reason }) => reason === "PolicyInvalid");
    return found.length > 0 ? found : undefined;
  });
  assert.equal(said?.involvedObject.name, "policy-checkout");
  assert.match(said?.message ?? "", /^2 problems; the last good version stays in force\. checkout\.yaml:1:\d+: /);
  assert.equal(said?.source.host, NODE);
  assert.equal((await it.apiEvents()).filter(({ reason }) => reason === "PolicyInvalid").length, 1, "once");

  const status = await it.agent.status();
  assert.deepEqual(
    status.inputs.map(({ resource, synced }) => [resource, synced]),
    [
      ["pods", true],
      ["namespaces", true],
      ["configmaps", true],
      ["services/kube-system", true],
      ["services/openshift-dns", false], // there is no such namespace, and no right to see it
    ],
  );
  await until("the start-up taint is gone", async () => {
    const node = await it.api.must("GET", `/api/v1/nodes/${NODE}`);
    const taints = (node["spec"] as { taints?: { key: string }[] }).taints ?? [];
    return !taints.some(({ key }) => key === TAINT);
  });

  const from = it.agent.events().length;
  await it.api.must("DELETE", "/api/v1/namespaces/shop/configmaps/policy-checkout");
  await it.agent.event("removed", ({ why }) => why === "policy-removed", { from });
  assert.equal(await open(checkout, OUT.bank), true, "and none again");
});

test("labels, a new pod of the same name, and pods that cannot be guarded", async (t) => {
  if (!need(t, KUBE_NEEDS)) return;
  const it = await kubeShop(t);
  const first = await it.addPod({ name: "checkout" });
  await it.addPod({ name: "plain", labels: { app: "plain" } });
  await it.api.createPod({
    namespace: "shop",
    name: "host",
    node: NODE,
    labels: { app: "checkout" },
    addresses: ["192.0.2.200"],
    spec: { hostNetwork: true },
  });
  await it.put("checkout", CHECKOUT);
  await it.start();
  const plain = await it.client("plain");
  const refused = async (client: typeof plain): Promise<boolean> =>
    (await client.connect({ host: OUT.evil, port: 443, send: "x" })).code === "ECONNREFUSED";
  assert.equal(await refused(plain), false);
  await it.api.must("PATCH", "/api/v1/namespaces/shop/pods/plain", { metadata: { labels: { app: "checkout" } } });
  await until("the relabelled pod is guarded", () => refused(plain));

  await it.agent.event("host is not enforced", (e) => e.why === "unenforceable" && e.message?.includes("shop/host") === true);
  const host = (await it.agent.status()).pods.find(({ name }) => name === "host");
  assert.deepEqual([host?.guarded, host?.enforced], [true, false]);
  assert.match(host?.why ?? "", /hostNetwork/);

  await it.api.must("DELETE", "/api/v1/namespaces/shop/pods/checkout?gracePeriodSeconds=0");
  await it.lab.removePod("checkout");
  const again = await it.addPod({ name: "checkout", v4: "10.244.0.77", interface: "calinew" });
  assert.notEqual(again.v4, first.v4);
  await until("the new pod is known", async () =>
    (await it.agent.status()).pods.some(({ name, attachment }) => name === "checkout" && attachment.interface === "calinew"),
  );
  const { clientIn } = await import("../support/client.ts");
  const client = await clientIn(it.lab, "checkout");
  assert.equal(await refused(client), true);
  assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
});
