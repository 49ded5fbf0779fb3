import assert from "node:assert/strict";
import { test } from "node:test";
import { namegate, socketOf } from "../support/agent.ts";
import { until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

/** The self-test finds what takes packets past our rules, says so everywhere, and disturbs nobody. */

const NEEDS = { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "tc"] };
const ARGS = ["--self-test-interval", "0.3", "--check-interval", "30"];

interface Status {
  readonly mode: string;
  readonly effectiveMode: string;
  readonly selfTest: {
    readonly state: string;
    readonly why: string | null;
    readonly podsSeen: number;
    readonly warnings: readonly string[];
  };
  readonly pods: readonly { readonly name: string; readonly enforced: boolean; readonly why?: string }[];
}

async function statusOf(it: Shop): Promise<Status> {
  return (await it.agent.status()) as unknown as Status;
}

const podOf = (status: Status, name: string): Status["pods"][number] | undefined => status.pods.find((pod) => pod.name === name);

for (const iptables of ["nft", "legacy"] as const)
  test(`a canary comes to our rules, by a veth of our own and by each pod's (iptables-${iptables})`, async (t) => {
    if (!need(t, NEEDS)) return;
    const pods = [{ name: "checkout" }, { name: "bridged", kind: "bridge" as const, labels: { app: "checkout" } }, { name: "plain" }];
    const it = await shop(t, { iptables, pods, policies: { checkout: CHECKOUT }, args: ARGS });
    const status = await statusOf(it);
    assert.deepEqual([status.effectiveMode, status.selfTest.state, status.selfTest.podsSeen], ["Enforce", "ok", 2]);
    assert.deepEqual(status.selfTest.warnings, []);
    const mode = await it.agent.event("the mode", (e) => e.why === "effective-mode");
    assert.match(mode.message ?? "", /None → Enforce$/);

    // It asks nobody: nothing of it leaves, no pod and no connection hears of it.
    const links = await it.lab.run("node", ["ip", "-o", "link"]);
    assert.match(links, /ngcanary0@ngcanary1/);
    assert.match(await it.lab.run("node", ["ip", "-o", "addr", "show", "dev", "ngcanary0"]), /^$/, "no address");
    for (const where of ["checkout", "out"])
      assert.doesNotMatch(await it.lab.run(where, ["cat", "/proc/net/snmp"]), /InUnknownProtos [1-9]/);
    const client = await it.client("checkout");
    assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
    assert.deepEqual(
      it.agent.events().filter(({ type, verdict }) => type === "spoofed" || verdict === "deny"),
      [],
    );

    // A killed agent leaves the pair; the next one takes its place, and a graceful end and `uninstall` leave nothing.
    const index = async (): Promise<string> => (await it.lab.exec("node", ["cat", "/sys/class/net/ngcanary0/ifindex"])).stdout;
    const before = await index();
    await it.agent.kill();
    assert.equal(await index(), before);
    await it.start();
    assert.equal((await statusOf(it)).selfTest.state, "ok");
    assert.notEqual(await index(), before);
    await it.agent.stop();
    assert.equal(await index(), "");
    await it.start();
    await it.agent.kill();
    assert.equal((await namegate(it.lab, "uninstall", "--socket", socketOf(it.lab))).status, 0);
    assert.equal(await index(), "");
  });

test("rules that nobody passes through any more: NOT ENFORCING, everywhere, until they are back", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT }, args: [...ARGS, "--metrics", "127.0.0.1:9899"] });
  const metrics = (): Promise<string> => it.lab.run("node", ["curl", "-s", "http://127.0.0.1:9899/metrics"]);
  assert.match(await metrics(), /^namegate_effective_mode\{mode="Enforce"\} 1$/m);
  assert.match(await metrics(), /^namegate_self_test_passed 1$/m);
  const from = it.agent.events().length;
  // Only IPv6 is bypassed: that is enough for a hole.
  await it.lab.run("node", ["ip6tables-nft", "-w", "-t", "mangle", "-I", "PREROUTING", "-j", "ACCEPT"]);
  const event = await it.agent.event("not enforcing", (e) => e.why === "not-enforcing", { from, timeoutMs: 10_000 });
  assert.equal(event.type, "agent");
  assert.match(event.message ?? "", /^NOT ENFORCING: IPv6 packets/);
  const mode = await it.agent.event("the mode", (e) => e.why === "effective-mode", { from });
  assert.match(mode.message ?? "", /Enforce → None, though policies ask for Enforce: IPv6/);
  const status = await statusOf(it);
  assert.deepEqual([status.mode, status.effectiveMode, status.selfTest.state], ["Enforce", "None", "failed"]);
  assert.equal(podOf(status, "checkout")?.enforced, false);
  assert.match(await metrics(), /^namegate_effective_mode\{mode="None"\} 1$/m);
  assert.match(await metrics(), /^namegate_self_test_passed 0$/m);
  assert.match((await namegate(it.lab, "status", "--socket", socketOf(it.lab))).stdout, /NOT ENFORCING: IPv6/);
  const doctor = await namegate(it.lab, "doctor", "--socket", socketOf(it.lab), "--iptables", "nft");
  assert.equal(doctor.status, 1, doctor.stdout);
  assert.match(doctor.stdout, /FAILED +self-test +IPv6 packets/);

  await it.lab.run("node", ["ip6tables-nft", "-w", "-t", "mangle", "-D", "PREROUTING", "-j", "ACCEPT"]);
  await it.agent.event("enforcing again", (e) => e.why === "effective-mode" && /None → Enforce$/.test(e.message ?? ""), {
    from,
    timeoutMs: 10_000,
  });
  assert.equal((await statusOf(it)).effectiveMode, "Enforce");
});

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
  await it.lab.run("node", [
    ...["tc", "filter", "add", "dev", pod?.interface as string, "ingress", "protocol", "all"],
    ...["u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", uplink],
  ]);
  assert.equal((await client.connect({ host: OUT.evil, port: 5432, send: "x" })).data, "x", "a hole, really");
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
  const [peer] = it.lab.servers;
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
  assert.ok(peer !== undefined);

  const from = it.agent.events().length;
  await attach("1,6 0 0 2");
  const event = await it.agent.event("not enforcing", (e) => e.why === "not-enforcing", { from, timeoutMs: 15_000 });
  assert.match(event.message ?? "", /did not come to our rules: a tc program of eBPF/);
  // The only guarded pod of the node: nothing is in force.
  await it.agent.event("the mode", (e) => e.why === "effective-mode" && /Enforce → None/.test(e.message ?? ""), { from });
  assert.equal((await statusOf(it)).effectiveMode, "None");
});
