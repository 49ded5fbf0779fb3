import { type Passes, filterOf, parseTime, type Term, TERM_KINDS, type TermKind } from "../control/event-filter.ts";
import { Fault } from "../base/fault.ts";
import { Usage } from "./usage.ts";

/** The filters of `observe` as options of parseArgs. */
const filter = { type: "string", multiple: true } as const;
export const FILTER_OPTIONS = {
  pod: filter,
  namespace: { ...filter, short: "n" },
  label: { ...filter, short: "l" },
  "to-name": filter,
  to: filter,
  port: filter,
  verdict: filter,
  policy: filter,
  why: filter,
  type: filter,
  since: filter,
  until: filter,
  not: { type: "boolean", multiple: true },
} as const satisfies Record<TermKind | "not", object>;

export const FILTER_USAGE = `  --pod [NAMESPACE/]NAME   pods whose name begins so; NAMESPACE/ is all of a namespace
  --namespace, -n NAME     pods of this namespace
  --label, -l SELECTOR     pods with these labels: app=web,tier!=front,env in (a,b),!old
  --to-name NAME           to this name, or with *. to any below it (the pod's name for it, or the server name it gave)
  --to ADDRESS|CIDR        to these addresses
  --port PORT              443, 8000-8999, 53/udp, /udp
  --verdict VERDICT        allow, deny, would-deny, info
  --policy POLICY[/RULE]   policies that decided, came nearest, or select the pod: shop/checkout, shop/checkout/stripe
  --why WORD, --type WORD  as in the events: no-rule, wrong-port, …; connection, dns, …
  --since, --until TIME    30s, 5m, 2h, 7d ago, or 2026-11-26T10:00:00Z
  --not                    negates the next filter
Filters of one kind are alternatives, those of several kinds must all hold; what a negated one holds for is left out.
`;

const UNITS_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

interface Token {
  readonly kind: string;
  readonly name?: string | undefined;
  readonly value?: string | boolean | undefined;
}

/** The filters in the order in which they stand there, times as absolute ones. */
export function readFilter(
  tokens: readonly Token[],
  usage: string,
  nowMs: number,
): { readonly terms: readonly Term[]; readonly passes: Passes } {
  const terms: Term[] = [];
  let not = false;
  for (const { kind, name, value } of tokens) {
    if (kind !== "option") continue;
    if (name === "not") {
      if (not) throw new Usage(`namegate: --not --not: once is enough\n${usage}`);
      not = true;
    } else if (TERM_KINDS.some((one) => one === name) && typeof value === "string") {
      terms.push({
        kind: name as TermKind,
        value: name === "since" || name === "until" ? absolute(value, nowMs) : value,
        ...(not && { not }),
      });
      not = false;
    }
  }
  if (not) throw new Usage(`namegate: --not: no filter comes behind it\n${usage}`);
  try {
    return { terms, passes: filterOf(terms) };
  } catch (error) {
    if (error instanceof Fault) throw new Usage(`namegate: ${error.message}\n${usage}`);
    throw error;
  }
}

/** As arguments again. */
export const filterArgs = (terms: readonly Term[]): string[] =>
  terms.flatMap(({ kind, value, not }) => [...(not === true ? ["--not"] : []), `--${kind}=${value}`]);

/** The latest moment that can pass; undefined: there is none. */
export function lastMoment(terms: readonly Term[]): number | undefined {
  const limits = terms.flatMap(({ kind, value, not }) => (kind === "until" && not !== true ? [parseTime(value) ?? Infinity] : []));
  return limits.length === 0 ? undefined : Math.max(...limits);
}

/** More than any agent remembers. */
export const ALL = 1_000_000;
const LAST_DEFAULT = 100;

interface PlanValues {
  readonly follow?: boolean | undefined;
  readonly "no-follow"?: boolean | undefined;
  readonly top?: string | undefined;
  readonly since?: readonly string[] | undefined;
  readonly until?: readonly string[] | undefined;
}

/** Is there more to come, and how many of those that are there already are wanted when nobody says? */
export function planOf(
  { follow, "no-follow": noFollow, top, since, until }: PlanValues,
  terms: readonly Term[],
  nowMs: number,
  terminal: boolean,
): { readonly follow: boolean; readonly last: number } {
  const over = (lastMoment(terms) ?? Infinity) <= nowMs;
  const follows = noFollow !== true && !over && (top === undefined || terminal || follow === true);
  const whole = top !== undefined || since !== undefined || until !== undefined;
  return { follow: follows, last: whole ? ALL : follows ? 0 : LAST_DEFAULT };
}

function absolute(text: string, nowMs: number): string {
  const span = /^(\d{1,6})([smhd])$/.exec(text);
  return span === null ? text : new Date(nowMs - Number(span[1]) * (UNITS_MS[span[2] as string] as number)).toISOString();
}
