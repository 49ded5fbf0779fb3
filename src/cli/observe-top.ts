import type { Event } from "../model/event.ts";
import { placeText, podText } from "./event-text.ts";
import { plain } from "./kubectl-merge.ts";
import { table } from "./status.ts";

/** What events can be grouped by. */
const KEYS = {
  pod: podText,
  namespace: ({ pod }) => pod?.namespace ?? "-",
  name: ({ destination, evidence }) => destination?.names[0] ?? evidence?.serverName ?? "-",
  to: ({ destination }) => (destination === null ? "-" : placeText(destination)),
  port: ({ destination }) => (destination === null ? "-" : `${destination.port ?? 0}/${destination.protocol ?? "?"}`),
  policy: ({ policy, nearest }) => policy ?? nearest?.policy ?? "-",
  rule: ({ policy, rule, nearest }) =>
    rule === null ? (nearest === null ? "-" : `${nearest.policy}/${nearest.rule}`) : `${policy}/${rule}`,
  why: ({ why }) => why ?? "-",
  verdict: ({ verdict }) => verdict,
  type: ({ type }) => type,
} satisfies Record<string, (event: Event) => string>;

export type TopKey = keyof typeof KEYS;
export const TOP_KEYS = Object.keys(KEYS) as readonly TopKey[];
export type TopOrder = "denied" | "all";

/** Groups that are counted at once; who is denied can make as many as he likes. */
const GROUPS_MAX = 10_000;
const CELL_CHARS_MAX = 60;

interface Group {
  readonly cells: readonly string[];
  denied: number;
  wouldDeny: number;
  all: number;
  last: string;
}

/** Events counted by what they have in common. Bounded: the smallest groups become one, and their counts stay. */
export class Top {
  private readonly keys: readonly TopKey[];
  private readonly order: TopOrder;
  private readonly groups = new Map<string, Group>();
  private readonly others: Group = { cells: [], denied: 0, wouldDeny: 0, all: 0, last: "" };
  /** Groups that were merged into `others`. */
  private merged = 0;

  constructor(keys: readonly TopKey[], order: TopOrder) {
    this.keys = keys;
    this.order = order;
  }

  take(event: Event): void {
    const cells = this.keys.map((key) => KEYS[key](event));
    const key = JSON.stringify(cells);
    let group = this.groups.get(key);
    if (group === undefined) {
      if (this.groups.size >= GROUPS_MAX) this.shrink();
      group = { cells, denied: 0, wouldDeny: 0, all: 0, last: "" };
      this.groups.set(key, group);
    }
    const count = Math.max(1, event.count);
    group.all += count;
    if (event.verdict === "deny") group.denied += count;
    if (event.verdict === "would-deny") group.wouldDeny += count;
    if (event.time > group.last) group.last = event.time;
  }

  /** The largest `max` groups as a table, and what is not in it as one line. */
  text(max: number): string {
    const sorted = this.sorted();
    const rest = sorted.slice(max).map(([, group]) => group);
    const line = (cells: readonly string[], { denied, wouldDeny, all, last }: Group): string[] => [
      ...cells.map((cell) => plain(cell.length > CELL_CHARS_MAX ? `${cell.slice(0, CELL_CHARS_MAX - 1)}…` : cell)),
      String(denied),
      String(wouldDeny),
      String(all),
      plain(last.slice(0, 19).replace("T", " ")),
    ];
    const sum: Group = { ...this.others };
    for (const group of rest) add(sum, group);
    const hidden = this.merged + rest.length;
    const other = hidden === 0 ? [] : [line([`(${hidden} others)`, ...this.keys.slice(1).map(() => "")], sum)];
    const head = [...this.keys.map((key) => key.toUpperCase()), "DENIED", "WOULD DENY", "EVENTS", "LAST (UTC)"];
    return `${table([head, ...sorted.slice(0, max).map(([, group]) => line(group.cells, group)), ...other]).join("\n")}\n`;
  }

  /** As `text`, for programs. */
  json(max: number): unknown {
    return this.sorted()
      .slice(0, max)
      .map(([, { cells, denied, wouldDeny, all, last }]) => ({
        ...Object.fromEntries(this.keys.map((key, i) => [key, cells[i]])),
        denied,
        wouldDeny,
        events: all,
        last,
      }));
  }

  private sorted(): [string, Group][] {
    const size = ({ denied, wouldDeny, all }: Group): number => (this.order === "all" ? all : denied + wouldDeny);
    return [...this.groups].sort(([, a], [, b]) => size(b) - size(a) || b.all - a.all);
  }

  private shrink(): void {
    for (const [key, group] of this.sorted().slice(GROUPS_MAX / 2)) {
      add(this.others, group);
      this.merged++;
      this.groups.delete(key);
    }
  }
}

function add(sum: Group, { denied, wouldDeny, all, last }: Group): void {
  sum.denied += denied;
  sum.wouldDeny += wouldDeny;
  sum.all += all;
  if (last > sum.last) sum.last = last;
}
