import { cidrText } from "../base/address.ts";
import { dnsName, type DnsName } from "../base/name.ts";
import { Protocol, protocolText } from "../model/packet.ts";
import type { Action, PortMatch, Rule, Tier } from "../model/policy.ts";
import type { Why } from "../model/verdict.ts";
import { denyMatches, destinationMatches, nameMatches, nearness, portMatches, type Question } from "./evaluate.ts";
import { disagreement } from "./evidence.ts";
import { targetName } from "./proxy.ts";
import type { CompiledRule, Level, View } from "./view.ts";

/** What one rule said to a question. */
export interface RuleTrace {
  readonly policy: string;
  readonly rule: string;
  readonly action: Action;
  readonly tier: Tier;
  /**
   * `decides`: its verdict is the verdict (an Accept rule may still want to see the first bytes). `passes`: a Pass rule that
   * left the Admin tier. `not-asked`: another one decided or passed before. `no`: a clause of it failed.
   */
  readonly outcome: "decides" | "passes" | "no" | "not-asked";
  /** The clauses that failed; of the first bytes only the first one. */
  readonly failed: readonly Clause[];
  /** What the rule has, for a person; each list cut at LISTED_MAX. */
  readonly wants: {
    readonly names: readonly string[];
    readonly networks: readonly string[];
    readonly ports: readonly string[];
    readonly application: string | null;
  };
}

/** `name` and `network`: the destination; `stale`: the name is right, its answer too old; a Why: what the first bytes showed. */
export type Clause = "name" | "network" | "port" | "stale" | Why;

export interface Trace {
  /** The one that decided, then the nearest first; at most `max`. */
  readonly rules: readonly RuleTrace[];
  /** How many there are in all. */
  readonly of: number;
}

/** Names, networks and ports of a rule that are listed. */
const LISTED_MAX = 8;

interface Step {
  readonly rule: CompiledRule;
  readonly outcome: RuleTrace["outcome"];
  readonly rank: number;
}

/**
 * Every rule of `view` in the light of one question, in the words of `judge`: the same clauses, asked in the same order. Linear
 * in the rules.
 */
export function trace(view: View, question: Question, max: number): Trace {
  const serverName = question.evidence?.serverName === undefined ? undefined : dnsName(question.evidence.serverName);
  const steps: Step[] = [];
  let decided = false;
  let left = false;
  for (const level of view.levels) {
    const skipped: boolean = decided || (left && level.tier === "Admin");
    const asked: CompiledRule | undefined = skipped ? undefined : decider(level, question, serverName);
    const passed: CompiledRule | undefined =
      asked === undefined && !skipped && !left ? level.passes.find((rule) => matches(rule, question, serverName)) : undefined;
    let over = skipped;
    for (const rule of rulesOf(level)) {
      const outcome = over ? "not-asked" : rule === asked ? "decides" : rule === passed ? "passes" : "no";
      over ||= outcome !== "no";
      steps.push({ rule, outcome, rank: rankOf(rule, outcome, question, serverName) });
    }
    decided ||= asked !== undefined;
    left ||= passed !== undefined;
  }
  // The sort is stable: of those that came as near, the first in order of judgement.
  const shown = steps.sort((a, b) => b.rank - a.rank).slice(0, max);
  return { rules: shown.map((step) => told(step, question, serverName)), of: steps.length };
}

const rulesOf = ({ denies, accepts, passes }: Level): CompiledRule[] => [...denies, ...accepts, ...passes];

function decider(level: Level, question: Question, serverName: DnsName | undefined): CompiledRule | undefined {
  return (
    level.denies.find((rule) => matches(rule, question, serverName)) ?? level.accepts.find((rule) => matches(rule, question, serverName))
  );
}

/** Would the rule decide if it were asked? Of an Accept rule without evidence yet: it would ask for it. */
function matches(rule: CompiledRule, question: Question, serverName: DnsName | undefined): boolean {
  if (!portMatches(rule, question)) return false;
  if (rule.rule.action === "Deny") return denyMatches(rule, question, serverName, targetName(question.evidence));
  if (!destinationMatches(rule, question)) return false;
  const { evidence } = question;
  return rule.inspect === undefined || evidence === undefined || disagreement(rule, question, evidence, serverName) === undefined;
}

const DECIDES = 1000;
function rankOf(rule: CompiledRule, outcome: RuleTrace["outcome"], question: Question, serverName: DnsName | undefined): number {
  if (outcome === "decides") return DECIDES;
  if (outcome === "passes") return DECIDES - 1;
  if (outcome === "not-asked" || rule.rule.action !== "Accept") return -1;
  return nearness(rule, question, serverName);
}

function told({ rule, outcome }: Step, question: Question, serverName: DnsName | undefined): RuleTrace {
  const { names, networks, ports, application, name, action } = rule.rule;
  return {
    policy: rule.policy.id,
    rule: name,
    action,
    tier: rule.policy.tier,
    outcome,
    failed: outcome === "no" ? failedClauses(rule, question, serverName) : [],
    wants: {
      names: names.slice(0, LISTED_MAX),
      networks: networks.slice(0, LISTED_MAX).map(networkText),
      ports: ports.slice(0, LISTED_MAX).map(portText),
      application: application ?? null,
    },
  };
}

function failedClauses(rule: CompiledRule, question: Question, serverName: DnsName | undefined): Clause[] {
  const failed: Clause[] = [];
  const deny = rule.rule.action === "Deny";
  const there = deny ? denyMatches(rule, question, serverName, targetName(question.evidence)) : destinationMatches(rule, question);
  if (!there) {
    if (rule.names !== undefined) failed.push(nameMatches(rule, question.names, false) ? "stale" : "name");
    if (rule.addresses !== undefined) failed.push("network");
  }
  if (!portMatches(rule, question)) failed.push("port");
  if (failed.length > 0 || deny || rule.inspect === undefined || question.evidence === undefined) return failed;
  const why = disagreement(rule, question, question.evidence, serverName);
  return why === undefined ? [] : [why];
}

function networkText({ cidr, except }: Rule["networks"][number]): string {
  return except.length === 0 ? cidrText(cidr) : `${cidrText(cidr)} except ${except.slice(0, LISTED_MAX).map(cidrText).join(" ")}`;
}

function portText({ protocol, first, last }: PortMatch): string {
  const name = protocolText(protocol);
  if (first === 0 && last === 65_535) return name;
  if (protocol === Protocol.ICMP || protocol === Protocol.ICMPv6)
    return `${name} type ${first >> 8}${first === last ? ` code ${first & 255}` : ""}`;
  return first === last ? `${name} ${first}` : `${name} ${first}-${last}`;
}
