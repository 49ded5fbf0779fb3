import { inCidr, type Cidr } from "../../src/base/address.ts";
import { dnsName, patternMatches, type DnsName } from "../../src/base/name.ts";
import { Protocol } from "../../src/model/packet.ts";
import type { Policy, ProxyTarget, Rule } from "../../src/model/policy.ts";
import type { Evidence, Fields } from "../../src/model/verdict.ts";
import type { Question } from "../../src/policy/evaluate.ts";

/** The evaluator again, slow and straight from the words: no compiled sets, no levels, no order of its own. */

type Owned = { policy: Policy; rule: Rule };
export type SlowAnswer =
  | { action: "allow" | "inspect" | "denied-by-rule"; policy: string; rule: string }
  | { action: "deny"; why: string; nearest: { policy: string; rule: string; clause: string } | undefined };

const hasPattern = (rule: Rule, name: DnsName): boolean => rule.names.some((pattern) => patternMatches(pattern, name));
const rank = (policy: Policy): number => ["Admin", "Namespace", "Baseline"].indexOf(policy.tier) * 10_000 + policy.priority;

function inNetworks(rule: Rule, question: Question): boolean {
  const inside = (cidr: Cidr): boolean => inCidr(question.address, cidr);
  return rule.networks.some(({ cidr, except }) => inside(cidr) && !except.some(inside));
}

function portOk(rule: Rule, q: Question): boolean {
  return rule.ports.length === 0 || rule.ports.some((p) => p.protocol === q.protocol && p.first <= q.port && q.port <= p.last);
}

function bound(rule: Rule, q: Question, fresh: boolean): boolean {
  return q.names.some((seen) => seen.fresh === fresh && (seen.via === "asked" || rule.cnames === "Match") && hasPattern(rule, seen.name));
}

function destinationOk(rule: Rule, q: Question): boolean {
  return rule.anyDestination || inNetworks(rule, q) || bound(rule, q, true);
}

function denies(rule: Rule, q: Question): boolean {
  const claimed = [q.evidence?.serverName, q.evidence?.fields?.target?.split(":")[0]].map((text) => dnsName(text ?? ""));
  const named =
    q.names.some((seen) => seen.fresh && hasPattern(rule, seen.name)) ||
    claimed.some((server) => server !== undefined && hasPattern(rule, server));
  return portOk(rule, q) && (rule.anyDestination || inNetworks(rule, q) || named);
}

const HTTP = ["http1", "http2", "grpc"];

function isWanted({ application, tls }: Rule, q: Question): boolean {
  const { application: seen, upgrade, alpn = [], evasion = "" } = q.evidence as Evidence;
  if (evasion.startsWith("legacy TLS") && tls.legacy === "Deny") return false;
  if (upgrade === "tcp" || (upgrade === "h2c" && !HTTP.includes(seen ?? ""))) return false;
  if (application === "tls") return seen === "tls" || (seen === "quic" && q.protocol === Protocol.UDP);
  if (application === "http") return HTTP.includes(seen ?? "") || (seen === "tls" && tls.opaque === "Allow");
  const ours = application === "postgresql" && alpn.length > 0 && alpn.every((one) => one === "postgresql");
  return seen === application || (seen === "quic" && ours) || (seen === "tls" && (ours || tls.opaque === "Allow"));
}

function serverFails(rule: Rule, { serverName, application, upgrade, fields }: Evidence): string | undefined {
  if (rule.proxy !== undefined) {
    if (fields?.target === undefined) return "no-server-name";
    const [host = "", port = "0"] = fields.target.split(":");
    const target = dnsName(host) as DnsName;
    const named = ({ names }: ProxyTarget, name: DnsName): boolean => names.some((pattern) => patternMatches(pattern, name));
    const entries = rule.proxy.filter(
      (entry) => named(entry, target) && (entry.ports.length === 0 || entry.ports.some(({ first }) => first === Number(port))),
    );
    if (entries.length === 0) return "wrong-server-name";
    if (serverName === undefined) return upgrade === "tls" && rule.tls.missingServerName !== "Allow" ? "no-server-name" : undefined;
    const server = dnsName(serverName);
    const agrees = server !== undefined && (server === target || entries.some((entry) => named(entry, server)));
    return agrees ? undefined : "wrong-server-name";
  }
  const hello = upgrade === "tls" || application === "tls" || application === "quic";
  if (!hello && !HTTP.includes(application ?? "")) return undefined;
  if (serverName === undefined) {
    const must = rule.names.length > 0 && upgrade !== "tls";
    const { missingServerName } = rule.tls;
    if (!hello) return must ? "no-server-name" : undefined;
    return missingServerName === "Deny" || (missingServerName === undefined && must) ? "no-server-name" : undefined;
  }
  if (rule.names.length === 0) return undefined;
  const server = dnsName(serverName);
  return server !== undefined && hasPattern(rule, server) ? undefined : "wrong-server-name";
}

function isSomebody(rule: Rule, { application, upgrade, fields }: Evidence): boolean {
  const silent: Fields = application === "redis" && upgrade === undefined ? { user: "default", database: "0" } : {};
  const said: Fields = { ...silent, ...fields };
  return rule.identity.every(({ field, values }) => {
    const value = field === "path" ? said.path?.split("?")[0] : said[field];
    if (value === undefined) return false;
    if (field === "path" && /\.\.|%2e/i.test(value)) return false;
    return values.some((one) => (one.endsWith("*") ? value.startsWith(one.slice(0, -1)) : value === one.replace("\\", "\\x5c")));
  });
}

function evidenceFails(rule: Rule, q: Question): string | undefined {
  const evidence = q.evidence as Evidence;
  if (evidence.evasion === "a decoy") return "evasion";
  if (!isWanted(rule, q)) return "wrong-protocol";
  if (evidence.evasion?.startsWith("names disagree") === true) return "names-disagree";
  if (evidence.ech === true && rule.tls.ech === "Deny") return "ech";
  return serverFails(rule, evidence) ?? (isSomebody(rule, evidence) ? undefined : "wrong-identity");
}

const ORDER = [
  ["no-name", "name"],
  ["wrong-name", "name"],
  ["wrong-port", "port"],
  ["stale-dns", "stale"],
  ["evasion", "application"],
  ["wrong-protocol", "application"],
  ["names-disagree", "server-name"],
  ["ech", "server-name"],
  ["no-server-name", "server-name"],
  ["wrong-server-name", "server-name"],
  ["wrong-identity", "identity"],
] as const;
const FURTHEST: readonly string[] = ORDER.map(([why]) => why);
const CLAUSES: readonly string[] = ORDER.map(([, clause]) => clause);

export function slowJudge(policies: readonly Policy[], q: Question): SlowAnswer {
  const all: Owned[] = [...policies]
    .sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1))
    .flatMap((policy) => policy.rules.map((rule) => ({ policy, rule })));
  const ranks = [...new Set(all.map(({ policy }) => rank(policy)))];
  const asked: Owned[] = [];
  let passed = false;
  for (const level of ranks) {
    const rules = all.filter(({ policy }) => rank(policy) === level);
    if (passed && rules[0]?.policy.tier === "Admin") continue;
    const found = (action: SlowAnswer["action"] & string, { policy, rule }: Owned): SlowAnswer => ({
      action: action as "allow",
      policy: policy.id,
      rule: rule.name,
    });
    const denial = rules.find(({ rule }) => rule.action === "Deny" && denies(rule, q));
    if (denial !== undefined) return found("denied-by-rule", denial);
    const accepts = rules.filter(({ rule }) => rule.action === "Accept");
    const matching = accepts.filter(({ rule }) => portOk(rule, q) && destinationOk(rule, q));
    const simple = matching.find(({ rule }) => rule.application === undefined);
    if (simple !== undefined) return found("allow", simple);
    if (q.evidence === undefined && matching[0] !== undefined) return found("inspect", matching[0]);
    const agreeing = matching.find(({ rule }) => evidenceFails(rule, q) === undefined);
    if (agreeing !== undefined) return found("allow", agreeing);
    asked.push(
      ...accepts.filter(({ rule }) => rule.application === undefined),
      ...accepts.filter(({ rule }) => rule.application !== undefined),
    );
    if (rules.some(({ rule }) => rule.action === "Pass" && portOk(rule, q) && destinationOk(rule, q))) passed = true;
  }
  const reasons = asked.map(({ rule }) => whyNot(rule, q));
  const best = Math.max(-1, ...reasons.map((why) => FURTHEST.indexOf(why)));
  if (best < 0) return { action: "deny", why: "no-rule", nearest: undefined };
  const why = FURTHEST[best] as string;
  const near = asked[reasons.indexOf(why)] as Owned;
  return { action: "deny", why, nearest: { policy: near.policy.id, rule: near.rule.name, clause: CLAUSES[best] as string } };
}

function evidenceOf(rule: Rule, q: Question): string {
  return q.evidence === undefined ? "no-rule" : (evidenceFails(rule, q) ?? "no-rule");
}

function whyNot(rule: Rule, q: Question): string {
  if (destinationOk(rule, q)) return portOk(rule, q) ? evidenceOf(rule, q) : "wrong-port";
  if (!portOk(rule, q) || rule.names.length === 0) return "no-rule";
  if (bound(rule, q, false)) return "stale-dns";
  return q.names.length > 0 ? "wrong-name" : "no-name";
}

/** Query rules from the words of judgeQuery. */
export function slowQuery(policies: readonly Policy[], name: DnsName): string {
  const ranks = [...new Set(policies.map(rank))].sort((a, b) => a - b);
  let partly = false;
  let wholly = false;
  for (const level of ranks) {
    const rules = policies.filter((policy) => rank(policy) === level).flatMap((policy) => policy.rules);
    const admin = level < 10_000;
    if (admin && wholly) continue;
    const can = (rule: Rule): boolean => rule.anyDestination || hasPattern(rule, name);
    const denied = rules.some((rule) => rule.action === "Deny" && rule.ports.length === 0 && hasPattern(rule, name));
    if (denied && !(admin && partly)) return "denied-by-rule";
    if (rules.some((rule) => rule.action === "Accept" && can(rule))) return "allow";
    for (const rule of rules.filter((r) => r.action === "Pass" && can(r))) {
      partly = true;
      if (rule.ports.length === 0) wholly = true;
    }
  }
  return policies.some(({ dns }) => dns.queries === "AllowedOnly") ? "name-not-allowed" : "allow";
}
