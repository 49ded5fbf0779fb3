import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { bundleFor, type Confinement, type Image, IMAGE_COMMANDS, manifestCapabilities, NAMEGATE, NODE_INSIDE } from "../support/image.ts";
import { until } from "../support/lab.ts";
import { need, ROOT } from "../support/need.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

/**
 * The bundle as the DaemonSet runs it: read-only root, no new privileges, and of all capabilities those of the manifest (the
 * bounding set, so nothing that it starts has more). And each of them is needed: without it something stops, named here.
 */
const NEEDS = { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, ...IMAGE_COMMANDS] };
const GIVEN = manifestCapabilities();

function program(it: Shop, image: Image, capabilities: readonly string[], more: Confinement = {}): string[] {
  return [...image.inside({ ...more, keep: [it.lab.dir], capabilities }), NODE_INSIDE, NAMEGATE];
}

for (const iptables of ["nft", "legacy"] as const) {
  test(`with the manifest's capabilities and a read-only root: enforce, restart, uninstall (iptables-${iptables})`, async (t) => {
    if (!need(t, NEEDS)) return;
    const image = bundleFor(t);
    const it = await shop(t, {
      pods: [{ name: "checkout" }, { name: "bridged", kind: "bridge", labels: { app: "checkout" } }],
      iptables,
      policies: { checkout: { ...CHECKOUT, dns: { queries: "AllowedOnly" } } },
      agent: false,
    });
    const start = (): Promise<unknown> => it.start({ program: program(it, image, GIVEN) });
    await start();
    const open = new Map<string, number>();
    for (const pod of ["checkout", "bridged"]) {
      await t.test(`${pod}: what the policy says, IPv4 and IPv6`, async () => {
        const client = await it.client(pod);
        for (const [type, host, other] of [
          ["A", OUT.stripe, OUT.evil],
          ["AAAA", OUT.stripe6, OUT.evil6],
        ] as const) {
          assert.deepEqual((await client.resolve({ name: "api.stripe.com", type })).addresses, [host]);
          const made = await client.connect({ host, port: 443, send: "hi", expect: 2, hold: true });
          assert.equal(made.data, "hi");
          open.set(`${pod} ${host}`, made.hold as number);
          assert.equal((await client.connect({ host: other, port: 443 })).code, "ECONNREFUSED");
        }
        assert.equal((await client.resolve({ name: "evil.example.net" })).ok, false, "refused by an injected answer");
      });
    }
    await t.test("the root is read-only and there is nothing of the checkout in it", async () => {
      const script = `cd /; ! touch x 2>/dev/null && ! touch opt/namegate/x 2>/dev/null && ! touch proc/sys/net/ipv4/ip_forward 2>/dev/null && ! echo 0 2>/dev/null >sys/class/net/lo/netdev_group && ls /opt /var`;
      const got = await it.lab.exec("node", [...image.inside({ capabilities: GIVEN }), "sh", "-c", script]);
      assert.equal(got.status, 0, got.stderr);
      assert.equal(got.stdout, "/opt:\nnamegate\nnode\n\n/var:\n");
    });
    await t.test("it has these capabilities and no others", () => {
      const status = readFileSync(`/proc/${it.agent.child.pid}/status`, "utf8");
      const names = GIVEN.map((name) => 1n << BigInt(BITS[name] ?? assert.fail(`which bit is ${name}?`)));
      const wanted = names.reduce((all, bit) => all | bit, 0n);
      for (const set of ["CapPrm", "CapEff", "CapBnd"])
        assert.equal(BigInt(`0x${new RegExp(`${set}:\\s*(\\w+)`).exec(status)?.[1]}`), wanted, set);
      assert.match(status, /NoNewPrivs:\s*1/);
    });
    await t.test("every pod is enforced, as the agent sees it", async () => {
      const { pods } = await it.agent.status();
      assert.deepEqual(
        pods.map(({ name, guarded, enforced, why }) => [name, guarded, enforced, why]),
        [
          ["checkout", true, true, undefined],
          ["bridged", true, true, undefined],
        ],
      );
    });
    await t.test("a restart forgets nothing and cuts nothing", async () => {
      await it.agent.stop();
      await start();
      for (const [which, hold] of open) {
        const client = await it.client(which.split(" ")[0] as string);
        assert.equal((await client.talk({ hold, send: "on", expect: 2 })).data, "on", which);
      }
      assert.ok((await it.agent.status()).pods.every(({ bindings }) => bindings === 2));
      assert.ok(!it.agent.events().some(({ why }) => why === "rules-restored" || why === "set-repaired" || why === "degraded"));
    });
    await t.test("uninstall leaves nothing", async () => {
      await it.agent.stop();
      const got = await it.lab.exec("node", [...program(it, image, GIVEN), "uninstall"]);
      assert.equal(got.status, 0, got.stdout + got.stderr);
      const left = await it.lab.exec("node", ["sh", "-c", `ipset list -n; iptables-${iptables}-save; ip6tables-${iptables}-save`]);
      assert.doesNotMatch(left.stdout, /ng-|NG-/);
      const groups = await it.lab.exec("node", ["sh", "-c", "cat /sys/class/net/*/netdev_group"]);
      assert.match(groups.stdout, /^(0\n)+$/);
    });
  });
}

test("with the manifest's capabilities and a read-only root: Discover hears, doctor looks", async (t) => {
  if (!need(t, NEEDS)) return;
  const image = bundleFor(t);
  const it = await shop(t, { policies: { checkout: { ...CHECKOUT, mode: "Discover" } }, agent: false });
  await it.start({ program: program(it, image, GIVEN) });
  const client = await it.client("checkout");
  await until("it is heard", async () => {
    await client.resolve({ name: "evil.example.net" });
    assert.equal((await client.connect({ host: OUT.evil, port: 443, send: "x" })).data, "x");
    return it.agent
      .events()
      .some(({ verdict, destination }) => verdict === "would-deny" && destination?.names.includes("evil.example.net") === true);
  });
  await it.agent.stop();
  const got = await it.lab.exec("node", [...program(it, image, GIVEN), "doctor"], { timeoutMs: 60_000 });
  assert.match(got.stdout, /^ok +privilege /m);
  assert.match(got.stdout, /^ok +iptables /m);
  assert.match(
    got.stdout,
    /^warn +trial +rules, sets and queues could not be tried in a network namespace/m,
    "that needs SYS_ADMIN, and is said",
  );
  assert.doesNotMatch(got.stdout, /^failed? /im);
});

test("each capability of the manifest is needed", async (t) => {
  if (!need(t, NEEDS)) return;
  const image = bundleFor(t);
  const it = await shop(t, { policies: { checkout: CHECKOUT }, agent: false });
  const without = (name: string): string[] =>
    program(
      it,
      image,
      GIVEN.filter((one) => one !== name),
    );
  /** Capability → what is wrong without it. */
  const trials: Readonly<Record<string, () => Promise<void>>> = {
    NET_ADMIN: async () => {
      const agent = await it.start({ program: without("NET_ADMIN"), ready: false });
      assert.equal(await agent.child.exited, 2);
      assert.match(agent.child.err.join("\n"), /Operation not permitted|EPERM|Permission denied/i);
    },
    NET_RAW: async () => {
      const agent = await it.start({ program: without("NET_RAW"), ready: false });
      assert.equal(await agent.child.exited, 2);
      // iptables' own way to ask for a set's number; resets, REFUSED and Discover's capture need raw sockets too.
      assert.match(agent.child.err.join("\n"), /Can't open socket to ipset|Operation not permitted/i);
    },
    SYS_NICE: async () => {
      const niceOf = (pid: number | undefined): number[] =>
        threads(pid).map((text) => Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[16]));
      const agent = await it.start({ program: without("SYS_NICE") });
      assert.ok(!niceOf(agent.child.pid).includes(-10), "the packet thread has no better priority than others");
      await agent.stop();
      const whole = await it.start({ program: program(it, image, GIVEN) });
      assert.ok(niceOf(whole.child.pid).includes(-10));
      await whole.stop();
    },
    BPF: async () => {
      const lacks = /"inKernel":false.*EPERM.*ClientHellos that were read before/;
      const agent = await it.start({ program: without("BPF") });
      await until("it says so", () => lacks.test(agent.child.err.join("\n")));
      await agent.stop();
      const whole = await it.start({ program: program(it, image, GIVEN) });
      const saved = await it.lab.run("node", ["iptables-nft-save", "-t", "mangle"]);
      assert.match(saved, /--object-pinned \/sys\/fs\/bpf\/namegate-/);
      assert.doesNotMatch(whole.child.err.join("\n"), lacks);
      await whole.stop();
    },
    SYS_PTRACE: async () => {
      // A pod behind a macvlan bypasses the node's netfilter: it must be said, not waited for.
      const pod = await macvlanPod(t, it);
      const look = async (capabilities: readonly string[]): Promise<unknown> => {
        const argv = [...image.inside({ keep: [join(ROOT, "dist"), join(ROOT, "native")], capabilities }), NODE_INSIDE];
        const got = await it.lab.exec("node", [...argv, "--input-type=module", "-e", LOOK, ROOT, JSON.stringify(pod)]);
        return JSON.parse(got.stdout || assert.fail(got.stderr));
      };
      const why = "its eth0 is a macvlan on uplink0: its packets do not cross this node's netfilter";
      assert.deepEqual(await look(GIVEN), { kind: "unenforceable", why });
      assert.deepEqual(await look(GIVEN.filter((one) => one !== "SYS_PTRACE")), {
        kind: "later",
        why: "its network namespace cannot be looked at (the agent lacks CAP_SYS_PTRACE)",
      });
    },
  };
  assert.deepEqual(Object.keys(trials).sort(), [...GIVEN].sort(), "each has its trial");
  for (const [name, trial] of Object.entries(trials)) await t.test(name, trial);
});

const LOOK = `const [root, pod] = process.argv.slice(1);
const { addon, NetlinkProtocol } = await import(root + "/dist/src/base/addon.js");
const { Locator } = await import(root + "/dist/src/attach/locator.js");
const { NodeNetwork } = await import(root + "/dist/src/attach/network.js");
const locator = new Locator({ network: new NodeNetwork(new (addon().NetlinkSocket)({ protocol: NetlinkProtocol.route })) });
locator.refresh([JSON.parse(pod)], 0);
console.log(JSON.stringify(locator.find(JSON.parse(pod))));`;

/** A process of no privilege, in a pod's cgroup and a network namespace that a macvlan of the node leads to. */
async function macvlanPod(t: TestContext, { lab }: Shop): Promise<object> {
  const uid = "0a1b2c3d-9b1c-4d8e-a7f3-5c2d4b6e8f90";
  const top = join("/sys/fs/cgroup", existsSync("/sys/fs/cgroup/cgroup.controllers") ? "" : "systemd", `namegate-caps-${process.pid}`);
  const folders = [top, join(top, "kubepods"), join(top, "kubepods", `pod${uid}`)];
  for (const folder of folders) mkdirSync(folder);
  const child = lab.spawn("node", ["unshare", "-n", "setpriv", "--reuid=65534", "--clear-groups", "sleep", "60"]);
  t.after(async () => {
    child.kill("SIGKILL");
    await child.exited;
    await until("its cgroup is empty", () => readFileSync(join(folders[2] as string, "cgroup.procs"), "utf8") === "");
    for (const folder of folders.toReversed()) rmdirSync(folder);
  });
  writeFileSync(join(folders[2] as string, "cgroup.procs"), String(child.pid));
  await until("it sleeps", () => readFileSync(`/proc/${child.pid}/comm`, "utf8") === "sleep\n");
  for (const command of [
    "link add uplink0 type veth peer name uplink1",
    "link set uplink0 up",
    "link add link uplink0 name mv0 type macvlan",
    `link set mv0 netns ${child.pid} name eth0`,
  ]) {
    const got = await lab.exec("node", ["ip", ...command.split(" ")]);
    assert.equal(got.status, 0, `${command}: ${got.stderr}`);
  }
  return { uid, namespace: "shop", name: "far", addresses: [], hostNetwork: false };
}

/** linux/capability.h */
const BITS: Readonly<Record<string, number>> = { NET_ADMIN: 12, NET_RAW: 13, SYS_PTRACE: 19, SYS_ADMIN: 21, SYS_NICE: 23, BPF: 39 };

/** /proc/PID/task/…/stat; field 19 is the nice value (proc(5)). */
function threads(pid: number | undefined): string[] {
  const found: string[] = [];
  for (const tid of readdirSync(`/proc/${pid}/task`)) found.push(readFileSync(`/proc/${pid}/task/${tid}/stat`, "utf8"));
  return found;
}
