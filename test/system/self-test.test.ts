import assert from "node:assert/strict";
import { test } from "node:test";
import { MAIN, namegate, socketOf } from "../support/agent.ts";
import { need } from "../support/need.ts";
import { podOf, SELF_TEST_ARGS as ARGS, SELF_TEST_NEEDS as NEEDS, statusOf } from "../support/self-test.ts";
import { CHECKOUT, shop } from "../support/shop.ts";

/** The self-test finds what takes packets past our rules, says so everywhere, and disturbs nobody. */

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
  const mode = await it.agent.event("the mode", (e) => e.why === "effective-mode-lowered", { from });
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
  await it.agent.event("enforcing again", (e) => e.why === "effective-mode" && (e.message ?? "").endsWith("None → Enforce"), {
    from,
    timeoutMs: 10_000,
  });
  assert.equal((await statusOf(it)).effectiveMode, "Enforce");
});

test("CAP_NET_ADMIN and CAP_NET_RAW are enough, and no network namespace is entered", async (t) => {
  if (!need(t, { ...NEEDS, commands: [...NEEDS.commands, "setpriv"] })) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT }, args: ARGS, agent: false });
  await it.start({ program: ["setpriv", "--bounding-set=-all,+net_admin,+net_raw", process.execPath, MAIN] });
  const status = await statusOf(it);
  assert.deepEqual([status.selfTest.state, status.selfTest.why, status.selfTest.podsSeen], ["ok", null, 1]);
});
