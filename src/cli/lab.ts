import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { Fault } from "../base/fault.ts";
import { ETC_NETNS, removeByPrefix, removeSpaces, removeStale } from "./lab-clean.ts";
import { Child, type ExecOptions, type ExecResult, execute, until } from "./lab-process.ts";
import type { Lab, LabOptions, LabPod, LabServer } from "./lab-types.ts";

export { removeStale } from "./lab-clean.ts";
export type * from "./lab-types.ts";

/** The gateway of routed pods, as in Calico; it exists only as a static neighbour. */
const GATEWAY4 = "169.254.1.1";
const GATEWAY6 = "fe80::1";
const GATEWAY_MAC = "ee:ee:ee:ee:ee:ee";
const BRIDGE = "cni0";
/** Fixed: else it is the lowest of its ports', and changes under the pods when one goes. */
const BRIDGE_MAC = "0a:58:0a:f4:01:01";
/** Links to servers are /30s of 192.0.2.0/25. */
const SERVERS_MAX = 31;
const PODS_MAX = 200;

let labs = 0;

/** Builds the node. Removes what labs of dead processes have left behind first. Throws a Fault without root or ip(8). */
export async function createLab(options: LabOptions = {}): Promise<Lab> {
  if (process.getuid?.() !== 0) throw new Fault("lab-root", "network namespaces need root", "run it as root (sudo)");
  removeStale();
  const prefix = `namegate-lab-${process.pid.toString(36)}-${(labs++).toString(36)}-`;
  const iptables = options.iptables ?? "iptables";
  const dir = mkdtempSync(join(tmpdir(), prefix));
  const pods: LabPod[] = [];
  const servers: LabServer[] = [];
  const children = new Set<Child>();
  const spaces = new Map<string, string>();
  const node = { v4: "192.0.2.254", v6: "2001:db8:ffff::1" };
  let resolvers = [...(options.resolvers ?? [])];
  let podCount = 0;
  let bridged = false;
  let closed = false;
  /** `ip netns add` under way: what it makes is there only afterwards, and close() must find it. */
  let adding: Promise<unknown> = Promise.resolve();
  const opened = (): void => {
    if (closed) throw new Fault("lab-closed", "the lab is closed", "make another one");
  };

  const ns = (name: string): string => {
    const found = spaces.get(name);
    if (found === undefined) throw new Fault("lab-name", `the lab has no ${name}`, `it has ${[...spaces.keys()].join(", ")}`);
    return found;
  };
  const inside = (where: string, argv: readonly string[]): string[] => ["ip", "netns", "exec", ns(where), ...argv];
  const exec = (where: string, argv: readonly string[], opts?: ExecOptions): Promise<ExecResult> => execute(inside(where, argv), opts);
  const run = async (where: string, argv: readonly string[], opts?: ExecOptions): Promise<string> =>
    checked(`${where}: ${argv.join(" ")}`, await exec(where, argv, opts));
  const ip = async (where: string, lines: readonly string[]): Promise<void> => {
    const input = `${lines.join("\n")}\n`;
    checked(`${where}: ip ${lines.join("; ")}`, await execute(["ip", "-n", ns(where), "-batch", "-"], { input }));
  };
  const setSysctl = async (where: string, values: Readonly<Record<string, string | number>>): Promise<void> => {
    // A key may be missing (no IPv6, no bridge module): only what is there is written.
    const lines = Object.entries(values).map(([key, value]) => {
      const file = `/proc/sys/${key.replaceAll(".", "/")}`;
      return `[ ! -e '${file}' ] || echo '${value}' > '${file}'`;
    });
    await run(where, ["sh", "-ec", lines.join("\n")]);
  };
  const addSpace = async (name: string, role: string): Promise<string> => {
    if (spaces.has(name)) throw new Fault("lab-name", `the lab has a ${name} already`, "choose another name");
    opened();
    const space = `${prefix}${role}${name}`;
    const made = execute(["ip", "netns", "add", space]);
    adding = Promise.all([adding, made]);
    checked(
      `namespace ${space}`,
      await made,
      "network namespaces need root with CAP_SYS_ADMIN: a machine, a VM, or a privileged container",
    );
    spaces.set(name, space);
    await setSysctl(name, {
      "net.ipv6.conf.all.accept_dad": 0,
      "net.ipv6.conf.default.accept_dad": 0,
      "net.ipv6.conf.default.accept_ra": 0,
      "net.ipv4.conf.all.rp_filter": 0,
      "net.ipv4.conf.default.rp_filter": 0,
      "net.ipv4.ip_nonlocal_bind": 0,
    });
    await ip(name, ["link set lo up"]);
    return space;
  };
  /** A link carries packets only when the kernel has seen both ends up; that can take a second. */
  const linkUp = (where: string, link: string): Promise<true> =>
    until(`${where} ${link} up`, async () => {
      const shown = await execute(["ip", "-n", ns(where), "-o", "link", "show", "dev", link]);
      return shown.stdout.includes("state UP");
    });
  const writeResolvConf = (pod: LabPod): void => {
    const lines = resolvers.flatMap((text) => {
      const { address, port } = splitPort(text);
      return port === 53 ? [`nameserver ${address}`] : [];
    });
    mkdirSync(join(ETC_NETNS, pod.ns), { recursive: true });
    writeFileSync(join(ETC_NETNS, pod.ns, "resolv.conf"), `${lines.join("\n")}\noptions timeout:2 attempts:2\n`);
  };
  const needBridge = async (): Promise<void> => {
    if (bridged) return;
    bridged = true;
    await execute(["modprobe", "br_netfilter"]); // built in, or there already: a failure shows in the sysctl below
    await ip("node", [
      `link add ${BRIDGE} address ${BRIDGE_MAC} type bridge`,
      `link set ${BRIDGE} up`,
      `addr add 10.244.1.1/24 dev ${BRIDGE}`,
      `addr add fd00:10:244:1::1/64 dev ${BRIDGE} nodad`,
    ]);
    await setSysctl("node", { "net.bridge.bridge-nf-call-iptables": 1, "net.bridge.bridge-nf-call-ip6tables": 1 });
  };

  const lab: Lab = {
    prefix,
    dir,
    pods,
    servers,
    node,
    ns,
    exec,
    run,
    setSysctl,

    async addPod(pod) {
      const index = podCount++;
      if (index >= PODS_MAX) throw new Fault("lab-full", `a lab has at most ${PODS_MAX} pods`, "use another lab");
      const kind = pod.kind ?? "routed";
      const n = index + 11;
      const net = kind === "routed" ? 0 : 1;
      const v4 = pod.v4 === false ? undefined : (pod.v4 ?? `10.244.${net}.${n}`);
      const v6 = pod.v6 === false ? undefined : (pod.v6 ?? `fd00:10:244:${net === 0 ? "" : "1:"}:${n.toString(16)}`);
      const made: LabPod = {
        name: pod.name,
        ns: await addSpace(pod.name, "p-"),
        kind,
        interface: pod.interface ?? (kind === "routed" ? `cali${index}` : `veth${index}`),
        v4,
        v6,
        addresses: [v4, v6].filter((address) => address !== undefined),
        namespace: pod.namespace ?? "shop",
        labels: pod.labels ?? { app: pod.name },
        serviceAccountName: pod.serviceAccountName ?? "default",
        uid: pod.uid ?? `00000000-0000-4000-8000-${(process.pid * 1000 + index).toString(16).padStart(12, "0")}`,
        listed: pod.listed ?? true,
      };
      const mac = `0a:58:0a:f4:0${net}:${n.toString(16).padStart(2, "0")}`;
      const host = made.interface;
      if (kind === "bridge") await needBridge();
      await ip("node", [`link add ${host} type veth peer name eth0 address ${mac} netns ${made.ns}`]);
      if (kind === "routed") {
        await ip("node", [
          `link set ${host} address ${GATEWAY_MAC}`,
          `link set ${host} up`,
          `addr add ${GATEWAY6}/64 dev ${host} nodad`,
          ...(v4 === undefined
            ? []
            : [`route add ${v4}/32 dev ${host} scope link`, `neigh replace ${v4} lladdr ${mac} dev ${host} nud permanent`]),
          ...(v6 === undefined ? [] : [`route add ${v6}/128 dev ${host}`, `neigh replace ${v6} lladdr ${mac} dev ${host} nud permanent`]),
        ]);
        await setSysctl("node", { [`net.ipv4.conf.${host}.proxy_arp`]: 1 });
      } else {
        await ip("node", [`link set ${host} master ${BRIDGE}`, `link set ${host} up`]);
      }
      await ip(pod.name, ["link set eth0 up", ...(kind === "routed" ? routedPod(v4, v6) : bridgedPod(v4, v6))]);
      await linkUp("node", host);
      await linkUp(pod.name, "eth0");
      pods.push(made);
      writeResolvConf(made);
      return made;
    },

    async removePod(name) {
      const at = pods.findIndex((pod) => pod.name === name);
      const pod = pods[at];
      if (pod === undefined) throw new Fault("lab-name", `the lab has no pod ${name}`, "add it first");
      pods.splice(at, 1);
      spaces.delete(name);
      removeSpaces([pod.ns]);
      await until(`${pod.interface} gone`, async () => (await exec("node", ["ip", "link", "show", "dev", pod.interface])).status !== 0);
    },

    async addServer({ name, addresses }) {
      const index = servers.length;
      if (index >= SERVERS_MAX) throw new Fault("lab-full", `a lab has at most ${SERVERS_MAX} servers`, "give one more addresses");
      const server: LabServer = { name, ns: await addSpace(name, "s-"), interface: `srv${index}`, addresses };
      const link = server.interface;
      const near = { v4: `192.0.2.${index * 4 + 1}`, v6: `2001:db8:fff0:${index}::1` };
      const far = { v4: `192.0.2.${index * 4 + 2}`, v6: `2001:db8:fff0:${index}::2` };
      await ip("node", [
        `link add ${link} type veth peer name eth0 netns ${server.ns}`,
        `link set ${link} up`,
        `addr add ${near.v4}/30 dev ${link}`,
        `addr add ${near.v6}/64 dev ${link} nodad`,
      ]);
      await ip(name, [
        "link set eth0 up",
        `addr add ${far.v4}/30 dev eth0`,
        `addr add ${far.v6}/64 dev eth0 nodad`,
        ...addresses.map((address) => `addr add ${address}/${bits(address)} dev eth0${address.includes(":") ? " nodad" : ""}`),
        `route add default via ${near.v4}`,
        `route add default via ${near.v6}`,
      ]);
      await ip(
        "node",
        addresses.map((address) => routeVia(address, far, link)),
      );
      await linkUp("node", link);
      await linkUp(name, "eth0");
      servers.push(server);
      return server;
    },

    async service({ address, port, target, targetPort, protocols = ["udp", "tcp"] }) {
      const v6 = address.includes(":");
      const tool = v6 ? iptables.replace("iptables", "ip6tables") : iptables;
      const to = v6 ? `[${target}]:${targetPort}` : `${target}:${targetPort}`;
      for (const chain of ["PREROUTING", "OUTPUT"]) {
        for (const protocol of protocols) {
          const match = ["-d", address, "-p", protocol, "--dport", String(port), "-j", "DNAT", "--to-destination", to];
          await run("node", [tool, "-w", "-t", "nat", "-A", chain, ...match]);
        }
      }
    },

    async nodeLocal(addresses, { notrack = false } = {}) {
      await ip(
        "node",
        addresses.map((address) => `addr add ${address}/${bits(address)} dev lo${address.includes(":") ? " nodad" : ""}`),
      );
      if (!notrack) return;
      for (const address of addresses) {
        const tool = address.includes(":") ? iptables.replace("iptables", "ip6tables") : iptables;
        for (const protocol of ["udp", "tcp"]) {
          const to = ["-d", address, "-p", protocol, "--dport", "53", "-j", "NOTRACK"];
          await run("node", [tool, "-w", "-t", "raw", "-A", "PREROUTING", ...to]);
          await run("node", [tool, "-w", "-t", "raw", "-A", "OUTPUT", ...to]);
          await run("node", [tool, "-w", "-t", "raw", "-A", "OUTPUT", "-s", address, "-p", protocol, "--sport", "53", "-j", "NOTRACK"]);
        }
      }
    },

    setResolvers(list) {
      resolvers = [...list];
      for (const pod of pods) writeResolvConf(pod);
    },

    podsFile() {
      const withPort = resolvers.map((text) => {
        const { address, port } = splitPort(text);
        return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
      });
      const listed = pods.filter((pod) => pod.listed);
      return stringify({
        resolvers: withPort,
        pods: listed.map((pod) => ({
          namespace: pod.namespace,
          name: pod.name,
          uid: pod.uid,
          labels: pod.labels,
          serviceAccountName: pod.serviceAccountName,
          interface: pod.interface,
          addresses: pod.addresses,
        })),
      });
    },

    writePodsFile: () => lab.file("pods.yaml", lab.podsFile()),

    file(name, text) {
      opened();
      const path = join(dir, name);
      mkdirSync(join(path, ".."), { recursive: true });
      writeFileSync(path, text);
      return path;
    },

    spawn(where, argv, opts) {
      const child = new Child(inside(where, argv), opts);
      children.add(child);
      void child.exited.then(() => children.delete(child));
      return child;
    },

    script: (where, text, args = []) => lab.spawn(where, [process.execPath, "--input-type=module", "-e", text, "--", ...args]),

    async close() {
      if (closed) return;
      closed = true;
      const running = [...children];
      for (const child of running) child.kill("SIGTERM");
      await Promise.all([adding, ...running.map((child) => child.stop(1000))]);
      clear();
      process.removeListener("exit", clear);
    },
  };

  function clear(): void {
    for (const child of children) child.kill("SIGKILL");
    removeByPrefix(prefix);
  }
  process.on("exit", clear);

  try {
    await addSpace("node", "");
    await setSysctl("node", {
      "net.ipv4.ip_forward": 1,
      "net.ipv6.conf.all.forwarding": 1,
      "net.ipv6.conf.default.forwarding": 1,
    });
    await ip("node", [`addr add ${node.v4}/32 dev lo`, `addr add ${node.v6}/128 dev lo nodad`]);
  } catch (error) {
    await lab.close();
    throw error;
  }
  return lab;
}

function routedPod(v4: string | undefined, v6: string | undefined): string[] {
  const lines: string[] = [];
  if (v4 !== undefined) {
    lines.push(
      `addr add ${v4}/32 dev eth0`,
      `neigh replace ${GATEWAY4} lladdr ${GATEWAY_MAC} dev eth0 nud permanent`,
      `route add ${GATEWAY4} dev eth0 scope link`,
      `route add default via ${GATEWAY4} dev eth0`,
    );
  }
  if (v6 !== undefined) {
    lines.push(
      `addr add ${v6}/128 dev eth0 nodad`,
      `neigh replace ${GATEWAY6} lladdr ${GATEWAY_MAC} dev eth0 nud permanent`,
      `route add default via ${GATEWAY6} dev eth0`,
    );
  }
  return lines;
}

function bridgedPod(v4: string | undefined, v6: string | undefined): string[] {
  const lines: string[] = [];
  if (v4 !== undefined) lines.push(`addr add ${v4}/24 dev eth0`, "route add default via 10.244.1.1");
  if (v6 !== undefined) lines.push(`addr add ${v6}/64 dev eth0 nodad`, "route add default via fd00:10:244:1::1");
  return lines;
}

function routeVia(address: string, far: { v4: string; v6: string }, link: string): string {
  return address.includes(":") ? `route add ${address}/128 via ${far.v6} dev ${link}` : `route add ${address}/32 via ${far.v4} dev ${link}`;
}

function bits(address: string): number {
  return address.includes(":") ? 128 : 32;
}

/** `a`, `a:port`, `[v6]:port`, `v6`; the port is 53 where none is given. */
function splitPort(text: string): { address: string; port: number } {
  const found = /^\[([^\]]*)\](?::(\d+))?$/.exec(text) ?? /^([^:]*):(\d+)$/.exec(text);
  return { address: found?.[1] ?? text, port: Number(found?.[2] ?? 53) };
}

function checked(what: string, result: ExecResult, fix = "is it installed? `namegate doctor` lists what is needed"): string {
  if (result.status === 0) return result.stdout;
  const why = result.timedOut ? "no end in time" : `status ${result.status}`;
  throw new Fault("lab-command", `${what}: ${why}: ${result.stderr.trim()}`, fix);
}
