import { inCidr, parseCidr, parseIp } from "../base/address.ts";
import { Fault } from "../base/fault.ts";
import { dnsName, namePattern } from "../base/name.ts";
import type { Event } from "../model/event.ts";
import { hasName, nameSet } from "../policy/names.ts";
import { selectorMatches } from "../policy/select.ts";
import { parseSelector } from "../policy/selector-text.ts";

/** One condition of `observe`, as a person writes it. */
export interface Term {
  readonly kind: TermKind;
  readonly value: string;
  readonly not?: boolean;
}
export type Passes = (event: Event) => boolean;

/** What each kind makes of its value; text: what is wrong with it. */
const READERS = {
  pod: podTerm,
  namespace: (value) => (event) => event.pod?.namespace === value,
  label: labelTerm,
  "to-name": nameTerm,
  to: addressTerm,
  port: portTerm,
  verdict: (value) => (VERDICTS.includes(value) ? (event: Event) => event.verdict === value : `it is one of ${VERDICTS.join(", ")}`),
  policy: (value) => (event) =>
    event.policies.includes(value) ||
    [event, ...(event.nearest === null ? [] : [event.nearest])].some(
      ({ policy, rule }) => value === policy || value === `${policy}/${rule}`,
    ),
  why: wordTerm((event) => event.why),
  type: wordTerm((event) => event.type),
  since: timeTerm((time, limit) => time >= limit),
  until: timeTerm((time, limit) => time < limit),
} satisfies Record<string, (value: string) => Passes | string>;

export type TermKind = keyof typeof READERS;
export const TERM_KINDS = Object.keys(READERS) as readonly TermKind[];

const VERDICTS: readonly string[] = ["allow", "deny", "would-deny", "info"];
const TERMS_MAX = 64;
const VALUE_CHARS_MAX = 1024;

/**
 * Terms of one kind: any of them; of several kinds: each. An event that a negated term is true of does not pass. Throws a Fault
 * about a term that cannot be read.
 */
export function filterOf(terms: readonly Term[]): Passes {
  if (terms.length > TERMS_MAX) throw new Fault("filter", `more than ${TERMS_MAX} filters`, "leave some out");
  const wanted = new Map<TermKind, Passes[]>();
  const unwanted: Passes[] = [];
  for (const { kind, value, not } of terms) {
    const passes = value === "" ? "it is empty" : value.length > VALUE_CHARS_MAX ? "it is too long" : READERS[kind](value);
    if (typeof passes === "string")
      throw new Fault("filter", `--${kind} ${JSON.stringify(value.slice(0, 100))}: ${passes}`, "see `namegate observe --help`");
    if (not === true) unwanted.push(passes);
    else wanted.set(kind, [...(wanted.get(kind) ?? []), passes]);
  }
  const kinds = [...wanted.values()];
  return (event) => kinds.every((any) => any.some((passes) => passes(event))) && !unwanted.some((passes) => passes(event));
}

/** The terms of a request, which may be anything. undefined: there are none. */
export function readTerms(value: unknown): Passes | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) throw new Fault("filter", "the filter is no list", "send a list of {kind, value}");
  const terms = (value as unknown[]).slice(0, TERMS_MAX + 1).map((one): Term => {
    const { kind, value: text, not } = (typeof one === "object" && one !== null ? one : {}) as Partial<Record<string, unknown>>;
    if (typeof kind !== "string" || !Object.hasOwn(READERS, kind) || typeof text !== "string")
      throw new Fault("filter", "a filter that this agent does not know", `known: ${TERM_KINDS.join(", ")}`);
    return { kind: kind as TermKind, value: text, not: not === true };
  });
  return filterOf(terms);
}

/** `[namespace/]name`: the namespace exactly, the name from its beginning. */
function podTerm(value: string): Passes {
  const slash = value.indexOf("/");
  const namespace = slash < 0 ? undefined : value.slice(0, slash);
  const name = value.slice(slash + 1);
  return ({ pod }) => pod !== null && (namespace === undefined || pod.namespace === namespace) && pod.name.startsWith(name);
}

function labelTerm(value: string): Passes | string {
  const selector = parseSelector(value);
  if (typeof selector === "string") return selector;
  return ({ pod }) => pod !== null && selectorMatches(selector, pod.labels);
}

/** A name, or `*.` and what is above: the names of the destination, and the one that the client itself said. */
function nameTerm(value: string): Passes | string {
  const pattern = namePattern(value);
  if (pattern === undefined) return "it is no host name, nor *. and one";
  const set = nameSet([pattern]);
  const matches = (text: string | null): boolean => {
    const name = dnsName(text ?? "");
    return name !== undefined && hasName(set, name);
  };
  return ({ destination, evidence }) => destination?.names.some(matches) === true || matches(evidence?.serverName ?? null);
}

function addressTerm(value: string): Passes | string {
  const cidr = parseCidr(value);
  if (cidr === undefined) return "it is neither an address nor a network";
  return ({ destination }) => {
    const address = parseIp(destination?.address ?? "");
    return address !== undefined && inCidr(address, cidr);
  };
}

/** `443`, `8000-8999`, `53/udp`, `/udp`. */
function portTerm(value: string): Passes | string {
  const slash = value.indexOf("/");
  const range = slash < 0 ? value : value.slice(0, slash);
  const protocol = slash < 0 ? undefined : value.slice(slash + 1).toUpperCase();
  const [first = "", last = first, ...more] = range.split("-", 3);
  const wrong = "it is PORT, FIRST-LAST, PORT/udp or /udp";
  if (more.length > 0 || (protocol !== undefined && !/^[A-Z0-9]{1,8}$/.test(protocol))) return wrong;
  if (range === "") return protocol === undefined ? wrong : ({ destination }) => destination?.protocol?.toUpperCase() === protocol;
  if (!/^\d{1,5}$/.test(first) || !/^\d{1,5}$/.test(last) || Number(first) > Number(last) || Number(last) > 65_535) return wrong;
  const [from, to] = [Number(first), Number(last)];
  return ({ destination }) => {
    if (destination === null || destination.port === null || (protocol !== undefined && destination.protocol?.toUpperCase() !== protocol))
      return false;
    return from <= destination.port && destination.port <= to;
  };
}

function wordTerm(of: (event: Event) => string | null): (value: string) => Passes | string {
  return (value) => (/^[a-z][a-z0-9-]{0,63}$/.test(value) ? (event) => of(event) === value : "it is a word like no-rule");
}

function timeTerm(compare: (time: number, limit: number) => boolean): (value: string) => Passes | string {
  return (value) => {
    const limit = parseTime(value);
    return limit === undefined ? "it is no time of RFC 3339, like 2026-11-26T10:00:00Z" : (event) => compare(Date.parse(event.time), limit);
  };
}

/** RFC 3339 §5.6 → milliseconds since the epoch; undefined: it is none. */
export function parseTime(text: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/.test(text)) return undefined;
  const ms = Date.parse(text.toUpperCase().replace(" ", "T"));
  return Number.isNaN(ms) ? undefined : ms;
}
