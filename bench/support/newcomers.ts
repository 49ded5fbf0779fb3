import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { execute } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import type { ApiServer } from "../../test/support/apiserver.ts";
import { type BenchCluster, together } from "./cluster.ts";
import { begin } from "./load.ts";

/** Where the newcomers speak to: a rule has the one, and none the other. Both are the server `out`. */
export const ALLOWED = "198.18.255.1";
const DENIED = "198.18.255.2";
const PORT = 9;
const GATEWAY = "169.254.1.1";
const GATEWAY_MAC = "ee:ee:ee:ee:ee:ee";
const SHOUT_MS = 4000;
/** The kubelet reports the address so long after the pod speaks. */
const STATUS_AFTER_MS = 400;
/** The API learns of the pod so long after it, or before it. */
const APART_MS = 150;
const AT_ONCE = 3;

export interface Newcomers {
  /** Datagrams that they could send: to the allowed, and to the denied address. */
  readonly sent: number;
  /** Pods whose datagrams to the allowed address arrived. */
  readonly arrived: number;
  /** Datagrams to the denied address that arrived. */
  readonly unjudged: number;
}

const address = (i: number): string => `10.246.${i >> 8}.${i & 255}`;

/**
 * Pods that speak from the moment when they have a way out, before anybody knows them: a process in their namespace sends while the
 * interface is made. The API hears of a third of them before that, of a third afterwards, and of a third at the same time; of the addresses of
 * all later still.
 */
export async function newcomers(it: BenchCluster<ApiServer>, count: number): Promise<Newcomers> {
  const { lab } = it;
  for (let i = 0; i < count; i++) await lab.run("out", ["iptables-nft", "-w", "-A", "INPUT", "-s", address(i), "-d", ALLOWED]);
  await lab.run("out", ["iptables-nft", "-w", "-A", "INPUT", "-s", "10.246.0.0/16", "-d", DENIED]);
  let sent = 0;
  await together(count, AT_ONCE, async (i) => {
    sent += await newcomer(it, i);
  });
  const counted = (await lab.run("out", ["iptables-nft", "-w", "-nvxL", "INPUT"])).split("\n").map((line) => line.trim().split(/\s+/));
  const packets = (to: string): number[] => counted.filter((words) => words.includes(to)).map(([first]) => Number(first));
  return {
    sent,
    arrived: packets(ALLOWED).filter((one) => one > 0).length,
    unjudged: packets(DENIED).reduce((sum, one) => sum + one, 0),
  };
}

async function newcomer(it: BenchCluster<ApiServer>, i: number): Promise<number> {
  const { lab, api } = it;
  const name = `fresh-${i}`;
  const space = `${lab.prefix}p-${name}`;
  const pods = "/api/v1/namespaces/shop/pods";
  const announce = async (): Promise<void> => {
    const spec = { nodeName: "node-1", containers: [{ name: "main", image: "none" }] };
    await api.must("POST", pods, { metadata: { name, labels: { app: "fresh" } }, spec });
  };
  await ip("netns", "add", space);
  if (i % 3 === 0) {
    await announce();
    await sleep(APART_MS);
  }
  const inside: Lab = { ...lab, ns: () => space, spawn: (_, argv) => lab.spawn("node", ["ip", "netns", "exec", space, ...argv]) };
  const shouts = [ALLOWED, DENIED].map((to) => begin(inside, name, "steady", "shout", to, PORT, SHOUT_MS));
  await Promise.all(shouts.map(({ child }) => child.line((line) => line === "ready")));
  await Promise.all([wire(lab, name, space, i), i % 3 === 1 ? announce() : undefined]);
  if (i % 3 === 2) {
    await sleep(APART_MS);
    await announce();
  }
  await sleep(STATUS_AFTER_MS);
  await api.must("PATCH", `${pods}/${name}/status`, { status: { phase: "Running", podIP: address(i), podIPs: [{ ip: address(i) }] } });
  const sent = (await Promise.all(shouts.map(({ done }) => done))).reduce((sum, one) => sum + (one["sent"] as number), 0);
  await it.removePod(name);
  await ip("netns", "delete", space);
  return sent;
}

/** As Calico does, with its name; the way out comes last. */
async function wire(lab: Lab, name: string, space: string, i: number): Promise<void> {
  const host = `cali${createHash("sha1").update(`shop.${name}`).digest("hex").slice(0, 11)}`;
  const mac = `02:00:01:00:${(i >> 8).toString(16)}:${(i & 255).toString(16)}`;
  await batch(lab.ns("node"), [
    `link add ${host} address ${GATEWAY_MAC} type veth peer name eth0 address ${mac} netns ${space}`,
    `link set ${host} up`,
    `route add ${address(i)}/32 dev ${host} scope link`,
    `neigh replace ${address(i)} lladdr ${mac} dev ${host} nud permanent`,
  ]);
  await batch(space, [
    "link set eth0 up",
    `addr add ${address(i)}/32 dev eth0`,
    `neigh replace ${GATEWAY} lladdr ${GATEWAY_MAC} dev eth0 nud permanent`,
    `route add default via ${GATEWAY} dev eth0 onlink`,
  ]);
}

async function batch(space: string, lines: readonly string[]): Promise<void> {
  const { status, stderr } = await execute(["ip", "-n", space, "-batch", "-"], { input: `${lines.join("\n")}\n` });
  if (status !== 0) throw new Error(`ip in ${space}: ${stderr}`);
}

async function ip(...argv: string[]): Promise<void> {
  const { status, stderr } = await execute(["ip", ...argv]);
  if (status !== 0) throw new Error(`ip ${argv.join(" ")}: ${stderr}`);
}
