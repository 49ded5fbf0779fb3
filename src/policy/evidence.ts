import type { DnsName } from "../base/name.ts";
import { LEGACY_TLS, NAMES_DISAGREE, type Evidence, type Why } from "../model/verdict.ts";
import { isApplication, namesServer, withTls } from "./application.ts";
import type { Question } from "./evaluate.ts";
import { isIdentity } from "./identity.ts";
import { hasName } from "./names.ts";
import { agreesWithTarget, judgeTarget, targetOf } from "./proxy.ts";
import type { CompiledRule } from "./view.ts";

type Disagreement = Extract<
  Why,
  "evasion" | "wrong-protocol" | "names-disagree" | "ech" | "no-server-name" | "wrong-server-name" | "wrong-identity"
>;

/** Why the evidence is not what an Accept rule with an application wants, the first of these clauses; undefined: it is. */
export function disagreement(
  rule: CompiledRule,
  question: Question,
  evidence: Evidence,
  serverName: DnsName | undefined,
): Disagreement | undefined {
  const wanted = rule.rule.application as string;
  const { evasion } = evidence;
  const disagree = evasion?.startsWith(NAMES_DISAGREE) === true;
  if (evasion !== undefined && !disagree && !evasion.startsWith(LEGACY_TLS)) return "evasion";
  if (!isApplication(wanted, evidence, question.protocol, rule.rule.tls)) return "wrong-protocol";
  if (disagree) return "names-disagree";
  if (evidence.ech === true && rule.rule.tls.ech === "Deny") return "ech";
  const named = rule.proxy === undefined ? serverNameFails(rule, evidence, serverName) : targetFails(rule, evidence, serverName);
  if (named !== undefined) return named;
  return rule.identity.every((identity) => isIdentity(identity, wanted, evidence)) ? undefined : "wrong-identity";
}

/**
 * A server name that is there must be one of the rule's. One that is not there fails where the rule has names and the first
 * bytes should have had it (a ClientHello from the first byte, HTTP); behind an in-band upgrade many honest clients send
 * none. `missingServerName` says otherwise for either.
 */
function serverNameFails(
  { rule, names }: CompiledRule,
  evidence: Evidence,
  serverName: DnsName | undefined,
): "no-server-name" | "wrong-server-name" | undefined {
  const seen = evidence.application as string;
  const upgraded = evidence.upgrade === "tls" || evidence.upgrade === "dtls";
  const hello = upgraded || withTls(seen) === "is";
  if (!hello && !namesServer(seen)) return undefined;
  if (evidence.serverName === undefined) {
    const otherwise = names === undefined || upgraded ? "Allow" : "Deny";
    return ((hello ? rule.tls.missingServerName : undefined) ?? otherwise) === "Allow" ? undefined : "no-server-name";
  }
  if (names === undefined) return undefined;
  return serverName !== undefined && hasName(names, serverName) ? undefined : "wrong-server-name";
}

/**
 * Each request to a proxy names its target; one that does not is for the proxy itself. TLS inside of a tunnel must name the
 * same server, or one of the same entry.
 */
function targetFails(
  rule: CompiledRule,
  evidence: Evidence,
  serverName: DnsName | undefined,
): "no-server-name" | "wrong-server-name" | undefined {
  const target = targetOf(evidence);
  if (target === undefined) return "no-server-name";
  if (!judgeTarget(rule, target.host, target.port)) return "wrong-server-name";
  if (evidence.serverName === undefined)
    return evidence.upgrade === "tls" && rule.rule.tls.missingServerName !== "Allow" ? "no-server-name" : undefined;
  return serverName !== undefined && agreesWithTarget(rule, target.host, target.port, serverName) ? undefined : "wrong-server-name";
}
