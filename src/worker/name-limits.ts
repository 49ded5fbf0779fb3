import type { Limits } from "../dns/tunnel.ts";
import type { DnsLimits, Policy, PolicyId } from "../model/policy.ts";
import { DNS_LIMITS } from "../policy/view.ts";

type Limit = Exclude<keyof DnsLimits, "action">;

/** The tightest `dns.limits` of the policies with the same consequence, so that the work for a name does not grow with policies. */
export interface PolicyLimits extends Limits {
  readonly becomes: "deny" | "would-deny" | "allow";
  /** Which policy has that limit (of `types`: has this type); undefined: it is a default. */
  readonly by: (limit: Limit, type: number) => PolicyId | undefined;
}

const BECOMES: readonly PolicyLimits["becomes"][] = ["deny", "would-deny", "allow"];
const NUMBERS = ["nameLength", "labelLength", "entropy", "names", "data", "queries"] as const satisfies readonly Limit[];

/**
 * What names of a pod with these policies may be like, that which refuses first. A policy that says nothing about limits has none;
 * where none of them does, the defaults hold.
 */
export function limitsOf(policies: readonly Policy[]): readonly PolicyLimits[] {
  const found = BECOMES.flatMap((becomes) => {
    const own = policies.filter((policy) => becomesOf(policy) === becomes);
    return own.length === 0 ? [] : [tightest(own, becomes)];
  });
  return found.length === 0 ? [DEFAULTS] : found;
}

function becomesOf({ mode, dns: { limits } }: Policy): PolicyLimits["becomes"] | undefined {
  if (limits === undefined) return undefined;
  return limits.action === "Alert" ? "allow" : mode === "Enforce" ? "deny" : "would-deny";
}

function tightest(policies: readonly Policy[], becomes: PolicyLimits["becomes"]): PolicyLimits {
  const least = { ...DNS_LIMITS, ...policies[0]?.dns.limits };
  const whose = new Map<Limit, PolicyId>();
  const types = new Map<number, PolicyId>();
  for (const { id, dns } of policies) {
    const limits = dns.limits ?? DNS_LIMITS;
    for (const limit of NUMBERS) {
      if (whose.has(limit) && (limits[limit] ?? Infinity) >= (least[limit] ?? Infinity)) continue;
      whose.set(limit, id);
      Object.assign(least, { [limit]: limits[limit] });
    }
    for (const type of limits.types) if (!types.has(type)) types.set(type, id);
  }
  return { ...least, types, becomes, by: (limit, type) => (limit === "types" ? types.get(type) : whose.get(limit)) };
}

const DEFAULTS: PolicyLimits = { ...DNS_LIMITS, types: new Set(DNS_LIMITS.types), becomes: "allow", by: () => undefined };
