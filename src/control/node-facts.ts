import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { readCni } from "../attach/cni.ts";
import type { Network } from "../attach/network.ts";
import { detectPrefixes } from "../attach/prefixes.ts";
import { type Ip, parseIp } from "../base/address.ts";
import type { ClusterSettings } from "../inputs/config/settings.ts";
import { readResolvConf } from "../inputs/kubernetes/resolv-conf.ts";
import type { NodeFacts } from "./cluster-node.ts";

const FILE_CHARS_MAX = 64 * 1024;

/** What this node itself says, looked at anew with each call; the same object while nothing has changed. */
export function nodeFacts(settings: ClusterSettings, network: Network, warn: (why: string) => void): () => NodeFacts {
  let last: NodeFacts | undefined;
  let shown = "";
  const said = new Set<string>();
  const prefixes = (): readonly string[] => {
    const links = network.links();
    if ("bad" in links) return last?.prefixes ?? settings.interfacePrefixes ?? [];
    const found = detectPrefixes(links, readCni(settings.cniConfigDir), settings.interfacePrefixes);
    for (const why of found.why) {
      if (said.has(why) || said.size > 64) continue;
      said.add(why);
      warn(why);
    }
    return found.prefixes;
  };
  return () => {
    const now: NodeFacts = { prefixes: prefixes(), local: ownAddresses(), resolvConf: readResolvConf(textOf(settings.resolvers.nodeFile)) };
    const text = JSON.stringify([now.prefixes, [...now.local].sort(), now.resolvConf]);
    if (text !== shown || last === undefined) last = now;
    shown = text;
    return last;
  };
}

function ownAddresses(): ReadonlySet<Ip> {
  const local = new Set<Ip>();
  for (const list of Object.values(networkInterfaces())) {
    for (const { address } of list ?? []) {
      const ip = parseIp(address.replace(/%.*$/, ""));
      if (ip !== undefined) local.add(ip);
    }
  }
  return local;
}

/** Empty where there is no such file: the node has no servers of its own. */
function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8").slice(0, FILE_CHARS_MAX);
  } catch {
    return "";
  }
}
