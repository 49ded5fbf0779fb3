/**
 * The locator against the real kernel. The file runs itself again in a network namespace of its own (the node), with a sysfs of
 * that namespace. A pod is a process with a network namespace, in a cgroup below the machine's own tree, as the kubelet would
 * make it.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { addon, NetlinkProtocol } from "../../src/base/addon.ts";
import { messageOf } from "../../src/base/fault.ts";
import { attachmentOf } from "../../src/attach/interface.ts";
import { LinkTable } from "../../src/attach/link.ts";
import { Locator } from "../../src/attach/locator.ts";
import { NodeNetwork } from "../../src/attach/network.ts";
import { type Located, type PodPlace, predictedNames } from "../../src/attach/place.ts";
import { detectPrefixes } from "../../src/attach/prefixes.ts";
import { ip } from "../attach/fake-network.ts";
import { until } from "../support/lab.ts";
import { skip } from "../support/need.ts";

const FILE = fileURLToPath(import.meta.url);
const NEEDS = { root: true, addon: true, commands: ["ip", "unshare", "nsenter", "setpriv", "mount", "bash"] };
const SYS = process.env.NAMEGATE_TEST_SYS;
/** What the kubelet of a large node takes. */
const MANY = 250;

if (SYS === undefined) {
  test("the locator, in a network namespace", { skip: skip(NEEDS), timeout: 180_000 }, (t) => {
    const refused = cgroupRefused();
    if (refused !== undefined) return t.skip(refused);
    const sys = mkdtempSync(join(tmpdir(), "namegate-sys-"));
    const env: NodeJS.ProcessEnv = { ...process.env, NAMEGATE_TEST_SYS: sys };
    delete env.NODE_TEST_CONTEXT;
    const inside = 'mount -t sysfs sysfs "$0" && exec "$@"';
    const command = ["-n", "-m", "bash", "-c", inside, sys, process.execPath, "--enable-source-maps", "--test-reporter=spec", FILE];
    const run = spawnSync("unshare", command, { env, encoding: "utf8" });
    rmSync(sys, { recursive: true });
    for (const line of run.stdout.split("\n").filter((text) => text.includes("ℹ time: "))) console.log(line.trim().slice(2));
    assert.equal(run.status, 0, run.stdout + run.stderr);
  });
} else {
  describe("inside", () => inside(SYS));
}

/** Where the pods' cgroups are made: below the machine's own tree, so that /proc/PID/cgroup says what it says on a node. */
function cgroupTop(): string {
  const unified = existsSync("/sys/fs/cgroup/cgroup.controllers");
  return join("/sys/fs/cgroup", unified ? "" : "systemd", `namegate-test-${process.pid}`);
}

function cgroupRefused(): string | undefined {
  try {
    mkdirSync(cgroupTop());
    rmdirSync(cgroupTop());
    return undefined;
  } catch (error) {
    return `needs a cgroup tree that can be written: ${messageOf(error)}`;
  }
}

function inside(sys: string): void {
  const top = cgroupTop();
  const made: string[] = [];
  const children = new Set<ChildProcess>();
  let pods = 0;

  function run(command: string): string {
    const { status, stdout, stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
    assert.equal(status, 0, `${command}: ${stderr}`);
    return stdout;
  }

  function cgroup(path: string): string {
    for (const part of path.split("/").map((_, i, all) => all.slice(0, i + 1).join("/"))) {
      const folder = join(top, part);
      if (existsSync(folder)) continue;
      mkdirSync(folder, { recursive: true });
      made.push(folder);
    }
    return join(top, path);
  }

  interface Pod extends PodPlace {
    readonly pid: number;
    readonly folder: string;
    end(): Promise<void>;
  }

  /** A pod's process in a network namespace of its own (or the node's), in a cgroup of one driver or the other. */
  async function pod(
    more: Partial<PodPlace> & { own?: boolean; shell?: string; driver?: "systemd" | "cgroupfs"; into?: Pod } = {},
  ): Promise<Pod> {
    const { own = true, shell = "exec sleep 600", driver = "systemd", into, ...place } = more;
    const number = ++pods;
    const uid = place.uid ?? `${number.toString(16).padStart(8, "0")}-9b1c-4d8e-a7f3-5c2d4b6e8f90`;
    const id = number.toString(16).padStart(64, "0");
    const folder =
      into?.folder ??
      cgroup(
        driver === "systemd"
          ? `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${uid.replaceAll("-", "_")}.slice/cri-containerd-${id}.scope`
          : `kubepods/besteffort/pod${uid}/${id}`,
      );
    const [program = "", ...args] = own ? ["unshare", "-n", "-m", "bash", "-c", shell] : ["bash", "-c", shell];
    const child = spawn(program, args, { stdio: "ignore" });
    children.add(child);
    const pid = child.pid as number;
    appendFileSync(join(folder, "cgroup.procs"), `${pid}\n`);
    const ended = new Promise<void>((resolve) => child.on("exit", () => resolve()));
    if (own) await until("the pod has its namespace", () => namespace(pid) !== namespace("self"));
    const end = async (): Promise<void> => {
      child.kill("SIGKILL");
      await ended;
      children.delete(child);
      if (into !== undefined) return;
      await until("its cgroup is empty", () => readFileSync(join(folder, "cgroup.procs"), "utf8") === "");
      for (const empty of [folder, dirname(folder)]) {
        rmdirSync(empty);
        made.splice(made.indexOf(empty), 1);
      }
    };
    return { namespace: "shop", name: `pod-${number}`, addresses: [], hostNetwork: false, ...place, uid, pid, folder, end };
  }

  function namespace(pid: number | "self"): string {
    try {
      return readlinkSync(`/proc/${pid}/ns/net`);
    } catch {
      return "";
    }
  }

  const network = new NodeNetwork(new (addon().NetlinkSocket)({ protocol: NetlinkProtocol.route }));
  const everything = { network, sys };
  const nowhere = mkdtempSync(join(tmpdir(), "namegate-none-"));
  /** A locator that sees no process. */
  const blind = { network, sys, proc: nowhere, cgroup: nowhere };
  let clock = 0;

  function look(locator: Locator, ...places: PodPlace[]): Located[] {
    clock += 10;
    assert.equal(locator.refresh(places, clock), undefined);
    return places.map((place) => locator.find(place));
  }

  function table(): LinkTable {
    const links = network.links();
    assert.ok(links instanceof LinkTable);
    return links;
  }

  function foundAs(name: string, how: string): Located {
    const attachment = attachmentOf(name, sys);
    assert.notEqual(attachment.kind, "missing", name);
    return { kind: "found", interface: name, index: "index" in attachment ? attachment.index : 0, how } as Located;
  }

  // Its MAC is fixed, as CNIs do: else it changes with the ports, and the node forgets its neighbours then.
  run(
    "ip link set lo up; ip link add cni0 address 0a:58:0a:2c:01:01 type bridge; ip address add 10.44.1.1/24 dev cni0; ip link set cni0 up",
  );
  run(
    "ip link add uplink type veth peer name uplink1; ip link set uplink up; ip link set uplink1 up; ip address add 192.0.2.2/24 dev uplink; ip route add default via 192.0.2.1",
  );

  after(async () => {
    await Promise.all(
      [...children].map((child) => {
        const ended = new Promise((resolve) => child.on("exit", resolve));
        child.kill("SIGKILL");
        return ended;
      }),
    );
    rmSync(nowhere, { recursive: true });
    for (const folder of made.reverse()) {
      await until(`${folder} is empty`, () => {
        rmdirSync(folder);
        return true;
      });
    }
    if (existsSync(top)) rmdirSync(top);
  });

  function routed(to: Pod, name: string, v4: string, v6: string): void {
    run(`ip link add ${name} type veth peer name eth0 netns ${to.pid}; ip link set ${name} up
      nsenter -t ${to.pid} -n bash -c 'ip link set eth0 up; ip address add ${v4}/32 dev eth0; ip address add ${v6}/128 dev eth0 nodad'
      ip route add ${v4}/32 dev ${name}; ip -6 route add ${v6}/128 dev ${name}`);
  }

  function bridged(to: Pod, name: string, v4: string): void {
    run(`ip link add ${name} type veth peer name eth0 netns ${to.pid}; ip link set ${name} master cni0; ip link set ${name} up
      nsenter -t ${to.pid} -n ip link set eth0 up`);
    speak(to, v4);
  }

  /** The pod takes an address on the bridge, and lets the node hear it. */
  function speak(from: Pod, v4: string): void {
    run(`nsenter -t ${from.pid} -n bash -c 'ip address add ${v4}/24 dev eth0
      for i in 1 2 3 4 5 6 7 8 9; do echo > /dev/udp/10.44.1.1/9; ip neigh show dev eth0 | grep lladdr && break; sleep 0.2; done'`);
  }

  test("Calico-like: a routed veth named after the pod; every witness alone, and all together", async () => {
    const one = await pod({ name: "web-0", addresses: [ip("10.44.0.5"), ip("fd00:44::5")] });
    const [cali = ""] = predictedNames("shop", "web-0");
    routed(one, cali, "10.44.0.5", "fd00:44::5");
    const locator = new Locator(everything);
    assert.deepEqual(look(locator, one), [foundAs(cali, "process")]);
    assert.deepEqual(locator.findings(), []);
    assert.deepEqual(look(new Locator(everything), { ...one, addresses: [], name: "another" }), [foundAs(cali, "process")]);
    for (const address of one.addresses)
      assert.deepEqual(look(new Locator(blind), { ...one, addresses: [address], name: "another" }), [foundAs(cali, "route")]);
    assert.deepEqual(look(new Locator(blind), { ...one, addresses: [] }), [foundAs(cali, "name")]);
    assert.deepEqual(look(new Locator(blind), { ...one, addresses: [], name: "another" })[0]?.kind, "later");
    assert.deepEqual(detectPrefixes(table(), undefined).prefixes.includes("cali"), true);
    await one.end();
    await until("the veth goes with the pod", () => attachmentOf(cali, sys).kind === "missing");
    assert.equal(look(locator, one)[0]?.kind, "later");
  });

  test("a scan of /proc finds it too, where no cgroup tree is to be seen", async () => {
    const one = await pod();
    routed(one, "cali-scan", "10.44.0.6", "fd00:44::6");
    assert.deepEqual(look(new Locator({ ...everything, cgroup: nowhere }), one), [foundAs("cali-scan", "process")]);
    await one.end();
  });

  test("kind-like (ptp), driver cgroupfs, and a pod that mounts over its /proc and /sys", async () => {
    const shell =
      "mount -t tmpfs t /sys; mount -t tmpfs t /proc; mkdir -p /proc/1 /sys/class/net/eth0; echo 1 > /sys/class/net/eth0/iflink; exec sleep 600";
    const one = await pod({ driver: "cgroupfs", shell, addresses: [ip("10.44.0.7")] });
    routed(one, "veth0badcafe", "10.44.0.7", "fd00:44::7");
    assert.deepEqual(look(new Locator(everything), one), [foundAs("veth0badcafe", "process")]);
    assert.deepEqual(look(new Locator(blind), one), [foundAs("veth0badcafe", "route")]);
    assert.equal(detectPrefixes(table(), undefined).prefixes.includes("veth"), true);
    await one.end();
  });

  test("flannel-like: a port of cni0, by its process and by the bridge's tables", async () => {
    const [one, two] = [await pod({ addresses: [ip("10.44.1.5")] }), await pod({ addresses: [ip("10.44.1.6")] })];
    bridged(one, "vethbb000001", "10.44.1.5");
    bridged(two, "vethbb000002", "10.44.1.6");
    assert.deepEqual(look(new Locator(everything), one, two), [foundAs("vethbb000001", "process"), foundAs("vethbb000002", "process")]);
    assert.deepEqual(look(new Locator(blind), one, two), [foundAs("vethbb000001", "bridge"), foundAs("vethbb000002", "bridge")]);
    assert.equal(attachmentOf("vethbb000001", sys).kind, "bridged");
    assert.deepEqual(detectPrefixes(table(), undefined).bridges, ["cni0"]);
    // The second pod takes the first one's address: the tables are forged, the process is not.
    run(`nsenter -t ${one.pid} -n ip link set eth0 down; nsenter -t ${two.pid} -n ip address flush dev eth0; ip neigh flush dev cni0`);
    speak(two, "10.44.1.5");
    assert.equal((look(new Locator(blind), one)[0] as { interface?: string }).interface, "vethbb000002");
    assert.deepEqual(look(new Locator(everything), one, two), [foundAs("vethbb000001", "process"), foundAs("vethbb000002", "process")]);
    await one.end();
    await two.end();
  });

  test("macvlan: unenforceable; hostNetwork too; a process in the node's namespace is nobody's proof", async () => {
    const one = await pod({ addresses: [ip("192.0.2.77")] });
    run(
      `ip link add link uplink name mv0 type macvlan; ip link set mv0 netns ${one.pid} name eth0; nsenter -t ${one.pid} -n ip link set eth0 up`,
    );
    assert.deepEqual(look(new Locator(everything), one), [
      { kind: "unenforceable", why: "its eth0 is a macvlan on uplink: its packets do not cross this node's netfilter" },
    ]);
    const two = await pod({ own: false });
    assert.match((look(new Locator(everything), two)[0] as { why: string }).why, /^its processes are in the node's own network namespace/);
    assert.equal(look(new Locator(everything), { ...two, hostNetwork: true })[0]?.kind, "unenforceable");
    await one.end();
    await two.end();
  });

  test("a pod without an interface yet, then with one", async () => {
    const one = await pod();
    const locator = new Locator(everything);
    assert.deepEqual(look(locator, one), [{ kind: "later", why: "no interface of the node leads to it yet" }]);
    routed(one, "cali-late", "10.44.0.8", "fd00:44::8");
    assert.deepEqual(look(locator, one), [foundAs("cali-late", "process")]);
    await one.end();
  });

  test("re-created under the same name and address: noticed, by every witness", async () => {
    const as = { name: "db-0", addresses: [ip("10.44.0.9")] };
    const [cali = ""] = predictedNames("shop", "db-0");
    const old = await pod(as);
    routed(old, cali, "10.44.0.9", "fd00:44::9");
    const [locator, unseeing] = [new Locator(everything), new Locator(blind)];
    const first = look(locator, old)[0];
    assert.deepEqual(first, foundAs(cali, "process"));
    look(unseeing, old);
    const next = await pod(as);
    // The old pod is still there; the API says that the new one has its name and address.
    for (const one of [locator, unseeing]) assert.equal(look(one, next)[0]?.kind, "later");
    await old.end();
    await until("the old veth is gone", () => attachmentOf(cali, sys).kind === "missing");
    routed(next, cali, "10.44.0.9", "fd00:44::9");
    assert.deepEqual(look(locator, next), [foundAs(cali, "process")]);
    assert.deepEqual(look(unseeing, next), [foundAs(cali, "route")]);
    assert.notEqual((first as { index: number }).index, (locator.find(next) as { index: number }).index);
    await next.end();
  });

  test("a pod that fakes another one's interface number, in a namespace of its own, is not taken for it", async () => {
    const [victim, hostile] = [await pod(), await pod()];
    routed(victim, "cali-victim", "10.44.0.10", "fd00:44::10");
    routed(hostile, "cali-hostile", "10.44.0.11", "fd00:44::11");
    const nested = await pod({ into: hostile });
    const index = foundAs("cali-victim", "process") as { index: number };
    // Inside: eth0 whose other end has the victim's number, in the hostile pod's namespace.
    run(`nsenter -t ${hostile.pid} -n ip link add cali-victim index ${index.index} type veth peer name eth0 netns ${nested.pid}`);
    const locator = new Locator(everything);
    assert.deepEqual(look(locator, victim, hostile), [foundAs("cali-victim", "process"), foundAs("cali-hostile", "process")]);
    assert.deepEqual(locator.findings(), []);
    await nested.end();
    await hostile.end();
    await victim.end();
  });

  test("CAP_NET_ADMIN alone is enough to find a pod", async () => {
    const one = await pod();
    routed(one, "cali-caps", "10.44.0.12", "fd00:44::12");
    const url = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
    const script = `
      import { addon } from ${url("../../src/base/addon.js")};
      import { Locator } from ${url("../../src/attach/locator.js")};
      import { NodeNetwork } from ${url("../../src/attach/network.js")};
      const pod = { uid: ${JSON.stringify(one.uid)}, namespace: "a", name: "b", addresses: [], hostNetwork: false };
      const locator = new Locator({ network: new NodeNetwork(new (addon().NetlinkSocket)({ protocol: 0 })) });
      locator.refresh([pod], 0);
      process.stdout.write(JSON.stringify(locator.find(pod)));`;
    const limited = ["--bounding-set", "-all,+net_admin", "--inh-caps", "-all", process.execPath, "--input-type=module", "-e", script];
    const { stdout, stderr } = spawnSync("setpriv", limited, { encoding: "utf8" });
    assert.deepEqual(JSON.parse(stdout || JSON.stringify(stderr)), foundAs("cali-caps", "process"));
    await one.end();
  });

  test(`${MANY} pods: found at once, and looked at again for next to nothing`, async (t) => {
    const all: Pod[] = [];
    for (let i = 0; i < MANY; i += 10)
      all.push(...(await Promise.all(Array.from({ length: 10 }, (_, k) => pod({ addresses: [ip(`10.44.9.${i + k + 1}`)] })))));
    const commands = all.map(
      (one, i) =>
        `link add cali${i} type veth peer name eth0 netns ${one.pid}\nlink set cali${i} up\nroute add 10.44.9.${i + 1}/32 dev cali${i}`,
    );
    run(`ip -batch - <<'END'\n${commands.join("\n")}\nEND`);
    const locator = new Locator(everything);
    const time = (what: string, does: () => void): number => {
      const before = process.cpuUsage();
      const started = performance.now();
      does();
      const ms = performance.now() - started;
      const { user, system } = process.cpuUsage(before);
      t.diagnostic(`time: ${what}: ${ms.toFixed(1)} ms, ${((user + system) / 1000).toFixed(1)} ms of CPU`);
      return ms;
    };
    let located: Located[] = [];
    const first = time(`${MANY} pods, none known`, () => {
      located = look(locator, ...all);
    });
    assert.deepEqual(
      located,
      all.map((_, i) => foundAs(`cali${i}`, "process")),
    );
    assert.deepEqual(locator.findings(), []);
    const again = Math.min(...[1, 2, 3, 4, 5].map(() => time(`${MANY} pods, all known`, () => void look(locator, ...all))));
    const more = await pod();
    routed(more, "cali-more", "10.44.0.20", "fd00:44::20");
    time(`one new pod beside ${MANY}`, () => {
      located = look(locator, ...all, more);
    });
    assert.deepEqual(located.at(-1), foundAs("cali-more", "process"));
    clock += 10_000;
    time(`${MANY} pods, routes and names checked again`, () => void look(locator, ...all));
    // Far above what is measured (see ARCHITECTURE.md), far below what would hold up the control thread.
    assert.ok(first < 2000, `${first} ms`);
    assert.ok(again < 200, `${again} ms`);
  });
}
