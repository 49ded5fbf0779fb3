import { ipText, type Family, type Ip } from "../base/address.ts";
import { Fault } from "../base/fault.ts";
import { CANARY_LINKS, CANARY_POD, CANARY_PROTOCOL } from "../model/canary.ts";
import { type Links, readLinks } from "./links.ts";
import { runTool } from "./tool.ts";

/** A pod's interface and one of its addresses: a canary with that source is to come in there. */
export interface Target {
  readonly interface: string;
  readonly address: Ip;
}

/** Our veth pair, as it is now. */
export interface Pair {
  /** Index of the end that frames are put into. */
  readonly feeds: number;
  /** Of the end that they come out of. */
  readonly mac: readonly number[];
  readonly families: readonly Family[];
}

const { pod: POD, feeds: FEEDS } = CANARY_LINKS;

/**
 * Makes the pair, in place of one that a killed agent left. No end has an address or speaks by itself (no ARP, no neighbour
 * discovery); the pod that is not there gets its route, as the CNI gives one to a pod, so that reverse path filters believe it.
 */
export async function makePair(): Promise<Pair> {
  await removePair();
  const made = await runTool(
    "ip",
    ["-batch", "-"],
    [
      `link add ${POD} type veth peer name ${FEEDS}`,
      ...[POD, FEEDS].flatMap((end) => [`link set ${end} addrgenmode none`, `link set ${end} arp off multicast off`, `link set ${end} up`]),
      `route add ${ipText(CANARY_POD[4])}/32 dev ${POD} scope link`,
    ].join("\n"),
  );
  if (made.status !== 0)
    throw new Fault(
      "canary",
      `the veth pair ${POD} cannot be made: ${made.stderr.trim()}`,
      "install iproute2, load the module veth, and give CAP_NET_ADMIN",
    );
  const v6 = await runTool("ip", ["-6", "route", "add", `${ipText(CANARY_POD[6])}/128`, "dev", POD]);
  const pair = pairOf(await readLinks(), v6.status === 0 ? [4, 6] : [4]);
  if (pair === undefined) throw new Fault("canary", `${POD} was removed as soon as it was made`, "who removes interfaces on this node?");
  return pair;
}

/** The pair is still the same. */
export function isThere(pair: Pair, links: Links | undefined): boolean {
  return pairOf(links, pair.families)?.feeds === pair.feeds;
}

function pairOf(links: Links | undefined, families: readonly Family[]): Pair | undefined {
  const [pod, feeds] = [links?.get(POD), links?.get(FEEDS)];
  return pod === undefined || feeds === undefined ? undefined : { feeds: feeds.index, mac: pod.mac, families };
}

export async function removePair(): Promise<void> {
  await runTool("ip", ["link", "del", POD]);
}

/**
 * Lets each canary that has a target's address as its source come in by the target's interface, as if the pod had sent it:
 * past the same tc filters and eBPF programs. Only our own interface is touched. Returns why it cannot be done here.
 */
export async function leadThrough(targets: readonly Target[]): Promise<string | undefined> {
  await runTool("tc", ["qdisc", "del", "dev", POD, "clsact"]);
  if (targets.length === 0) return undefined;
  const lines = targets.map(({ interface: name, address }, i) => {
    const match =
      address.length === 4
        ? `protocol ip u32 match ip protocol ${CANARY_PROTOCOL} 0xff match ip src ${ipText(address)}/32`
        : `protocol ipv6 u32 match u8 ${CANARY_PROTOCOL} 0xff at 6 match ip6 src ${ipText(address)}/128`;
    return `filter add dev ${POD} ingress pref ${i + 1} ${match} action mirred ingress redirect dev ${name}`;
  });
  // One interface may be gone by now: the others are to be tried all the same.
  const done = await runTool("tc", ["-force", "-batch", "-"], [`qdisc add dev ${POD} clsact`, ...lines].join("\n"));
  if (done.status === 0) return undefined;
  const first = done.stderr.split("\n").find((line) => line !== "") ?? "tc cannot be run";
  return /No such device|Cannot find device/.test(done.stderr) ? undefined : first;
}
