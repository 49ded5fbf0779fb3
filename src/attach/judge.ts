import type { Ip } from "../base/address.ts";
import { type Link, type LinkTable, leadsAway } from "./link.ts";
import { type Finding, type How, type Located, type PodPlace, predictedNames } from "./place.ts";
import { otherWays, type Testimony } from "./witness.ts";

/** What is known about one pod, besides its processes' testimony. */
export interface Evidence {
  readonly testimony: Testimony;
  readonly links: LinkTable;
  /** The index of the interface by which packets to an address leave. */
  readonly route: (address: Ip) => number | undefined;
  /** The bridge port behind which an address was seen. */
  readonly port: (address: Ip) => Link | undefined;
  /** Another pod that has this interface, and whether its processes say so. */
  readonly owner: (link: Link) => { readonly name: string; readonly sure: boolean } | undefined;
}

export interface Judgement {
  readonly located: Located;
  readonly findings: readonly Finding[];
}

/** Weighs the witnesses. The processes' word counts most; what they do not say, others may. */
export function judge(pod: PodPlace, evidence: Evidence): Judgement {
  if (pod.hostNetwork) {
    return { located: { kind: "unenforceable", why: "it is a hostNetwork pod: its packets are the node's own" }, findings: [] };
  }
  const { testimony, links } = evidence;
  const findings: Finding[] = [];
  const say = (what: Finding["what"], why: string): void => void findings.push({ uid: pod.uid, what, why });
  const others = [...byRoute(pod, evidence), ...byName(pod, links)];

  if (testimony.kind === "linked") {
    const link = choose(testimony, others);
    const owner = evidence.owner(link);
    if (owner?.sure === true) {
      say("claimed", `its processes and those of ${owner.name} are behind the same interface ${link.name}`);
      return { located: { kind: "later", why: `its interface ${link.name} is that of ${owner.name}` }, findings };
    }
    for (const other of others) {
      // A bridged pod's address is routed to the bridge, and an earlier pod's interface is no witness.
      if (other.link !== link && !testimony.links.includes(other.link) && evidence.owner(other.link)?.sure !== true)
        say("disagree", `its processes are behind ${link.name}, the ${other.how} says ${other.link.name}; the processes are believed`);
    }
    const ways = otherWays(testimony, link);
    if (ways.length > 0) say("second", `only ${link.name} is guarded; it can also send by ${ways.join(", ")}`);
    return { located: through(link, "process", links), findings };
  }

  for (const { link, how } of [...others, ...byBridge(pod, evidence)]) {
    const owner = evidence.owner(link);
    if (owner !== undefined) {
      say("claimed", `the ${how} says ${link.name}, which is that of ${owner.name}`);
      continue;
    }
    if (testimony.kind === "apart") say("disagree", `${testimony.why}; and yet the ${how} says ${link.name}, which is guarded`);
    return { located: through(link, how, links), findings };
  }
  if (testimony.kind === "apart") return { located: { kind: "unenforceable", why: testimony.why }, findings };
  const taken = findings[0] === undefined ? "" : `; ${findings[0].why}`;
  return { located: { kind: "later", why: `${testimony.why}${taken}` }, findings };
}

/** Found, unless whoever has the interface as a port takes its packets past netfilter. */
function through(link: Link, how: How, links: LinkTable): Located {
  const master = links.masterOf(link);
  if (link.master !== 0 && master?.kind !== "bridge" && master?.kind !== "vrf") {
    const what = master === undefined ? "something that has gone" : `${master.name} (${master.kind})`;
    return { kind: "unenforceable", why: `its interface ${link.name} is a port of ${what}: its packets do not cross netfilter` };
  }
  return { kind: "found", interface: link.name, index: link.index, how };
}

interface Word {
  readonly link: Link;
  readonly how: How;
}

/** Of several interfaces of one pod: the one that the node routes its address to, else the other end of its eth0, else the first. */
function choose(testimony: Testimony & { kind: "linked" }, others: readonly Word[]): Link {
  const [first] = testimony.links;
  if (first === undefined) throw new RangeError("linked means at least one interface");
  if (testimony.links.length === 1) return first;
  const routed = others.find(({ link }) => testimony.links.includes(link));
  if (routed !== undefined) return routed.link;
  const inner = testimony.inside.find((link) => link.name === "eth0");
  return testimony.links.find((link) => link.peer === inner?.index) ?? first;
}

function byRoute(pod: PodPlace, { links, route }: Evidence): Word[] {
  return words(
    "route",
    pod.addresses.map((address) => links.byIndex.get(route(address) ?? 0)),
  );
}

function byName(pod: PodPlace, links: LinkTable): Word[] {
  return words(
    "name",
    predictedNames(pod.namespace, pod.name).map((name) => links.byName.get(name)),
  );
}

function byBridge(pod: PodPlace, { port }: Evidence): Word[] {
  return words("bridge", pod.addresses.map(port));
}

/** The interfaces that lead to some other namespace, each once; an address that is routed to the uplink says nothing. */
function words(how: How, links: readonly (Link | undefined)[]): Word[] {
  const found = new Set<Link>();
  for (const link of links) if (link !== undefined && leadsAway(link)) found.add(link);
  return [...found].map((link) => ({ link, how }));
}

export function nameOf(pod: PodPlace): string {
  return `${pod.namespace}/${pod.name}`;
}
