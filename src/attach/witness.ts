import type { CgroupUid } from "./cgroup-path.ts";
import type { Link, LinkTable } from "./link.ts";
import type { Network } from "./network.ts";
import type { Process, Processes } from "./processes.ts";

/**
 * What a pod's processes say. `linked`: interfaces of the node that lead to the pod's namespace, lowest index first; `inside` is what
 * else is there. `apart`: it has interfaces, and they do not lead through this node's stack. `nothing`: not yet, or no longer.
 */
export type Testimony =
  | {
      readonly kind: "linked";
      readonly space: number;
      readonly start: number;
      readonly links: readonly Link[];
      readonly inside: readonly Link[];
    }
  | { readonly kind: "apart"; readonly why: string }
  | { readonly kind: "nothing"; readonly why: string };

const nothing = (why: string): Testimony => ({ kind: "nothing", why });

/**
 * Hears the processes of one pod, the oldest first: that is the sandbox's own one, or the first container's. A pod may have processes in
 * namespaces of their own making, a privileged one even in another pod's; those are younger. Processes in the node's own
 * namespace are the runtime's helpers, or the pod's in the moment of their start.
 */
export function hear(uid: CgroupUid, pids: readonly number[], links: LinkTable, network: Network, processes: Processes): Testimony {
  const alive = pids.flatMap((pid) => processes.look(pid, uid) ?? []).sort((a, b) => a.start - b.start || a.pid - b.pid);
  if (alive.length === 0) return nothing("no process of it runs on this node");
  const seen = new Set<string>();
  let answer: Testimony | undefined;
  for (const process of alive) {
    if (process.netns !== undefined) {
      if (process.netns === processes.own || seen.has(process.netns)) continue;
      seen.add(process.netns);
    }
    const heard = ask(process, links, network, processes);
    if (heard.kind === "linked") return heard;
    if (answer === undefined || (answer.kind === "nothing" && heard.kind === "apart")) answer = heard;
  }
  return answer ?? nothing("its processes are in the node's own network namespace, and yet it is no hostNetwork pod");
}

function ask(process: Process, links: LinkTable, network: Network, processes: Processes): Testimony {
  const space = network.spaceOf(process.pid);
  if (!processes.same(process)) return nothing("its process ended while it was looked at");
  const into = space === undefined ? [] : links.into(space);
  if (space !== undefined && into.length > 0) {
    const inside = network.inside(space);
    return { kind: "linked", space, start: process.start, links: into, inside: "bad" in inside ? [] : inside };
  }
  if (process.netns === undefined) return nothing("its network namespace cannot be looked at (the agent lacks CAP_SYS_PTRACE)");
  // No way in that we know; a number of its own makes the kernel tell what is inside.
  const numbered = space ?? network.numbered(process.pid);
  if (!processes.same(process)) return nothing("its process ended while it was looked at");
  if (numbered === undefined) return nothing("the kernel does not say what is in its network namespace");
  const inside = network.inside(numbered);
  if ("bad" in inside) return nothing(`the kernel does not say what is in its network namespace: ${inside.bad}`);
  return apart(inside, links, network.spaceOf(globalThis.process.pid));
}

/** `own`: the number of the node's namespace, which it gets as soon as something in a pod's namespace leads back to it. */
function apart(inside: readonly Link[], links: LinkTable, own: number | undefined): Testimony {
  for (const link of inside) {
    if (link.loopback) continue;
    if (link.kind === "")
      return { kind: "apart", why: `its ${link.name} is a device of its own (SR-IOV, host-device): its packets do not cross this node` };
    if (own === undefined || link.space !== own) continue;
    if (link.kind === "veth" || link.kind === "netkit") return nothing(`its ${link.name} has just been made`);
    const parent = links.byIndex.get(link.peer)?.name ?? "an interface of the node";
    return { kind: "apart", why: `its ${link.name} is a ${link.kind} on ${parent}: its packets do not cross this node's netfilter` };
  }
  return nothing("no interface of the node leads to it yet");
}

/** Ways out of a pod beside the guarded interface: the node's other interfaces into it, and devices that bypass the node. */
export function otherWays(testimony: Testimony & { kind: "linked" }, chosen: Link): string[] {
  const ways = testimony.links.filter((link) => link !== chosen).map((link) => link.name);
  for (const link of testimony.inside) {
    if (link.loopback || link.kind === "veth" || link.kind === "netkit") continue;
    if (link.kind === "" || (link.space !== undefined && link.space !== testimony.space))
      ways.push(`${link.name} (${link.kind || "a device of its own"}, in the pod)`);
  }
  return ways;
}
