import type { DnsLimits, DnsSettings, Policy, PolicyId, Rule, Tier } from "../model/policy.ts";
import type { Verdict } from "../model/verdict.ts";
import { namesServer } from "./application.ts";
import { compileIdentity, type Identity } from "./identity.ts";
import { nameIndex, nameSet, type NameIndex, type NameSet } from "./names.ts";
import { compileTarget, type CompiledTarget } from "./proxy.ts";
import { addressRanges, portRanges, type AddressRanges, type Ranges } from "./ranges.ts";
import { compareJudgement } from "./select.ts";

/** What a document without `spec.dns` gets, and a name that no policy mentions. */
export const DNS_DEFAULTS: DnsSettings = { queries: "All", minTtlMs: 30_000, maxTtlMs: 3_600_000, graceMs: 30_000 };

/** Limits that a document leaves out, and those of a pod of which no policy has `dns.limits`. */
export const DNS_LIMITS: DnsLimits = {
  action: "Alert",
  nameLength: 200,
  labelLength: 63, // RFC 1035 §2.3.4: as long as a label can be
  entropy: 4.7,
  names: 1000,
  data: 4096,
  queries: undefined,
  types: [10, 65_399], // NULL, and the one of private use that iodine asks for
};

/** A rule ready to be asked, with its possible verdicts made in advance so that judging allocates nothing. */
export interface CompiledRule {
  readonly rule: Rule;
  readonly policy: Policy;
  /** undefined: no domainNames. */
  readonly names: NameSet | undefined;
  /** undefined: no networks. */
  readonly addresses: AddressRanges | undefined;
  /** undefined: any protocol and port. */
  readonly ports: Ranges<number> | undefined;
  readonly identity: readonly Identity[];
  /** undefined: the destination is no proxy. */
  readonly proxy: readonly CompiledTarget[] | undefined;
  readonly allow: Verdict;
  readonly deny: Verdict;
  /** undefined: the rule wants no evidence. */
  readonly inspect: Verdict | undefined;
}

/** Rules judged together: one priority of Admin or Baseline, or all namespace policies. */
export interface Level {
  readonly tier: Tier;
  readonly denies: readonly CompiledRule[];
  /** Those that want no evidence first, then the others. */
  readonly accepts: readonly CompiledRule[];
  readonly passes: readonly CompiledRule[];
}

/** The policies of a pod, compiled. Immutable; pods with the same policies share one. */
export interface View {
  /** In order of judgement. */
  readonly policies: readonly Policy[];
  readonly levels: readonly Level[];
  /** For each policy, its rules by name. */
  readonly byName: readonly NameIndex<CompiledRule>[];
}

interface CompiledPolicy {
  readonly rules: readonly CompiledRule[];
  readonly byName: NameIndex<CompiledRule>;
}

/** Policies are immutable, so each is compiled once, for all views and pods. */
const compiled = new WeakMap<Policy, CompiledPolicy>();

function compileRule(policy: Policy, rule: Rule): CompiledRule {
  const serverName = rule.application !== undefined && rule.names.length > 0 && namesServer(rule.application);
  const ids = { policy: policy.id, rule: rule.name };
  return {
    rule,
    policy,
    names: rule.names.length > 0 ? nameSet(rule.names) : undefined,
    addresses: rule.networks.length > 0 ? addressRanges(rule.networks) : undefined,
    ports: rule.ports.length > 0 ? portRanges(rule.ports) : undefined,
    identity: rule.identity.map(compileIdentity),
    proxy: rule.proxy?.map(compileTarget),
    allow: { action: "allow", ...ids },
    deny: { action: "deny", why: "denied-by-rule", ...ids, nearest: undefined },
    inspect:
      rule.application === undefined
        ? undefined
        : { action: "inspect", ...ids, application: rule.application, missing: serverName ? "server-name" : "protocol" },
  };
}

function compile(policy: Policy): CompiledPolicy {
  let result = compiled.get(policy);
  if (result === undefined) {
    const rules = policy.rules.map((rule) => compileRule(policy, rule));
    result = { rules, byName: nameIndex(rules.map((rule) => [rule.rule.names, rule] as const)) };
    compiled.set(policy, result);
  }
  return result;
}

/** Linear in rules, names and networks (networks are sorted). The order of `policies` does not matter. */
export function buildView(policies: readonly Policy[]): View {
  const ordered = [...policies].sort(compareJudgement);
  const levels: Level[] = [];
  for (let at = 0; at < ordered.length; ) {
    const { tier, priority } = ordered[at] as Policy;
    const rules: CompiledRule[] = [];
    for (let next = ordered[at]; next !== undefined && next.tier === tier && next.priority === priority; next = ordered[++at]) {
      for (const rule of compile(next).rules) rules.push(rule);
    }
    const accepts = rules.filter((r) => r.rule.action === "Accept");
    levels.push({
      tier,
      denies: rules.filter((r) => r.rule.action === "Deny"),
      accepts: [...accepts.filter((r) => r.inspect === undefined), ...accepts.filter((r) => r.inspect !== undefined)],
      passes: rules.filter((r) => r.rule.action === "Pass"),
    });
  }
  return { policies: ordered, levels, byName: ordered.map((policy) => compile(policy).byName) };
}

/** The rule of a verdict. */
export function ruleOf(view: View, { policy, rule }: { readonly policy: PolicyId; readonly rule: string }): CompiledRule | undefined {
  const of = view.policies.find(({ id }) => id === policy);
  return of === undefined ? undefined : compile(of).rules.find((one) => one.rule.name === rule);
}
