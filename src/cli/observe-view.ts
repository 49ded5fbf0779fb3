import type { Event } from "../model/event.ts";
import { eventText, placeText, podText, timeText } from "./event-text.ts";
import { plain } from "./kubectl-merge.ts";
import { Top, type TopKey, TOP_KEYS, type TopOrder } from "./observe-top.ts";
import { isTerminal, painter } from "./terminal.ts";
import { type Output, Usage } from "./usage.ts";

/** Where events go: lines, or counts. */
export interface View {
  /** `raw`: the event as it was written; `node`: whose it is, where several are asked. */
  take(event: Event, raw: unknown, node?: string): void;
  end(): void;
}

export type ViewKind = "compact" | "table" | "json";

/** How `observe` shows events, as options of parseArgs. */
export const VIEW_OPTIONS = {
  output: { type: "string", short: "o" },
  top: { type: "string" },
  sort: { type: "string" },
  rows: { type: "string" },
} as const;

export const VIEW_USAGE = `  -o compact|table|json    compact (or text) is the default; json is one object a line
  --top KEYS               counts in place of events, by ${TOP_KEYS.join(", ")}, several with commas between:
                           --top pod,name. On a terminal again and again as events come
  --sort denied|all        of --top: the most denied first (default), or the busiest
  --rows N                 of --top: lines of the table (default 20)
`;

interface ViewValues {
  readonly output?: string | undefined;
  readonly top?: string | undefined;
  readonly sort?: string | undefined;
  readonly rows?: string | undefined;
}

const ROWS_DEFAULT = 20;
const ROWS_MAX = 10_000;
const REDRAW_MS = 1000;

/** `live`: events still come when this one is shown. `several`: of several nodes. */
export function openView(
  values: ViewValues,
  usage: string,
  out: Output,
  { live, several = false }: { live: boolean; several?: boolean },
): View {
  const kind = viewKind(values.output, usage);
  if (values.top === undefined) {
    if (values.sort !== undefined || values.rows !== undefined) throw new Usage(`namegate: --sort and --rows go with --top\n${usage}`);
    return lines(kind, out, several);
  }
  const keys = values.top.split(",").map((key) => {
    const found = TOP_KEYS.find((one) => one === key.trim());
    if (found === undefined) throw new Usage(`namegate: --top ${JSON.stringify(key)}: known are ${TOP_KEYS.join(", ")}\n${usage}`);
    return found;
  });
  const rows = Number(values.rows ?? ROWS_DEFAULT);
  if (!Number.isInteger(rows) || rows < 1 || rows > ROWS_MAX)
    throw new Usage(`namegate: --rows ${values.rows}: a whole number from 1 to ${ROWS_MAX} is wanted\n${usage}`);
  if (kind === "table") throw new Usage(`namegate: --top is a table, or with -o json JSON\n${usage}`);
  return counts(keys, orderOf(values.sort, usage), rows, kind === "json", out, live);
}

export function viewKind(value: string | undefined, usage: string): ViewKind {
  if (value === undefined || value === "text" || value === "compact") return "compact";
  if (value === "table" || value === "json") return value;
  throw new Usage(`namegate: -o ${value}: known formats are compact, table and json\n${usage}`);
}

function orderOf(value: string | undefined, usage: string): TopOrder {
  if (value === undefined || value === "denied") return "denied";
  if (value === "all") return "all";
  throw new Usage(`namegate: --sort ${value}: denied or all\n${usage}`);
}

const HEAD = ["TIME", "VERDICT", "POD", "NAME", "TO", "WHY", "RULE, OR NEAREST (CLAUSE)", "COUNT"];
const WIDTHS = [12, 10, 32, 32, 26, 18, 30];

function lines(kind: ViewKind, { stdout }: Output, several: boolean): View {
  const paint = painter(stdout, process.env);
  let begun = false;
  const write = {
    json: (_event: Event, raw: unknown, node?: string): void => {
      stdout.write(`${JSON.stringify(node === undefined ? raw : { node, ...(raw as object) })}\n`);
    },
    compact: (event: Event, _raw: unknown, node?: string): void => {
      stdout.write(`${several && node !== undefined ? `${plain(node)} ` : ""}${eventText(event, { paint, today: today(), ids: true })}\n`);
    },
    table: (event: Event, _raw: unknown, node?: string): void => {
      const columns = (cells: readonly string[], of: string): string => {
        const all = cells.map((cell, i) => cell.padEnd(WIDTHS[i] ?? 0));
        return `${[...(several ? [of.padEnd(16)] : []), ...all].join("  ").trimEnd()}\n`;
      };
      if (!begun) stdout.write(columns(HEAD, "NODE"));
      begun = true;
      stdout.write(columns(cellsOf(event), plain(node ?? "")));
    },
  }[kind];
  return { take: write, end: () => undefined };
}

const today = (): string => new Date().toISOString().slice(0, 10);

function cellsOf(event: Event): string[] {
  const { destination, evidence, rule, policy, nearest, verdict, why, message, count, time } = event;
  const place = destination === null ? "-" : placeText(destination);
  const nearby =
    rule !== null
      ? `${policy}/${rule}`
      : nearest !== null
        ? `${nearest.policy}/${nearest.rule} (${nearest.clause})`
        : destination === null
          ? (message ?? "-")
          : "-";
  return [
    timeText(time, undefined),
    verdict,
    podText(event),
    destination?.names[0] ?? evidence?.serverName ?? "-",
    place,
    why ?? "-",
    nearby,
    String(count),
  ].map(plain);
}

function counts(keys: readonly TopKey[], order: TopOrder, rows: number, json: boolean, { stdout }: Output, live: boolean): View {
  const top = new Top(keys, order);
  const draws = live && !json && isTerminal(stdout);
  const screen = (): number => Math.max(1, Math.min(rows, (stdout.rows ?? 24) - 3));
  const timer = draws ? setInterval(() => stdout.write(`\u001b[H\u001b[2J${top.text(screen())}`), REDRAW_MS) : undefined;
  return {
    take: (event) => top.take(event),
    end: () => {
      clearInterval(timer);
      stdout.write(
        draws ? `\u001b[H\u001b[2J${top.text(screen())}` : json ? `${JSON.stringify(top.json(rows), undefined, 2)}\n` : top.text(rows),
      );
    },
  };
}
