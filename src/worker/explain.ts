import { type Ip, ipText, parseIp } from "../base/address.ts";
import { dnsName, type DnsName } from "../base/name.ts";
import type { NameSeen } from "../model/binding.ts";
import type { Mode } from "../model/policy.ts";
import type { PodKey } from "../model/snapshot.ts";
import type { Evidence, Nearest } from "../model/verdict.ts";
import { type QueryVerdict, dnsSettingsFor } from "../policy/queries.ts";
import { type RuleTrace, trace } from "../policy/trace.ts";
import type { View } from "../policy/view.ts";
import type { Context } from "./context.ts";
import { type Decision, neverByName } from "./guard.ts";
import type { Answered } from "./heard.ts";
import type { GuardedPod } from "./pods.ts";

/** A question about a connection that need not be there. Answering it changes nothing: no name, no set, no counter, no event. */
export interface WhatIf {
  readonly pod: PodKey;
  /** IP protocol number; `port` as in a Question. */
  readonly protocol: number;
  readonly port: number;
  /** Where to: by name (what this pod has for it), or by address. One of the two. */
  readonly name: DnsName | undefined;
  readonly address: Ip | undefined;
  /** What the first bytes would show; undefined: they have not been looked at. */
  readonly evidence: Evidence | undefined;
  /** Names of the address as they were once; undefined: as they are now. */
  readonly names: readonly NameSeen[] | undefined;
}

/** A binding, for a person. Seconds. */
export interface KnownName {
  readonly name: string;
  readonly via: string;
  /** Until it allows nothing more; negative: since when. */
  readonly secondsLeft: number;
  /** Some rule mentions the name; else it is kept to explain denials, and allows nothing. */
  readonly mentioned: boolean;
}

/** What resolvers said last about a name. Ages are in seconds. */
export interface HeardName {
  readonly name: string;
  readonly answered: {
    readonly secondsAgo: number;
    readonly resolver: string;
    readonly ttl: number;
    readonly chain: readonly string[];
  } | null;
  readonly empty: { readonly secondsAgo: number; readonly resolver: string; readonly rcode: number } | null;
}

/** One address that the connection may go to. */
export interface Case {
  readonly address: string;
  /** Nobody has resolved the name: this stands for an address that only the widest networks have. */
  readonly assumed: boolean;
  /** It is a trusted resolver's address and port: the kernel lets it pass, and the queries in it are judged by their names. */
  readonly resolver: boolean;
  /** Loopback, link-local, multicast: no name opens it, whatever DNS says. */
  readonly neverByName: boolean;
  readonly names: readonly KnownName[];
  readonly verdict: "allow" | "deny" | "would-deny" | "inspect";
  readonly why: string | null;
  readonly policy: string | null;
  readonly rule: string | null;
  readonly nearest: Nearest | null;
  /** The strictest mode of the policies that had a say. */
  readonly mode: Mode;
}

export interface Explained {
  /** The name that was looked at: that of the question, or with a search suffix of the pod's. null: the question has an address. */
  readonly name: string | null;
  readonly mode: Mode;
  /** In order of judgement. */
  readonly policies: readonly { readonly id: string; readonly mode: Mode; readonly tier: string; readonly priority: number }[];
  /** May it ask for the name? null: the question has none. */
  readonly query: QueryVerdict | null;
  /** Does it count under which name it is asked for? */
  readonly restrictsQueries: boolean;
  /** By name: of the question, or of the address. */
  readonly heard: readonly HeardName[];
  /** Seconds that a reply lasts beyond its TTL, and at least. */
  readonly lifetime: { readonly minTtl: number; readonly grace: number } | null;
  /** The first is the one that `rules` are about. */
  readonly cases: readonly Case[];
  /** Addresses that were not looked at, for there are too many. */
  readonly more: number;
  readonly rules: readonly RuleTrace[];
  readonly rulesOf: number;
}

const CASES_MAX = 8;
const RULES_MAX = 20;
const HEARD_MAX = 8;
/** Longest that one question may keep packets waiting, milliseconds: further addresses are not looked at then. */
const WORK_MS = 5;
/** Addresses that no name leads to (class E, RFC 1112 §4; the deprecated NSAP range, RFC 4048), for a name that has none. */
const NOWHERE: Readonly<Record<4 | 6, Ip>> = { 4: parseIp("240.0.0.1") as Ip, 6: parseIp("200::1") as Ip };

/** undefined: no such pod is guarded. Decides with the code that decides about packets (worker/guard.ts). */
export function explain(context: Context, question: WhatIf): Explained | undefined {
  const pod = context.pods.byKey.get(question.pod);
  if (pod === undefined) return undefined;
  const { guard } = pod;
  const now = context.now();
  const until = performance.now() + WORK_MS;
  const { name, addresses: found } = placesOf(pod, question, now);
  const decided: { readonly one: Case; readonly decision: Decision; readonly names: readonly NameSeen[]; readonly address: Ip }[] = [];
  const assumed = found.length === 0;
  for (const address of assumed ? [nowhere(pod)] : found.slice(0, CASES_MAX)) {
    if (decided.length > 0 && performance.now() > until) break;
    const names: readonly NameSeen[] =
      question.names ?? (assumed ? [{ name: name as DnsName, via: "asked", fresh: true }] : guard.seen(address, now));
    const decision = guard.decide(question.protocol, question.port, address, names, question.evidence);
    decided.push({ one: caseOf(context, pod, question, { address, assumed, decision }, now), decision, names, address });
  }
  // What is denied is what people ask about.
  const first = decided.find(({ one }) => one.verdict === "deny" || one.verdict === "would-deny") ?? decided[0];
  if (first === undefined) return undefined;
  const { protocol, port, evidence } = question;
  const view = viewOf(pod, first.decision);
  const { rules, of } = trace(view, { protocol, port, address: first.address, names: first.names, evidence }, RULES_MAX);
  const settings = name === undefined || !guard.mentions(name, "asked") ? undefined : dnsSettingsFor(guard.book.wide, name);
  return {
    name: name ?? null,
    mode: guard.book.mode,
    policies: guard.book.policies.map(({ id, mode, tier, priority }) => ({ id, mode, tier, priority })),
    query: name === undefined ? null : guard.query(name),
    restrictsQueries: guard.book.restrictsQueries,
    heard: heardOf(pod, name === undefined ? guard.bindingsOf(first.address).map((one) => one.name) : [name], now),
    lifetime: settings === undefined ? null : { minTtl: settings.minTtlMs / 1000, grace: settings.graceMs / 1000 },
    cases: [first.one, ...decided.flatMap(({ one }) => (one === first.one ? [] : [one]))],
    more: Math.max(0, found.length - decided.length),
    rules,
    rulesOf: of,
  };
}

/** Where a connection would go: the addresses that the name has for this pod, with a search suffix too, or of its last answer. */
function placesOf(
  { guard, heard, pod }: GuardedPod,
  { name, address }: WhatIf,
  now: number,
): { readonly name: DnsName | undefined; readonly addresses: readonly Ip[] } {
  if (name === undefined) return { name, addresses: address === undefined ? [] : [address] };
  for (const one of [name, ...pod.searches.flatMap((suffix) => dnsName(`${name}.${suffix}`) ?? [])]) {
    const addresses = guard.addressesOf(one, CASES_MAX + 1);
    if (addresses.length > 0) return { name: one, addresses };
    // Answered, and nothing learned: an address that no name opens, or that there was no room for.
    const { answered } = heard.get(one) ?? {};
    if (answered !== undefined && now - answered.at < guard.lifetime(one, answered.ttl))
      return { name: one, addresses: [answered.address] };
  }
  return { name, addresses: [] };
}

const nowhere = ({ guard }: GuardedPod): Ip => NOWHERE[guard.address(4) === undefined && guard.address(6) !== undefined ? 6 : 4];

/** The rules that gave the verdict. */
function viewOf({ guard: { book } }: GuardedPod, { wouldDeny }: Decision): View {
  return wouldDeny === undefined && book.enforce !== undefined ? book.enforce : book.wide;
}

function caseOf(
  { kernel }: Context,
  { guard }: GuardedPod,
  question: WhatIf,
  { address, assumed, decision }: { readonly address: Ip; readonly assumed: boolean; readonly decision: Decision },
  now: number,
): Case {
  const { verdict, wouldDeny, mode } = decision;
  const resolver = kernel.isResolver(address, (question.protocol << 16) | question.port);
  const said = resolver ? undefined : (wouldDeny ?? verdict);
  const denial = said?.action === "deny" ? said : undefined;
  return {
    address: ipText(address),
    assumed,
    resolver,
    neverByName: neverByName(address),
    names: guard.bindingsOf(address).map((one) => ({
      name: one.name,
      via: one.via,
      secondsLeft: one.expires - now,
      mentioned: guard.mentions(one.name, one.via),
    })),
    verdict: denial !== undefined ? (wouldDeny === undefined ? "deny" : "would-deny") : said?.action === "inspect" ? "inspect" : "allow",
    why: denial?.why ?? null,
    policy: said?.policy ?? null,
    rule: said?.rule ?? null,
    nearest: denial?.nearest ?? null,
    mode,
  };
}

/** A name further down a chain was never asked for itself: then what led to it is said. */
function heardOf({ heard }: GuardedPod, names: readonly DnsName[], now: number): HeardName[] {
  const wanted = [...new Set(names.flatMap((name) => (heard.get(name) === undefined ? heard.leadingTo(name) : [name])))];
  return wanted.slice(0, HEARD_MAX).map((name): HeardName => {
    const { answered, empty } = heard.get(name) ?? {};
    return {
      name,
      answered: answered === undefined ? null : { ...answeredText(answered), secondsAgo: now - answered.at },
      empty: empty === undefined ? null : { secondsAgo: now - empty.at, resolver: ipText(empty.resolver), rcode: empty.rcode },
    };
  });
}

const answeredText = ({ resolver, ttl, chain }: Answered): { resolver: string; ttl: number; chain: readonly string[] } => ({
  resolver: ipText(resolver),
  ttl,
  chain,
});
