import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { clientIn } from "../support/client.ts";
import { type KubeShop, KUBE_NEEDS, kubeShop } from "../support/kube-shop.ts";
import { until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { CHECKOUT, OUT } from "../support/shop.ts";

/** Agents that start before pods, after them, together with them, and while the API server is away, slow or gone for ever. */

/** Packets from `address` that have come to the server or to the resolver. */
async function counter(it: KubeShop, address: string): Promise<() => Promise<number>> {
  const places = ["out", "coredns"];
  for (const place of places) await it.lab.run(place, ["iptables-nft", "-w", "-I", "INPUT", "-s", address]);
  return async () => {
    let packets = 0;
    for (const place of places) {
      const listed = await it.lab.run(place, ["iptables-nft", "-w", "-nvxL", "INPUT"]);
      packets += Number(new RegExp(`^\\s*(\\d+)\\s.*\\s${address.replaceAll(".", "\\.")}\\s`, "m").exec(listed)?.[1]);
    }
    return packets;
  };
}

test("a pod that nobody knows yet sends no packet; the first ones wait, and are judged", async (t) => {
  if (!need(t, KUBE_NEEDS)) return;
  const it = await kubeShop(t);
  const bank = { name: "bank", action: "Accept", to: [{ networks: [`${OUT.bank}/32`] }], ports: [{ port: 443 }] };
  await it.put("checkout", { ...CHECKOUT, dns: { queries: "AllowedOnly" }, egress: [...CHECKOUT.egress, bank] });
  const late = await it.addPod({ name: "late", labels: { app: "checkout" }, announced: false });
  const early = await it.addPod({ name: "early", labels: { app: "early" }, announced: false });
  const packets = await counter(it, late.v4 as string);
  const before = await (await clientIn(it.lab, "early")).connect({ host: OUT.bank, port: 443, send: "x", hold: true });
  assert.equal(before.data, "x");

  it.stall(true);
  await it.start();
  const [one, two] = [await it.client("late"), await it.client("early")];
  assert.match((await it.agent.status()).kept ?? "", /nothing has been read/);
  const sent = await Promise.all([
    one.connect({ host: OUT.evil, port: 443, timeoutMs: 700 }),
    one.connect({ host: OUT.bank, port: 443, timeoutMs: 700 }),
    one.datagram({ host: OUT.evil, port: 7000, send: "x", timeoutMs: 700 }),
    one.resolve({ name: "data.evil.example.net", timeoutMs: 700 }),
    two.connect({ host: OUT.bank, port: 443, timeoutMs: 700 }),
  ]);
  assert.deepEqual(
    sent.map(({ code }) => code),
    ["ETIMEDOUT", "ETIMEDOUT", "ETIMEDOUT", "ETIMEOUT", "ETIMEDOUT"],
    "neither let go nor refused",
  );
  assert.equal(await packets(), 0, "while the API does not answer");

  it.stall(false);
  await it.agent.event("live", ({ why }) => why === "inputs-live", { timeoutMs: 40_000 });
  // The lists are there, and neither pod is in them: their packets still wait.
  const waits = one.connect({ host: OUT.evil, port: 443, timeoutMs: 5000 });
  const goes = one.connect({ host: OUT.bank, port: 443, send: "x", timeoutMs: 5000 });
  const name = one.resolve({ name: "api.stripe.com", timeoutMs: 5000 });
  const left = two.connect({ host: OUT.evil, port: 443, send: "x", timeoutMs: 5000 });
  await until("packets are held", async () => ((await it.agent.status()).counters["unknownPod"] ?? 0) >= 9);
  assert.equal(await packets(), 0);
  await Promise.all([it.announce(late), it.announce(early)]);
  assert.equal((await waits).code, "ECONNREFUSED", "judged: no rule has it");
  assert.equal((await goes).data, "x", "judged: a rule has it");
  assert.deepEqual((await name).addresses, [OUT.stripe], "a held query that a rule allows goes on");
  assert.equal((await left).data, "x", "no policy selects it");
  const { counters } = await it.agent.status();
  assert.ok((counters["unknownReleased"] ?? 0) >= 3, "the packets themselves went on, not only their repetitions");
  assert.equal(counters["faults"], 0);
});

test("pods behind the CNI's bridge wait as well, and those that nobody guards are left alone", async (t) => {
  if (!need(t, KUBE_NEEDS)) return;
  const it = await kubeShop(t);
  await it.put("checkout", CHECKOUT);
  await it.addPod({ name: "checkout", kind: "bridge" });
  await it.addPod({ name: "free", kind: "bridge" });
  const late = await it.addPod({ name: "late", kind: "bridge", labels: { app: "checkout" }, announced: false });
  await it.start();
  await it.agent.event("live", ({ why }) => why === "inputs-live", { timeoutMs: 40_000 });
  const packets = await counter(it, late.v4 as string);
  const [checkout, free, unknown] = [await it.client("checkout"), await it.client("free"), await it.client("late")];
  const to = (host: string, timeoutMs = 3000) => ({ host, port: 443, send: "x", timeoutMs });
  assert.equal((await free.connect(to(OUT.evil))).data, "x", "no policy selects it");
  assert.equal((await checkout.connect(to(OUT.evil))).code, "ECONNREFUSED");
  assert.equal((await checkout.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
  assert.equal((await unknown.connect(to(OUT.evil, 500))).code, "ETIMEDOUT");
  assert.equal(await packets(), 0);
  const waits = unknown.connect(to(OUT.evil, 5000));
  await it.announce(late);
  assert.equal((await waits).code, "ECONNREFUSED", "judged once it is known");
  assert.equal((await it.agent.status()).counters["spoofed"], 0);
});

test("connections from before the agent go on while the API does not answer, and are judged when it does", async (t) => {
  if (!need(t, KUBE_NEEDS)) return;
  const it = await kubeShop(t);
  const deny = { name: "never", action: "Deny", to: [{ networks: [`${OUT.evil}/32`] }] };
  await it.put("checkout", { ...CHECKOUT, egress: [...CHECKOUT.egress, deny] });
  await it.addPod({ name: "checkout" });
  await it.addPod({ name: "free" });
  const [checkout, free] = [await it.client("checkout"), await it.client("free")];
  const denied = await checkout.connect({ host: OUT.evil, port: 443, send: "x", hold: true });
  const other = await free.connect({ host: OUT.evil, port: 443, send: "x", hold: true });
  it.stall(true);
  await it.start();
  for (const [client, { hold }] of [[checkout, denied] as const, [free, other] as const])
    assert.equal((await client.talk({ hold: hold as number, send: "y" })).data, "y", "goes on");
  it.stall(false);
  await it.agent.event("live", ({ why }) => why === "inputs-live", { timeoutMs: 40_000 });
  await until("the denied one is cut", async () => !(await checkout.talk({ hold: denied.hold as number, send: "z", timeoutMs: 500 })).ok);
  assert.equal((await free.talk({ hold: other.hold as number, send: "z" })).data, "z");
});

test("the API server dies: enforcement goes on, also through a restart of the agent; its return brings what is new", async (t) => {
  if (!need(t, KUBE_NEEDS)) return;
  const it = await kubeShop(t);
  await it.addPod({ name: "checkout" });
  await it.put("checkout", CHECKOUT);
  await it.start();
  const checkout = await it.client("checkout");
  const stripe = async (): Promise<string | undefined> =>
    (await checkout.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data;
  const evil = async (): Promise<string | null> => (await checkout.connect({ host: OUT.evil, port: 443 })).code;
  assert.equal(await stripe(), "x");
  assert.equal(await evil(), "ECONNREFUSED");
  const file = join(it.lab.dir, "state", "snapshot.json");
  await until("the state is on disk", () => (statSync(file, { throwIfNoEntry: false }) === undefined ? undefined : true));
  assert.equal(statSync(file).mode & 0o777, 0o600);

  await it.api.kill();
  assert.equal(await stripe(), "x");
  assert.equal(await evil(), "ECONNREFUSED");
  await it.agent.kill();
  assert.equal((await checkout.connect({ host: OUT.stripe, port: 443, send: "x" })).data, "x", "what was learned, without an agent");

  await it.start();
  const { kept, ready, effectiveMode, policies, inputs } = await it.agent.status();
  assert.match(kept ?? "", /does not answer: the state of \d{4}-/);
  assert.deepEqual([ready, effectiveMode, policies.map(({ name }) => name)], [true, "Enforce", ["shop/checkout"]]);
  assert.ok(inputs.every(({ synced }) => !synced));
  assert.equal(await stripe(), "x");
  assert.equal(await evil(), "ECONNREFUSED");

  await it.api.restart();
  await it.agent.event("live", ({ why }) => why === "inputs-live", { timeoutMs: 40_000 });
  assert.equal((await it.agent.status()).kept, undefined);
  await it.enforce("checkout", { ...CHECKOUT, egress: [{ name: "all", action: "Accept" }] });
  assert.equal((await checkout.connect({ host: OUT.evil, port: 443, send: "x" })).data, "x");

  // A torn file is refused, said, and no reason to end.
  await it.agent.stop();
  writeFileSync(file, readFileSync(file, "utf8").slice(0, -10));
  await it.api.kill();
  await it.start();
  assert.ok(it.agent.child.err.some((line) => line.includes("the last good state cannot be used") && line.includes("checksum")));
  assert.equal((await checkout.connect({ host: OUT.evil, port: 443, send: "x" })).data, "x", "the kernel stays as it is");
});

test("what keeps an agent from a cluster is one message, a fix, and exit 2", async (t) => {
  if (!need(t, { root: true, addon: true })) return;
  const { execute } = await import("../../src/cli/lab-process.ts");
  const { MAIN } = await import("../support/agent.ts");
  const run = (env: Record<string, string>, ...args: string[]) =>
    execute([
      "env",
      "-i",
      `PATH=${process.env["PATH"] ?? ""}`,
      "HOME=/nowhere",
      ...Object.entries(env).map(([k, v]) => `${k}=${v}`),
      process.execPath,
      MAIN,
      "agent",
      ...args,
    ]);
  const config = join(t.name.length > 0 ? (await import("node:fs")).mkdtempSync("/tmp/namegate-test-") : "", "config.yaml");
  t.after(async () => (await import("node:fs")).rmSync(join(config, ".."), { recursive: true }));
  writeFileSync(config, "logLevl: debug\nqueueBase: -1\n");
  for (const [result, words] of [
    [await run({}), /NODE_NAME is not set/],
    [await run({ NODE_NAME: "Not A Node" }), /is not the name of a node/],
    [await run({ NODE_NAME: "node-1" }), /POD_NAMESPACE is not set/],
    [await run({ NODE_NAME: "node-1", POD_NAMESPACE: "namegate" }), /no Kubernetes API server is known/],
    [await run({}, "--config", "/nowhere/config.yaml"), /cannot be read/],
    [await run({}, "--config", config), /config\.yaml:1:1: logLevl: unknown field.*did you mean `logLevel`[\s\S]*:2:12: queueBase/],
  ] as const) {
    assert.equal(result.status, 2, result.stderr);
    assert.match(result.stderr, words);
    assert.match(result.stderr, /^ {2}fix: /m);
    assert.doesNotMatch(result.stderr, /^ {4}at /m, "no stack");
  }
  const half = await run({}, "--policies", "/tmp");
  assert.deepEqual([half.status, /--policies and --pods are needed both/.test(half.stderr)], [2, true]);
});
