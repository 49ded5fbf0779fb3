import { Fault } from "../base/fault.ts";
import { ask } from "../control/socket.ts";
import type { UnusedRule } from "../control/usage.ts";
import { table } from "./status.ts";
import { format, options, type Output, SOCKET_DEFAULT, Usage } from "./usage.ts";

const USAGE = `usage: namegate unused [--since 30d] [--policy NAME] [-o text|json] [--socket PATH]

Rules in force on this node that decided no connection and refused no query since then. In -o json an object a line:
  {policy, rule, hits, lastHit, action, mode, observedSince, conclusive}
\`conclusive\` is false where the rule has not been observed for so long. Pass rules decide nothing and are not listed.
Another node may need what this one does not: \`kubectl namegate unused\` asks all.
`;

const SINCE_DEFAULT = "30d";
const UNIT_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };
const COUNT_MAX = 100_000;

interface Records {
  readonly observedSince: string;
  readonly uncounted: number;
}

interface Refused {
  readonly error: string;
  readonly message: string;
  readonly fix: string;
}

export async function unused(argv: readonly string[], out: Output): Promise<number> {
  const { values } = options(argv, USAGE, {
    since: { type: "string" },
    policy: { type: "string" },
    output: { type: "string", short: "o" },
    socket: { type: "string" },
  });
  const kind = format(values.output);
  const since = values.since ?? SINCE_DEFAULT;
  const cutMs = Date.now() - sinceMs(since);
  const { policy } = values;
  const lines: unknown[] = [];
  await ask(values.socket ?? SOCKET_DEFAULT, { command: "unused", cutMs, ...(policy === undefined ? {} : { policy }) }, (line) =>
    lines.push(line),
  );
  const [records, ...rules] = lines as [Records | Refused | undefined, ...UnusedRule[]];
  if (records === undefined) throw new Fault("no-answer", "the agent said nothing", "is it of this version? see its log");
  if ("error" in records) throw new Fault(records.error, records.message, records.fix);
  out.stdout.write(kind === "json" ? rules.map((rule) => `${JSON.stringify(rule)}\n`).join("") : text(records, rules, since));
  return 0;
}

/** `30d`, `12h`, `90m`, `45s`, `2w` → milliseconds. */
export function sinceMs(text: string): number {
  const [, count = "", unit = ""] = /^([0-9]{1,6})([smhdw])$/.exec(text) ?? [];
  const ms = UNIT_MS[unit];
  if (ms === undefined || Number(count) > COUNT_MAX)
    throw new Usage(`namegate: --since ${text}: a number and one of s, m, h, d, w is wanted, for example 30d\n${USAGE}`);
  return Number(count) * ms;
}

function text({ observedSince, uncounted }: Records, rules: readonly UnusedRule[], since: string): string {
  const open = rules.filter(({ conclusive }) => !conclusive).length;
  const lines = [
    rules.length === 0
      ? `every rule in force on this node was used in the last ${since}`
      : `not used on this node in the last ${since}${open === 0 ? "" : `, as far as is known: ${open} of ${rules.length} are observed for less than that`}`,
  ];
  if (rules.length > 0)
    lines.push(
      "",
      ...table([
        ["POLICY", "RULE", "ACTION", "MODE", "HITS", "LAST HIT", "OBSERVED SINCE"],
        ...rules.map((one) => [
          one.policy,
          one.rule,
          one.action,
          one.mode,
          String(one.hits),
          one.lastHit ?? "never",
          `${one.observedSince}${one.conclusive ? "" : `  <-- less than ${since}`}`,
        ]),
      ]),
    );
  lines.push("", `this node remembers since ${observedSince}; Pass rules decide nothing and are not listed`);
  if (uncounted > 0) lines.push(`${uncounted} further rules are more than are counted one by one`);
  return `${lines.join("\n")}\n`;
}
