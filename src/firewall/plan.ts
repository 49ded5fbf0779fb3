import { isJumpOfOurs } from "./marks.ts";
import type { Jump, TableWanted } from "./rules.ts";
import type { SavedTable } from "./saved.ts";

/** A difference between what we installed and what is there. */
export interface Drift {
  readonly table: string;
  readonly chain: string;
  readonly kind: "missing-chain" | "altered-chain" | "missing-jump" | "shadowed-jump" | "neighbour";
  readonly detail: string;
}

/**
 * Chains of components that keep their own jump at the top of a built-in chain and that let the packets of guarded pods
 * come as far as our jump (kernel-ownership table in ARCHITECTURE.md). Pushing them aside would be a war without end.
 */
const NEIGHBOURS = ["cali-"];

function jumpRule({ match, to }: Jump): string {
  return `${match === undefined ? "" : `${match} `}-j ${to}`;
}

function isNeighbour(rule: string): boolean {
  const words = rule.split(" ");
  const target = words[words.indexOf("-j") + 1];
  return target !== undefined && NEIGHBOURS.some((prefix) => target.startsWith(prefix));
}

/** Does somebody have a jump before ours in that chain, and keeps it there? */
export function isBehind(saved: SavedTable, chain: string): boolean {
  return neighboursFirst((saved.chains.get(chain) ?? []).filter((rule) => !isJumpOfOurs(rule))) > 0;
}

/**
 * Compares a table with what we want. `reference` holds our chains as iptables itself printed them right after we had
 * installed them (its spelling differs from ours); a chain without a reference counts as altered.
 */
export function drift(wanted: TableWanted, saved: SavedTable, reference: ReadonlyMap<string, readonly string[]>): Drift[] {
  const found: Drift[] = [];
  const table = wanted.table;
  for (const { name } of wanted.chains) {
    const rules = saved.chains.get(name);
    if (rules === undefined) {
      found.push({ table, chain: name, kind: "missing-chain", detail: "the chain is gone" });
      continue;
    }
    const was = reference.get(name);
    if (was === undefined || was.length !== rules.length || was.some((rule, i) => rule !== rules[i])) {
      const extra = rules.find((rule) => !(was ?? []).includes(rule));
      const gone = (was ?? []).find((rule) => !rules.includes(rule));
      found.push({
        table,
        chain: name,
        kind: "altered-chain",
        detail: extra !== undefined ? `added: ${extra}` : gone !== undefined ? `removed: ${gone}` : "rules were reordered",
      });
    }
  }
  for (const jump of wanted.jumps) {
    const { from, to } = jump;
    const rules = saved.chains.get(from) ?? [];
    const at = rules.indexOf(jumpRule(jump));
    if (at < 0) found.push({ table, chain: from, kind: "missing-jump", detail: `nothing jumps to ${to}` });
    else {
      const before = rules.slice(0, at).find((rule) => !isNeighbour(rule));
      if (before !== undefined)
        found.push({ table, chain: from, kind: "shadowed-jump", detail: `a rule was put in front of ours: ${before}` });
    }
  }
  return found;
}

/**
 * The `iptables-restore --noflush` text that makes one table ours again, in one atomic commit: our chains are flushed and
 * refilled, our jumps removed wherever they are and put first (behind neighbours' jumps that are first already), and what
 * another version left behind goes. What others own is not named.
 */
export function restoreText(wanted: TableWanted, saved: SavedTable): string {
  const lines = [`*${wanted.table}`];
  for (const chain of wanted.chains) lines.push(`:${chain.name} - [0:0]`);
  for (const chain of wanted.chains) for (const rule of chain.rules) lines.push(`-A ${chain.name} ${rule}`);
  lines.push(...withoutJumps(saved));
  for (const jump of wanted.jumps) {
    const position = neighboursFirst((saved.chains.get(jump.from) ?? []).filter((rule) => !isJumpOfOurs(rule))) + 1;
    lines.push(`-I ${jump.from} ${position} ${jumpRule(jump)}`);
  }
  lines.push(...withoutChains(saved, new Set(wanted.chains.map(({ name }) => name))), "COMMIT", "");
  return lines.join("\n");
}

/** Takes away every jump from a chain of others into one of ours. */
function withoutJumps(saved: SavedTable): string[] {
  return [...saved.chains].flatMap(([from, rules]) =>
    isChainOfOurs(from) ? [] : rules.filter(isJumpOfOurs).map((rule) => `-D ${from} ${rule}`),
  );
}

/** Removes our chains but those. */
function withoutChains(saved: SavedTable, but: ReadonlySet<string>): string[] {
  const stale = [...saved.chains.keys()].filter((name) => isChainOfOurs(name) && !but.has(name));
  return [...stale.map((name) => `-F ${name}`), ...stale.map((name) => `-X ${name}`)];
}

function isChainOfOurs(name: string): boolean {
  return name.startsWith("NG-");
}

function neighboursFirst(rules: readonly string[]): number {
  let count = 0;
  while (count < rules.length && isNeighbour(rules[count] as string)) count++;
  return count;
}

/** Refills one chain only: what a bridged pod that comes or goes costs. */
export function refillText(table: string, chain: string, rules: readonly string[]): string {
  return [`*${table}`, `:${chain} - [0:0]`, ...rules.map((rule) => `-A ${chain} ${rule}`), "COMMIT", ""].join("\n");
}

/** Removes our jumps and chains from one table and nothing else; empty where nothing of ours is there. */
export function removeText(table: string, saved: SavedTable): string {
  const lines = [...withoutJumps(saved), ...withoutChains(saved, new Set())];
  return lines.length === 0 ? "" : [`*${table}`, ...lines, "COMMIT", ""].join("\n");
}
