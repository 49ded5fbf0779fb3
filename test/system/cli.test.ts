import assert from "node:assert/strict";
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse, stringify } from "yaml";
import type { ExecResult } from "../../src/cli/lab-process.ts";
import { MAIN, namegate, policy, socketOf } from "../support/agent.ts";
import { need } from "../support/need.ts";
import { type Lab, until } from "../support/lab.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

const SAVES = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"] as const;

/** Every rule and chain of the node, by tool, without counters and comments. */
async function rules(lab: Lab): Promise<string> {
  let text = "";
  for (const tool of SAVES) text += `${tool}\n${(await lab.run("node", [tool])).replace(/^#.*$/gm, "").replace(/\[\d+:\d+\]/g, "")}`;
  return text;
}
const sets = async (lab: Lab): Promise<string> => (await lab.run("node", ["ipset", "list", "-n"])).split("\n").sort().join("\n");

/** One message that says what and the fix, and exit 2. */
function refused({ status, stdout, stderr }: ExecResult, what: RegExp): void {
  assert.equal(status, 2, stderr);
  assert.match(stderr, what);
  assert.match(stderr, /\n {2}fix: \S/);
  assert.doesNotMatch(stderr, /\n\s+at .*\.js:\d+/, "no stack for a person");
  assert.doesNotMatch(stdout, /"why":"started"/);
}

for (const iptables of ["nft", "legacy"] as const) {
  test(`uninstall removes all of ours and nothing else, and not under a running agent (iptables-${iptables})`, async (t) => {
    if (!need(t, SHOP_NEEDS)) return;
    const it = await shop(t, {
      agent: false,
      iptables,
      pods: [
        { name: "checkout", kind: "bridge" },
        { name: "checkout-1", labels: { app: "checkout" } },
      ],
      policies: { checkout: CHECKOUT },
    });
    const { lab } = it;
    for (const tool of [`iptables-${iptables}`, `ip6tables-${iptables}`]) {
      await lab.run("node", [tool, "-w", "-t", "mangle", "-N", "cali-mine"]);
      await lab.run("node", [tool, "-w", "-t", "mangle", "-A", "PREROUTING", "-j", "cali-mine"]);
      await lab.run("node", [tool, "-w", "-A", "FORWARD", "-m", "comment", "--comment", "NG-DENY is not mine", "-j", "ACCEPT"]);
    }
    await lab.run("node", ["ipset", "create", "ngx-other", "hash:ip"]);
    await lab.run("node", ["ipset", "create", "cali40all", "hash:ip"]);
    // The tables themselves come into being with the first look at them.
    for (const tool of SAVES) for (const table of ["raw", "mangle", "filter", "security"]) await lab.run("node", [tool, "-t", table]);
    const before = [await rules(lab), await sets(lab)];
    await it.start();
    const client = await it.client("checkout");
    assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");

    const running = await namegate(lab, "uninstall", "--socket", socketOf(lab));
    refused(running, /an agent is running/);
    assert.equal((await client.connect({ host: OUT.bank, port: 443 })).code, "ECONNREFUSED", "still guarded");

    await it.agent.kill();
    const groups = async (): Promise<string> => (await lab.run("node", ["sh", "-c", "cat /sys/class/net/*/netdev_group | sort -u"])).trim();
    assert.equal(await groups(), "0\n20039", "the guarded pod's veth is in our group");
    const done = await namegate(lab, "uninstall", "--socket", socketOf(lab));
    assert.equal(await groups(), "0");
    assert.equal(done.status, 0, done.stderr);
    const trimmed = (text: string): string =>
      text
        .split("\n")
        .filter((line) => !/^\*|^COMMIT|^:(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING) /.test(line))
        .join("\n")
        .replace(/\n+/g, "\n");
    const after = [await rules(lab), await sets(lab)];
    assert.deepEqual(
      after.map((text) => trimmed(text as string)),
      before.map((text) => trimmed(text as string)),
    );
    assert.equal((await client.connect({ host: OUT.bank, port: 443, send: "x" })).data, "x");
    assert.equal((await namegate(lab, "uninstall", "--socket", socketOf(lab))).status, 0, "twice does no harm");
  });
}

test("what the agent refuses, it refuses with one message, a fix, and exit 2", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "setpriv"] })) return;
  const it = await shop(t, { policies: { checkout: CHECKOUT } });
  const { lab } = it;
  const other = (...more: string[]): string[] => [
    "agent",
    "--policies",
    join(lab.dir, "policies"),
    "--pods",
    join(lab.dir, "pods.yaml"),
    "--state",
    join(lab.dir, "other"),
    "--socket",
    join(lab.dir, "other.sock"),
    "--metrics",
    "off",
    "--log-level",
    "fatal",
    ...more,
  ];
  const client = await it.client("checkout");
  const guarded = async (): Promise<void> => {
    assert.equal((await client.connect({ host: OUT.bank, port: 443 })).code, "ECONNREFUSED");
    assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
  };

  await t.test("a second agent, which leaves the first alone", async () => {
    await guarded();
    refused(await namegate(lab, ...other()), /another (process|agent)/);
    await guarded();
    assert.deepEqual(
      it.agent.events().filter(({ type }) => type === "rules"),
      [],
      "nothing had to be repaired",
    );
  });
  await t.test("the same socket", async () => {
    refused(await namegate(lab, ...other("--socket", socketOf(lab))), /agent/);
    await guarded();
    assert.equal((await it.agent.status()).ready, true, "the first one still answers");
  });
  await it.agent.kill();
  await t.test("not root", async () => {
    refused(
      await lab.exec("node", ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", process.execPath, MAIN, ...other()]),
      /CAP_NET_ADMIN/,
    );
  });
  await t.test("no iptables", async () => {
    const bin = join(lab.dir, "bin");
    mkdirSync(bin);
    symlinkSync(process.execPath, join(bin, "node"));
    refused(await lab.exec("node", ["env", `PATH=${bin}`, process.execPath, MAIN, ...other()]), /iptables is not installed/);
  });
  await t.test("a mark that somebody else uses, in either family", async () => {
    for (const tool of ["iptables-nft", "ip6tables-nft"]) {
      const rule = ["PREROUTING", "-j", "CONNMARK", "--set-xmark", "0x40/0x40"];
      await lab.run("node", [tool, "-w", "-t", "mangle", "-A", ...rule]);
      refused(await namegate(lab, ...other()), /mark mask 0x3040 is used by somebody else/);
      await lab.run("node", [tool, "-w", "-t", "mangle", "-D", ...rule]);
    }
  });
  await t.test("a mask of two bits, an unknown option, a pods file with mistakes, a folder that is not there", async () => {
    refused(await namegate(lab, ...other("--mark-mask", "0x3000")), /2 bits/);
    const unknown = await namegate(lab, ...other("--polices", "x"));
    assert.equal(unknown.status, 2);
    assert.match(unknown.stderr, /--polices/);
    refused(
      await namegate(lab, ...other("--pods", lab.file("bad-pods.yaml", "pods:\n- namespace: shop\n  nam: x\n"))),
      /bad-pods\.yaml:\d+:\d+: .*nam/,
    );
    refused(await namegate(lab, ...other("--pods", "/nonexistent/pods.yaml")), /cannot be read/);
  });
});

test("status, observe and check tell a person and a program the same", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { pods: [{ name: "checkout" }, { name: "free" }], policies: { checkout: CHECKOUT } });
  const { lab } = it;
  const client = await it.client("checkout");
  await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" });
  await it.agent.event("the kernel's count is read", (e) => e.verdict === "allow");

  const json = (await it.agent.status()) as unknown as Record<string, unknown>;
  for (const field of ["ready", "mode", "effectiveMode", "pods", "policies", "queues", "sets", "alerts"]) assert.ok(field in json, field);
  const [pod] = json["pods"] as Record<string, unknown>[];
  assert.deepEqual(
    [pod?.["namespace"], pod?.["name"], pod?.["guarded"], pod?.["mode"], pod?.["policies"]],
    ["shop", "checkout", true, "Enforce", ["shop/checkout"]],
  );
  const text = await namegate(lab, "status", "--socket", socketOf(lab));
  assert.equal(text.status, 0);
  assert.match(text.stdout, /^ready; mode Enforce, in effect Enforce/);
  assert.match(text.stdout, /shop\/checkout +Enforce +yes +routed cali/);
  assert.match(text.stdout, /shop\/free +- /);
  const { inKernel } = json["knownHellos"] as { readonly inKernel: boolean };
  assert.match(
    text.stdout,
    inKernel ? /^known ClientHellos: by the kernel$/m : /^known ClientHellos: read by userspace each time \(.+\)$/m,
  );

  const observer = lab.spawn("node", [process.execPath, MAIN, "observe", "-o", "json", "--socket", socketOf(lab)]);
  const denied = await until("seen by the observer", async () => {
    await client.connect({ host: OUT.bank, port: 443 });
    await client.connect({ host: OUT.bank, port: 10_000 + (Math.floor(performance.now()) % 50_000) });
    return observer.out.map((line) => JSON.parse(line) as Record<string, unknown>).find((event) => event["verdict"] === "deny");
  });
  for (const field of ["id", "seq", "time", "type", "verdict", "mode", "why", "pod", "policy", "rule", "destination", "evidence"])
    assert.ok(field in denied, field);
  const past = await namegate(lab, "observe", "--no-follow", "--socket", socketOf(lab));
  assert.equal(past.status, 0);
  assert.match(past.stdout, /DENY +shop\/checkout → 198\.51\.100\.12:443\/TCP no-name \(nearest: shop\/checkout\/stripe/);
  assert.match(past.stdout, /ALLOW +shop\/checkout → api\.stripe\.com 198\.51\.100\.10:443\/TCP by shop\/checkout\/stripe/);

  assert.equal((await namegate(lab, "check", join(lab.dir, "policies", "checkout.yaml"))).status, 0);
  const wrong = await namegate(
    lab,
    "check",
    lab.file("wrong.yaml", policy("wrong", { mode: "Enforced", egres: [], egress: [{ action: "Acept" }] })),
  );
  assert.equal(wrong.status, 1);
  assert.equal((wrong.stdout + wrong.stderr).match(/wrong\.yaml:\d+:\d+/g)?.length, 3, "every problem at once");

  await it.agent.stop();
  for (const command of ["status", "observe"]) refused(await namegate(lab, command, "--socket", socketOf(lab)), /agent/);
});

test("with interfacePrefixes a pod that nobody knows yet waits, and works once it is listed", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, {
    agent: false,
    pods: [
      { name: "checkout" },
      { name: "late", labels: { app: "checkout" }, listed: false },
      { name: "free" },
      { name: "lone", labels: { app: "none" }, listed: false },
    ],
    policies: { checkout: CHECKOUT },
  });
  type PodsFile = { interfacePrefixes?: string[]; pods: unknown[] };
  const list = (...more: string[]): void => {
    const file = parse(it.lab.podsFile()) as PodsFile;
    file.interfacePrefixes = ["cali"];
    for (const name of more) {
      const pod = it.lab.pods.find((one) => one.name === name);
      file.pods.push({ namespace: "shop", name, labels: pod?.labels, interface: pod?.interface, addresses: pod?.addresses });
    }
    it.lab.file("pods.yaml", stringify(file));
  };
  // The resolver is a pod of this node too: it must be known, guarded or not.
  await it.start();
  const late = await it.client("late");
  const free = await it.client("free");
  const lone = await it.client("lone");
  const open = async (client: typeof late): Promise<boolean> =>
    (await client.connect({ host: OUT.bank, port: 443, send: "x", timeoutMs: 400 })).ok;
  list("coredns");
  await until("an unknown pod waits", async () => !(await open(late)));
  assert.equal(
    (await late.connect({ host: OUT.evil6, port: 443, timeoutMs: 400 })).code,
    "ETIMEDOUT",
    "IPv6 too; neither allowed nor refused",
  );
  assert.equal(await open(free), true, "a known pod without a policy goes on");
  assert.ok(((await it.agent.status()).counters["unknownPod"] as number) > 0);
  const waits = late.connect({ host: OUT.evil, port: 443, timeoutMs: 10_000 });
  const goes = lone.connect({ host: OUT.evil, port: 443, send: "x", timeoutMs: 10_000 });
  list("coredns", "late", "lone");
  assert.equal((await waits).code, "ECONNREFUSED", "judged when it is known, by TCP's own retransmission");
  assert.equal((await goes).data, "x", "and one that no policy selects goes on");
  assert.equal((await late.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
});
