import { Fault } from "../base/fault.ts";
import type { Passes } from "../control/event-filter.ts";
import { ask } from "../control/socket.ts";
import type { Event } from "../model/event.ts";
import { readEvent } from "./event-read.ts";
import { linesOf, withRotated } from "./observe-file.ts";
import { FILTER_OPTIONS, FILTER_USAGE, lastMoment, planOf, readFilter } from "./observe-options.ts";
import { openView, type View, VIEW_OPTIONS, VIEW_USAGE } from "./observe-view.ts";
import { isTerminal } from "./terminal.ts";
import { options, type Output, SOCKET_DEFAULT, Usage } from "./usage.ts";

const USAGE = `usage: namegate observe [filters] [-o compact|table|json] [--last N] [--no-follow] [--socket PATH]
       namegate observe --file PATH [filters] [--last N]

  --follow, -f             events as they come (default without --file)
  --no-follow              what the agent remembers (its last 10 000 events), then the end
  --last N                 the last N that pass, first (default 0; with --no-follow 100; all with --since or --top)
  --file PATH              events from a file of JSON lines, with what was rotated away from it (PATH.1, PATH.2.gz, …); - is the standard input
${VIEW_USAGE}
Filters, each as often as you like:
${FILTER_USAGE}`;

/** setTimeout knows no longer one. */
const TIMER_MAX_MS = 2 ** 31 - 1;

export async function observe(argv: readonly string[], out: Output): Promise<number> {
  const { values, tokens, positionals } = options(argv, USAGE, {
    ...VIEW_OPTIONS,
    ...FILTER_OPTIONS,
    last: { type: "string" },
    "no-follow": { type: "boolean" },
    follow: { type: "boolean", short: "f" },
    file: { type: "string", multiple: true },
    socket: { type: "string" },
  });
  if (positionals.length > 0) throw new Usage(`namegate: ${JSON.stringify(positionals[0])}: filters are options\n${USAGE}`);
  if (values.follow === true && values["no-follow"] === true) throw new Usage(`namegate: --follow or --no-follow\n${USAGE}`);
  const nowMs = Date.now();
  const { terms, passes } = readFilter(tokens, USAGE, nowMs);
  const until = lastMoment(terms);
  const files = values.file;
  if (files !== undefined && values.follow === true)
    throw new Usage(`namegate: --follow goes with the agent; a file is read to its end\n${USAGE}`);
  const plan = planOf(values, terms, nowMs, isTerminal(out.stdout));
  const follow = files === undefined && plan.follow;
  const last = lastOf(values.last, files === undefined ? plan.last : Infinity);
  const view = openView(values, USAGE, out, { live: follow });
  if (files !== undefined) {
    await fromFiles(files, passes, last, view, out);
    return 0;
  }
  const stop = new AbortController();
  const timer = follow && until !== undefined ? setTimeout(() => stop.abort(), Math.min(until - nowMs, TIMER_MAX_MS)) : undefined;
  // An agent that knows filters sends what passes, and `last` counts that; of another one everything comes, and is sorted out here.
  const filter = terms.length === 0 ? {} : { filter: terms };
  const take = (line: unknown): void => {
    const event = readEvent(line);
    if (event !== undefined && passes(event)) view.take(event, line);
  };
  try {
    await ask(values.socket ?? SOCKET_DEFAULT, { command: "observe", last, follow, ...filter }, take, stop.signal);
  } finally {
    clearTimeout(timer);
    view.end();
  }
  if (follow && !stop.signal.aborted)
    throw new Fault(
      "agent-gone",
      "the agent has ended the stream",
      "it was stopped, or we read too slowly: see `namegate status`, and ask again",
    );
  return 0;
}

function lastOf(value: string | undefined, otherwise: number): number {
  const last = value === undefined ? otherwise : Number(value);
  if (value !== undefined && (!Number.isInteger(last) || last < 0))
    throw new Usage(`namegate: --last ${value}: a whole number is wanted\n${USAGE}`);
  return last;
}

async function fromFiles(files: readonly string[], passes: Passes, last: number, view: View, out: Output): Promise<void> {
  const paths = [...new Set(files.flatMap(withRotated))];
  const kept: [Event, unknown][] = [];
  let at = 0;
  let strange = 0;
  for await (const line of linesOf(paths, process.stdin)) {
    const [event, raw] = line === undefined ? [] : eventOf(line);
    if (event === undefined) strange += line?.trim() === "" ? 0 : 1;
    else if (!passes(event)) continue;
    else if (last === Infinity) view.take(event, raw);
    else if (kept.length < last) kept.push([event, raw]);
    else if (last > 0) {
      kept[at] = [event, raw];
      at = (at + 1) % last;
    }
  }
  for (const [event, raw] of [...kept.slice(at), ...kept.slice(0, at)]) view.take(event, raw);
  view.end();
  if (strange > 0) out.stderr.write(`namegate observe: ${strange} lines are no events, and were left out\n`);
}

function eventOf(line: string): [Event | undefined, unknown] {
  try {
    const raw: unknown = JSON.parse(line);
    return [readEvent(raw), raw];
  } catch {
    return [undefined, undefined];
  }
}
