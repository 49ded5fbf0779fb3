import type { Mode, Policy, Rule } from "../model/policy.ts";

/** Differences that are named; the rest is counted. */
const NAMED_MAX = 20;

/** Names of rules have 63 characters at most (schema.json); what comes from an older state on disk may have any. */
const shown = (name: string): string => name.slice(0, 63);

/** What is another in `after` than in `before`, in words; empty: nothing that decides anything. Order of rules does not: any Deny comes before any Accept. */
export function whatChanged(before: Policy, after: Policy): string[] {
  const what: string[] = [];
  const value = (name: string, from: unknown, to: unknown): void => {
    if (from !== to) what.push(`${name}: ${String(from)} → ${String(to)}`);
  };
  value("mode", before.mode, after.mode);
  value("tier", before.tier, after.tier);
  value("priority", before.priority, after.priority);
  if (differ(before.subject, after.subject)) what.push("subject: other pods");
  const settings = new Set([...Object.keys(before.dns), ...Object.keys(after.dns)] as (keyof Policy["dns"])[]);
  for (const name of settings) {
    const [from, to] = [before.dns[name], after.dns[name]].map((one) => (typeof one === "object" ? JSON.stringify(one) : one));
    value(`dns.${name}`, from ?? "default", to ?? "default");
  }
  const old = new Map(before.rules.map((rule) => [rule.name, rule]));
  for (const rule of after.rules) {
    const was = old.get(rule.name);
    old.delete(rule.name);
    if (was === undefined) what.push(`rule ${shown(rule.name)}: added (${rule.action})`);
    else if (differ(was, rule)) what.push(`rule ${shown(rule.name)}: ${parts(was, rule)}`);
  }
  for (const { name, action } of old.values()) what.push(`rule ${shown(name)}: removed (${action})`);
  return what.length <= NAMED_MAX ? what : [...what.slice(0, NAMED_MAX - 1), `and ${what.length - NAMED_MAX + 1} more`];
}

function parts(was: Rule, is: Rule): string {
  const fields = new Set([...Object.keys(was), ...Object.keys(is)] as (keyof Rule)[]);
  return `${[...fields].filter((name) => differ(was[name], is[name])).join(", ")} changed`;
}

function differ(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) !== JSON.stringify(b);
}

const STRICTNESS: Readonly<Record<Mode, number>> = { Discover: 0, Monitor: 1, Enforce: 2 };

export function isLower(mode: Mode, than: Mode): boolean {
  return STRICTNESS[mode] < STRICTNESS[than];
}
