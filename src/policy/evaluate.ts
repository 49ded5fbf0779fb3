import type { Ip } from "../base/address.ts";
import { dnsName, type DnsName } from "../base/name.ts";
import type { NameSeen } from "../model/binding.ts";
import type { Evidence, Nearest, Verdict, Why } from "../model/verdict.ts";
import { mayBeApplication } from "./application.ts";
import { disagreement } from "./evidence.ts";
import { hasName } from "./names.ts";
import { targetName } from "./proxy.ts";
import { hasAddress, inRanges, packPort } from "./ranges.ts";
import type { CompiledRule, Level, View } from "./view.ts";

/** One connection. All that the evaluator needs from the world is in it. */
export interface Question {
  /** IP protocol number. */
  readonly protocol: number;
  /** Destination port; ICMP: type << 8 | code; 0 where the protocol has none. */
  readonly port: number;
  readonly address: Ip;
  /** The names of this pod for this address. */
  readonly names: readonly NameSeen[];
  /** What the first payload bytes showed; undefined: not looked at yet. */
  readonly evidence?: Evidence | undefined;
}

/**
 * Judges one connection of a pod that at least one policy guards.
 *
 * Levels are asked in order: Admin policies by priority, all namespace policies together, Baseline policies by priority.
 * Within a level any Deny rule decides first, then any Accept rule (one that wants no evidence before one that does),
 * then a Pass rule, which leaves the Admin tier. Nobody decided: deny, with the reason of the Accept rule that came
 * nearest (see `explain`).
 *
 * A rule matches when its ports and its destination do. Accept and Pass rules know the names in the question of DNS
 * (and down the CNAME chain where the rule says `cnames: Match`); Deny rules know every name: the server name, and what a
 * proxy is asked for.
 */
export function judge(view: View, question: Question): Verdict {
  const { evidence } = question;
  const serverName = evidence?.serverName === undefined ? undefined : dnsName(evidence.serverName);
  const target = targetName(evidence);
  let leftAdmin = -1;
  for (let i = 0; i < view.levels.length; i++) {
    const level = view.levels[i] as Level;
    if (leftAdmin >= 0 && level.tier === "Admin") continue;
    for (const rule of level.denies) if (portMatches(rule, question) && denyMatches(rule, question, serverName, target)) return rule.deny;
    for (const rule of level.accepts) {
      if (!portMatches(rule, question) || !destinationMatches(rule, question)) continue;
      if (rule.inspect === undefined) return rule.allow;
      if (evidence === undefined) return rule.inspect;
      if (disagreement(rule, question, evidence, serverName) === undefined) return rule.allow;
    }
    if (leftAdmin < 0 && level.passes.some((rule) => portMatches(rule, question) && destinationMatches(rule, question))) leftAdmin = i;
  }
  return explain(view, question, serverName, leftAdmin);
}

/**
 * Those of `applications` whose first bytes some rule could take here, whatever else they say: it is worth waiting for all of
 * them. Asked for each connection under inspection, so what one rule takes is remembered, and most often is the answer.
 */
export function mayTake(view: View, question: Question, applications: readonly string[]): readonly string[] {
  let first: readonly string[] | undefined;
  let others: (readonly string[])[] | undefined;
  for (const { accepts } of view.levels) {
    for (const rule of accepts) {
      if (!portMatches(rule, question) || !destinationMatches(rule, question)) continue;
      const taken = takenBy(rule, question.protocol, applications);
      if (first === undefined) first = taken;
      else if (taken !== first) (others ??= []).push(taken);
    }
  }
  if (first === undefined) return NOTHING;
  if (others === undefined) return first;
  const lists = [first, ...others];
  return applications.filter((application) => lists.some((list) => list.includes(application)));
}

const NOTHING: readonly string[] = [];

interface Taken {
  readonly of: readonly string[];
  readonly protocol: number;
  readonly list: readonly string[];
}
/** The last answer for each rule. */
const lastTaken = new WeakMap<CompiledRule, Taken>();

function takenBy(rule: CompiledRule, protocol: number, of: readonly string[]): readonly string[] {
  const last = lastTaken.get(rule);
  if (last?.of === of && last.protocol === protocol) return last.list;
  const { application: wanted, tls } = rule.rule;
  const list = wanted === undefined ? of : of.filter((application) => mayBeApplication(wanted, application, protocol, tls));
  lastTaken.set(rule, { of, protocol, list });
  return list;
}

/** Does a rule take the destination for a proxy? Then nothing that it accepts is for the whole connection. */
export function isProxy(view: View, question: Question): boolean {
  return view.levels.some(({ accepts }) =>
    accepts.some((rule) => rule.proxy !== undefined && portMatches(rule, question) && destinationMatches(rule, question)),
  );
}

export function portMatches(rule: CompiledRule, question: Question): boolean {
  return rule.ports === undefined || inRanges(rule.ports, packPort(question.protocol, question.port));
}

function addressMatches(rule: CompiledRule, question: Question): boolean {
  return rule.rule.anyDestination || (rule.addresses !== undefined && hasAddress(rule.addresses, question.address));
}

export function nameMatches(rule: CompiledRule, names: readonly NameSeen[], fresh: boolean): boolean {
  if (rule.names === undefined) return false;
  for (const seen of names) {
    if (seen.fresh === fresh && (seen.via === "asked" || rule.rule.cnames === "Match") && hasName(rule.names, seen.name)) return true;
  }
  return false;
}

export function destinationMatches(rule: CompiledRule, question: Question): boolean {
  return addressMatches(rule, question) || nameMatches(rule, question.names, true);
}

export function denyMatches(rule: CompiledRule, question: Question, serverName: DnsName | undefined, target: DnsName | undefined): boolean {
  if (addressMatches(rule, question)) return true;
  if (rule.names === undefined) return false;
  if (serverName !== undefined && hasName(rule.names, serverName)) return true;
  if (target !== undefined && hasName(rule.names, target)) return true;
  for (const seen of question.names) if (seen.fresh && hasName(rule.names, seen.name)) return true;
  return false;
}

/** How near an Accept rule came, in rising order, and the clause of it that failed. */
const NEARNESS = [
  { why: "no-rule", clause: undefined },
  { why: "no-name", clause: "name" },
  { why: "wrong-name", clause: "name" },
  { why: "wrong-port", clause: "port" },
  { why: "stale-dns", clause: "stale" },
  { why: "evasion", clause: "application" },
  { why: "wrong-protocol", clause: "application" },
  { why: "names-disagree", clause: "server-name" },
  { why: "ech", clause: "server-name" },
  { why: "no-server-name", clause: "server-name" },
  { why: "wrong-server-name", clause: "server-name" },
  { why: "wrong-identity", clause: "identity" },
] as const satisfies readonly { why: Why; clause: Nearest["clause"] | undefined }[];
const NEAR = Object.fromEntries(NEARNESS.map(({ why }, i) => [why, i])) as Record<(typeof NEARNESS)[number]["why"], number>;

/** How near an Accept rule came that did not accept: the more, the nearer; 0: not at all. */
export function nearness(rule: CompiledRule, question: Question, serverName: DnsName | undefined): number {
  const destination = destinationMatches(rule, question);
  if (!portMatches(rule, question)) return destination ? NEAR["wrong-port"] : NEAR["no-rule"];
  if (destination) {
    const why = question.evidence === undefined ? undefined : disagreement(rule, question, question.evidence, serverName);
    return why === undefined ? NEAR["no-rule"] : NEAR[why];
  }
  if (rule.names === undefined) return NEAR["no-rule"];
  if (nameMatches(rule, question.names, false)) return NEAR["stale-dns"];
  return question.names.length > 0 ? NEAR["wrong-name"] : NEAR["no-name"];
}

/**
 * The default deny and its reason. Each Accept rule that was asked failed in some clause; the reason is that of the rule
 * that got furthest (the first of these in order of judgement):
 *
 * 1. wrong-identity: all but the user, the database, the path, ... agrees;
 * 2. wrong-server-name, no-server-name, ech, names-disagree: it is the application, but what it says of the server does not do;
 * 3. wrong-protocol: the first bytes are another application's;
 * 4. evasion: they are such that nobody can be sure what they are;
 * 5. stale-dns: port and name agree, but the DNS answer is too old;
 * 6. wrong-port: the destination agrees, the port does not;
 * 7. wrong-name: the port agrees, and this pod knows names for the address, but others;
 * 8. no-name: the port agrees, and this pod resolved nothing to this address;
 * 9. no-rule: neither agrees with any rule (no nearest rule).
 */
function explain(view: View, question: Question, serverName: DnsName | undefined, leftAdmin: number): Verdict {
  let best: number = NEAR["no-rule"];
  let nearest: CompiledRule | undefined;
  for (const [i, level] of view.levels.entries()) {
    if (leftAdmin >= 0 && i > leftAdmin && level.tier === "Admin") continue;
    for (const rule of level.accepts) {
      const near = nearness(rule, question, serverName);
      if (near > best) {
        best = near;
        nearest = rule;
      }
    }
  }
  const { why, clause } = NEARNESS[best] as (typeof NEARNESS)[number];
  return {
    action: "deny",
    why,
    policy: undefined,
    rule: undefined,
    nearest: nearest === undefined || clause === undefined ? undefined : { policy: nearest.policy.id, rule: nearest.rule.name, clause },
  };
}
