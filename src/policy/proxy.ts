import { dnsName, type DnsName } from "../base/name.ts";
import type { ProxyTarget } from "../model/policy.ts";
import type { Evidence } from "../model/verdict.ts";
import { hasName, nameSet, type NameSet } from "./names.ts";
import type { CompiledRule } from "./view.ts";

/** HTTP proxies: what a request asks of one (the authority of CONNECT or of an absolute URI) is judged, not the proxy's own name. */

export interface CompiledTarget {
  readonly names: NameSet;
  readonly ports: ProxyTarget["ports"];
}

export function compileTarget({ names, ports }: ProxyTarget): CompiledTarget {
  return { names: nameSet(names), ports };
}

/** May a proxy of this rule be asked for `host` and `port`? False for an address, and for a rule without a proxy. */
export function judgeTarget(rule: CompiledRule, host: string, port: number): boolean {
  const name = dnsName(host);
  if (name === undefined || rule.proxy === undefined) return false;
  return rule.proxy.some((target) => isTarget(target, name, port));
}

/** May the request, or TLS inside of its tunnel, name this server? The target, or another name of an entry that has the target. */
export function agreesWithTarget(rule: CompiledRule, host: string, port: number, serverName: DnsName): boolean {
  const name = dnsName(host);
  if (name === undefined || rule.proxy === undefined) return false;
  return name === serverName || rule.proxy.some((target) => isTarget(target, name, port) && hasName(target.names, serverName));
}

function isTarget({ names, ports }: CompiledTarget, name: DnsName, port: number): boolean {
  return hasName(names, name) && (ports.length === 0 || ports.some(({ first, last }) => first <= port && port <= last));
}

/** `host:port` of the request; undefined: it asks a proxy for nothing. A port that is none is 0, which no rule has. */
export function targetOf(evidence: Evidence | undefined): { readonly host: string; readonly port: number } | undefined {
  const target = evidence?.fields?.target;
  if (target === undefined) return undefined;
  const colon = target.lastIndexOf(":");
  const port = colon < 0 ? 0 : Number(target.slice(colon + 1));
  return { host: colon < 0 ? target : target.slice(0, colon), port: Number.isInteger(port) ? port : 0 };
}

/** The name in the request's target, where it has one. */
export function targetName(evidence: Evidence | undefined): DnsName | undefined {
  const target = targetOf(evidence);
  return target === undefined ? undefined : dnsName(target.host);
}
