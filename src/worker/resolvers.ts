import { type Ip, ipText } from "../base/address.ts";
import type { NamePattern } from "../base/name.ts";
import { dnsUse, type DnsUse, maybeDns, NameList } from "../dns/elsewhere.ts";
import type { NameSeen } from "../model/binding.ts";
import type { EventVerdict } from "../model/event.ts";
import type { Evidence, Verdict } from "../model/verdict.ts";
import { type Context, describe, destinationOf, emitFor, evidenceOf } from "./context.ts";
import type { GuardedPod } from "./pods.ts";

/** The same server is spoken of again after this long, with the connections since. */
const AGAIN_MS = 60_000;
/** One that only goes on is no news. */
const MET_AGAIN_MS = 3_600_000;
/** Servers of one pod that are remembered; beyond, the oldest is forgotten. */
const SERVERS_MAX = 128;
/** Addresses of DNS-over-HTTPS servers that one pod has resolved. */
const ADDRESSES_MAX = 256;

const MEANS: Readonly<Record<DnsUse, string>> = {
  "untrusted-resolver": "it is no trusted resolver, and what it answers opens nothing",
  "dns-over-tls": "what is asked and answered cannot be seen, and opens nothing",
  "dns-over-https": "what is asked and answered there cannot be seen, and opens nothing",
};

/** Of DNS-over-HTTPS servers. */
export function serversOf(patterns: readonly NamePattern[]): NameList {
  return new NameList(patterns);
}

/** What one pod does with DNS servers that are not trusted. */
export class Elsewhere {
  /** What the pod resolved names of DNS-over-HTTPS servers to. */
  private readonly servers = new Set<Ip>();
  private readonly said = new Map<string, { atMs: number; count: number }>();

  learned(address: Ip): void {
    if (this.servers.size < ADDRESSES_MAX) this.servers.add(address);
  }

  knows(address: Ip): boolean {
    return this.servers.size > 0 && this.servers.has(address);
  }

  /** How many uses are to be spoken of now; 0: not yet. `begun`: new ones since the last call; 0: one that is under way was met. */
  use(key: string, nowMs: number, begun: number): number {
    const before = this.said.get(key);
    const count = (before?.count ?? 0) + begun;
    if (before !== undefined && nowMs - before.atMs < (begun > 0 ? AGAIN_MS : MET_AGAIN_MS)) {
      before.count = count;
      return 0;
    }
    this.said.delete(key);
    if (this.said.size >= SERVERS_MAX) this.said.delete(this.said.keys().next().value as string);
    this.said.set(key, { atMs: nowMs, count: 0 });
    return Math.max(1, count);
  }
}

/** Is the connection to be looked at by `sayDnsUse`? Most are not: that is a comparison of the port. */
export function mayBeDns({ elsewhere }: GuardedPod, address: Ip, port: number, evidence: Evidence | undefined): boolean {
  return evidence !== undefined || maybeDns(port, elsewhere.knows(address));
}

/** A connection of a guarded pod, as far as it is known. */
export interface Spoken {
  readonly source: Ip;
  readonly sourcePort: number;
  readonly destination: Ip;
  readonly destinationPort: number;
  readonly protocol: number;
}

/**
 * Says where a connection is DNS with somebody who is not trusted, whatever became of it. Decides nothing. `begun`: see Elsewhere.
 */
export function sayDnsUse(
  context: Context,
  pod: GuardedPod,
  spoken: Spoken,
  verdict: EventVerdict,
  said: Verdict,
  names: readonly NameSeen[],
  evidence: Evidence | undefined,
  begun: number,
): void {
  const { destination, destinationPort: port, protocol } = spoken;
  if (!mayBeDns(pod, destination, port, evidence)) return;
  const use = dnsUse(protocol, port, pod.elsewhere.knows(destination), evidence, context.dnsServers);
  if (use === undefined || context.kernel.isResolver(destination, (protocol << 16) | port)) return;
  context.counters.dnsElsewhere += begun;
  const count = pod.elsewhere.use(`${use} ${verdict} ${protocol} ${port} ${destination}`, context.nowMs(), begun);
  if (count === 0) return;
  const asked = evidence?.fields?.query;
  emitFor(context, pod, {
    type: "dns",
    verdict,
    mode: pod.guard.book.mode,
    why: use,
    policy: said.policy ?? null,
    rule: said.rule ?? null,
    destination: destinationOf(destination, port, protocol, names),
    source: { address: ipText(spoken.source), port: spoken.sourcePort, interface: pod.attachment.interface },
    evidence: evidenceOf(names, evidence),
    count,
    message: `DNS with ${describe(destination, port, protocol, names)}${asked === undefined ? "" : `, about ${asked}`}: ${MEANS[use]}`,
  });
}
