import assert from "node:assert/strict";
import { test } from "node:test";
import { namegate, socketOf } from "../support/agent.ts";
import { until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { podOf, SELF_TEST_ARGS as ARGS, SELF_TEST_NEEDS as NEEDS, statusOf } from "../support/self-test.ts";
import { CHECKOUT, OUT, shop } from "../support/shop.ts";

/** What sits on a pod's interface before netfilter, and takes its packets past our rules or only might. */

test("a tc filter that redirects a pod's packets past netfilter: that pod is NOT ENFORCED", async (t) => {
  if (!need(t, NEEDS)) return;
  const pods = [{ name: "checkout" }, { name: "second", labels: { app: "checkout" } }];
  const it = await shop(t, { pods, policies: { checkout: CHECKOUT }, args: ARGS });
  const pod = it.lab.pods.find(({ name }) => name === "checkout");
  const uplink = it.lab.servers[0]?.interface as string;
  const client = await it.client("checkout");
  assert.equal((await client.connect({ host: OUT.evil, port: 5432 })).code, "ECONNREFUSED");

  // As eBPF host routing does: off the pod's veth, straight out by the uplink, to the address on the frame.
  await it.lab.run("out", ["ip", "link", "set", "eth0", "address", "ee:ee:ee:ee:ee:ee"]);
  await it.lab.run("node", ["ip", "neigh", "flush", "dev", uplink]);
  const from = it.agent.events().length;
  await it.lab.run("node", ["tc", "qdisc", "add", "dev", pod?.interface as string, "clsact"]);
  const redirect = "ingress protocol all u32 match u32 0 0 action mirred egress redirect dev".split(" ");
  await it.lab.run("node", ["tc", "filter", "add", "dev", pod?.interface as string, ...redirect, uplink]);
  const past = await client.connect({ host: OUT.evil, port: 5432, send: "x" });
  assert.ok(past.connectMs !== null, "a hole, really");
  assert.equal(past.code, "ECONNRESET", "but what comes back by the node is of a connection that it did not see begin");
  const event = await it.agent.event("not enforcing", (e) => e.why === "not-enforcing", { from, timeoutMs: 10_000 });
  assert.match(
    event.message ?? "",
    /^shop\/checkout is NOT ENFORCED: a tc filter that redirects to srv0 takes packets from cali\d past netfilter$/,
  );
  const status = await until("both pods are told apart", async () => {
    const now = await statusOf(it);
    return podOf(now, "checkout")?.enforced === false ? now : undefined;
  });
  assert.equal(podOf(status, "second")?.enforced, true);
  assert.match(podOf(status, "checkout")?.why ?? "", /redirects to srv0/);
  const doctor = await namegate(it.lab, "doctor", "--socket", socketOf(it.lab), "--iptables", "nft");
  assert.equal(doctor.status, 1);
  assert.match(doctor.stdout, /FAILED +pods' interfaces +.*redirects to srv0/);

  await it.lab.run("node", ["tc", "qdisc", "del", "dev", pod?.interface as string, "clsact"]);
  await it.agent.event("enforced again", (e) => e.why === "enforcing-again", { from, timeoutMs: 10_000 });
  assert.equal(podOf(await statusOf(it), "checkout")?.enforced, true);
  assert.equal((await client.connect({ host: OUT.evil, port: 5432 })).code, "ECONNREFUSED");
});

test("an eBPF program on a pod's interface: what it does is found out by a canary, not guessed", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT }, args: ARGS });
  const port = it.lab.pods.find(({ name }) => name === "checkout")?.interface as string;
  await it.lab.run("node", ["tc", "qdisc", "add", "dev", port, "clsact"]);
  const attach = async (code: string): Promise<void> => {
    await it.lab.exec("node", ["tc", "filter", "del", "dev", port, "ingress"]);
    await it.lab.run("node", ["tc", "filter", "add", "dev", port, "ingress", "protocol", "all", "bpf", "da", "bytecode", code]);
  };
  // Classic BPF of tc, in direct action: -1 lets the packet go on, TC_ACT_SHOT (2) and its kin do not.
  await attach("1,6 0 0 4294967295");
  const warned = await until(
    "warned of",
    async () => {
      const status = await statusOf(it);
      return status.selfTest.warnings.length > 0 ? status : undefined;
    },
    10_000,
  );
  assert.match(warned.selfTest.warnings[0] ?? "", /^shop\/checkout: a tc program of eBPF .* may take packets past netfilter$/);
  assert.deepEqual([warned.effectiveMode, podOf(warned, "checkout")?.enforced], ["Enforce", true]);

  const from = it.agent.events().length;
  await attach("1,6 0 0 2");
  const event = await it.agent.event("not enforcing", (e) => e.why === "not-enforcing", { from, timeoutMs: 15_000 });
  assert.match(event.message ?? "", /did not come to our rules: a tc program of eBPF/);
  // The only guarded pod of the node: nothing is in force.
  await it.agent.event("the mode", (e) => e.why === "effective-mode-lowered" && /Enforce → None/.test(e.message ?? ""), { from });
  assert.equal((await statusOf(it)).effectiveMode, "None");
});

test("a shaper of the CNI's bandwidth plugin gives packets back: enforced, with a warning", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT }, args: ARGS });
  const port = it.lab.pods.find(({ name }) => name === "checkout")?.interface as string;
  if ((await it.lab.exec("node", ["ip", "link", "add", "bwp0", "type", "ifb"])).status !== 0) return t.skip("this kernel has no ifb");
  await it.lab.run("node", ["ip", "link", "set", "bwp0", "up"]);
  await it.lab.run("node", ["tc", "qdisc", "add", "dev", port, "ingress"]);
  const redirect = "parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev bwp0".split(" ");
  await it.lab.run("node", ["tc", "filter", "add", "dev", port, ...redirect]);
  const status = await until(
    "warned of",
    async () => {
      const now = await statusOf(it);
      return now.selfTest.warnings.length > 0 ? now : undefined;
    },
    10_000,
  );
  assert.match(status.selfTest.warnings[0] ?? "", /redirects to the shaper bwp0/);
  assert.deepEqual([status.effectiveMode, status.selfTest.podsSeen, podOf(status, "checkout")?.enforced], ["Enforce", 1, true]);
  const client = await it.client("checkout");
  assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
  assert.equal((await client.connect({ host: OUT.evil, port: 443 })).code, "ECONNREFUSED");
});
