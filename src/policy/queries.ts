import { domainStart } from "../base/domain.ts";
import type { DnsName } from "../base/name.ts";
import type { Via } from "../model/binding.ts";
import type { DnsSettings, Policy, PolicyId, PortMatch } from "../model/policy.ts";
import type { Nearest } from "../model/verdict.ts";
import { findByName } from "./names.ts";
import { packPort } from "./ranges.ts";
import { DNS_DEFAULTS, type CompiledRule, type View } from "./view.ts";

/** A range wider than this is not spelt out port by port. */
export const EXPANDED_PORTS_MAX = 16;
/** Ports of one name that are opened in advance; the rest is asked for at the first packet. */
export const NAME_PORTS_MAX = 64;

export type QueryVerdict =
  | { readonly action: "allow" }
  | {
      readonly action: "refuse";
      readonly why: "name-not-allowed" | "denied-by-rule";
      readonly policy?: PolicyId;
      readonly rule?: string;
      /** Of `name-not-allowed`: a rule that has another name of the same domain. */
      readonly nearest?: Nearest | undefined;
    };

const ALLOW: QueryVerdict = { action: "allow" };

function naming(view: View, name: DnsName): Set<CompiledRule> {
  const found = new Set<CompiledRule>();
  for (const index of view.byName) findByName(index, name, found);
  return found;
}

/** A Deny rule that denies the name whatever the port is. */
function deniesName(rule: CompiledRule): boolean {
  return rule.rule.action === "Deny" && rule.names !== undefined && rule.ports === undefined;
}

/** Can this policy refuse a query? If none of a pod's can, its queries need not be looked at. */
export function restrictsQueries(policy: Policy): boolean {
  return restrictsNames(policy) || (policy.mode === "Enforce" && policy.dns.limits?.action === "Refuse");
}

/** Can it for the name that is asked for, and not only for how much names carry? */
export function restrictsNames({ mode, dns, rules }: Policy): boolean {
  const deniesNames = rules.some(({ action, names, ports }) => action === "Deny" && names.length > 0 && ports.length === 0);
  return mode === "Enforce" && (dns.queries === "AllowedOnly" || deniesNames);
}

const allowedOnly = (view: View): boolean => view.policies.some((policy) => policy.dns.queries === "AllowedOnly");

/**
 * May this pod ask for `name`? In order of judgement: a Deny rule with that name and no ports refuses; an Accept rule
 * with that name, or with any destination, allows. A Pass rule for the name (or for any destination) takes it out of the
 * reach of the later Admin denials, and, where it has no ports, of the later Admin rules altogether. Rules that only
 * have networks say nothing about names. When no rule decides, `queries: AllowedOnly` in any policy refuses.
 */
export function judgeQuery(view: View, name: DnsName): QueryVerdict {
  const named = naming(view, name);
  const concerns = (rule: CompiledRule): boolean => rule.rule.anyDestination || named.has(rule);
  let passed: "no" | "some-ports" | "all-ports" = "no";
  for (const level of view.levels) {
    if (level.tier === "Admin" && passed === "all-ports") continue;
    if (level.tier !== "Admin" || passed === "no") {
      const denial = level.denies.find((rule) => deniesName(rule) && named.has(rule));
      if (denial !== undefined) return { action: "refuse", why: "denied-by-rule", policy: denial.policy.id, rule: denial.rule.name };
    }
    if (level.accepts.some(concerns)) return ALLOW;
    for (const rule of level.passes) {
      if (!concerns(rule)) continue;
      if (rule.ports === undefined) passed = "all-ports";
      else if (passed === "no") passed = "some-ports";
    }
  }
  return allowedOnly(view) ? { action: "refuse", why: "name-not-allowed", nearest: nearestFor(view, name) } : ALLOW;
}

/** Names that are looked at for that: a refusal must not take long. */
const NEAREST_NAMES_MAX = 5000;
/** Made when a query is first refused. */
const byDomain = new WeakMap<View, ReadonlyMap<string, Nearest>>();

/** The first Accept rule with a name of the domain that `name` is in: what was meant, where a name is misspelt or new. */
function nearestFor(view: View, name: DnsName): Nearest | undefined {
  let known = byDomain.get(view);
  if (known === undefined) byDomain.set(view, (known = domains(view)));
  return known.get(name.slice(domainStart(name)));
}

function domains({ levels }: View): ReadonlyMap<string, Nearest> {
  const found = new Map<string, Nearest>();
  let names = 0;
  for (const { accepts } of levels) {
    for (const { rule, policy } of accepts) {
      for (const pattern of rule.names) {
        if (++names > NEAREST_NAMES_MAX) return found;
        const base = pattern.startsWith("*.") ? pattern.slice(2) : pattern;
        const domain = base.slice(domainStart(base));
        if (!found.has(domain)) found.set(domain, { policy: policy.id, rule: rule.name, clause: "name" });
      }
    }
  }
  return found;
}

/** Does a rule know a name that came this way? Deny rules know them all. */
function knows(rule: CompiledRule, via: Via): boolean {
  return via === "asked" || rule.rule.cnames === "Match" || rule.rule.action === "Deny";
}

/** The single ports of a range that is narrow enough, packed protocol << 16 | port. */
export function* concretePorts(match: PortMatch): Generator<number> {
  if (match.last - match.first >= EXPANDED_PORTS_MAX) return;
  for (let port = match.first; port <= match.last; port++) yield packPort(match.protocol, port);
}

/** The ports, packed protocol << 16 | port, that Accept rules name for `name`: each still has to be judged. No duplicates. */
export function portsForName(view: View, name: DnsName, via: Via): readonly number[] {
  const ports = new Set<number>();
  for (const rule of naming(view, name)) {
    if (rule.rule.action !== "Accept" || !knows(rule, via)) continue;
    for (const match of rule.rule.ports) {
      for (const port of concretePorts(match)) {
        ports.add(port);
        if (ports.size >= NAME_PORTS_MAX) return [...ports];
      }
    }
  }
  return [...ports];
}

/** Does any rule have the name in a pattern, so that what it resolves to is worth remembering? */
export function mentions(view: View, name: DnsName, via: Via): boolean {
  for (const rule of naming(view, name)) if (knows(rule, via)) return true;
  return false;
}

type Lifetimes = Omit<DnsSettings, "queries" | "limits">;

/** The most patient of the policies with a rule for the name; the defaults where there is none. */
export function dnsSettingsFor(view: View, name: DnsName): Lifetimes {
  let found: Lifetimes | undefined;
  for (const { policy } of naming(view, name)) {
    const { minTtlMs, maxTtlMs, graceMs } = policy.dns;
    found =
      found === undefined
        ? { minTtlMs, maxTtlMs, graceMs }
        : {
            minTtlMs: Math.max(found.minTtlMs, minTtlMs),
            maxTtlMs: Math.max(found.maxTtlMs, maxTtlMs),
            graceMs: Math.max(found.graceMs, graceMs),
          };
  }
  const { minTtlMs, maxTtlMs, graceMs } = DNS_DEFAULTS;
  return found ?? { minTtlMs, maxTtlMs, graceMs };
}

/** Labels before the name in the owner of an SVCB record for another port or scheme: `_8443._https` (RFC 9460 §2.3). */
const SERVICE_LABELS_MAX = 2;

/** Are keys for encrypted ClientHellos to be taken out of replies about `name` (`ech: Strip`)? */
export function stripsEch(view: View, name: DnsName): boolean {
  let of: DnsName = name;
  for (let i = 0; i < SERVICE_LABELS_MAX && of.startsWith("_"); i++) {
    const dot = of.indexOf(".");
    if (dot < 0) break;
    of = of.slice(dot + 1) as DnsName;
  }
  for (const { rule } of naming(view, of)) if (rule.action === "Accept" && rule.tls.ech === "Strip") return true;
  return false;
}

/** Can `stripsEch` be true for any name? */
export function stripsAnyEch({ policies }: View): boolean {
  return policies.some(({ rules }) =>
    rules.some(({ action, tls, names }) => action === "Accept" && tls.ech === "Strip" && names.length > 0),
  );
}
